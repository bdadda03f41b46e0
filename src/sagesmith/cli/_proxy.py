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
from sagesmith.connect import (
    Upstream,
    UpstreamRefused,
    answer,
    connect_target,
    is_aws,
    is_telemetry,
    pipe_both,
)

__all__ = ["ConnectProxy", "Upstream", "run_behind_proxy"]

_HEAD_TIMEOUT_S: Final = 60.0
_CONNECT_TIMEOUT_S: Final = 30.0
_PASSED_ON: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class ConnectProxy:
    """The proxy. Everything happens on the loop that `start` was called on.

    Args:
        authority: makes the certificates for AWS's hosts.
        server: host and port where this server speaks HTTPS.
        upstream: the proxy that leads to the rest of the world.
    """

    def __init__(self, authority: Authority, server: tuple[str, int], upstream: Upstream) -> None:
        self._authority = authority
        self._server = server
        self._upstream = upstream
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._to_server = authority.client_context()

    async def start(self) -> str:
        """Listen on a free port of the loopback and return the proxy's URL."""
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._listener.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    async def close(self) -> None:
        """Stop listening and end every connection."""
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
        try:
            await self._serve(reader, writer)
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass  # the client left, or sent what is no request; nobody is there to be told
        except asyncio.CancelledError:
            pass
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _HEAD_TIMEOUT_S)
        target = connect_target(head)
        if target is None:
            await answer(
                writer, "501 Not Implemented", "This proxy only opens tunnels (CONNECT) for HTTPS.\n"
            )
            return
        host, port = target
        if port == 443 and is_aws(host):
            await self._lead_here(host, reader, writer)
            return
        try:
            far_reader, far_writer = await asyncio.wait_for(self._reach(host, port), _CONNECT_TIMEOUT_S)
        except (OSError, TimeoutError, EOFError, UpstreamRefused) as error:
            await answer(
                writer,
                "502 Bad Gateway",
                f"Cannot reach {host}:{port}: {str(error) or 'it took too long'}.\n",
            )
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await pipe_both(reader, writer, far_reader, far_writer)

    async def _reach(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._upstream.serves(host):
            return await self._upstream.connect(host, port)
        return await asyncio.open_connection(host, port)

    async def _lead_here(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """End TLS as *host* and pipe what comes to the server."""
        context = await asyncio.to_thread(self._authority.leaf_context, host.lower())
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await writer.start_tls(context)
        if is_telemetry(host):
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _HEAD_TIMEOUT_S)
            await answer(writer, "404 Not Found", "Sagesmith keeps no telemetry.\n")
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(
                *self._server, ssl=self._to_server, server_hostname=self._server[0]
            )
        except OSError as error:
            await answer(
                writer, "503 Service Unavailable", f"The Sagesmith server does not answer: {error}\n"
            )
            return
        await pipe_both(reader, writer, far_reader, far_writer)


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
