"""A notebook's way out: an HTTP proxy on a Unix socket, which opens tunnels (``CONNECT host:443``).

The SDKs name some of AWS's hosts in their code, where no setting reaches; through HTTPS_PROXY they come here and are
led to the server, which answers under those names too (TLS passes through untouched). Other hosts are reached directly
or through the proxy that this machine uses. A notebook without internet access is let through to the server alone.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

from sagesmith.connect import Upstream, answer, is_aws, is_telemetry
from sagesmith.tunnels import Stream, TunnelProxy
from sagesmith_toolkit.sockets import unix_address

__all__ = ["Door"]


class Door(TunnelProxy):
    """One notebook's proxy, listening on a Unix socket; `open` and `close` on its loop.

    Args:
        server_url: where the server answers.
        internet: whether other hosts than the server can be reached.
        upstream: the proxy that leads to the rest of the world.
    """

    def __init__(self, server_url: str, *, internet: bool, upstream: Upstream) -> None:
        super().__init__(upstream)
        address = urlsplit(server_url)
        self.server = (address.hostname or "127.0.0.1", address.port or 443)
        self._internet = internet

    async def open(self, path: Path) -> None:
        """Listen at *path*."""
        path.unlink(missing_ok=True)
        with unix_address(str(path)) as short:
            self._listener = await asyncio.start_unix_server(self.accept, short)

    async def tunnel(self, host: str, port: int, client: Stream) -> None:
        """Lead to the server, or to another host if that is allowed."""
        if is_telemetry(host):
            await answer(client[1], "403 Forbidden", "Sagesmith keeps no telemetry.\n")
            return
        here = (host, port) == self.server or (port == 443 and is_aws(host))
        if not here and not self._internet:
            text = f"{host} cannot be reached: DirectInternetAccess of this notebook instance is Disabled.\n"
            await answer(client[1], "403 Forbidden", text)
            return
        far = asyncio.open_connection(*self.server) if here else self.reach(host, port)
        await self.pass_through(client, far, f"{host}:{port}")
