"""AWS event streams: messages with headers and checksums, one after the other in one body.

Source: "Event stream encoding", Amazon Transcribe Developer Guide.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from zlib import crc32

from sagesmith.aws import _json
from sagesmith.aws._model import Shape
from sagesmith.errors import AwsError

__all__ = ["encode_error", "encode_events", "encode_message"]

_TEXT_HEADER = 7


def encode_message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Return one message; all headers are texts."""
    block = b"".join(
        struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", _TEXT_HEADER, len(data)) + data
        for name, text in headers.items()
        for data in (text.encode(),)
    )
    prelude = struct.pack(">II", 16 + len(block) + len(payload), len(block))
    message = prelude + struct.pack(">I", crc32(prelude)) + block + payload
    return message + struct.pack(">I", crc32(message))


def encode_error(error: AwsError, message: str = "Message") -> bytes:
    """Return *error* as the message that ends a stream; *message* is the member that holds its sentence."""
    headers = {
        ":message-type": "exception",
        ":exception-type": error.code,
        ":content-type": "application/json",
    }
    return encode_message(headers, _json.dumps({message: error.message, **error.members}))


def encode_events(shape: Shape, events: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Yield each of *events* (``{"EventName": {members}}``) as a message; an `AwsError` becomes the last one."""
    try:
        for event in events:
            for name, value in event.items():
                yield _event(shape, name, value)
    except AwsError as error:
        member = shape.members.get(error.code)
        names = member.shape.members if member is not None else {}
        message = next((name for name in names if name.lower() == "message"), "message")
        yield encode_error(error, message)


def _event(shape: Shape, name: str, value: Mapping[str, Any]) -> bytes:
    headers = {":message-type": "event", ":event-type": name}
    member = shape.members.get(name)
    payload: bytes | None = None
    if member is not None:
        for inner in member.shape.members.values():
            item = value.get(inner.name)
            if inner.event_header and item is not None:
                headers[inner.wire] = str(item)
            elif inner.event_payload and inner.shape.type == "blob":
                headers[":content-type"] = "application/octet-stream"
                payload = bytes(item or b"")
            elif inner.event_payload and inner.shape.type == "string":
                headers[":content-type"] = "text/plain"
                payload = str(item or "").encode()
    if payload is None:
        headers[":content-type"] = "application/json"
        payload = _json.dumps(dict(value))
    return encode_message(headers, payload)
