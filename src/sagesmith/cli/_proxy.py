"""The proxy of `sagesmith run`: AWS's hosts lead to this server, every other host leads where it always did.

The official SDKs name some of AWS's hosts in their code, where no setting reaches. The command's HTTPS_PROXY is
therefore this proxy. A client asks it for a tunnel (``CONNECT host:443``); for a host of AWS the proxy ends TLS
itself, with a certificate of our authority, and pipes what it reads to the server, byte for byte, so that
the signature still holds; for any other host it only pipes.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import signal
import ssl
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from sagesmith.authority import Authority

__all__ = ["ConnectProxy", "Upstream", "run_behind_proxy"]

_AWS: Final = re.compile(r"(?:.+\.)?(?:amazonaws\.com|amazonaws\.com\.cn|api\.aws)", re.IGNORECASE)
_TELEMETRY: Final = re.compile(r"(?:sm-pysdk-t-|dev-exp-t-).*\.s3\..*", re.IGNORECASE)
"""Buckets that the SDKs report their use to; they need a quick answer, and nobody here wants the report."""

_TARGET: Final = re.compile(rb"CONNECT (\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+):(\d{1,5}) HTTP/1\.[01]\r\n")
_PIECE: Final = 1 << 16
_HEAD_TIMEOUT_S: Final = 60.0
_CONNECT_TIMEOUT_S: Final = 30.0
_PASSED_ON: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class _ConnectFailedError(Exception):
    """The real destination, or the proxy before it, cannot be reached."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """The proxy that was set before ours, and what was to go around it. `url` is empty if there was none."""

    url: str = ""
    excluded: tuple[str, ...] = ()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Upstream:
        """Return what *environ* says of proxies for HTTPS."""
        names = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
        url = next((environ[name] for name in names if environ.get(name)), "")
        excluded = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
        return cls(
            url if not url or "://" in url else f"http://{url}",
            tuple(name.strip().lower() for name in excluded.split(",") if name.strip()),
        )

    def serves(self, host: str) -> bool:
        """Whether connections to *host* go through this proxy."""
        if not self.url or "*" in self.excluded:
            return False
        host = host.lower()
        return not any(
            host == name.lstrip(".") or host.endswith("." + name.lstrip(".")) for name in self.excluded
        )

    async def connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a tunnel to *host* through this proxy.

        Raises:
            _ConnectFailedError: the proxy refused, with its answer.
        """
        address = urlsplit(self.url)
        secure = address.scheme == "https"
        reader, writer = await asyncio.open_connection(
            address.hostname, address.port or (443 if secure else 80), ssl=secure or None
        )
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
        if address.username is not None:
            user = f"{unquote(address.username)}:{unquote(address.password or '')}"
            head += f"Proxy-Authorization: Basic {base64.b64encode(user.encode()).decode()}\r\n"
        try:
            writer.write(head.encode() + b"\r\n")
            answer = await reader.readuntil(b"\r\n\r\n")
            status = answer.split(b" ", 2)
            if len(status) < 2 or not status[1].startswith(b"2"):
                line = answer.partition(b"\r\n")[0].decode("latin-1")
                raise _ConnectFailedError(f"the proxy {address.hostname} answered {line!r}")
        except BaseException:
            writer.close()
            raise
        return reader, writer


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
        match = _TARGET.match(head)
        if match is None:
            await _answer(
                writer, "501 Not Implemented", "This proxy only opens tunnels (CONNECT) for HTTPS.\n"
            )
            return
        host, port = match[1].decode("latin-1").strip("[]"), int(match[2])
        if port == 443 and _AWS.fullmatch(host):
            await self._lead_here(host, reader, writer)
            return
        try:
            far_reader, far_writer = await asyncio.wait_for(self._reach(host, port), _CONNECT_TIMEOUT_S)
        except (OSError, TimeoutError, EOFError, _ConnectFailedError) as error:
            await _answer(
                writer,
                "502 Bad Gateway",
                f"Cannot reach {host}:{port}: {str(error) or 'it took too long'}.\n",
            )
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await _pipe_both(reader, writer, far_reader, far_writer)

    async def _reach(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._upstream.serves(host):
            return await self._upstream.connect(host, port)
        return await asyncio.open_connection(host, port)

    async def _lead_here(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """End TLS as *host* and pipe what comes to the server."""
        context = await asyncio.to_thread(self._authority.leaf_context, host.lower())
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await writer.start_tls(context)
        if _TELEMETRY.fullmatch(host):
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _HEAD_TIMEOUT_S)
            await _answer(writer, "404 Not Found", "Sagesmith keeps no telemetry.\n")
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(
                *self._server, ssl=self._to_server, server_hostname=self._server[0]
            )
        except OSError as error:
            await _answer(
                writer, "503 Service Unavailable", f"The Sagesmith server does not answer: {error}\n"
            )
            return
        await _pipe_both(reader, writer, far_reader, far_writer)


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


async def _answer(writer: asyncio.StreamWriter, status: str, text: str) -> None:
    body = text.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


async def _pipe_both(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    far_reader: asyncio.StreamReader,
    far_writer: asyncio.StreamWriter,
) -> None:
    """Pipe both ways until both ends are done."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_pipe(reader, far_writer))
            group.create_task(_pipe(far_reader, writer))
    except* (OSError, ssl.SSLError):
        pass  # one side broke off; closing the other tells it
    finally:
        far_writer.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    else:  # TLS knows no half-closed connection
        writer.close()
