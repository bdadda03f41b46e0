"""Text as numbers: the words of files, their counts, and which of them make the vocabulary."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from sagesmith_algorithms.blazingtext import kernels
from sagesmith_algorithms.errors import DataError
from sagesmith_algorithms.formats.content_type import ContentType
from sagesmith_algorithms.formats.files import blocks, channel_files, line_blocks

if TYPE_CHECKING:
    from sagesmith_toolkit.environment import Channel

__all__ = ["LABEL", "RECORDIO", "TEXT", "Text", "channel_text", "file_text"]

TEXT: Final = "text/plain"
RECORDIO: Final = "application/x-recordio-protobuf"  # as `ContentType` reads application/x-recordio
LABEL: Final = b"__label__"
_HEAD = struct.Struct("<II")
_MAGIC, _LENGTH = 0xCED7230A, (1 << 29) - 1
_TABLE = 1 << 16

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Text:
    """Words as numbers.

    Attributes:
        words: the distinct words, in the order in which they first occur.
        ids: int32, the words of the text, -1 where a line ends.
    """

    words: list[bytes]
    ids: Ids

    @classmethod
    def of(cls, pieces: Iterable[bytes]) -> Text:
        """Return the text of *pieces*, which end where a line ends (the last line needs no end)."""
        keys, places = np.zeros(_TABLE, np.uint64), np.full(_TABLE, -1, np.int32)
        words: list[bytes] = []
        parts: list[Ids] = []
        for piece in pieces:
            raw = np.frombuffer(bytearray(piece), np.uint8)  # kernels take what may be written only
            ids = np.empty(len(raw) // 2 + 2 + piece.count(b"\n"), np.int32)
            at = 0
            while at < len(raw):
                limit = len(keys) // 2
                spans = np.empty((max(limit - len(words), 1), 2), np.int64)
                at, n_known, n_ids = kernels.cut(raw, at, len(words), keys, places, spans, ids, limit)
                words += [piece[a:b] for a, b in spans[: n_known - len(words)].tolist()]
                parts.append(ids[:n_ids].copy())
                if len(words) >= limit:
                    more = np.zeros(4 * len(keys), np.uint64), np.full(4 * len(keys), -1, np.int32)
                    kernels.regrown(keys, places, *more)
                    keys, places = more
            if parts and len(raw) and raw[-1] != 10:
                parts.append(np.array([-1], np.int32))
        return cls(words, np.concatenate(parts) if parts else np.empty(0, np.int32))

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """How often each word occurs."""
        return np.bincount(self.ids[self.ids >= 0], minlength=len(self.words))

    def renumbered(self, new: Ids) -> Ids:
        """Return `ids` with *new* numbers of the words; those whose new number is -2 are left out."""
        ids = np.append(new, np.int32(-1))[self.ids]
        kept: Ids = np.ascontiguousarray(ids[ids != -2], np.int32)
        return kept


def channel_text(channel: Channel) -> Iterator[bytes]:
    """Yield the text of *channel* in pieces that end where a line ends.

    Raises:
        DataError: a file is no text, or an augmented manifest's record is not what it must be; names file and record.
    """
    paths = [channel.fifo(0)] if channel.input_mode == "Pipe" else channel_files(channel.folder)
    for path in paths:
        if ContentType.parse(channel.content_type).name == RECORDIO or channel.record_wrapper == "RecordIO":
            yield from _manifest_records(path)
        else:
            yield from file_text(path)


def file_text(path: Path) -> Iterator[bytes]:
    """Yield the lines of a text file, or those that the JSON lines ``{"source": text, "label": ...}`` of a file mean.

    Raises:
        DataError: the text is not UTF-8, or a JSON line is not what it must be; names the line.
    """
    is_json = None
    for block, _, before in line_blocks(path):
        if is_json is None:
            is_json = block.lstrip()[:1] == b"{" and b'"source"' in block.split(b"\n", 1)[0]
        try:
            block.decode()
        except UnicodeDecodeError as error:
            number = before + 1 + block.count(b"\n", 0, error.start)
            raise DataError(f"line {number} is not UTF-8 text: {error.reason}", str(path)) from None
        yield _from_json(block, str(path), before + 1) if is_json else block


def _from_json(block: bytes, where: str, first: int) -> bytes:
    lines = []
    for number, text in enumerate(block.splitlines(), first):
        if not text.strip():
            continue
        try:
            document = orjson.loads(text)
            lines.append(_labelled(document["source"], document.get("label")))
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            raise DataError(f'line {number} must be {{"source": "text", "label": ...}}', where) from None
    return b"".join(lines)


def _manifest_records(path: Path) -> Iterator[bytes]:
    """Yield the lines that the records of an augmented manifest mean: text and label take turns."""
    data = b"".join(blocks(path))
    at, number, source = 0, 0, b""
    while at < len(data):
        number += 1
        if len(data) - at < _HEAD.size:
            raise DataError(f"record {number} is cut short; upload the file again", str(path))
        magic, word = _HEAD.unpack_from(data, at)
        length = word & _LENGTH
        if magic != _MAGIC:
            raise DataError(f"record {number} does not begin with the RecordIO magic number", str(path))
        payload = data[at + _HEAD.size : at + _HEAD.size + length]
        if len(payload) < length:
            raise DataError(f"record {number} is cut short; upload the file again", str(path))
        at += _HEAD.size + length + -length % 4
        if number % 2:
            source = payload
            continue
        try:
            yield _labelled(source.decode(), orjson.loads(payload))
        except (UnicodeDecodeError, orjson.JSONDecodeError, TypeError) as error:
            raise DataError(
                f"records {number - 1} and {number} must be a text and its label; AttributeNames must be "
                f'["source", "label"]: {error}',
                str(path),
            ) from None
    if number % 2:
        raise DataError(f"record {number} is a text without a label after it", str(path))


def _labelled(source: Any, label: Any) -> bytes:
    if not isinstance(source, str):
        raise TypeError("the source is no text")
    labels = label if isinstance(label, list) else [] if label is None else [label]
    words = [LABEL.decode() + str(one).replace(" ", "-") for one in labels]
    return " ".join([*words, " ".join(source.split())]).encode() + b"\n"
