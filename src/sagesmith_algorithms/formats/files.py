"""The files of a channel: all of its folder, sorted, sub-folders too, gzip opened on the way."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from sagesmith_algorithms.errors import DataError

__all__ = ["blocks", "channel_files", "line_blocks", "opened"]

_BLOCK = 4 * 1024 * 1024  # with all that is made of it, it stays in the cache: three times as quick as 32 MiB
_GZIP = b"\x1f\x8b"


def channel_files(folder: Path) -> list[Path]:
    """Return the data files below *folder* (or *folder* itself, if it is a file or a named pipe), sorted.

    Hidden files, empty files, and the ``_SUCCESS`` and ``.manifest`` files that tools leave beside data are not data.
    """
    if folder.exists() and not folder.is_dir():
        return [folder]
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not path.name.startswith("_SUCCESS")
        and not path.name.endswith(".manifest")
        and path.stat().st_size
    )


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open *path* for reading; what gzip packed is unpacked, whatever its name."""
    with io.BufferedReader(path.open("rb", buffering=0), 1 << 20) as raw:
        if raw.peek(2)[:2] == _GZIP:
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield cast("BinaryIO", unpacked)
        else:
            yield raw


def blocks(path: Path, size: int = _BLOCK) -> Iterator[bytes]:
    """Yield the bytes of *path* in pieces of about *size*.

    Raises:
        DataError: the file is gzip and broken.
    """
    with opened(path) as file:
        while True:
            try:
                piece = file.read(size)
            except (EOFError, gzip.BadGzipFile, OSError) as error:
                raise DataError(f"cannot be read: {error}. Upload the file again", str(path)) from error
            if not piece:
                return
            yield piece


def line_blocks(path: Path, size: int = _BLOCK) -> Iterator[bytes]:
    """Yield the bytes of *path* in pieces that end where a line ends."""
    rest = b""
    for piece in blocks(path, size):
        end = piece.rfind(b"\n") + 1
        if not end:
            rest += piece
            continue
        yield rest + piece[:end]
        rest = piece[end:]
    if rest:
        yield rest
