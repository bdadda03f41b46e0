"""What the gateway asks of an instance with many models, over frames on a Unix socket.

``/models/load`` with a model's name below the prefix is answered with where it answers once it does, and after a space
how many microseconds it took to fetch (404: there is no such artifact; 507: there is no memory for it beside the
others, so something must be unloaded first); ``/models/unload`` when it is gone. Asking twice is harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from sagesmith_toolkit.frames import REQUEST, RESPONSE
from sagesmith_toolkit.sockets import unix_address

__all__ = ["Answer", "LoadError", "ModelOrders", "model_uri", "ready_address"]


class LoadError(Exception):
    """A model cannot be loaded; `status` as in HTTP."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status

    @classmethod
    def absent(cls, bucket: str, key: str) -> LoadError:
        """Return the error of an artifact that is not there."""
        return cls(
            404,
            f"Failed to download model data (bucket: {bucket}, key: {key}). Please ensure that there is an object "
            "located at the URL.",
        )


class Answer(NamedTuple):
    """Where a model answers, and how long its artifact took to fetch."""

    address: str
    fetched_s: float = 0.0


def model_uri(prefix: str, name: str) -> str:
    """Return where the artifact of *name* is.

    Raises:
        LoadError: 404, it is no name of one below *prefix*.
    """
    clean = posixpath.normpath(name)
    if not name or name.startswith("/") or clean.startswith("..") or "\0" in name:
        raise LoadError(404, f"{name!r} is no path below the model's prefix {prefix}.")
    return prefix.rstrip("/") + "/" + name


def ready_address(path: str, *, cached: bool) -> str:
    """Return the address of an instance whose orders are taken at *path*; see `Ready`."""
    return f"models|unix:{path}" if cached else f"models|unix:{path}|uncached"


class ModelOrders:
    """Takes orders on the Unix socket *path*.

    Args:
        load: as `Answer` says; raises `LoadError`.
        connected: called when somebody else begins to ask, who knows of no model yet.
    """

    def __init__(
        self,
        path: str,
        load: Callable[[str], Awaitable[Answer]],
        unload: Callable[[str], Awaitable[None]],
        connected: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = path
        self._load = load
        self._unload = unload
        self._connected = connected
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Begin to listen."""
        Path(self.path).unlink(missing_ok=True)
        with unix_address(self.path) as address:
            self._server = await asyncio.start_unix_server(self._serve, address)

    def close(self) -> None:
        """Take no more orders, and give up those under way."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        began = False
        with contextlib.suppress(OSError, EOFError):
            while True:
                length, number, head_size = REQUEST.unpack(await reader.readexactly(REQUEST.size))
                frame = await reader.readexactly(length - (REQUEST.size - 4))
                path = frame[:head_size].partition(b"\0")[0].decode()
                if not began and path != "/ping":
                    began = True
                    self._connected()
                name = frame[head_size:].decode("utf-8", "replace")
                task = asyncio.get_running_loop().create_task(self._answer(writer, number, path, name))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, number: int, path: str, name: str) -> None:
        status, text = 200, ""
        try:
            if path == "/models/load":
                answer = await self._load(name)
                text = f"{answer.address} {answer.fetched_s * 1e6:.0f}"
            elif path == "/models/unload":
                await self._unload(name)
            elif path != "/ping":
                status, text = 404, f"there is nothing at {path}"
        except LoadError as error:
            status, text = error.status, str(error)
        head, body = b"text/plain\0", text.encode()
        size = RESPONSE.size - 4 + len(head) + len(body)
        writer.write(RESPONSE.pack(size, number, status, len(head)) + head + body)
