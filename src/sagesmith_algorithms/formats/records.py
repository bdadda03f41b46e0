"""Many protobuf `Record`s parsed side by side: every step of the parser is one step in all of them.

Records of sparse rows are of many lengths, but nearly all are built of the same parts in the same order. So the
parser goes through all records of a block at once, with an array of positions instead of one, and finds where each
one's values, keys and shape lie; their bytes are then taken out of the block together. A record built in some other
way is left to `protobuf.parse_record`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["Spans", "Walked", "encoded_varints", "varints", "walk"]

Array = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
_KINDS: Final = {0x12: 4, 0x1A: 8}  # float32_tensor, float64_tensor: tag, bytes of a value
_FEATURES, _LABEL = 0x0A, 0x12
_SKIPPED: Final = (0x1A, 0x22, 0x2A)  # uid, metadata, configuration
_NAME, _VALUE = 0x0A, 0x12
_VALUES, _KEYS, _SHAPE = 0x0A, 0x12, 0x1A
_VALUES_NAME: Final = np.frombuffer(b"values", np.uint8)


@dataclass(slots=True)
class Spans:
    """Where the parts of each record's tensor lie in the block, (n_records,) each; an absent part has no length.

    `itemsize` is the size of one of its values, 0 where there is no tensor.
    """

    values: tuple[Array, Array]
    keys: tuple[Array, Array]
    shape: tuple[Array, Array]
    itemsize: Array

    @classmethod
    def none(cls, n: int) -> Spans:
        """Return those of *n* records without a tensor."""

        def zeros() -> Array:
            return np.zeros(n, np.int64)

        return cls((zeros(), zeros()), (zeros(), zeros()), (zeros(), zeros()), zeros())


@dataclass(slots=True)
class Walked:
    """What `walk` found. `odd` are the records that it could not follow."""

    features: Spans
    label: Spans
    odd: npt.NDArray[np.bool_]


def walk(raw: Bytes, starts: Array, ends: Array) -> Walked:
    """Return where the parts of the records at *raw[starts:ends]* lie."""
    n = len(starts)
    found = Walked(Spans.none(n), Spans.none(n), np.zeros(n, bool))
    padded = np.concatenate([raw, np.zeros(16, np.uint8)]) if len(raw) < ends.max(initial=0) + 16 else raw
    for rows, tag, a, b in _fields(padded, np.arange(n), starts, ends, found.odd):
        if tag in (_FEATURES, _LABEL):
            _entry(padded, rows, a, b, found.features if tag == _FEATURES else found.label, found.odd)
        elif tag not in _SKIPPED:
            found.odd[rows] = True
    return found


def _entry(raw: Bytes, rows: Array, start: Array, end: Array, spans: Spans, odd: npt.NDArray[Any]) -> None:
    odd[rows[spans.itemsize[rows] != 0]] = True  # a second tensor
    for some, tag, a, b in _fields(raw, rows, start, end, odd):
        if tag == _NAME:
            named = b - a == len(_VALUES_NAME)
            named[named] = (_taken(raw, a[named], len(_VALUES_NAME)) == _VALUES_NAME).all(axis=1)
            odd[some[~named]] = True
        elif tag == _VALUE:
            for few, kind, c, d in _fields(raw, some, a, b, odd):
                if kind not in _KINDS:
                    odd[few] = True
                    continue
                spans.itemsize[few] = _KINDS[kind]
                _tensor(raw, few, c, d, spans, odd)
        else:
            odd[some] = True


def _tensor(raw: Bytes, rows: Array, start: Array, end: Array, spans: Spans, odd: npt.NDArray[Any]) -> None:
    parts = {_VALUES: spans.values, _KEYS: spans.keys, _SHAPE: spans.shape}
    for some, tag, a, b in _fields(raw, rows, start, end, odd):
        if tag not in parts:
            odd[some] = True
            continue
        first, last = parts[tag]
        odd[some[last[some] > 0]] = True  # given in pieces
        first[some], last[some] = a, b
        if tag == _VALUES:
            odd[some[(b - a) % spans.itemsize[some] != 0]] = True


def _fields(
    raw: Bytes, rows: Array, start: Array, end: Array, odd: npt.NDArray[Any]
) -> Iterator[tuple[Array, int, Array, Array]]:
    """Yield (rows, tag, start and end of the value) of the fields of messages at *start* to *end*, step by step."""
    at = start
    while True:
        going = at < end
        if not going.all():
            rows, at, end = rows[going], at[going], end[going]
        if not rows.size:
            return
        tags = raw[at]
        length, value = _length(raw, at + 1)
        after = value + length
        # Only fields that tell their length, with a tag of one byte, are followed.
        bad = (tags & 0x87 != 0x02) | (length < 0) | (after > end)
        if bad.any():
            odd[rows[bad]] = True
            good = ~bad
            rows, tags, value, after, end = rows[good], tags[good], value[good], after[good], end[good]
            if not rows.size:
                return
        if (tags == tags[0]).all():
            yield rows, int(tags[0]), value, after
        else:
            for tag in np.unique(tags):
                chosen = tags == tag
                yield rows[chosen], int(tag), value[chosen], after[chosen]
        at = after


def _length(raw: Bytes, at: Array) -> tuple[Array, Array]:
    """Return the varints at *at*, and where they end; -1 for one of more than four bytes."""
    byte = raw[at].astype(np.int64)
    value, at = byte & 0x7F, at + 1
    more = np.flatnonzero(byte >= 0x80)
    for shift in (7, 14, 21):
        if not more.size:
            return value, at
        byte = raw[at[more]].astype(np.int64)
        value[more] |= (byte & 0x7F) << shift
        at[more] += 1
        more = more[byte >= 0x80]
    value[more] = -1
    return value, at


def _taken(raw: Bytes, starts: Array, length: int) -> Bytes:
    """Return *length* bytes from each of *starts* on, a row each."""
    windows: Bytes = np.lib.stride_tricks.sliding_window_view(raw, length)[starts]
    return windows


def varints(raw: Bytes) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    """Return the numbers of *raw*, and which of its bytes are their last ones.

    Raises:
        ValueError: the last number does not end, or one is too long.
    """
    last = raw < 0x80
    if last.all():
        return raw.astype(np.uint64), last
    ends = np.flatnonzero(last)
    if not last[-1]:
        raise ValueError("a number does not end")
    starts = np.empty_like(ends)
    starts[0], starts[1:] = 0, ends[:-1] + 1
    lengths = ends - starts
    value = (raw[starts] & 0x7F).astype(np.uint64)
    for place in range(1, int(lengths.max()) + 1):
        if place > 9:
            raise ValueError("a number does not end")
        longer = np.flatnonzero(lengths >= place)
        value[longer] |= (raw[starts[longer] + place] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
    return value, last


def encoded_varints(numbers: npt.NDArray[Any]) -> tuple[Bytes, Array]:
    """Return *numbers*, not negative and below 2 ** 35, as varints one after the other, and the length of each."""
    values = numbers.astype(np.int64)
    lengths: Array = np.ones(len(values), np.int64)
    for shift in (7, 14, 21, 28):
        lengths += values >> shift > 0
    parts = (values[:, None] >> np.arange(0, 35, 7)).astype(np.int64) & 0x7F
    place = np.arange(5)
    parts |= np.where(place < lengths[:, None] - 1, 0x80, 0)
    found: Bytes = parts[place < lengths[:, None]].astype(np.uint8)
    return found, lengths
