"""Answers that are too large, or not ready, to be sent as one piece: parts of files, iterators of bytes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from sagesmith.aws.call import FileSlice

__all__ = ["OpenFile", "Pieces", "close_body", "opened", "read_pieces", "stream_headers"]

_PIECE: Final = 512 * 1024
_INLINE_FILE: Final = 256 * 1024


@dataclass(slots=True)
class OpenFile:
    """A part of an open file, to be sent and closed."""

    descriptor: int
    offset: int
    size: int

    def close(self) -> None:
        """Close the file; once is enough, twice is harmless."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


Pieces: TypeAlias = OpenFile | Iterator[bytes] | AsyncIterator[bytes]


def stream_headers(headers: list[tuple[str, str]], body: object) -> tuple[list[tuple[str, str]], bool]:
    """Return *headers* with the length of *body*, if it is known, and whether it is."""
    length = next((value for name, value in headers if name.lower() == "content-length"), None)
    if isinstance(body, OpenFile):
        length = str(body.size)
    rest = [pair for pair in headers if pair[0].lower() != "content-length"]
    if length is not None:
        rest.append(("content-length", length))
    return rest, length is not None


def opened(part: FileSlice, *, head: bool) -> bytes | OpenFile:
    """Return *part* to be sent: a small one read, a large one open; only its size if *head*.

    Raises:
        EOFError: the file ends before the part does.
    """
    if head:
        return OpenFile(-1, 0, part.size)
    descriptor = os.open(part.path, os.O_RDONLY | os.O_CLOEXEC)
    if part.size > _INLINE_FILE:
        return OpenFile(descriptor, part.offset, part.size)
    try:
        data = os.pread(descriptor, part.size, part.offset)
    finally:
        os.close(descriptor)
    if len(data) != part.size:
        raise EOFError(f"{part.path} has fewer than {part.size} bytes at {part.offset}")
    return data


async def read_pieces(body: Pieces, pool: Executor) -> AsyncIterator[bytes]:
    """Yield *body* piece by piece; what blocks runs in *pool*.

    Raises:
        EOFError: a file ends before the part that was promised.
    """
    loop = asyncio.get_running_loop()
    if isinstance(body, OpenFile):
        offset, left = body.offset, body.size
        while left > 0:
            piece = await loop.run_in_executor(pool, os.pread, body.descriptor, min(left, _PIECE), offset)
            if not piece:
                raise EOFError("the file is shorter than was promised")
            offset += len(piece)
            left -= len(piece)
            yield piece
    elif isinstance(body, AsyncIterator):
        async for piece in body:
            yield piece
    else:
        while (item := await loop.run_in_executor(pool, next, body, None)) is not None:
            yield item


async def close_body(body: Any) -> None:
    """Close *body* if it can be closed: a file, or a generator that was not read to its end."""
    if hasattr(body, "aclose"):
        await body.aclose()
    elif hasattr(body, "close"):
        body.close()
