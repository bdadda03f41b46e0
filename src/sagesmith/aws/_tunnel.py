"""A connection that speaks another protocol after its request: both ways are piped to somebody behind the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

__all__ = ["Client", "Passage", "Tunnel"]

_PIECE: Final = 64 * 1024


@dataclass(slots=True)
class Tunnel:
    """Where an upgraded connection leads.

    Args:
        headers: those of the answer 101, without `Connection` and `Upgrade`.
        reader, writer: the far end. The server closes it when the client leaves, and leaves the client when it closes.
        rest: what the far end has said already.
        protocol: what `Upgrade` says.
    """

    headers: Sequence[tuple[str, str]]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    rest: bytes = b""
    protocol: str = "websocket"


class Client(Protocol):
    """The near end: a connection whose client asked for another protocol."""

    @property
    def closed(self) -> bool:
        """Whether the client has gone."""
        ...

    @property
    def write(self) -> Callable[[bytes], None]:
        """What sends bytes to the client."""
        ...

    async def writable(self) -> None:
        """Return when the client has taken most of what was written."""
        ...

    def pause(self) -> None:
        """Read nothing more from the client until `resume` was called as often."""
        ...

    def resume(self) -> None:
        """Read on, if nobody else has paused."""
        ...

    def close(self) -> None:
        """Close when what was written has reached the client."""
        ...


class Passage:
    """The way between *client* and the far end, from the moment the client asks for it; *rest* is what he said already.

    Until it is known where it leads, the client is not read from.
    """

    def __init__(self, client: Client, rest: bytes) -> None:
        self._client = client
        self._early = [rest] if rest else []
        self._tunnel: Tunnel | None = None
        self._out: asyncio.Task[None] | None = None
        self._filling = False
        client.pause()

    @property
    def is_open(self) -> bool:
        """Whether it leads anywhere yet."""
        return self._tunnel is not None

    def open(self, tunnel: Tunnel, loop: asyncio.AbstractEventLoop) -> None:
        """Let it lead through *tunnel*."""
        self._tunnel = tunnel
        self._out = loop.create_task(self._carry_out(tunnel))
        early, self._early = self._early, []
        for piece in early:
            self.carry_in(piece)
        self._client.resume()

    def close(self) -> None:
        """Close the far end: the client has gone."""
        if self._tunnel is not None:
            self._tunnel.writer.close()

    def carry_in(self, data: bytes) -> None:
        """Pass on what the client says; a far end that is slow to take it stops him."""
        tunnel = self._tunnel
        if tunnel is None:
            self._early.append(data)
            return
        tunnel.writer.write(data)
        if tunnel.writer.transport.get_write_buffer_size() > _PIECE and not self._filling:
            self._filling = True
            self._client.pause()
            asyncio.get_running_loop().create_task(self._drained(tunnel)).add_done_callback(_retrieve)

    async def _drained(self, tunnel: Tunnel) -> None:
        try:
            await tunnel.writer.drain()
        finally:
            self._filling = False
            self._client.resume()

    async def _carry_out(self, tunnel: Tunnel) -> None:
        """Pass on what the far end says, until it has said all; a client that is slow to take it stops it."""
        client = self._client
        try:
            while not client.closed and (piece := await tunnel.reader.read(_PIECE)):
                client.write(piece)
                await client.writable()
        except OSError:
            pass  # it broke off: so do we
        finally:
            tunnel.writer.close()
            client.close()


def _retrieve(task: asyncio.Task[None]) -> None:
    """Take the fault of a far end that broke off: whoever reads from it notices too."""
    if not task.cancelled():
        task.exception()
