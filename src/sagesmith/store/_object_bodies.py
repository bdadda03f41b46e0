"""What our S3 client sends and receives: contents that can be sent again, and answers in XML."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final
from xml.etree import ElementTree

from sagesmith.errors import AwsError

__all__ = ["READ_BYTES", "Piece", "Window", "Xml", "pieces_of", "read_fully"]

READ_BYTES: Final = 1024 * 1024


class Piece:
    """A part of a file, or bytes, as a request's body."""

    def __init__(self, source: Path | bytes, offset: int, size: int) -> None:
        self._source = source
        self._offset = offset
        self.size = size

    @classmethod
    def of_bytes(cls, data: bytes) -> Piece:
        """Return all of *data* as a body."""
        return cls(data, 0, len(data))

    def open(self) -> Window:
        """Return a reader at the beginning."""
        if isinstance(self._source, bytes):
            return Window(io.BytesIO(self._source), self.size)
        file = self._source.open("rb", buffering=0)
        file.seek(self._offset)
        return Window(file, self.size)

    def crc32(self) -> str:
        """Return the checksum in base64: it protects the way to the server."""
        value = 0
        with self.open() as window:
            while data := window.read(READ_BYTES):
                value = zlib.crc32(data, value)
        return base64.b64encode(value.to_bytes(4, "big")).decode()


class Window:
    """The next *size* bytes of a file, which it closes at their end."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int = -1) -> bytes:
        """Return up to *size* bytes, b"" at the end."""
        if not self._left:
            self._file.close()
            return b""
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        if not data:
            raise ValueError(f"the file became {self._left} bytes shorter while it was sent")
        self._left -= len(data)
        return data

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def __del__(self) -> None:
        self._file.close()


class Xml:
    """An answer's elements by local name."""

    def __init__(self, source: bytes | ElementTree.Element) -> None:
        self._node = ElementTree.fromstring(source) if isinstance(source, bytes) else source  # noqa: S314 - our server

    def all(self, name: str) -> Iterator[Xml]:
        """Return the elements of that name, one level down."""
        return (Xml(node) for node in self._node if node.tag.rpartition("}")[2] == name)

    def text(self, name: str) -> str:
        """Return the text of the first element of that name, "" if there is none."""
        return next((one._node.text or "" for one in self.all(name)), "")

    def raise_error(self) -> None:
        """Raise the error that S3 may send after it had to begin with status 200."""
        if self._node.tag.rpartition("}")[2] == "Error":
            raise AwsError(self.text("Code"), self.text("Message"), status=500)


def read_fully(source: IO[bytes], size: int) -> bytes:
    """Return the next *size* bytes, fewer only at the end."""
    pieces: list[bytes] = []
    while size and (piece := source.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def pieces_of(first: bytes, source: IO[bytes], size: int) -> Iterator[Piece]:
    """Yield *first* and the rest of *source*, in pieces of *size* bytes."""
    data = first
    while data:
        yield Piece.of_bytes(data)
        data = read_fully(source, size)
