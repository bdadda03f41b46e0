"""Objects as payloads: the records of a stream, as many in one as fit, with one payload in memory at a time."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import IO, Final

from sagesmith.instance._objects import DataError
from sagesmith_toolkit.frames import MAX_FRAME

__all__ = ["payloads"]

_LARGEST: Final = MAX_FRAME - 64 * 1024
_RECORDIO: Final = struct.Struct("<II")
_RECORDIO_MAGIC: Final = 0xCED7230A
_TFRECORD: Final = struct.Struct("<QI")


def payloads(source: IO[bytes], split_type: str, *, single: bool, limit: int) -> Iterator[bytes]:
    """Yield what is sent to the model server, in order.

    Args:
        source: the object's content.
        split_type: None, Line, RecordIO or TFRecord. Lines come without their last line break, and blank ones not at
            all if they stand alone.
        single: one record in each.
        limit: the largest payload in bytes; 0 for the largest there can be.

    Raises:
        DataError: a record is larger than *limit*, or is cut short.
    """
    limit = limit or _LARGEST
    if split_type == "None":
        return _whole(source, limit)
    if split_type == "Line":
        return _lines(source, limit) if single else _blocks_of_lines(source, limit)
    read_record = _read_recordio if split_type == "RecordIO" else _read_tfrecord
    return _records(source, read_record, limit, single)


def _too_large(what: str, limit: int) -> DataError:
    return DataError(
        f"Too much data for max payload size: {what} is larger than MaxPayloadInMB ({limit / 2**20:g} MB). "
        "Increase MaxPayloadInMB (at most 100), or set SplitType."
    )


def _whole(source: IO[bytes], limit: int) -> Iterator[bytes]:
    data = _read(source, limit + 1)
    if len(data) > limit:
        raise _too_large("the object", limit)
    if data:
        yield data


def _lines(source: IO[bytes], limit: int) -> Iterator[bytes]:
    number = 0
    while line := source.readline(limit + 2):
        number += 1
        record = line.rstrip(b"\r\n")
        if len(record) > limit:
            raise _too_large(f"the record in line {number}", limit)
        if record:
            yield record


def _blocks_of_lines(source: IO[bytes], limit: int) -> Iterator[bytes]:
    rest = b""
    while True:
        more = _read(source, limit + 1 - len(rest))
        data = rest + more if rest else more
        if len(data) <= limit:  # the end of the object
            if data.strip():
                yield data.rstrip(b"\r\n")
            return
        cut = data.rfind(b"\n")
        if cut < 0:
            raise _too_large("a record", limit)
        block, rest = data[:cut], data[cut + 1 :]
        if block.strip():
            yield block


_ReadRecord = Callable[[IO[bytes], int, int], bytes]


def _records(source: IO[bytes], read_record: _ReadRecord, limit: int, single: bool) -> Iterator[bytes]:
    gathered: list[bytes] = []
    size = number = 0
    while record := read_record(source, number, limit):
        number += 1
        if len(record) > limit:
            raise _too_large(f"record {number}", limit)
        if gathered and (single or size + len(record) > limit):
            yield b"".join(gathered)
            gathered, size = [], 0
        gathered.append(record)
        size += len(record)
    if gathered:
        yield b"".join(gathered)


def _read_recordio(source: IO[bytes], number: int, limit: int) -> bytes:
    """Return the next record with its frame (or frames, if it was split), b"" at the end."""
    parts: list[bytes] = []
    while True:
        head = _read(source, _RECORDIO.size)
        if not head and not parts:
            return b""
        if len(head) < _RECORDIO.size:
            raise _cut_short(number)
        magic, word = _RECORDIO.unpack(head)
        if magic != _RECORDIO_MAGIC:
            raise DataError(
                f"Record {number + 1} does not begin with the RecordIO magic number. Is SplitType RecordIO right?"
            )
        length, flag = word & ((1 << 29) - 1), word >> 29
        if length > limit:
            raise _too_large(f"record {number + 1}", limit)
        padding = -length % 4
        body = _read(source, length + padding)
        if len(body) < length:
            raise _cut_short(number)
        parts += [head, body]
        if flag in (0, 3):
            return b"".join(parts)


def _read_tfrecord(source: IO[bytes], number: int, limit: int) -> bytes:
    """Return the next record with its frame: length, checksum, data, checksum; b"" at the end."""
    head = _read(source, _TFRECORD.size)
    if not head:
        return b""
    if len(head) < _TFRECORD.size:
        raise _cut_short(number)
    length, _ = _TFRECORD.unpack(head)
    if length > limit:
        raise _too_large(f"record {number + 1}", limit)
    body = _read(source, length + 4)
    if len(body) < length + 4:
        raise _cut_short(number)
    return head + body


def _cut_short(number: int) -> DataError:
    return DataError(f"Record {number + 1} is cut short. Upload the object again.")


def _read(source: IO[bytes], size: int) -> bytes:
    """Return the next *size* bytes, fewer only at the end."""
    pieces: list[bytes] = []
    while size and (piece := source.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
