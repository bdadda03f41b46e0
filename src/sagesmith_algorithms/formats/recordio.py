"""RecordIO-protobuf: chunks of ``magic, length, payload, padding to four bytes``, one `Record` in each.

Nearly all such files are written by a loop over the rows of one dense matrix, so that every record has the
same bytes but for the values. The reader parses one record, checks that those which follow are built alike,
and takes the values of all of them at once; a record built otherwise is parsed by itself.

Source: dmlc-core `recordio.h` (a payload that holds the magic may be split there; the parts are flagged 1, 2, 3).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.errors import DataError
from sagesmith_algorithms.formats.batch import Batch, Floats, concatenated
from sagesmith_algorithms.formats.files import blocks
from sagesmith_algorithms.formats.protobuf import Tensor, encode_record, parse_record

__all__ = ["decode", "encode", "encode_columns", "frame", "read", "stacked"]

_MAGIC = 0xCED7230A
_HEAD = struct.Struct("<II")
_LENGTH = (1 << 29) - 1
_VALUES = "values"


def read(path: Path) -> Iterator[Batch]:
    """Yield the rows of a file, some ten thousand at a time.

    Raises:
        DataError: the file is cut short, or holds something else; names the record.
    """
    rest, before = b"", 0
    for piece in blocks(path):
        data = rest + piece if rest else piece
        batches, used, n_records = _decode_complete(data, str(path), before)
        yield from batches
        rest, before = data[used:], before + n_records
    if rest:
        raise DataError(f"record {before} is cut short; upload the file again", str(path))


def decode(data: bytes, where: str = "the request") -> Batch:
    """Return all rows of *data*.

    Raises:
        DataError: it is cut short, empty, or something else.
    """
    batches, used, n_records = _decode_complete(data, where, 0)
    if used != len(data):
        raise DataError(f"record {n_records} is cut short", where)
    if not batches:
        raise DataError("there is no record in it", where)
    return concatenated(batches)


def encode(features: Any, labels: Floats | None = None) -> bytes:
    """Return the rows of *features*, dense or CSR, as SageMaker's SDK writes them.

    Args:
        features: float32, float64 or int32 (n_samples, n_features).
        labels: (n_samples,), or None.
    """
    if isinstance(features, np.ndarray) and features.dtype.kind == "f":
        columns = {} if labels is None else {_VALUES: np.asarray(labels, np.float32)}
        return _encode_alike({_VALUES: features}, columns, len(features))
    rows = []
    for i in range(features.shape[0]):
        if isinstance(features, np.ndarray):
            tensor = Tensor(features[i])
        else:
            span = slice(features.indptr[i], features.indptr[i + 1])
            tensor = Tensor(
                features.data[span], features.indices[span].astype(np.uint64), (int(features.shape[1]),)
            )
        label = {} if labels is None else {_VALUES: Tensor(np.asarray(labels[i : i + 1], np.float32))}
        rows.append(frame(encode_record({_VALUES: tensor}, label)))
    return b"".join(rows)


def encode_columns(columns: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Return one record for each row, with *columns* as its labels: how models answer."""
    return _encode_alike({}, columns, len(next(iter(columns.values()))))


def frame(payload: bytes) -> bytes:
    """Return *payload* as a RecordIO chunk."""
    return _HEAD.pack(_MAGIC, len(payload)) + payload + bytes(-len(payload) % 4)


def _encode_alike(
    features: Mapping[str, npt.NDArray[Any]], label: Mapping[str, npt.NDArray[Any]], n_rows: int
) -> bytes:
    """Write the first record, repeat it, and set the values of all records at once."""
    if not n_rows:
        return b""
    parts: list[dict[str, npt.NDArray[Any]]] = []
    for columns in (features, label):
        two = {name: c.reshape(len(c), -1) for name, c in columns.items()}
        parts.append(
            {n: np.ascontiguousarray(c, "<f8" if c.dtype == np.float64 else "<f4") for n, c in two.items()}
        )
    payload = encode_record(*({name: Tensor(c[0]) for name, c in part.items()} for part in parts))
    first = frame(payload)
    rows = np.tile(np.frombuffer(first, np.uint8), n_rows).reshape(n_rows, len(first))
    parsed = parse_record(payload, 0, len(payload))
    for part, tensors in zip(parts, (parsed.features, parsed.label), strict=True):
        for name, columns_of in part.items():
            raw = columns_of.view(np.uint8).reshape(n_rows, -1)
            start = tensors[name].start + _HEAD.size
            rows[:, start : start + raw.shape[1]] = raw
    return rows.tobytes()


def _decode_complete(data: bytes, where: str, before: int) -> tuple[list[Batch], int, int]:
    """Return the rows of the complete records of *data*, the bytes used, and the number of records."""
    batches: list[Batch] = []
    single = _Singles()
    raw = np.frombuffer(data, np.uint8)
    position, n_records = 0, 0
    while len(data) - position >= _HEAD.size:
        magic, word = _HEAD.unpack_from(data, position)
        if magic != _MAGIC:
            raise DataError(
                f"record {before + n_records} does not begin with the RecordIO magic number. "
                "Is the content type right?",
                where,
            )
        length, flag = word & _LENGTH, word >> 29
        stride = _HEAD.size + length + -length % 4
        if flag:
            joined, stride = _join_split(data, position, where, before + n_records)
            if joined is None:
                break
            payload = _whole(joined)
            start, end = 0, len(payload)
        else:
            if position + stride > len(data):
                if position + _HEAD.size + length != len(data):  # the last padding may be missing
                    break
                stride = len(data) - position
            payload, start, end = data, position + _HEAD.size, position + _HEAD.size + length
        try:
            record = parse_record(payload, start, end)
            features = _only(record.features, "feature")
            label = _only(record.label, "label") if record.label else None
        except (ValueError, UnicodeDecodeError) as error:
            raise DataError(f"record {before + n_records} is not valid: {error}", where) from error
        alike = 1
        if (
            not flag
            and features.start >= 0
            and not features.is_sparse
            and (label is None or label.start >= 0)
        ):
            alike = _count_alike(raw, position, stride, [t for t in (features, label) if t is not None])
        if alike > 1:
            single.flush(batches, where)
            rows = raw[position : position + alike * stride].reshape(alike, stride)
            batches.append(
                Batch(_taken(rows, features), None if label is None else _label_shape(_taken(rows, label)))
            )
        else:
            single.add(features, label)
        position += alike * stride
        n_records += alike
    single.flush(batches, where)
    return batches, position, n_records


def _only(tensors: dict[str, Tensor], what: str) -> Tensor:
    tensor = tensors.get(_VALUES) or (next(iter(tensors.values())) if len(tensors) == 1 else None)
    if tensor is None:
        names = ", ".join(map(repr, tensors)) or "none"
        raise ValueError(f"it must have one {what} tensor, named 'values', and has {names}")
    return tensor


def _count_alike(raw: npt.NDArray[np.uint8], position: int, stride: int, tensors: list[Tensor]) -> int:
    """Return how many records from *position* on differ from the first in nothing but the values of *tensors*."""
    spans = sorted((t.start + _HEAD.size, t.start + _HEAD.size + t.values.nbytes) for t in tensors)
    fixed = [
        (a, b)
        for a, b in zip([0, *(b for _, b in spans)], [*(a for a, _ in spans), stride], strict=True)
        if b > a
    ]
    first = raw[position : position + stride]
    possible = (raw.size - position) // stride
    alike, window = 1, 1
    while alike < possible:
        window = min(window * 2, possible - alike, 65536)
        start = position + alike * stride
        rows = raw[start : start + window * stride].reshape(window, stride)
        same = np.ones(window, bool)
        for a, b in fixed:
            same &= (rows[:, a:b] == first[a:b]).all(axis=1)
        if not same.all():
            return alike + int(same.argmin())
        alike += window
    return alike


def _taken(rows: npt.NDArray[np.uint8], tensor: Tensor) -> Floats:
    start = tensor.start + _HEAD.size
    values = np.ascontiguousarray(rows[:, start : start + tensor.values.nbytes]).view(tensor.values.dtype)
    return values.astype(np.float32, copy=False)


def _label_shape(label: Floats) -> Floats:
    return label[:, 0] if label.shape[1] == 1 else label


def _join_split(data: bytes, position: int, where: str, number: int) -> tuple[list[bytes] | None, int]:
    """Return the parts of the split record at *position* and the bytes it takes; (None, 0) if it is not complete."""
    parts: list[bytes] = []
    start = position
    expected: tuple[int, ...] = (1,)
    while True:
        if len(data) - position < _HEAD.size:
            return None, 0
        magic, word = _HEAD.unpack_from(data, position)
        length, flag = word & _LENGTH, word >> 29
        if magic != _MAGIC or flag not in expected:
            raise DataError(f"record {number} is split, and its parts do not follow one another", where)
        end = position + _HEAD.size + length
        if end > len(data):
            return None, 0
        parts.append(data[position + _HEAD.size : end])
        position = end + -length % 4
        if flag == 3:
            return parts, min(position, len(data)) - start
        expected = (2, 3)


def _whole(parts: list[bytes]) -> bytes:
    """Return the payload: dmlc splits where the magic stands and leaves it out, others split anywhere."""
    payload = _HEAD.pack(_MAGIC, 0)[:4].join(parts)
    try:
        parse_record(payload, 0, len(payload))
    except (ValueError, UnicodeDecodeError):
        return b"".join(parts)
    return payload


class _Singles:
    """Records parsed one by one, gathered into a batch."""

    def __init__(self) -> None:
        self._features: list[Tensor] = []
        self._labels: list[Tensor | None] = []

    def add(self, features: Tensor, label: Tensor | None) -> None:
        self._features.append(features)
        self._labels.append(label)

    def flush(self, batches: list[Batch], where: str) -> None:
        """Move what was gathered to *batches*."""
        if not self._features:
            return
        features = stacked(self._features, where)
        present = [t for t in self._labels if t is not None]
        labels = None
        if present:
            if len(present) < len(self._labels) or len({t.values.size for t in present}) > 1:
                raise DataError("the records' labels differ in length", where)
            labels = _label_shape(np.stack([t.values for t in present]).astype(np.float32))
        batches.append(Batch(features, labels))
        self._features, self._labels = [], []


def stacked(tensors: list[Tensor], where: str) -> Any:
    """Return one matrix of *tensors*, a row each: dense, or CSR if one of them is sparse.

    Raises:
        DataError: dense rows differ in length, or a key is too large.
    """
    if not any(t.is_sparse for t in tensors):
        sizes = sorted({t.values.size for t in tensors})
        if len(sizes) > 1:
            raise DataError(
                f"records differ in length: some have {sizes[0]} features, some {sizes[-1]}", where
            )
        return np.stack([t.values for t in tensors]).astype(np.float32)
    from scipy.sparse import csr_matrix

    keys = [t.keys if t.is_sparse else np.arange(t.values.size, dtype=np.uint64) for t in tensors]
    indices = np.concatenate(keys)
    widths = [t.shape[-1] if t.shape else 0 if t.is_sparse else t.values.size for t in tensors]
    width = max([*widths, int(indices.max()) + 1 if indices.size else 0])
    if width > np.iinfo(np.int32).max:
        raise DataError(
            f"a key of {width - 1} is beyond the largest column, {np.iinfo(np.int32).max - 1}", where
        )
    indptr = np.concatenate(([0], np.cumsum([k.size for k in keys])))
    values = np.concatenate([t.values for t in tensors]).astype(np.float32)
    return csr_matrix((values, indices.astype(np.int32), indptr), shape=(len(tensors), width))
