"""A notebook's way out: an HTTP proxy on a Unix socket, which opens tunnels (``CONNECT host:443``).

The SDKs name some of AWS's hosts in their code, where no setting reaches; through HTTPS_PROXY they come here and are
led to the server, which answers under those names too (TLS passes through untouched). Other hosts are reached directly
or through the proxy that this machine uses. A notebook without internet access is let through to the server alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sagesmith.connect import (
    Upstream,
    UpstreamRefused,
    answer,
    connect_target,
    is_aws,
    is_telemetry,
    pipe_both,
)
from sagesmith_toolkit.sockets import unix_address

__all__ = ["Door"]

_HEAD_S: Final = 60.0
_CONNECT_S: Final = 30.0


class Door:
    """One notebook's proxy, listening on a Unix socket; `open` and `close` on its loop.

    Args:
        server_url: where the server answers.
        internet: whether other hosts than the server can be reached.
        upstream: the proxy that leads to the rest of the world.
    """

    def __init__(self, server_url: str, *, internet: bool, upstream: Upstream) -> None:
        address = urlsplit(server_url)
        self.server = (address.hostname or "127.0.0.1", address.port or 443)
        self._internet = internet
        self._upstream = upstream
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self, path: Path) -> None:
        """Listen at *path*."""
        path.unlink(missing_ok=True)
        with unix_address(str(path)) as short:
            self._listener = await asyncio.start_unix_server(self._accept, short)

    async def close(self) -> None:
        """Stop listening, and end every connection."""
        if self._listener is not None:
            self._listener.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        with contextlib.suppress(
            OSError, EOFError, TimeoutError, asyncio.LimitOverrunError, asyncio.CancelledError
        ):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _HEAD_S)
        target = connect_target(head)
        if target is None:
            await answer(
                writer, "501 Not Implemented", "This proxy only opens tunnels (CONNECT), for HTTPS.\n"
            )
            return
        host, port = target
        if is_telemetry(host):
            await answer(writer, "403 Forbidden", "Sagesmith keeps no telemetry.\n")
            return
        here = target == self.server or (port == 443 and is_aws(host))
        if not here and not self._internet:
            text = f"{host} cannot be reached: DirectInternetAccess of this notebook instance is Disabled.\n"
            await answer(writer, "403 Forbidden", text)
            return
        try:
            async with asyncio.timeout(_CONNECT_S):
                if here:
                    far = await asyncio.open_connection(*self.server)
                elif self._upstream.serves(host):
                    far = await self._upstream.connect(host, port)
                else:
                    far = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError, EOFError, UpstreamRefused) as error:
            reason = str(error) or "it took too long"
            await answer(writer, "502 Bad Gateway", f"Cannot reach {host}:{port}: {reason}.\n")
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await pipe_both(reader, writer, *far)
