"""The Docker engine's HTTP API on its Unix socket: requests, and streams that the engine goes on sending.

Each request is HTTP/1.0 on a connection of its own: the engine then answers without chunks and closes the
connection behind its answer, so that reading to the end is all there is to parse. Docker's own Python package
would bring five more, 5 MB in all, take 0.24 s to import in every agent, and block where an agent must go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from urllib.parse import urlencode

__all__ = ["Engine", "EngineError", "EngineStream", "EngineUnavailable", "engine_socket"]

_SOCKET: Final = "/var/run/docker.sock"
_TIMEOUT_S: Final = 60.0
_PIECE: Final = 64 * 1024


class EngineError(Exception):
    """The engine refused; *status* is HTTP's, the message is its own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class EngineUnavailable(EngineError):
    """There is no engine to ask. The message says why, without a full stop."""

    def __init__(self, message: str) -> None:
        super().__init__(0, message)


def engine_socket() -> str:
    """Return where the engine listens: ``DOCKER_HOST`` if that is a Unix socket, else the usual place."""
    given = os.environ.get("DOCKER_HOST", "")
    return given.removeprefix("unix://") if given.startswith("unix://") else _SOCKET


class Engine:
    """One engine. Safe for any number of threads and event loops: it keeps nothing but the address."""

    def __init__(self, path: str = "") -> None:
        self.path = path or engine_socket()

    def ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None,
        *, timeout_s: float = _TIMEOUT_S,
    ) -> Any:  # fmt: skip
        """Send a request, wait for its answer in this thread, and return its JSON, None if it has none.

        Raises:
            EngineError: the engine refused, or (`EngineUnavailable`) does not answer.
        """
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            try:
                connection.connect(self.path)
                connection.sendall(_request(method, path, query, body))
                answer = bytearray()
                while piece := connection.recv(_PIECE):
                    answer += piece
            except OSError as error:
                raise self._unavailable(error) from error
        head, _, content = bytes(answer).partition(b"\r\n\r\n")
        return _result(_status(head), content)

    async def call(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None
    ) -> Any:
        """Do what `ask` does, on the event loop."""
        stream = await self.open(method, path, query, body)
        try:
            return _result(200, await stream.rest())
        finally:
            stream.close()

    async def open(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> EngineStream:  # fmt: skip
        """Send a request and return once the engine has begun to answer.

        Raises:
            EngineError: the engine refused, or (`EngineUnavailable`) does not answer.
        """
        try:
            reader, writer = await asyncio.open_unix_connection(self.path)
        except OSError as error:
            raise self._unavailable(error) from error
        try:
            writer.write(_request(method, path, query, body, headers))
            status = _status(await reader.readuntil(b"\r\n\r\n"))
            if not 200 <= status < 300:
                _result(status, await reader.read())
            return EngineStream(reader, writer)
        except (OSError, EOFError) as error:
            writer.close()
            raise self._unavailable(error) from error
        except BaseException:
            writer.close()
            raise

    def _unavailable(self, error: Exception) -> EngineUnavailable:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return EngineUnavailable(f"the Docker engine does not answer at {self.path} ({reason})")


class EngineStream:
    """What the engine sends after the head of its answer. Close it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def rest(self) -> bytes:
        """Return everything up to the end."""
        return await self._reader.read()

    async def lines(self) -> AsyncIterator[Any]:
        """Yield the JSON documents that come, one on each line."""
        while line := await self._reader.readline():
            with contextlib.suppress(ValueError):
                yield json.loads(line)

    async def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield what a container without a terminal writes: 1 for its output, 2 for its errors, and the bytes."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await self._reader.readexactly(8)
                yield head[0], await self._reader.readexactly(int.from_bytes(head[4:], "big"))

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


def _request(
    method: str, path: str, query: Mapping[str, str] | None, body: Any,
    headers: Mapping[str, str] | None = None,
) -> bytes:  # fmt: skip
    target = f"{path}?{urlencode(query)}" if query else path
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {target} HTTP/1.0", "Host: docker", f"Content-Length: {len(content)}"]
    lines += ["Content-Type: application/json"] if content else []
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join((*lines, "", "")).encode() + content


def _status(head: bytes) -> int:
    words = head.split(None, 2)
    if len(words) < 2 or not words[1].isdigit():
        raise EngineUnavailable("what answers at the Docker engine's socket does not speak HTTP")
    return int(words[1])


def _result(status: int, content: bytes) -> Any:
    try:
        value = json.loads(content) if content.strip() else None
    except ValueError:
        value = None
    if 200 <= status < 400:
        return value
    message = value.get("message") if isinstance(value, dict) else None
    raise EngineError(status, message or content.decode("utf-8", "replace").strip() or f"status {status}")
