"""RecordIO-protobuf, the form in which SageMaker's own algorithms take rows: written here, read by them.

A record is ``magic, length, payload, padding``; the payload is the message ``Record`` with the float32 tensor
``values`` among its features, and another as its label. Rows of a dense matrix differ in their values alone, so that
the first record is repeated and the values of all are set at once.
"""

from __future__ import annotations

import struct
from typing import Any, Final

__all__ = ["encode"]

_MAGIC: Final = 0xCED7230A
_VALUES_FIELD, _KEYS_FIELD, _SHAPE_FIELD = 1, 2, 3


def encode(features: Any, label: Any = None) -> bytes:
    """Return the rows as records.

    Args:
        features: a 2-D array (n_samples, n_features), or a SciPy CSR matrix.
        label: (n_samples,) numbers, or None.
    """
    import numpy as np

    labels = None if label is None else np.ascontiguousarray(label, "<f4")
    if not isinstance(features, np.ndarray):
        return b"".join(
            _framed(
                _record(_sparse_row(features, i), None if labels is None else labels[i : i + 1].tobytes())
            )
            for i in range(features.shape[0])
        )
    rows = np.ascontiguousarray(features, "<f4")
    if not len(rows):
        return b""
    width = rows.shape[1] * 4
    first = _framed(_record(_tensor(rows[0].tobytes()), None if labels is None else labels[:1].tobytes()))
    # The lengths of all parts are alike, so that the places of the values are those of the first record.
    start = first.index(rows[0].tobytes(), _places(width))
    result = np.tile(np.frombuffer(first, np.uint8), len(rows)).reshape(len(rows), len(first))
    result[:, start : start + width] = rows.view(np.uint8)
    if labels is not None:
        payload = struct.unpack_from("<I", first, 4)[0]
        end = 8 + payload
        result[:, end - 4 : end] = labels.reshape(-1, 1).view(np.uint8)
    return result.tobytes()


def _places(width: int) -> int:
    """Return how many bytes stand before the values of a dense record: the frame and the fields' heads."""
    tensor = 1 + len(_varint(width)) + width
    value = 1 + len(_varint(tensor)) + tensor
    entry = 1 + 1 + 6 + 1 + len(_varint(value)) + value
    return 8 + 1 + len(_varint(entry)) + (entry - width)


def _record(tensor: bytes, label: bytes | None) -> bytes:
    record = _field(1, _entry(tensor))
    if label is not None:
        record += _field(2, _entry(_tensor(label)))
    return record


def _entry(tensor: bytes) -> bytes:
    """Return the map entry of a tensor: its key ``values``, and a `Value` whose field 2 it is."""
    return _field(1, b"values") + _field(2, _field(2, tensor))


def _tensor(values: bytes) -> bytes:
    return _field(_VALUES_FIELD, values)


def _sparse_row(matrix: Any, row: int) -> bytes:
    import numpy as np

    span = slice(matrix.indptr[row], matrix.indptr[row + 1])
    keys = b"".join(map(_varint, matrix.indices[span].tolist()))
    values = np.ascontiguousarray(matrix.data[span], "<f4").tobytes()
    return _tensor(values) + _field(_KEYS_FIELD, keys) + _field(_SHAPE_FIELD, _varint(int(matrix.shape[1])))


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _framed(payload: bytes) -> bytes:
    return struct.pack("<II", _MAGIC, len(payload)) + payload + bytes(-len(payload) % 4)
