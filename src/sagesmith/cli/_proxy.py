"""The proxy of `sagesmith run`: AWS's hosts lead to this server, every other host leads where it always did.

The official SDKs name some of AWS's hosts in their code, where no setting reaches. The command's HTTPS_PROXY is
therefore this proxy. A client asks it for a tunnel (``CONNECT host:443``); for a host of AWS the proxy ends TLS
itself, with a certificate of our authority, and pipes what it reads to the server, byte for byte, so that
the signature still holds; for any other host it only pipes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from sagesmith.authority import Authority
from sagesmith.connect import Upstream, answer, is_aws, is_telemetry, pipe_both
from sagesmith.tunnels import ESTABLISHED, HEAD_S, Stream, TunnelProxy

__all__ = ["ConnectProxy", "Upstream", "run_behind_proxy"]

_PASSED_ON: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class ConnectProxy(TunnelProxy):
    """The proxy. Everything happens on the loop that `start` was called on.

    Args:
        authority: makes the certificates for AWS's hosts.
        server: host and port where this server speaks HTTPS.
        upstream: the proxy that leads to the rest of the world.
    """

    def __init__(self, authority: Authority, server: tuple[str, int], upstream: Upstream) -> None:
        super().__init__(upstream)
        self._authority = authority
        self._server = server
        self._to_server = authority.client_context()

    async def start(self) -> str:
        """Listen on a free port of the loopback and return the proxy's URL."""
        self._listener = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        port = self._listener.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    async def tunnel(self, host: str, port: int, client: Stream) -> None:
        """Lead AWS's hosts here and every other where it always led."""
        if port == 443 and is_aws(host):
            await self._lead_here(host, client)
        else:
            await self.pass_through(client, self.reach(host, port), f"{host}:{port}")

    async def _lead_here(self, host: str, client: Stream) -> None:
        """End TLS as *host* and pipe what comes to the server."""
        reader, writer = client
        context = await asyncio.to_thread(self._authority.leaf_context, host.lower())
        writer.write(ESTABLISHED)
        await writer.start_tls(context)
        if is_telemetry(host):
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_S)
            await answer(writer, "404 Not Found", "Sagesmith keeps no telemetry.\n")
            return
        try:
            far = await asyncio.open_connection(
                *self._server, ssl=self._to_server, server_hostname=self._server[0]
            )
        except OSError as error:
            await answer(
                writer, "503 Service Unavailable", f"The Sagesmith server does not answer: {error}\n"
            )
            return
        await pipe_both(*client, *far)


async def run_behind_proxy(
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    authority: Authority,
    server: tuple[str, int],
    upstream: Upstream,
) -> int:
    """Run *argv* with its HTTPS_PROXY set to a new proxy; return the exit code (128 + signal if one ended it).

    Raises:
        OSError: the command cannot be started.
    """
    proxy = ConnectProxy(authority, server, upstream)
    url = await proxy.start()
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, env={**environ, "HTTPS_PROXY": url, "https_proxy": url}
        )
        with _passing_signals(process):
            code = await process.wait()
    finally:
        await proxy.close()
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _passing_signals(process: asyncio.subprocess.Process) -> Iterator[None]:
    """Pass signals on to *process*. What a terminal sends, it sends to both; that is not passed on again."""
    loop = asyncio.get_running_loop()

    def pass_on(number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)

    def interrupt() -> None:
        if not _in_foreground():
            pass_on(signal.SIGINT)

    for number in _PASSED_ON:
        loop.add_signal_handler(number, pass_on, number)
    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        for number in (*_PASSED_ON, signal.SIGINT):
            loop.remove_signal_handler(number)


def _in_foreground() -> bool:
    """Whether a terminal's keys signal our process group, and with it the command."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False
