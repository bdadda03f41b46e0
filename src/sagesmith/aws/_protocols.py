"""The wire protocols: how a request becomes an operation's input, and its output or an error an answer.

One object per service and protocol; each keeps what it compiled from the model. S3's differences are in
`_s3.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias, cast

from sagesmith.aws import _json
from sagesmith.aws._cbor import read_cbor, write_cbor
from sagesmith.aws._eventstream import encode_events
from sagesmith.aws._json import JsonReaders, JsonText, JsonWriters, WrongTypeError
from sagesmith.aws._model import OperationModel, ServiceModel, Shape
from sagesmith.aws._query import parse_fields, read_query
from sagesmith.aws._rest import BytesBody, body_members, read_located, write_located
from sagesmith.aws._xml import XmlWriter, escape, parse_xml, read_xml
from sagesmith.aws.call import BodyReader, FileSlice
from sagesmith.errors import AwsError

__all__ = [
    "Answer",
    "Body",
    "CborProtocol",
    "JsonProtocol",
    "QueryProtocol",
    "Request",
    "RestJsonProtocol",
    "RestXmlProtocol",
    "WireProtocol",
]

Body: TypeAlias = "bytes | FileSlice | Iterator[bytes] | AsyncIterator[bytes]"


@dataclass(slots=True)
class Request:
    """What a protocol reads. `query` has every value of each name; `stream` is set instead of `body`."""

    body: bytes = b""
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    query: Mapping[str, list[str]] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    stream: BodyReader | None = None


@dataclass(slots=True)
class Answer:
    """What a protocol writes; request id, length and date are added later.

    `block` is *headers* as complete lines, if they were the same before and are made already.
    """

    status: int
    headers: list[tuple[str, str]]
    body: Body = b""
    block: bytes | None = None


class WireProtocol(Protocol):
    """One protocol of one service. Thread-safe."""

    def read(self, operation: OperationModel, request: Request) -> dict[str, Any]:
        """Return the operation's input.

        Raises:
            WrongTypeError: the request does not fit the model.
        """
        ...

    def write(self, operation: OperationModel, result: Mapping[str, Any] | None, request_id: str) -> Answer:
        """Return the answer that *result*, the operation's output, makes."""
        ...

    def fault(self, error: AwsError, request_id: str) -> Answer:
        """Return the answer that *error* makes."""
        ...


def error_status(shape: Shape | None, error: AwsError, *, json: bool = False) -> int:
    """Return the HTTP status of *error*: its own, or the model's if it says nothing special."""
    if error.status != 400 or shape is None or json:
        return error.status
    return int(shape.error.get("httpStatusCode", 400))


def _message_name(shape: Shape | None) -> str:
    if shape is not None:
        for name in shape.members:
            if name.lower() in ("message", "errormessage"):
                return shape.members[name].wire
    return "message"


class JsonProtocol:
    """JSON 1.0 and 1.1: the operation is in X-Amz-Target, all else in the body."""

    def __init__(self, service: ServiceModel) -> None:
        self.service = service
        self.content_type = f"application/x-amz-json-{service.json_version}"
        self._readers, self._writers = JsonReaders(), JsonWriters()
        self._headers: Final = [("Content-Type", self.content_type)]
        self._block: Final = f"Content-Type: {self.content_type}\r\n".encode()

    def read(self, operation: OperationModel, request: Request) -> dict[str, Any]:
        """Return the operation's input."""
        raw = _json.loads(request.body)
        if operation.input is None:
            return {}
        return cast("dict[str, Any]", self._readers.reader(operation.input)(raw))

    def write(self, operation: OperationModel, result: Mapping[str, Any] | None, request_id: str) -> Answer:
        """Return the answer that *result* makes."""
        if operation.output is None:
            return Answer(200, self._headers, b"", self._block)
        convert = self._writers.writer(operation.output)
        if convert is None and type(result) is JsonText:
            return Answer(200, self._headers, result.text.encode(), self._block)
        if not result:
            return Answer(200, self._headers, b"{}", self._block)
        event = operation.event_output
        if event is not None:
            return _event_answer(event.shape, result.get(event.name))
        body = _json.dumps(result if convert is None else convert(result))
        return Answer(200, self._headers, body, self._block)

    def fault(self, error: AwsError, request_id: str) -> Answer:
        """Return the answer that *error* makes."""
        shape = self.service.error_shape(error.code)
        name = shape.name if shape is not None else error.code
        body = {"__type": name, _message_name(shape): error.message, **error.members}
        headers = [*self._headers, ("x-amzn-ErrorType", name)]
        if self.service.query_compatible:
            headers.append(_query_error(shape, error))
        return Answer(error.status, headers, _json.dumps(body))


def _query_error(shape: Shape | None, error: AwsError) -> tuple[str, str]:
    code = shape.error.get("code", error.code) if shape is not None else error.code
    return ("x-amzn-query-error", f"{code};{'Sender' if error.status < 500 else 'Receiver'}")


class CborProtocol:
    """Smithy's RPC v2 with CBOR: the operation is in the path."""

    def __init__(self, service: ServiceModel) -> None:
        self.service = service
        self._headers: Final = [("Content-Type", "application/cbor"), ("smithy-protocol", "rpc-v2-cbor")]

    def read(self, operation: OperationModel, request: Request) -> dict[str, Any]:
        """Return the operation's input."""
        return read_cbor(operation.input, request.body)

    def write(self, operation: OperationModel, result: Mapping[str, Any] | None, request_id: str) -> Answer:
        """Return the answer that *result* makes."""
        return Answer(200, self._headers, write_cbor(operation.output, result or {}))

    def fault(self, error: AwsError, request_id: str) -> Answer:
        """Return the answer that *error* makes."""
        shape = self.service.error_shape(error.code)
        name = shape.name if shape is not None else error.code
        headers = [*self._headers, ("x-amzn-ErrorType", name)]
        if self.service.query_compatible:
            headers.append(_query_error(shape, error))
        members = {"__type": name, _message_name(shape): error.message, **error.members}
        return Answer(error_status(shape, error), headers, write_cbor(None, members))


class QueryProtocol:
    """Query: a form goes in, with the operation in the field Action; XML comes out."""

    def __init__(self, service: ServiceModel) -> None:
        self.service = service
        self._writer = XmlWriter()
        self._headers: Final = [("Content-Type", "text/xml")]
        self._namespace = (
            service.namespace or f"https://{service.name}.amazonaws.com/doc/{service.api_version}/"
        )

    def read(self, operation: OperationModel, request: Request) -> dict[str, Any]:
        """Return the operation's input; the fields may stand in the query, as in a presigned address."""
        fields = {name: texts[-1] for name, texts in request.query.items()}
        fields.update(parse_fields(request.body))
        return read_query(operation.input, fields)

    def write(self, operation: OperationModel, result: Mapping[str, Any] | None, request_id: str) -> Answer:
        """Return the answer that *result* makes."""
        name = operation.name
        out = [f'<{name}Response xmlns="{self._namespace}">']
        if operation.output is not None:
            out.append(f"<{operation.result_wrapper}>")
            self._writer.members(operation.output.members.items(), result or {}, out)
            out.append(f"</{operation.result_wrapper}>")
        out.append(
            f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{name}Response>"
        )
        return Answer(200, self._headers, "".join(out).encode())

    def fault(self, error: AwsError, request_id: str) -> Answer:
        """Return the answer that *error* makes."""
        shape = self.service.error_shape(error.code)
        code = shape.error.get("code", shape.name) if shape is not None else error.code
        status = error_status(shape, error)
        out = [f'<ErrorResponse xmlns="{self._namespace}"><Error><Type>']
        out.append("Sender" if status < 500 else "Receiver")
        out.append(f"</Type><Code>{escape(code)}</Code><Message>{escape(error.message)}</Message>")
        if shape is not None:
            known = [(name, member) for name, member in shape.members.items() if name in error.members]
            self._writer.members(known, error.members, out)
        out.append(f"</Error><RequestId>{request_id}</RequestId></ErrorResponse>")
        return Answer(status, self._headers, "".join(out).encode())


class _RestProtocol:
    """What REST-JSON and REST-XML share: members in path, query, headers and status, and payloads."""

    body_type = ""
    blob_type = "application/octet-stream"

    def __init__(self, service: ServiceModel) -> None:
        self.service = service

    def read(self, operation: OperationModel, request: Request) -> dict[str, Any]:
        """Return the operation's input."""
        shape = operation.input
        if shape is None:
            return {}
        value = read_located(shape, request.labels, request.query, request.headers)
        if shape.payload is not None:
            payload = self._read_payload(shape, request)
            if payload is not None:
                value[shape.payload] = payload
        elif request.body:
            value.update(self.read_body(shape, request.body))
        return value

    def _read_payload(self, shape: Shape, request: Request) -> Any:
        member = shape.members[cast("str", shape.payload)]
        if member.shape.type == "blob":
            if member.streaming or member.shape.streaming:
                return request.stream if request.stream is not None else BytesBody(request.body)
            return request.body
        if not request.body:
            return None
        if member.shape.type == "string":
            try:
                return request.body.decode()
            except UnicodeDecodeError as error:
                raise WrongTypeError("The request body is not valid UTF-8.") from error
        try:
            return self.read_payload(member.shape, request.body)
        except WrongTypeError as error:
            error.path.insert(0, member.name)
            raise

    def write(self, operation: OperationModel, result: Mapping[str, Any] | None, request_id: str) -> Answer:
        """Return the answer that *result* makes."""
        shape = operation.output
        value = result or {}
        if shape is None:
            return Answer(operation.status, [], b"")
        status, headers = write_located(shape, value)
        event = operation.event_output
        if event is not None:
            answer = _event_answer(event.shape, value.get(event.name))
            answer.headers.extend(headers)
            return answer
        body: Body = b""
        content_type = ""
        if shape.payload is not None:
            member = shape.members[shape.payload]
            item = value.get(shape.payload)
            if member.shape.type in ("blob", "string"):
                if item is not None:
                    body = item.encode() if isinstance(item, str) else item
                    content_type = self.blob_type if member.shape.type == "blob" else "text/plain"
            elif item is not None:
                body, content_type = self.write_payload(member.name, member.shape, item), self.body_type
        elif body_members(shape):
            body, content_type = self.write_body(operation, shape, value), self.body_type
        if content_type and not any(name.lower() == "content-type" for name, _ in headers):
            headers.append(("Content-Type", content_type))
        return Answer(status or operation.status, headers, body)

    def read_body(self, shape: Shape, body: bytes) -> dict[str, Any]:
        """Return the members that *body* holds."""
        raise NotImplementedError

    def read_payload(self, shape: Shape, body: bytes) -> Any:
        """Return the value of the one member that is the whole *body*."""
        raise NotImplementedError

    def write_body(self, operation: OperationModel, shape: Shape, value: Mapping[str, Any]) -> bytes:
        """Return the members of *value* that go into the body."""
        raise NotImplementedError

    def write_payload(self, name: str, shape: Shape, value: Any) -> bytes:
        """Return the one member that is the whole body."""
        raise NotImplementedError


class RestJsonProtocol(_RestProtocol):
    """REST with JSON bodies."""

    body_type = "application/json"

    def __init__(self, service: ServiceModel) -> None:
        super().__init__(service)
        self._readers, self._writers = JsonReaders(), JsonWriters()
        self._bodies: dict[str, Callable[[Any], Any]] = {}

    def read_body(self, shape: Shape, body: bytes) -> dict[str, Any]:
        """Return the members that *body* holds; those that the model does not know are kept."""
        read = self._bodies.get(shape.name)
        if read is None:
            read = self._bodies[shape.name] = self._readers.members_reader(body_members(shape))
        return cast("dict[str, Any]", read(_json.loads(body)))

    def read_payload(self, shape: Shape, body: bytes) -> Any:
        """Return the value of the one member that is the whole *body*."""
        return self._readers.reader(shape)(_json.loads(body))

    def write_body(self, operation: OperationModel, shape: Shape, value: Mapping[str, Any]) -> bytes:
        """Return the members of *value* that go into the body, and those that the model does not know."""
        members = body_members(shape)
        inside = {name: item for name, item in value.items() if name in members or name not in shape.members}
        return _json.dumps(self._writers.members_writer(members)(inside))

    def write_payload(self, name: str, shape: Shape, value: Any) -> bytes:
        """Return the one member that is the whole body."""
        convert = self._writers.writer(shape)
        return _json.dumps(value if convert is None else convert(value))

    def fault(self, error: AwsError, request_id: str) -> Answer:
        """Return the answer that *error* makes."""
        shape = self.service.error_shape(error.code)
        name = shape.name if shape is not None else error.code
        body = {"__type": name, _message_name(shape): error.message, **error.members}
        headers = [("Content-Type", self.body_type), ("x-amzn-ErrorType", name)]
        return Answer(error_status(shape, error), headers, _json.dumps(body))


class RestXmlProtocol(_RestProtocol):
    """REST with XML bodies."""

    body_type = "application/xml"

    def __init__(self, service: ServiceModel, *, millis: bool = False) -> None:
        super().__init__(service)
        self.writer = XmlWriter(millis=millis)
        self.namespace = service.namespace

    def read_body(self, shape: Shape, body: bytes) -> dict[str, Any]:
        """Return the members that *body* holds."""
        return cast("dict[str, Any]", read_xml(shape, parse_xml(body)))

    def read_payload(self, shape: Shape, body: bytes) -> Any:
        """Return the value of the one member that is the whole *body*."""
        return read_xml(shape, parse_xml(body))

    def write_body(self, operation: OperationModel, shape: Shape, value: Mapping[str, Any]) -> bytes:
        """Return the members of *value* that go into the body."""
        out: list[str] = []
        self.writer.members(body_members(shape).items(), value, out)
        return self.document(self.root_name(operation, shape), out)

    def write_payload(self, name: str, shape: Shape, value: Any) -> bytes:
        """Return the one member that is the whole body."""
        out: list[str] = []
        self.writer.members(shape.members.items(), value, out)
        return self.document(shape.location_name or name, out)

    def root_name(self, operation: OperationModel, shape: Shape) -> str:
        """Return the name of the root element of an answer."""
        return shape.location_name or f"{operation.name}Result"

    def document(self, root: str, inside: list[str]) -> bytes:
        """Return a whole document."""
        space = f' xmlns="{self.namespace}"' if self.namespace else ""
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}{space}>{"".join(inside)}</{root}>'.encode()

    def fault(self, error: AwsError, request_id: str) -> Answer:
        """Return the answer that *error* makes."""
        shape = self.service.error_shape(error.code)
        status = error_status(shape, error)
        kind = "Sender" if status < 500 else "Receiver"
        out = [
            f"<Error><Type>{kind}</Type><Code>{escape(error.code)}</Code>",
            f"<Message>{escape(error.message)}</Message></Error><RequestId>{request_id}</RequestId>",
        ]
        return Answer(status, [("Content-Type", self.body_type)], self.document("ErrorResponse", out))


def _event_answer(shape: Shape, events: Any) -> Answer:
    headers = [("Content-Type", "application/vnd.amazon.eventstream")]
    return Answer(200, headers, encode_events(shape, events or ()))
