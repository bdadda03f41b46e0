"""The protobuf messages of SageMaker's `aialgs.data.Record`, read and written without the protobuf library.

::

    message Float32Tensor { repeated float values = 1 [packed]; repeated uint64 keys = 2 [packed]; repeated uint64 shape = 3 [packed]; }
    message Float64Tensor and Int32Tensor: the same with double and int32
    message Value  { oneof { Float32Tensor float32_tensor = 2; Float64Tensor float64_tensor = 3; Int32Tensor int32_tensor = 7; Bytes bytes = 9; } }
    message Record { map<string, Value> features = 1; map<string, Value> label = 2; string uid = 3; string metadata = 4; string configuration = 5; }

`parse_record` also tells where in the payload a packed tensor's values lie, so that a reader can take the
same place of many records that are built alike at once.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ParsedRecord", "Tensor", "encode_record", "parse_record"]

_DTYPES: dict[int, np.dtype[Any]] = {2: np.dtype("<f4"), 3: np.dtype("<f8"), 7: np.dtype("<i4")}
_FIXED = {1: 8, 5: 4}
_VARINT, _BYTES = 0, 2
_NOTHING: npt.NDArray[np.uint64] = np.empty(0, np.uint64)


@dataclass(slots=True)
class Tensor:
    """One tensor. `start` is where its packed fixed-size values begin in the payload, or -1."""

    values: npt.NDArray[Any]
    keys: npt.NDArray[np.uint64] = field(default_factory=lambda: _NOTHING)
    shape: tuple[int, ...] = ()
    start: int = -1

    @property
    def is_sparse(self) -> bool:
        """Whether `keys` say which columns the values stand in."""
        return self.keys.size > 0 or (bool(self.shape) and self.values.size != math.prod(self.shape))


@dataclass(slots=True)
class ParsedRecord:
    """The tensors of one record by name."""

    features: dict[str, Tensor] = field(default_factory=dict)
    label: dict[str, Tensor] = field(default_factory=dict)


def parse_record(data: bytes | bytearray, start: int, end: int) -> ParsedRecord:
    """Return the record at *data[start:end]*; `Tensor.start` is relative to *start*.

    Raises:
        ValueError: it is no such record.
    """
    record = ParsedRecord()
    for number, wire, a, b in _fields(data, start, end):
        if number in (1, 2) and wire == _BYTES:
            name, tensor = _parse_entry(data, a, b, start)
            if tensor is not None:
                (record.features if number == 1 else record.label)[name] = tensor
    return record


def _parse_entry(data: bytes | bytearray, start: int, end: int, origin: int) -> tuple[str, Tensor | None]:
    name, tensor = "", None
    for number, wire, a, b in _fields(data, start, end):
        if number == 1 and wire == _BYTES:
            name = data[a:b].decode("utf-8")
        elif number == 2 and wire == _BYTES:
            for kind, inner_wire, c, d in _fields(data, a, b):
                if kind in _DTYPES and inner_wire == _BYTES:
                    tensor = _parse_tensor(data, c, d, _DTYPES[kind], origin)
                elif kind == 9:
                    raise ValueError(
                        "its value is of the kind bytes; a float32, float64 or int32 tensor is needed"
                    )
    return name, tensor


def _parse_tensor(data: bytes | bytearray, start: int, end: int, dtype: np.dtype[Any], origin: int) -> Tensor:
    values: list[npt.NDArray[Any]] = []
    keys: list[npt.NDArray[np.uint64]] = []
    shape: list[npt.NDArray[np.uint64]] = []
    place = -1
    for number, wire, a, b in _fields(data, start, end):
        if number == 1 and dtype.kind == "f":
            if (b - a) % dtype.itemsize or wire == _VARINT:
                raise ValueError("the length of its values is no multiple of the size of one value")
            values.append(np.frombuffer(data, dtype, (b - a) // dtype.itemsize, a))
            place = a - origin if len(values) == 1 else -1
        elif number == 1:
            values.append(_varints(data, a, b).astype(np.int64).astype(np.int32))
        elif number == 2:
            keys.append(_varints(data, a, b))
        elif number == 3:
            shape.append(_varints(data, a, b))
    tensor = Tensor(_joined(values, dtype), _joined(keys, np.dtype(np.uint64)), (), place)
    tensor.shape = tuple(int(n) for n in _joined(shape, np.dtype(np.uint64)))
    if tensor.keys.size and tensor.keys.size != tensor.values.size:
        raise ValueError(f"it has {tensor.keys.size} keys but {tensor.values.size} values")
    return tensor


def _joined(parts: list[npt.NDArray[Any]], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def _fields(data: bytes | bytearray, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (field number, wire type, start, end of the value's bytes)."""
    position = start
    while position < end:
        tag, position = _varint(data, position, end)
        number, wire = tag >> 3, tag & 7
        if wire == _BYTES:
            length, position = _varint(data, position, end)
            after = position + length
        elif wire == _VARINT:
            _, after = _varint(data, position, end)
        elif wire in _FIXED:
            after = position + _FIXED[wire]
        else:
            raise ValueError(f"wire type {wire} is not used in records")
        if after > end or not number:
            raise ValueError("a field reaches beyond its end")
        yield number, wire, position, after
        position = after


def _varint(data: bytes | bytearray, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("a number does not end")


def _varints(data: bytes | bytearray, start: int, end: int) -> npt.NDArray[np.uint64]:
    """Return all varints of *data[start:end]*."""
    raw = np.frombuffer(data, np.uint8, end - start, start)
    last = raw < 0x80
    if last.all():
        return raw.astype(np.uint64)
    ends = np.flatnonzero(last)
    if not ends.size or ends[-1] != raw.size - 1:
        raise ValueError("a number does not end")
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > 10:
        raise ValueError("a number does not end")
    shifts = (np.arange(raw.size) - np.repeat(starts, lengths)).astype(np.uint64) * np.uint64(7)
    parts = (raw & 0x7F).astype(np.uint64) << shifts
    return np.add.reduceat(parts, starts)


def encode_record(features: Mapping[str, Tensor], label: Mapping[str, Tensor]) -> bytes:
    """Return the bytes of one record, as Google's library writes them."""
    return b"".join(
        _delimited(number, _delimited(1, name.encode()) + _delimited(2, _encode_value(tensor)))
        for number, tensors in ((1, features), (2, label))
        for name, tensor in tensors.items()
    )


def _encode_value(tensor: Tensor) -> bytes:
    kind = tensor.values.dtype.newbyteorder("<")
    number = next((n for n, dtype in _DTYPES.items() if dtype == kind), None)
    if number is None:
        raise ValueError(f"values of type {kind} cannot be in a record; use float32, float64 or int32")
    if number == 7:
        values = b"".join(_encode_varint(int(v) & 0xFFFFFFFFFFFFFFFF) for v in tensor.values)
    else:
        values = tensor.values.astype(kind).tobytes()
    body = _delimited(1, values) if values else b""
    if tensor.keys.size:
        body += _delimited(2, b"".join(_encode_varint(int(k)) for k in tensor.keys))
    if tensor.shape:
        body += _delimited(3, b"".join(_encode_varint(n) for n in tensor.shape))
    return _delimited(number, body)


def _delimited(number: int, body: bytes) -> bytes:
    return struct.pack("B", number << 3 | _BYTES) + _encode_varint(len(body)) + body


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
