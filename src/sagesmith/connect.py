"""What proxies for HTTPS have in common: the request for a tunnel, AWS's hosts, the proxy before ours, and the pipe."""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

__all__ = ["Upstream", "UpstreamRefused", "answer", "connect_target", "is_aws", "is_telemetry", "pipe_both"]

_AWS: Final = re.compile(r"(?:.+\.)?(?:amazonaws\.com|amazonaws\.com\.cn|api\.aws)", re.IGNORECASE)
_TELEMETRY: Final = re.compile(r"(?:sm-pysdk-t-|dev-exp-t-).*\.s3\..*", re.IGNORECASE)
"""Buckets that the SDKs report their use to; they need a quick answer, and nobody here wants the report."""

_TARGET: Final = re.compile(rb"CONNECT (\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+):(\d{1,5}) HTTP/1\.[01]\r\n")
_PIECE: Final = 1 << 16


class UpstreamRefused(Exception):
    """The real destination, or the proxy before it, cannot be reached."""


def connect_target(head: bytes) -> tuple[str, int] | None:
    """Return host and port that the request *head* asks a tunnel to; None if it asks for something else."""
    match = _TARGET.match(head)
    return (match[1].decode("latin-1").strip("[]"), int(match[2])) if match else None


def is_aws(host: str) -> bool:
    """Whether *host* is one of AWS's service addresses."""
    return _AWS.fullmatch(host) is not None


def is_telemetry(host: str) -> bool:
    """Whether the SDKs report their use to *host*."""
    return _TELEMETRY.fullmatch(host) is not None


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
            UpstreamRefused: the proxy refused, with its answer.
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
            said = await reader.readuntil(b"\r\n\r\n")
            status = said.split(b" ", 2)
            if len(status) < 2 or not status[1].startswith(b"2"):
                line = said.partition(b"\r\n")[0].decode("latin-1")
                raise UpstreamRefused(f"the proxy {address.hostname} answered {line!r}")
        except BaseException:
            writer.close()
            raise
        return reader, writer


async def answer(writer: asyncio.StreamWriter, status: str, text: str) -> None:
    """Answer a request that gets no tunnel."""
    body = text.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


async def pipe_both(
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
