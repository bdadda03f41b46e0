"""Signed S3 requests over `http.client`: kept connections, patience while the server is away.

Only the standard library and our own signer, because agents start in milliseconds. A request is sent again
when the connection fails or the server answers 5xx or "slow down", with growing pauses, until it was tried for
`patience_s`; before each new try the file is read that says where the server answers now.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote, urlsplit
from xml.sax.saxutils import unescape

from sagesmith.clock import Clock, system_clock
from sagesmith.errors import AwsError
from sagesmith.signing import EMPTY_SHA256, UNSIGNED_PAYLOAD, CredentialsLike, sign

__all__ = ["Address", "Body", "Requests", "Response", "ServerAway"]

_TIMEOUT_S: Final = 60.0
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 2.0
_IDLE_CONNECTIONS: Final = 8
_BLOCK_BYTES: Final = 256 * 1024
_AGAIN: Final = frozenset({429, 500, 502, 503, 504})
_AGAIN_CODES: Final = frozenset({"RequestTimeout", "SlowDown", "OperationAborted"})


class Address(Protocol):
    """Where the server answers. `server_file` (may be empty) is JSON with `url` and `http_url`."""

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        ...

    @property
    def ca_file(self) -> str:
        """The authority that signed the server's certificate; empty for the system's."""
        ...

    @property
    def server_file(self) -> str:
        """Read again when `url` does not answer."""
        ...


class Body(Protocol):
    """A request's content, that can be sent more than once."""

    size: int

    def open(self) -> Any:
        """Return an object whose `read(size)` gives it from the beginning."""
        ...


class ServerAway(ConnectionError):
    """No server answered for as long as the client is patient."""


class Response:
    """An answer whose body is still to be read. Close it, also after an error."""

    def __init__(self, raw: http.client.HTTPResponse, give_back: Callable[[bool], None]) -> None:
        self._raw = raw
        self._give_back: Callable[[bool], None] | None = give_back
        self.status = raw.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in raw.getheaders()}

    def read(self) -> bytes:
        """Return the rest of the body."""
        try:
            return self._raw.read()
        finally:
            self.close()

    def readinto(self, buffer: memoryview) -> int:
        """Fill *buffer* with what comes next; 0 at the end.

        Raises:
            ConnectionError: the body breaks off.
        """
        count = self._raw.readinto(buffer)
        if not count and self._raw.length:
            raise ConnectionError(f"the server closed the connection {self._raw.length} bytes too early")
        return count

    def close(self) -> None:
        """Give the connection back, for the next request if the body was read to its end."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back(self._raw.isclosed() or self._raw.length == 0)

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Requests:
    """Sends S3 requests. Thread-safe.

    Args:
        address: where the server is.
        credentials: the key to sign with, or a function that returns the present one.
        region: the signature's region.
        patience_s: for how long a request is tried.
        clock: what time signatures carry.
    """

    def __init__(
        self,
        address: Address,
        credentials: CredentialsLike | Callable[[], CredentialsLike],
        region: str,
        *,
        patience_s: float,
        clock: Clock = system_clock,
    ) -> None:
        self._address = address
        self._url = address.url.rstrip("/")
        self._credentials = credentials
        self._region = region
        self._patience_s = patience_s
        self._clock = clock
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None

    def send(
        self,
        method: str,
        bucket: str,
        key: str = "",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body | bytes = b"",
        missing_ok: bool = False,
    ) -> Response:
        """Return the answer to a request, whose status is below 400 (or 404, if *missing_ok*).

        Raises:
            AwsError: the server refused, in its words.
            ServerAway: nobody answered, or only with faults, for too long.
        """
        path = "/" + quote(bucket, safe="") + ("/" + quote(key, safe="/~") if key else "")
        if query:
            path += "?" + "&".join(
                f"{name}={quote(query[name], safe='~')}" if query[name] else f"{name}="
                for name in sorted(query)
            )
        end = time.monotonic() + self._patience_s
        pause = _FIRST_PAUSE_S
        while True:
            fresh = True
            try:
                response, fresh = self._once(method, path, dict(headers or {}), body)
            except (OSError, http.client.HTTPException) as error:
                fault: Exception = error
            else:
                if response.status < 400 or (missing_ok and response.status == 404):
                    return response
                refusal = _refusal(response, method)
                if response.status not in _AGAIN and refusal.code not in _AGAIN_CODES:
                    raise refusal
                fault = refusal
            left = end - time.monotonic()
            if left <= 0:
                if isinstance(fault, AwsError):
                    raise fault
                raise ServerAway(
                    f"no answer from {self._url} for {self._patience_s:.0f} s: {fault}. Is the server running?"
                ) from fault
            self._find_server()
            if fresh:
                time.sleep(min(left, pause * random.uniform(0.5, 1.0)))  # noqa: S311 - no secret
                pause = min(pause * 2, _LONGEST_PAUSE_S)

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # -------------------------------------------------------------------------------------------------

    def _once(
        self, method: str, path: str, headers: dict[str, str], body: Body | bytes
    ) -> tuple[Response, bool]:
        """Send once; the flag tells whether the connection was new."""
        connection, fresh = self._connection()
        url = self._url
        try:
            size = len(body) if isinstance(body, bytes) else body.size
            if size or method in ("PUT", "POST"):
                headers["Content-Length"] = str(size)
            credentials = self._credentials() if callable(self._credentials) else self._credentials
            signed = sign(
                method, url + path, headers, UNSIGNED_PAYLOAD if size else EMPTY_SHA256, credentials,
                self._region, "s3", self._clock(),
            )  # fmt: skip
            content = body if isinstance(body, bytes) else body.open()
            try:
                connection.request(method, path, body=content if size else None, headers=signed)
            except (BrokenPipeError, ConnectionResetError):
                if not size:
                    raise
                # A server that refuses a content answers before it has read it; that answer is worth having.
            raw = connection.getresponse()
        except BaseException as error:
            connection.close()
            if not fresh and isinstance(error, (OSError, http.client.HTTPException)):
                # The server closed an idle connection: that is no reason to wait.
                self.close()
                return self._once(method, path, headers, body)
            raise
        return Response(raw, lambda reusable: self._give_back(connection, url, reusable)), fresh

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            if self._idle:
                return self._idle.pop(), False
        parts = urlsplit(self._url)
        host = parts.hostname or "127.0.0.1"
        if parts.scheme == "https":
            if self._tls is None:
                self._tls = ssl.create_default_context(cafile=self._address.ca_file or None)
            return (
                http.client.HTTPSConnection(
                    host, parts.port or 443, timeout=_TIMEOUT_S, context=self._tls, blocksize=_BLOCK_BYTES
                ),
                True,
            )
        return (
            http.client.HTTPConnection(host, parts.port or 80, timeout=_TIMEOUT_S, blocksize=_BLOCK_BYTES),
            True,
        )

    def _give_back(self, connection: http.client.HTTPConnection, url: str, reusable: bool) -> None:
        if reusable and connection.sock is not None:
            with self._lock:
                if url == self._url and len(self._idle) < _IDLE_CONNECTIONS:
                    self._idle.append(connection)
                    return
        connection.close()

    def _find_server(self) -> None:
        """Read where the server answers now."""
        if not self._address.server_file:
            return
        with suppress(OSError, ValueError):
            found = json.loads(Path(self._address.server_file).read_text("utf-8"))
            url = found.get("url" if self._url.startswith("https") else "http_url")
            if url and url.rstrip("/") != self._url:
                self.close()
                self._url = url.rstrip("/")


def _refusal(response: Response, method: str) -> AwsError:
    try:
        text = "" if method == "HEAD" else response.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        text = ""
    finally:
        response.close()
    code = re.search(r"<Code>(.*?)</Code>", text, re.DOTALL)
    message = re.search(r"<Message>(.*?)</Message>", text, re.DOTALL)
    words = http.client.responses.get(response.status, "")
    return AwsError(
        unescape(code[1]) if code else str(response.status),
        unescape(message[1]) if message else words,
        status=response.status,
    )
