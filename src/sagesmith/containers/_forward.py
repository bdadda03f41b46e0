"""A way from a container's network to the control plane, which listens on this machine's loopback only.

The agent listens on the gateway of the container's network, an address that exists on this machine alone, lets
nobody in but its own container, and passes the bytes on to the server, from there on with TLS. So programs in
the container need not trust our authority: what they sign stays signed, as the Host header goes through.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

__all__ = ["Forwarder", "Target"]

_PIECE: Final = 256 * 1024
_KNOWN_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where the server answers now. `ca_file` is for ``https``."""

    url: str
    ca_file: str = ""


class Forwarder:
    """One listening port. `url` is what the container is told; belongs to the event loop that opened it."""

    def __init__(self, target: Callable[[], Target]) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._peer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    async def open(self, host: str) -> None:
        """Listen on *host*, an address of this machine, on any free port.

        Raises:
            OSError: it is no address of this machine.
        """
        self._server = await asyncio.start_server(self._accept, host, 0)
        self.url = f"http://{host}:{self._server.sockets[0].getsockname()[1]}"

    def allow(self, address: str) -> None:
        """Let connections from *address* through, and no others."""
        if not self._peer.done():
            self._peer.set_result(address)

    def close(self) -> None:
        """Stop listening and break what goes on."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        self._peer.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_KNOWN_S):
                allowed = await asyncio.shield(self._peer)
            if writer.get_extra_info("peername")[0] != allowed:
                return
            target = self._target()
            place = urlsplit(target.url)
            context = (
                ssl.create_default_context(cafile=target.ca_file or None) if place.scheme == "https" else None
            )
            there, back = await asyncio.open_connection(place.hostname, place.port, ssl=context)
        except (OSError, ValueError, TimeoutError):
            return
        else:
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(_pump(reader, back))
                    both.create_task(_pump(there, writer))
            finally:
                back.close()
        finally:
            writer.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(_PIECE):
            sink.write(data)
            await sink.drain()
    # TLS cannot say "nothing more comes" in one direction; a connection that one side has left is over.
    sink.close()
