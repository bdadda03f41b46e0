"""An HTTP proxy that opens tunnels (``CONNECT host:443``) and does nothing else; where they lead is its subclasses' business."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Final, TypeAlias

from sagesmith.connect import Upstream, UpstreamRefused, answer, connect_target, pipe_both

__all__ = ["ESTABLISHED", "HEAD_S", "Stream", "TunnelProxy"]

HEAD_S: Final = 60.0
"""How long a client may take for the head of its request."""
_CONNECT_S: Final = 30.0
ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
"""What a client is told once its tunnel is there."""

Stream: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class TunnelProxy(ABC):
    """Serves each connection in a task of its own. Everything happens on the loop on which it was begun to listen.

    Args:
        upstream: the proxy that leads to the rest of the world.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Stop listening, and end every connection."""
        if self._listener is not None:
            self._listener.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    @abstractmethod
    async def tunnel(self, host: str, port: int, client: Stream) -> None:
        """Serve a client that asks for a tunnel to *host*; its connection is closed afterwards."""

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection: what a listener calls."""
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_S)
            target = connect_target(head)
            if target is None:
                text = "This proxy only opens tunnels (CONNECT), for HTTPS.\n"
                await answer(writer, "501 Not Implemented", text)
            else:
                await self.tunnel(*target, (reader, writer))
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass  # the client left, or sent what is no request; nobody is there to be told
        except asyncio.CancelledError:
            pass
        finally:
            writer.close()

    async def reach(self, host: str, port: int) -> Stream:
        """Connect to *host* as this machine does.

        Raises:
            UpstreamRefused: the proxy on the way refused.
        """
        if self._upstream.serves(host):
            return await self._upstream.connect(host, port)
        return await asyncio.open_connection(host, port)

    async def pass_through(self, client: Stream, far: Awaitable[Stream], name: str) -> None:
        """Lead the client to *far* once that is there, or tell it why *name* cannot be reached."""
        try:
            async with asyncio.timeout(_CONNECT_S):
                there = await far
        except (OSError, TimeoutError, EOFError, UpstreamRefused) as error:
            reason = str(error) or "it took too long"
            await answer(client[1], "502 Bad Gateway", f"Cannot reach {name}: {reason}.\n")
            return
        client[1].write(ESTABLISHED)
        await pipe_both(*client, *there)
