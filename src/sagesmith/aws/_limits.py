"""What a client of the HTTP server may take of it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how much a client may take."""

    head_s: float = 20.0
    """from a request's first byte to the end of its headers"""
    body_s: float = 60.0
    """between two pieces of a body"""
    idle_s: float = 120.0
    """between two requests"""
    write_s: float = 120.0
    """for a client that does not read its answer"""
    linger_s: float = 2.0
    """for a client that still sends when it was already answered"""
    target_bytes: int = 16 * 1024
    head_bytes: int = 64 * 1024
    pipelined: int = 16
