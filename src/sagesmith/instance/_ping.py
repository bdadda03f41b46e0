"""One `/ping`, on a connection of its own: over frames to our model server, over HTTP to a user's."""

from __future__ import annotations

import asyncio
from typing import Final

from sagesmith_toolkit.frames import REQUEST, RESPONSE
from sagesmith_toolkit.sockets import unix_address

__all__ = ["ping"]

_HEAD: Final = b"/ping\0\0\0"
_NUMBER: Final = 1
_OK: Final = 200


async def ping(address: str, timeout_s: float) -> bool:
    """Return True if the model server at *address* (see `Ready`) answers `/ping` with 200 within *timeout_s*."""
    kind, _, place = address.partition(":")
    try:
        async with asyncio.timeout(timeout_s):
            return await (_ping_frames(place) if kind == "unix" else _ping_http(place))
    except (OSError, EOFError, TimeoutError, ValueError):
        return False


async def _ping_frames(path: str) -> bool:
    with unix_address(path) as short:
        reader, writer = await asyncio.open_unix_connection(short)
    try:
        writer.write(REQUEST.pack(REQUEST.size - 4 + len(_HEAD), _NUMBER, len(_HEAD)) + _HEAD)
        length, number, status, _ = RESPONSE.unpack(await reader.readexactly(RESPONSE.size))
        await reader.readexactly(length - (RESPONSE.size - 4))
        return bool(status == _OK and number == _NUMBER)
    finally:
        writer.close()


async def _ping_http(place: str) -> bool:
    host, _, port = place.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(f"GET /ping HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n\r\n".encode())
        return (await reader.readline()).split()[1:2] == [b"200"]
    finally:
        writer.close()
