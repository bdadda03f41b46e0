"""One HTTP exchange with a notebook's JupyterLab over its Unix socket, on a connection of its own.

What answers is the user's: it is read with limits and believed in nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Final

import httptools

from sagesmith_toolkit.sockets import unix_address

__all__ = ["Answer", "UpstreamLost", "ask", "connect", "request_head"]

_PIECE: Final = 64 * 1024
_HEAD_BYTES: Final = 128 * 1024
_CONNECT_S: Final = 10.0
_ANSWER_S: Final = 600.0

Headers = list[tuple[str, str]]


class UpstreamLost(Exception):
    """JupyterLab cannot be reached, or answered nothing that is HTTP."""


class Answer:
    """What JupyterLab answers: status and headers, and the body as it comes. `switched` once it speaks another protocol."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._complete = False
        self._has_head = False
        self.status = 0
        self.headers: Headers = []
        self.rest = b""

    @property
    def switched(self) -> bool:
        """Whether it agreed to another protocol; `rest` is then what it has said in that."""
        return self.status == 101

    # what httptools calls

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self.headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """All headers."""
        self.status = self._parser.get_status_code()
        self._has_head = True

    def on_body(self, body: bytes) -> None:
        """Part of the body."""
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        """The end."""
        self._complete = self.status >= 200 or self.status == 101

    # what the gateway calls

    async def read_head(self) -> None:
        """Read up to the end of the headers.

        Raises:
            UpstreamLost: what came is no answer.
        """
        size = 0
        while not self._has_head or (100 <= self.status < 200 and self.status != 101):
            piece = await self._reader.read(_PIECE)
            size += len(piece)
            if not piece or size > _HEAD_BYTES + _PIECE:
                raise UpstreamLost("JupyterLab gave no answer")
            self._feed(piece)

    async def body(self) -> AsyncIterator[bytes]:
        """Give the body piece by piece.

        Raises:
            UpstreamLost: it breaks off.
        """
        try:
            while True:
                pieces, self._pieces = self._pieces, []
                for piece in pieces:
                    yield piece
                if self._complete:
                    return
                data = await self._reader.read(_PIECE)
                if not data:
                    if any(name in ("content-length", "transfer-encoding") for name, _ in self.headers):
                        raise UpstreamLost("JupyterLab broke off its answer")
                    return
                self._feed(data)
        finally:
            self._writer.close()

    def close(self) -> None:
        """Give up the connection."""
        self._writer.close()

    @property
    def ends(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Both ends of the connection, for who goes on in another protocol."""
        return self._reader, self._writer

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.rest = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            raise UpstreamLost(f"JupyterLab answered what is not HTTP: {error}") from error


async def connect(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the Unix socket at *path*.

    Raises:
        UpstreamLost: nobody listens.
    """
    try:
        async with asyncio.timeout(_CONNECT_S):
            with unix_address(path) as short:
                return await asyncio.open_unix_connection(short)
    except (OSError, TimeoutError) as error:
        raise UpstreamLost(f"JupyterLab cannot be reached: {error or 'it took too long'}") from error


def request_head(method: str, target: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return a request's head; values come from a parsed request, which has no line breaks."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1", "replace")


async def ask(path: str, head: bytes, body: bytes) -> Answer:
    """Send a request to the socket at *path* and return the answer, whose body is still to come.

    Raises:
        UpstreamLost: there is no answer.
    """
    reader, writer = await connect(path)
    answer = Answer(reader, writer)
    try:
        writer.write(head)
        if body:
            writer.write(body)
        async with asyncio.timeout(_ANSWER_S):
            await writer.drain()
            await answer.read_head()
    except (OSError, TimeoutError) as error:
        writer.close()
        raise UpstreamLost(f"JupyterLab does not answer: {error or 'it took too long'}") from error
    except BaseException:
        writer.close()
        raise
    return answer
