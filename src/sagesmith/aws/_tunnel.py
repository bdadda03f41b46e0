"""A connection that speaks another protocol after its request: both ways are piped to somebody behind the server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Tunnel"]


@dataclass(slots=True)
class Tunnel:
    """Where an upgraded connection leads.

    Args:
        headers: those of the answer 101, without `Connection` and `Upgrade`.
        reader, writer: the far end. The server closes it when the client leaves, and leaves the client when it closes.
        rest: what the far end has said already.
        protocol: what `Upgrade` says.
    """

    headers: Sequence[tuple[str, str]]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    rest: bytes = b""
    protocol: str = "websocket"
