"""InvokeEndpointWithResponseStream: the model's chunks as an AWS event stream, each sent as soon as it comes.

Until the first chunk an error is an HTTP answer like InvokeEndpoint's; from then on it is the last event. A client
that goes away ends the model's work, and one that reads slowly slows it down.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from time import monotonic
from typing import Final, Protocol

from sagesmith.aws import encode_error, encode_message
from sagesmith.errors import AwsError
from sagesmith.hosting.capture import MUCH_BYTES, Capture, Captured, Captures
from sagesmith.hosting.gateway import STREAM_PATH, Gateway, Stream, request_head
from sagesmith.services.sagemaker_runtime._limits import (
    ACTION,
    COMPONENT,
    MAX_BODY,
    REFUSED_HEADERS,
    body_too_large,
    is_asynchronous,
    refuse,
    special,
)
from sagesmith.services.sagemaker_runtime._route import Authorize, Exchange, endpoint_name

__all__ = ["StreamRoute", "payload_parts"]

logger = logging.getLogger(__name__)

_TARGET: Final = re.compile(rb"/endpoints/([^/?]+)/invocations-response-stream(?:\?.*)?")
_LARGEST: Final = 1024 * 1024  # botocore takes messages of up to 24 MB, older clients' parsers of less
_PAYLOAD: Final = {
    ":message-type": "event",
    ":event-type": "PayloadPart",
    ":content-type": "application/octet-stream",
}


class StreamExchange(Exchange, Protocol):
    """An exchange whose answer may come in pieces."""

    gone: Callable[[], None] | None
    """Called when the client goes away before the answer is complete."""

    def send(self, status: int, headers: list[tuple[str, str]], body: AsyncIterator[bytes]) -> None:
        """Answer with *body* as it comes."""
        ...


class StreamRoute:
    """The fast route of ``POST /endpoints/{EndpointName}/invocations-response-stream``."""

    service = "sagemaker-runtime"
    operation = "InvokeEndpointWithResponseStream"

    def __init__(self, gateway: Gateway, authorize: Authorize, captures: Captures | None = None) -> None:
        self._gateway = gateway
        self._authorize = authorize
        self._captures = captures

    def matches(self, method: bytes, target: bytes) -> bool:
        """Whether this is an invocation whose answer is to be a stream."""
        return method == b"POST" and _TARGET.fullmatch(target) is not None

    def handle(self, exchange: StreamExchange) -> None:
        """Check the request and hand it to the gateway, which answers it later.

        Raises:
            AwsError: it is refused.
        """
        arrived = monotonic()
        headers, body, gateway = exchange.headers, exchange.body, self._gateway
        endpoint = gateway.endpoint(exchange.region, endpoint_name(_TARGET.fullmatch(exchange.target)))
        self._authorize(exchange.caller, ACTION, endpoint.arn, exchange)
        if endpoint.asynchronous:
            raise is_asynchronous(endpoint.name)
        if COMPONENT in headers:
            endpoint = gateway.component(endpoint, headers[COMPONENT].decode("latin-1"))
            self._authorize(exchange.caller, ACTION, endpoint.arn, exchange)
        for header, member in REFUSED_HEADERS.items():
            if header in headers:
                raise refuse(member)
        if len(body) > MAX_BODY:
            raise body_too_large(len(body))
        fields, needs = special(lambda _, header: headers.get(header.encode()))
        asked = (
            headers.get(b"content-type") or b"application/octet-stream",
            headers.get(b"x-amzn-sagemaker-accept", b""),
            headers.get(b"x-amzn-sagemaker-custom-attributes", b""),
        )
        variant = endpoint.choose(headers.get(b"x-amzn-sagemaker-target-variant", b"").decode("latin-1"))
        variant.check(needs)
        stream = _Streamed(exchange, request_head(*asked, STREAM_PATH, fields), body, arrived)
        captures = self._captures
        capture = captures.find(exchange.region, endpoint.name) if captures is not None else None
        if captures is not None and capture is not None:
            stream.record = _Record(exchange, body, capture, captures.clock())
        exchange.gone = lambda: gateway.leave(variant, stream)
        gateway.stream(variant, stream)
        if variant.shadow is not None:
            variant.shadow.copy(request_head(*asked, fields=fields), body)


class _Streamed(Stream):
    """A stream that answers its exchange."""

    __slots__ = ("_exchange", "record")

    def __init__(self, exchange: StreamExchange, head: bytes, body: bytes, arrived: float) -> None:
        super().__init__(head, body, arrived)
        self._exchange = exchange
        self.record: _Record | None = None

    def begin(self, headers: bytes) -> None:
        lines = [line.decode("latin-1").split(": ", 1) for line in headers.split(b"\r\n") if line]
        named = {name.lower(): value for name, value in lines}
        content_type = named.pop("content-type")
        answer = [
            ("Content-Type", "application/vnd.amazon.eventstream"),
            ("X-Amzn-SageMaker-Content-Type", content_type),
            *named.items(),
        ]
        self._exchange.send(200, answer, self._events(headers))

    def refuse(self, error: AwsError) -> None:
        self._exchange.fail(error)

    async def _events(self, headers: bytes) -> AsyncIterator[bytes]:
        record = self.record
        try:
            async for part in self.parts():
                if record is not None:
                    record.add(part)
                for payload in payload_parts(part):
                    yield encode_message(_PAYLOAD, payload)
        except AwsError as error:
            yield encode_error(error)
        except Exception:
            logger.exception("a stream failed")
            yield encode_error(AwsError("InternalStreamFailure", "The stream failed. Try the request again."))
        else:
            if record is not None:
                record.end(headers)
        finally:  # whatever ends the answer ends the model's work
            if self._exchange.gone is not None:
                self._exchange.gone()


def payload_parts(part: bytes) -> Iterator[bytes]:
    """Yield *part*, a chunk of the model's, as payloads that every client takes."""
    for start in range(0, len(part), _LARGEST):
        yield part[start : start + _LARGEST]


class _Record:
    """What a stream leaves to the endpoint's data capture when it is complete, unless it is very long."""

    def __init__(self, exchange: StreamExchange, body: bytes, capture: Capture, time: float) -> None:
        self._time, self._body, self._headers = time, body, exchange.headers
        self._capture = capture
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > MUCH_BYTES:
            self._parts.clear()
        else:
            self._parts.append(part)

    def end(self, headers: bytes) -> None:
        if self._size <= MUCH_BYTES:
            get, answer = self._headers.get, b"".join(self._parts)
            said = (
                get(b"content-type", b""),
                get(b"x-amzn-sagemaker-custom-attributes", b""),
                get(b"x-amzn-sagemaker-inference-id", b""),
            )
            self._capture.add(Captured(self._time, self._body, *said, headers, answer))
