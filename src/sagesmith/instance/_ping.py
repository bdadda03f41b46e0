"""One `/ping` over frames, on a connection of its own."""

from __future__ import annotations

import asyncio
from typing import Final

from sagesmith_toolkit.frames import REQUEST, RESPONSE

__all__ = ["ping"]

_HEAD: Final = b"/ping\0\0\0"
_NUMBER: Final = 1
_OK: Final = 200


async def ping(socket_path: str, timeout_s: float) -> bool:
    """Return True if the model server on *socket_path* answers `/ping` with 200 within *timeout_s*."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(socket_path)
            try:
                writer.write(REQUEST.pack(REQUEST.size - 4 + len(_HEAD), _NUMBER, len(_HEAD)) + _HEAD)
                length, number, status, _ = RESPONSE.unpack(await reader.readexactly(RESPONSE.size))
                await reader.readexactly(length - (RESPONSE.size - 4))
                return bool(status == _OK and number == _NUMBER)
            finally:
                writer.close()
    except (OSError, EOFError, TimeoutError):
        return False
