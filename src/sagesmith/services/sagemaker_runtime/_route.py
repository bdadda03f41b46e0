"""InvokeEndpoint on the fast way: from the HTTP server's exchange to the gateway and back.

This is the one operation that does not go through the service model, since parsing and serializing by model would
cost more than all the rest of an invocation. Headers and body pass as the bytes they came as.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final, Protocol, TypeAlias
from urllib.parse import unquote

from sagesmith.aws.call import Call, Caller
from sagesmith.errors import AwsError
from sagesmith.hosting.capture import Capture, Captured, Captures
from sagesmith.hosting.gateway import Gateway, Invocation, request_head
from sagesmith.services.sagemaker_runtime._limits import (
    ACTION,
    COMPONENT,
    MAX_BODY,
    REFUSED_HEADERS,
    SPECIAL_HEADERS,
    body_too_large,
    is_asynchronous,
    refuse,
    special,
)

__all__ = ["Authorize", "Exchange", "InvokeRoute", "endpoint_name"]

Authorize: TypeAlias = "Callable[[Caller, str, str, Exchange], None]"
"""Called with (caller, action, resource ARN, request) for each invocation, on the event loop; raises AwsError."""

_TARGET: Final = re.compile(rb"/endpoints/([^/?]+)/invocations(?:\?.*)?")
_NAME: Final = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
_CACHED: Final = 4096


class Exchange(Protocol):
    """What the route needs of the HTTP server's exchange: one signed request and the way to answer it."""

    @property
    def target(self) -> bytes:
        """Path and query as the client wrote them."""
        ...

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        """Headers by their lower-case names."""
        ...

    @property
    def body(self) -> bytes:
        """The whole body."""
        ...

    @property
    def caller(self) -> Caller:
        """Who signed it."""
        ...

    @property
    def region(self) -> str:
        """The region it was signed for."""
        ...

    def call(self, service: str, operation: str, time: float) -> Call:
        """Return the request as an authorizer sees it."""
        ...

    def reply(self, status: int, header_block: bytes, body: bytes) -> None:
        """Answer; nothing happens if the client has gone."""
        ...

    def fail(self, error: AwsError) -> None:
        """Answer with *error*."""
        ...


class InvokeRoute:
    """The fast route of ``POST /endpoints/{EndpointName}/invocations``."""

    service = "sagemaker-runtime"
    operation = "InvokeEndpoint"

    def __init__(self, gateway: Gateway, authorize: Authorize, captures: Captures | None = None) -> None:
        self._gateway = gateway
        self._authorize = authorize
        self._captures = captures
        self._names: dict[bytes, str] = {}
        self._heads: dict[tuple[bytes, bytes], bytes] = {}

    def matches(self, method: bytes, target: bytes) -> bool:
        """Whether this is an invocation."""
        return method == b"POST" and (target in self._names or _TARGET.fullmatch(target) is not None)

    def handle(self, exchange: Exchange) -> None:
        """Check the request and hand it to the gateway, which answers it later.

        Raises:
            AwsError: it is refused.
        """
        arrived = monotonic()
        target, headers, body = exchange.target, exchange.headers, exchange.body
        endpoint = self._gateway.endpoint(exchange.region, self._names.get(target) or self._name(target))
        self._authorize(exchange.caller, ACTION, endpoint.arn, exchange)
        if endpoint.asynchronous:
            raise is_asynchronous(endpoint.name)
        is_plain = SPECIAL_HEADERS.isdisjoint(headers)
        if not is_plain:
            if not _REFUSED.isdisjoint(headers):
                raise refuse(next(member for header, member in REFUSED_HEADERS.items() if header in headers))
            if COMPONENT in headers:
                endpoint = self._gateway.component(endpoint, headers[COMPONENT].decode("latin-1"))
                self._authorize(exchange.caller, ACTION, endpoint.arn, exchange)
        if len(body) > MAX_BODY:
            raise body_too_large(len(body))
        get = headers.get
        content_type, accept, attributes = get(b"content-type", b""), get(b"accept", b""), get(_ATTRIBUTES)
        if attributes:  # they may differ with each request: such a head is not kept
            head = request_head(content_type or _OCTETS, accept, attributes)
        else:
            head = self._heads.get((content_type, accept)) or self._head(content_type, accept)
        wanted = get(_VARIANT)
        variant = endpoint.choose(wanted.decode("latin-1") if wanted else "")
        if not is_plain:
            fields, needs = special(lambda _, header: get(header.encode()))
            variant.check(needs)
            head = request_head(content_type or _OCTETS, accept, attributes or b"", fields=fields)
        captures = self._captures
        capture = captures.find(exchange.region, endpoint.name) if captures is not None else None
        if captures is None or capture is None:
            variant.submit(_Invocation(exchange, head, body, arrived))
        else:
            variant.submit(_Captured(exchange, head, body, arrived, capture, captures.clock()))
        if variant.shadow is not None:
            variant.shadow.copy(head, body)

    def _head(self, content_type: bytes, accept: bytes) -> bytes:
        head = request_head(content_type or _OCTETS, accept, b"")
        if len(self._heads) >= _CACHED:
            self._heads.clear()
        self._heads[content_type, accept] = head
        return head

    def _name(self, target: bytes) -> str:
        name = endpoint_name(_TARGET.fullmatch(target))
        if len(self._names) >= _CACHED:
            self._names.clear()
        self._names[target] = name
        return name


def endpoint_name(match: re.Match[bytes] | None) -> str:
    """Return the name in a target that *match* found.

    Raises:
        AwsError: `ValidationError`, it is none that an endpoint can have.
    """
    name = unquote(match[1].decode("latin-1")) if match else ""
    if len(name) > 63 or not _NAME.fullmatch(name):
        raise AwsError(
            "ValidationError",
            f"1 validation error detected: Value '{name}' at 'endpointName' failed to satisfy constraint: "
            "Member must have length less than or equal to 63 and satisfy regular expression pattern: "
            "^[a-zA-Z0-9](-*[a-zA-Z0-9])*",
        )
    return name


class _Invocation(Invocation):
    """An invocation that answers its exchange."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange, head: bytes, body: bytes, arrived: float) -> None:
        super().__init__(head, body, arrived)
        self._exchange = exchange

    def succeed(self, headers: bytes, body: bytes) -> None:
        self._exchange.reply(200, headers, body)

    def fail(self, error: AwsError) -> None:
        self._exchange.fail(error)


class _Captured(_Invocation):
    """An invocation that leaves what it asked and was answered to the endpoint's data capture."""

    __slots__ = ("_asked", "_capture")

    def __init__(
        self, exchange: Exchange, head: bytes, body: bytes, arrived: float, capture: Capture, time: float
    ) -> None:
        super().__init__(exchange, head, body, arrived)
        get = exchange.headers.get
        said = (get(b"content-type", b""), get(_ATTRIBUTES, b""), get(_INFERENCE_ID, b""))
        self._asked = (time, body, *said)  # the link forgets the body once it is sent
        self._capture = capture

    def succeed(self, headers: bytes, body: bytes) -> None:
        super().succeed(headers, body)
        self._capture.add(Captured(*self._asked, headers, body))


_REFUSED: Final = frozenset(REFUSED_HEADERS)
_ATTRIBUTES: Final = b"x-amzn-sagemaker-custom-attributes"
_VARIANT: Final = b"x-amzn-sagemaker-target-variant"
_INFERENCE_ID: Final = b"x-amzn-sagemaker-inference-id"
_OCTETS: Final = b"application/octet-stream"
