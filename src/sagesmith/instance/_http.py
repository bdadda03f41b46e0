"""A small HTTP/1.1 client on asyncio streams, for the few requests an agent makes of its control plane.

One connection, kept open; a request that fails closes it, and the next one connects again. An HTTP library
would take more time to import than an agent takes to start.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

__all__ = ["Connection", "ConnectionLost"]

_MAX_BODY = 64 * 1024 * 1024


class ConnectionLost(OSError):
    """The server cannot be reached, went away in the middle, or does not speak HTTP."""


class Connection:
    """Requests to one server, one at a time. `base` may be changed; it is used from the next connect on."""

    def __init__(self, base: str, ca_file: str, headers: Mapping[str, str]) -> None:
        self.base = base
        self._ca_file = ca_file
        self._headers = headers
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def request(
        self, method: str, path: str, body: bytes = b"", *, timeout_s: float
    ) -> tuple[int, bytes]:
        """Return status and body of the answer.

        Raises:
            ConnectionLost: there is none. Whether the server acted on the request is then unknown.
        """
        try:
            async with asyncio.timeout(timeout_s):
                if self._writer is None:
                    await self._connect()
                return await self._exchange(method, path, body)
        except BaseException as error:
            self.close()
            # Whatever a broken stream raises: an agent whose task ended by it would be silent for ever.
            if isinstance(error, Exception):
                raise ConnectionLost(f"{self.base}: {error or type(error).__name__}") from error
            raise

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._writer is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self._writer.close()
        self._reader = self._writer = None

    async def _connect(self) -> None:
        url = urlsplit(self.base)
        context = None
        if url.scheme == "https":
            context = ssl.create_default_context(cafile=self._ca_file or None)
        port = url.port or (443 if context else 80)
        self._reader, self._writer = await asyncio.open_connection(url.hostname, port, ssl=context)

    async def _exchange(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        reader, writer = self._reader, self._writer
        if reader is None or writer is None:
            raise EOFError("the connection is closed")
        headers = {"host": urlsplit(self.base).netloc, "content-length": str(len(body)), **self._headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        await writer.drain()
        answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(answer[0].split(" ", 2)[1])
        fields = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in answer[1:])
        }
        length = int(fields["content-length"]) if "content-length" in fields else 0
        if length > _MAX_BODY or "transfer-encoding" in fields:
            raise ValueError("not an answer of the control plane")
        content = await reader.readexactly(length)
        if fields.get("connection", "").lower() == "close":
            self.close()
        return status, content
