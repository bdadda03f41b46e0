"""One HTTP exchange: a request that came in, and the one answer that will go out.

An exchange lives on the event loop. Its connection begins one exchange at a time, so answers leave in the
order in which requests came.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import parse_qsl

from sagesmith.aws.call import Call, Caller
from sagesmith.errors import AwsError

if TYPE_CHECKING:
    from sagesmith.aws._bodies import BodyPipe
    from sagesmith.aws._connection import Connection
    from sagesmith.aws._tunnel import Tunnel

__all__ = [
    "NOBODY",
    "Exchange",
    "FastRoute",
    "HttpRequest",
    "HttpResponse",
    "LastValues",
    "TextHeaders",
    "date_line",
    "header_block",
    "internal_failure",
    "status_line",
]

NOBODY: Final = Caller(account="", arn="", user_id="anonymous", access_key_id="")

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
# Random for each process, then counted: unique, and 0.2 us instead of uuid4's 2.
_ID_PREFIX: Final = (
    f"{os.urandom(4).hex()}-{os.urandom(2).hex()}-4{os.urandom(2).hex()[1:]}-a{os.urandom(2).hex()[1:]}-"
).encode()
_BODYLESS: Final = frozenset({204, 304})
_FORGING: Final = re.compile("[\r\n\0]+")
_counter: Final = itertools.count(int.from_bytes(os.urandom(4), "big"))


def status_line(status: int) -> bytes:
    """Return the first line of an answer."""
    return _STATUS_LINES.get(status) or f"HTTP/1.1 {status} Status\r\n".encode()


def header_block(headers: Iterable[tuple[str, str]]) -> bytes:
    """Return complete header lines; line breaks in values, which would forge headers, become spaces."""
    return "".join(
        [
            f"{name}: {value}\r\n"
            if _FORGING.search(value) is None
            else f"{name}: {_FORGING.sub(' ', value)}\r\n"
            for name, value in headers
        ]
    ).encode()


class TextHeaders(Mapping[str, str]):
    """A request's headers as text, decoded only when looked at; names are lower-case."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Mapping[bytes, bytes]) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> str:
        value = self._raw[name.encode()]
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._raw)

    def __len__(self) -> int:
        return len(self._raw)


class LastValues(Mapping[str, str]):
    """The fields of a query, parsed when first looked at; the last of equal names counts."""

    __slots__ = ("_fields", "_target")

    def __init__(self, target: bytes) -> None:
        self._target = target
        self._fields: dict[str, str] | None = None

    def _parsed(self) -> dict[str, str]:
        if self._fields is None:
            text = self._target.partition(b"?")[2].decode("latin-1")
            self._fields = dict(parse_qsl(text, keep_blank_values=True))
        return self._fields

    def __getitem__(self, name: str) -> str:
        return self._parsed()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parsed())

    def __len__(self) -> int:
        return len(self._parsed())


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What a raw route sees: `path` is percent-encoded as sent; header names are lower-case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    request_id: str


@dataclass(slots=True)
class HttpResponse:
    """What a raw route answers. A body that is an iterator is sent piece by piece as it comes.

    `cookies` are the values of `Set-Cookie`, the one header that may come several times.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Iterator[bytes] | AsyncIterator[bytes] = b""
    cookies: Sequence[str] = ()


class Exchange:
    """A request with a complete small body, its caller known, and the way to answer it.

    Attributes:
        method: such as ``b"POST"``.
        target: path and query as sent.
        headers: lower-case names; values of repeated headers joined by commas.
        body: the whole body.
        caller: who signed it.
        region: the region it was signed for.
        gone: called when the client goes away before the answer is complete.
        switches: whether the connection may speak another protocol afterwards, by `switch`.
    """

    # Defaults stand in the class: what a request does not use is not set for each one, since it is made
    # on the way of every invocation. What few ask for is made when they ask.
    method: bytes = b""
    target: bytes = b""
    body: bytes = b""
    caller: Caller = NOBODY
    region: str = ""
    begin: _Begin | None
    complete: bool = False
    replied: bool = False
    keep_alive: bool = True
    switches: bool = False
    limit: int = 0
    parts: list[bytes] | None = None
    pipe: BodyPipe | None = None
    gone: Callable[[], None] | None = None
    _id: bytes = b""

    def __init__(self, connection: Connection) -> None:
        self._connection: Connection | None = connection
        self.begin = None
        self.headers: dict[bytes, bytes] = {}

    @property
    def request_id(self) -> str:
        """What names the request in its answer and in logs: no other request has it."""
        if not self._id:
            self._id = b"%b%012x" % (_ID_PREFIX, next(_counter))
        return self._id.decode()

    @property
    def head_only(self) -> bool:
        """Whether the client wants no body."""
        return self.method == b"HEAD"

    def open_pipe(self) -> BodyPipe:
        """Let the body stream through a pipe instead of being collected; return it. For who plans the exchange."""
        if self._connection is None:
            raise RuntimeError("the exchange is over")
        self.pipe = self._connection.open_pipe()
        return self.pipe

    @property
    def closed(self) -> bool:
        """Whether the client has gone: an answer would reach nobody."""
        return self._connection is None or self._connection.closed

    def call(self, service: str, operation: str, time: float, region: str = "", account: str = "") -> Call:
        """Return the request as handlers and authorizers see it; *region* and *account* if it says none."""
        connection, headers = self._connection, self.headers
        path, mark, _ = self.target.partition(b"?")
        host = headers.get(b"host", b"").decode("latin-1")
        return Call(
            service=service,
            operation=operation,
            region=self.region or region,
            account=account or self.caller.account,
            caller=self.caller,
            request_id=self.request_id,
            time=time,
            method=self.method.decode("latin-1"),
            path=path.decode("latin-1"),
            query=LastValues(self.target) if mark else {},
            headers=TextHeaders(headers),
            endpoint_url=f"https://{host}" if connection and connection.secure else f"http://{host}",
            source_ip=connection.source_ip if connection else "",
        )

    def reply(self, status: int, header_block: bytes, body: bytes) -> None:
        """Answer; on the loop, once. The request id, the date and the length are added."""
        connection = self._connection
        if connection is None or self.replied:
            return
        self.replied = True
        self._connection = None
        request_id = self._id or b"%b%012x" % (_ID_PREFIX, next(_counter))
        if status == 200 and self.keep_alive and self.complete and self.method != b"HEAD":
            connection.write(
                b"HTTP/1.1 200 OK\r\n%bx-amzn-RequestId: %b\r\ndate: %b\r\ncontent-length: %d\r\n\r\n%b"
                % (header_block, request_id, connection.server.date, len(body), body)
            )
        else:
            length = b"" if status in _BODYLESS else b"\r\ncontent-length: %d" % len(body)
            connection.write(
                b"%b%bx-amzn-RequestId: %b\r\ndate: %b%b%b\r\n\r\n%b"
                % (
                    status_line(status),
                    header_block,
                    request_id,
                    connection.server.date,
                    b"" if self.keep_alive and self.complete else b"\r\nconnection: close",
                    length,
                    b"" if self.method == b"HEAD" or status in _BODYLESS else body,
                )
            )
        connection.finished(self)

    def fail(self, error: AwsError) -> None:
        """Answer with *error* in REST-JSON's words."""
        body = {"__type": error.code, "message": error.message, "Message": error.message, **error.members}
        block = header_block((("Content-Type", "application/json"), ("x-amzn-ErrorType", error.code)))
        self.reply(error.status, block, json.dumps(body, default=str).encode())

    def send(self, status: int, headers: list[tuple[str, str]], body: Any) -> None:
        """Answer with *headers* and a body in any form; on the loop, once."""
        if isinstance(body, bytes) and not (self.head_only and _has_length(headers)):
            if _has_length(headers):
                headers = [pair for pair in headers if pair[0].lower() != "content-length"]
            self.reply(status, header_block(headers), body)
            return
        connection = self._connection
        if connection is None or self.replied:
            close = getattr(body, "close", None)
            if close is not None:
                close()
            return
        self.replied = True
        connection.send_stream(self, status, headers, body)

    def switch(self, tunnel: Tunnel) -> None:
        """Answer that the connection now speaks another protocol, and lead it through *tunnel*; on the loop, once."""
        connection = self._connection
        if connection is None or self.replied:
            tunnel.writer.close()
            return
        self.replied = True
        self._connection = None
        connection.switch(tunnel, self.request_id)

    def detach(self) -> None:
        """Forget the connection: it is gone or the answer is on its way."""
        self._connection = None


def _has_length(headers: Iterable[tuple[str, str]]) -> bool:
    return any(name.lower() == "content-length" for name, _ in headers)


def internal_failure(request_id: str) -> AwsError:
    """Return what a client learns of a fault of ours."""
    return AwsError(
        "InternalFailure",
        f"The request failed because of an internal error. The server's log has it under request id {request_id}.",
        status=500,
    )


class _Begin(Protocol):
    def __call__(self, exchange: Exchange, /) -> None: ...


class FastRoute(Protocol):
    """A route that answers by itself, on the loop: for calls that are too many for the common way."""

    def matches(self, method: bytes, target: bytes) -> bool:
        """Whether the route wants the request."""
        ...

    def handle(self, exchange: Exchange) -> None:
        """Answer *exchange*, now or later, by `reply` or `fail`; its signature was verified.

        Raises:
            AwsError: as if `fail` had been called with it.
        """
        ...


def date_line() -> bytes:
    """Return what the header Date says now."""
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()).encode()
