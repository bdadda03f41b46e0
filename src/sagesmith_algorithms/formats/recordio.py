"""RecordIO-protobuf: chunks of ``magic, length, payload, padding to four bytes``, one `Record` in each.

Many such files are written by a loop over the rows of one dense matrix, so that every record has the same bytes
but for the values. The reader parses one record, checks that those which follow are built alike, and takes the
values of all of them at once. Other records, such as sparse ones, are parsed side by side (see `records`), and
what is built in some other way by itself.

Source: dmlc-core `recordio.h` (a payload that holds the magic may be split there; the parts are flagged 1, 2, 3).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.errors import DataError
from sagesmith_algorithms.formats.batch import Batch, Floats, concatenated
from sagesmith_algorithms.formats.files import BLOCK, damaged, filled, opened
from sagesmith_algorithms.formats.protobuf import Tensor, encode_record, parse_record
from sagesmith_algorithms.formats.records import Spans, encoded_varints, varints, walk

__all__ = ["decode", "encode", "encode_columns", "frame", "read", "stacked"]

_MAGIC = 0xCED7230A
_HEAD = struct.Struct("<II")
_LENGTH = (1 << 29) - 1
_VALUES = "values"
_SIDE_BY_SIDE = 1 << 14  # records, so that an array of their positions stays in the cache


def read(path: Path, block: int = BLOCK) -> Iterator[Batch]:
    """Yield the rows of a file, read *block* bytes at a time.

    Raises:
        DataError: the file is cut short, or holds something else; names the record.
    """
    rest, before = b"", 0
    with opened(path) as file:
        while True:
            data = bytearray(len(rest) + block)
            data[: len(rest)] = rest
            n, broken = filled(file, memoryview(data)[len(rest) :])
            del data[len(rest) + n :]
            batches, used, n_records = _decode_complete(data, str(path), before)
            yield from batches
            rest, before = bytes(data[used:]), before + n_records
            if broken:
                raise damaged(f"record {before + 1}", path, broken)
            if not n:
                break
    if rest:
        raise DataError(f"record {before + 1} is cut short; upload the file again", str(path))


def decode(data: bytes, where: str = "the request") -> Batch:
    """Return all rows of *data*.

    Raises:
        DataError: it is cut short, empty, or something else.
    """
    batches, used, n_records = _decode_complete(data, where, 0)
    if used != len(data):
        raise DataError(f"record {n_records + 1} is cut short", where)
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
    if not isinstance(features, np.ndarray) and features.dtype.kind == "f":
        return _encode_sparse(features, labels)
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


def _encode_sparse(features: Any, labels: Floats | None) -> bytes:
    """Write the rows of a CSR matrix; those with as many values and as many bytes of keys at once."""
    n_rows, width = features.shape
    sizes = np.diff(features.indptr).astype(np.int64)
    data = features.data.astype(np.float64 if features.dtype == np.float64 else np.float32)
    keys, key_lengths = encoded_varints(features.indices)
    key_ends = np.concatenate(([0], np.cumsum(key_lengths)))[features.indptr]
    kinds, of_row = np.unique(np.stack([sizes, np.diff(key_ends)], axis=1), axis=0, return_inverse=True)
    by_kind = np.split(
        np.argsort(of_row.reshape(-1), kind="stable"), np.cumsum(np.bincount(of_row.reshape(-1)))[:-1]
    )
    label = None if labels is None else np.asarray(labels, "<f4").reshape(n_rows, 1)
    blocks, lengths = [], np.empty(n_rows, np.int64)
    for (size, n_bytes), rows in zip(kinds.tolist(), by_kind if n_rows else [], strict=True):
        span = slice(features.indptr[rows[0]], features.indptr[rows[0] + 1])
        tensor = Tensor(data[span], features.indices[span].astype(np.uint64), (int(width),))
        first = {} if label is None else {_VALUES: Tensor(label[rows[0]])}
        payload = encode_record({_VALUES: tensor}, first)
        parsed = parse_record(payload, 0, len(payload))
        block = np.tile(np.frombuffer(frame(payload), np.uint8), len(rows)).reshape(len(rows), -1)
        if size:
            at = features.indptr[rows][:, None] + np.arange(size)
            start = parsed.features[_VALUES].start + _HEAD.size
            end = start + size * data.itemsize
            block[:, start:end] = data[at].view(np.uint8).reshape(len(rows), -1)
            start = end + 1 + len(encoded_varints(np.array([n_bytes]))[0])
            block[:, start : start + n_bytes] = keys[key_ends[rows][:, None] + np.arange(n_bytes)]
        if label is not None:
            start = parsed.label[_VALUES].start + _HEAD.size
            block[:, start : start + 4] = label[rows].view(np.uint8)
        blocks.append(block)
        lengths[rows] = block.shape[1]
    out = np.empty(int(lengths.sum()), np.uint8)
    starts = np.cumsum(lengths) - lengths
    for block, rows in zip(blocks, by_kind, strict=False):
        windows = np.lib.stride_tricks.sliding_window_view(out, block.shape[1], writeable=True)
        windows[starts[rows]] = block
    return out.tobytes()


def _decode_complete(data: bytes | bytearray, where: str, before: int) -> tuple[list[Batch], int, int]:
    """Return the rows of the complete records of *data*, the bytes used, and the number of records.

    *before* is the number of records before these; messages count from 1. No row shares memory with *data*.
    """
    batches: list[Batch] = []
    raw = np.frombuffer(data, np.uint8)
    frames: _Frames | None = None
    position, n_records = 0, 0
    while len(data) - position >= _HEAD.size:
        number = before + n_records + 1
        magic, word = _HEAD.unpack_from(data, position)
        if magic != _MAGIC:
            raise DataError(
                f"record {number} does not begin with the RecordIO magic number. Is the content type right?",
                where,
            )
        if not word >> 29:
            n, stride = _decode_alike(data, raw, position, batches)
            if n:
                position += n * stride
                n_records += n
                continue
            frames = frames or _Frames(raw, position)
            starts, lengths = frames.plain_from(position)
            if not starts.size:
                break  # the end of it is not there
            for a in range(0, len(starts), _SIDE_BY_SIDE):
                some, ends = starts[a : a + _SIDE_BY_SIDE], (starts + lengths)[a : a + _SIDE_BY_SIDE]
                _decode_walked(data, raw, some, ends, batches, where, before + n_records + a)
            position = min(int(starts[-1] + lengths[-1] + -lengths[-1] % 4), len(data))
            n_records += len(starts)
            continue
        joined, stride = _join_split(data, position, where, number)
        if joined is None:
            break
        single = _Singles(where, number)
        single.parse(payload := _whole(joined), 0, len(payload))
        single.flush(batches)
        position += stride
        n_records += 1
    return batches, position, n_records


class _Frames:
    """Where the plain records of a block are, from *begin* on: those that are complete and not split."""

    def __init__(self, raw: npt.NDArray[np.uint8], begin: int) -> None:
        self._size = raw.size
        words = raw[begin : begin + (raw.size - begin) // 4 * 4].view("<u4")
        at = np.flatnonzero(words[:-1] == _MAGIC)
        heads = words[at + 1]
        self._at = at * 4 + begin
        self._lengths = (heads & _LENGTH).astype(np.int64)
        self._ends = self._at + _HEAD.size + self._lengths
        # The padding of the last record may be missing.
        self._plain = (heads >> 29 == 0) & (self._ends <= raw.size)

    def plain_from(self, position: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the starts of the payloads that follow one another from *position* on, and their lengths."""
        first = int(np.searchsorted(self._at, position))
        at, ends = self._at[first:], self._ends[first:]
        good = self._plain[first:].copy()
        if good.size:
            good[0] &= at[0] == position
            good[1:] &= at[1:] == ends[:-1] + -ends[:-1] % 4
            padded = ends + -ends % 4
            good &= (padded <= self._size) | (ends == self._size)
        n = good.size if good.all() else int(good.argmin())
        return at[:n] + _HEAD.size, self._lengths[first : first + n]


def _decode_walked(
    data: bytes | bytearray,
    raw: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    batches: list[Batch],
    where: str,
    before: int,
) -> None:
    """Append the rows of records that are parsed side by side."""
    walked = walk(raw, starts, ends)
    features, label = walked.features, walked.label
    sizes = _sizes(features)
    keyed = features.keys[1] > features.keys[0]
    shapes, bad = _shapes(raw, features)
    sparse = keyed | ((shapes >= 0) & (sizes != shapes))
    odd = walked.odd | bad | (features.itemsize == 0) | (label.keys[1] > label.keys[0])
    kind = np.where(odd, -1, features.itemsize * 32 + label.itemsize * 2 + sparse)
    edges = np.flatnonzero(np.diff(kind)) + 1
    if len(edges) > 16 + len(kind) // 16:  # hardly two alike: one by one
        kind, edges = np.full(len(kind), -1), edges[:0]
    for a, b in pairwise([0, *edges.tolist(), len(kind)]):
        first = before + a + 1
        if kind[a] < 0:
            single = _Singles(where, first)
            for start, end in zip(starts[a:b].tolist(), ends[a:b].tolist(), strict=True):
                single.parse(data, start, end)
            single.flush(batches)
            continue
        part = slice(a, b)
        labels = _dense(raw, label, part, "label", where, first) if label.itemsize[a] else None
        if sparse[a]:
            rows: Any = _sparse(raw, features, part, sizes[part], shapes[part], where, first)
        else:
            rows = _dense(raw, features, part, "feature", where, first)
        batches.append(Batch(rows, None if labels is None else _label_shape(labels)))


def _decode_alike(
    data: bytes | bytearray, raw: npt.NDArray[np.uint8], position: int, batches: list[Batch]
) -> tuple[int, int]:
    """Append the rows of the plain records from *position* on that are dense and built like the first.

    Returns how many they are, 0 or at least 2, and the bytes of each.
    """
    length = _HEAD.unpack_from(data, position)[1] & _LENGTH
    stride = _HEAD.size + length + -length % 4
    n = (raw.size - position) // stride
    if n < 2:
        return 0, stride
    start = position + _HEAD.size
    try:
        record = parse_record(data, start, start + length)
        features = _only(record.features, "feature")
        label = _only(record.label, "label") if record.label else None
    except (ValueError, UnicodeDecodeError):
        return 0, stride
    if features.start < 0 or features.is_sparse or (label is not None and label.start < 0):
        return 0, stride
    n = _count_alike(raw, position, stride, n, [t for t in (features, label) if t is not None])
    if n < 2:
        return 0, stride
    rows = raw[position : position + n * stride].reshape(n, stride)
    batches.append(
        Batch(_taken(rows, features), None if label is None else _label_shape(_taken(rows, label)))
    )
    return n, stride


def _sizes(spans: Spans) -> npt.NDArray[np.int64]:
    """Return the number of values of each record."""
    return np.asarray((spans.values[1] - spans.values[0]) // np.maximum(spans.itemsize, 1))


def _shapes(raw: npt.NDArray[np.uint8], spans: Spans) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the shape of each record, -1 where it has none, and which shapes are not just one number."""
    start, end = spans.shape
    shapes, bad = np.full(len(start), -1, np.int64), np.zeros(len(start), bool)
    given = np.flatnonzero(end > start)
    if not given.size:
        return shapes, bad
    try:
        values, last = varints(_gathered(raw, start, end))
    except ValueError:
        bad[given] = True
        return shapes, bad
    counts = _counts(last, (end - start)[given])
    if (counts != 1).any() or (values > np.iinfo(np.int32).max).any():
        bad[given] = True
    else:
        shapes[given] = values.astype(np.int64)
    return shapes, bad


def _dense(
    raw: npt.NDArray[np.uint8], spans: Spans, part: slice, what: str, where: str, first: int
) -> npt.NDArray[np.float32]:
    """Return the values of dense records of one kind, a row each.

    Raises:
        DataError: they differ in length; names the first that does.
    """
    sizes = _sizes(spans)[part]
    if (sizes != sizes[0]).any():
        at = int((sizes != sizes[0]).argmax())
        raise DataError(
            f"record {first + at} has {sizes[at]} {what}s, but those before have {sizes[0]}; "
            "all records must have the same length",
            where,
        )
    itemsize = int(spans.itemsize[part][0])
    bytes_of = _gathered(raw, spans.values[0][part], spans.values[1][part], itemsize)
    values = bytes_of.view("<f4" if itemsize == 4 else "<f8").astype(np.float32, copy=False)
    return values.reshape(len(sizes), int(sizes[0]))


def _sparse(
    raw: npt.NDArray[np.uint8],
    spans: Spans,
    part: slice,
    sizes: npt.NDArray[np.int64],
    shapes: npt.NDArray[np.int64],
    where: str,
    first: int,
) -> Any:
    """Return the values of sparse records of one kind as CSR.

    Raises:
        DataError: a record's keys are broken, or too large; names it.
    """
    from scipy.sparse import csr_matrix

    start, end = spans.keys[0][part], spans.keys[1][part]
    try:
        keys, last = varints(_gathered(raw, start, end))
        counts = np.zeros(len(sizes), np.int64)
        given = end > start
        counts[given] = _counts(last, (end - start)[given])
    except ValueError as error:
        raise DataError(f"records from {first} on have keys that are not valid: {error}", where) from error
    if (counts != sizes).any():
        at = int((counts != sizes).argmax())
        raise DataError(f"record {first + at} has {counts[at]} keys but {sizes[at]} values", where)
    width = max(int(shapes.max(initial=0)), int(keys.max(initial=0)) + 1 if keys.size else 0)
    indptr = np.concatenate(([0], np.cumsum(sizes)))
    if width > np.iinfo(np.int32).max:
        at = int(np.searchsorted(indptr, int(keys.argmax()), side="right")) - 1
        raise _too_wide(width, where, first + at)
    itemsize = int(spans.itemsize[part][0])
    bytes_of = _gathered(raw, spans.values[0][part], spans.values[1][part], itemsize)
    values = bytes_of.view("<f4" if itemsize == 4 else "<f8").astype(np.float32, copy=False)
    return csr_matrix((values, keys.astype(np.int32), indptr), shape=(len(sizes), width))


def _gathered(
    raw: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    itemsize: int = 1,
) -> npt.NDArray[np.uint8]:
    """Return the bytes of the spans one after the other; their lengths are multiples of *itemsize*."""
    counts = (ends - starts) // itemsize
    before = np.cumsum(counts) - counts
    n = int(counts.sum())
    if not n:
        return np.empty(0, np.uint8)
    places = np.repeat(starts - itemsize * before, counts)
    places += np.arange(0, n * itemsize, itemsize)
    found: npt.NDArray[np.uint8] = np.lib.stride_tricks.sliding_window_view(raw, itemsize)[places]
    return found.reshape(-1)


def _counts(last: npt.NDArray[np.bool_], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return how many numbers end in each of the spans of *lengths* bytes.

    Raises:
        ValueError: one reaches from a span into the next.
    """
    ends = np.cumsum(lengths)
    if not last[ends - 1].all():
        raise ValueError("a number does not end")
    return np.diff(np.cumsum(last)[ends - 1], prepend=0)


def _only(tensors: dict[str, Tensor], what: str) -> Tensor:
    tensor = tensors.get(_VALUES) or (next(iter(tensors.values())) if len(tensors) == 1 else None)
    if tensor is None:
        names = ", ".join(map(repr, tensors)) or "none"
        raise ValueError(f"it must have one {what} tensor, named 'values', and has {names}")
    return tensor


def _count_alike(
    raw: npt.NDArray[np.uint8], position: int, stride: int, possible: int, tensors: list[Tensor]
) -> int:
    """Return how many records from *position* on differ from the first in nothing but the values of *tensors*."""
    spans = sorted((t.start + _HEAD.size, t.start + _HEAD.size + t.values.nbytes) for t in tensors)
    fixed = [
        (a, b)
        for a, b in zip([0, *(b for _, b in spans)], [*(a for a, _ in spans), stride], strict=True)
        if b > a
    ]
    same = np.ones(possible, bool)
    for a, b in fixed:
        for at, kind in _words(position + a, position + b):
            column: npt.NDArray[Any] = np.ndarray((possible,), kind, raw, at, (stride,))
            same &= column == column[0]
    return possible if same.all() else int(same.argmin())


def _words(start: int, end: int) -> Iterator[tuple[int, str]]:
    """Yield where words that cover the bytes from *start* to *end* begin, and their type: comparing few large ones is quick."""
    if end - start < 8:
        yield from ((at, "u1") for at in range(start, end))
    else:
        yield from ((min(at, end - 8), "<u8") for at in range(start, end, 8))


def _taken(rows: npt.NDArray[np.uint8], tensor: Tensor) -> Floats:
    start = tensor.start + _HEAD.size
    values = np.ascontiguousarray(rows[:, start : start + tensor.values.nbytes]).view(tensor.values.dtype)
    return values.astype(np.float32, copy=False)


def _label_shape(label: Floats) -> Floats:
    return label[:, 0] if label.shape[1] == 1 else label


def _join_split(
    data: bytes | bytearray, position: int, where: str, number: int
) -> tuple[list[bytes] | None, int]:
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
        parts.append(bytes(data[position + _HEAD.size : end]))
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
    """Records parsed one by one, gathered into a batch; the first of them is number *first* of *where*."""

    def __init__(self, where: str, first: int) -> None:
        self._where = where
        self._first = first
        self._features: list[Tensor] = []
        self._labels: list[Tensor | None] = []

    def parse(self, data: bytes | bytearray, start: int, end: int) -> None:
        """Take in the record at *data[start:end]*.

        Raises:
            DataError: it is none.
        """
        try:
            record = parse_record(data, start, end)
            self._features.append(_only(record.features, "feature"))
            self._labels.append(_only(record.label, "label") if record.label else None)
        except (ValueError, UnicodeDecodeError) as error:
            number = self._first + len(self._labels)
            raise DataError(f"record {number} is not valid: {error}", self._where) from error

    def flush(self, batches: list[Batch]) -> None:
        """Append what was gathered to *batches*."""
        features = stacked(self._features, self._where, self._first)
        present = [t for t in self._labels if t is not None]
        labels = None
        if present:
            at = next(
                (
                    i
                    for i, t in enumerate(self._labels)
                    if t is None or t.values.size != present[0].values.size
                ),
                None,
            )
            if at is not None:
                raise DataError(
                    f"record {self._first + at} has another number of labels than those before", self._where
                )
            labels = _label_shape(np.stack([t.values for t in present]).astype(np.float32))
        batches.append(Batch(features, labels))


def stacked(tensors: list[Tensor], where: str, first: int = 1) -> Any:
    """Return one matrix of *tensors*, a row each: dense, or CSR if one of them is sparse.

    Raises:
        DataError: dense rows differ in length, or a key is too large; they are counted from *first*.
    """
    if not any(t.is_sparse for t in tensors):
        size = tensors[0].values.size
        at = next((i for i, t in enumerate(tensors) if t.values.size != size), None)
        if at is not None:
            raise DataError(
                f"record {first + at} has {tensors[at].values.size} features, but those before have {size}; "
                "all records must have the same length",
                where,
            )
        return np.stack([t.values for t in tensors]).astype(np.float32)
    from scipy.sparse import csr_matrix

    keys = [t.keys if t.is_sparse else np.arange(t.values.size, dtype=np.uint64) for t in tensors]
    indices = np.concatenate(keys)
    widths = [t.shape[-1] if t.shape else 0 if t.is_sparse else t.values.size for t in tensors]
    width = max([*widths, int(indices.max()) + 1 if indices.size else 0])
    if width > np.iinfo(np.int32).max:
        sizes = np.maximum([int(k.max(initial=0)) for k in keys], np.asarray(widths) - 1)
        raise _too_wide(width, where, first + int(np.argmax(sizes)))
    indptr = np.concatenate(([0], np.cumsum([k.size for k in keys])))
    values = np.concatenate([t.values for t in tensors]).astype(np.float32)
    return csr_matrix((values, indices.astype(np.int32), indptr), shape=(len(tensors), width))


def _too_wide(width: int, where: str, record: int) -> DataError:
    return DataError(
        f"record {record} has a key of {width - 1}, beyond the largest column, {np.iinfo(np.int32).max - 1}",
        where,
    )
