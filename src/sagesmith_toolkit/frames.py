"""The frames between the gateway and a model server: length-prefixed, numbered, pipelined on one stream.

Request::

    u32 length   of everything after these 4 bytes
    u32 number   chosen by the gateway, from 1 to 2**31 - 1; the response carries the same
    u16 head     length of the head that follows
    head         UTF-8, fields separated by NUL:
                 path, content type, accept, custom attributes, then further "name=value" fields
    body         the rest

Response::

    u32 length
    u32 number
    u16 status   as in HTTP
    u16 head
    head         content type NUL custom attributes NUL further "name=value" fields
    body

All integers are little-endian. `path` is ``/invocations`` or ``/ping``. Responses may come in any order. The
head of a client's requests is nearly always the same bytes, so that a server can keep what it parsed of it in
a dictionary. A frame larger than `MAX_FRAME` ends the connection.

A response numbered 0 (`GOING`) answers nothing: the server is about to end. It still answers what it was sent
before, and wants nothing more.

A request to the path `STREAM` is one to ``/invocations`` whose answer may come in parts: responses with the bit
`PART` in their number, in order, as the model makes them, then the response itself with what is left. Its status may
be an error's, too. No more than `WINDOW` bytes are sent ahead: the gateway says by a request with the same number to
the path `MORE` how many bytes (u32, the body) have reached the client since it last said so, and by one to `STOP`
that nobody wants the rest; after that comes nothing but the response. Neither is answered by itself. So one slow
client holds up neither the connection nor the others on it.
"""

from __future__ import annotations

import struct

__all__ = [
    "GOING", "MAX_FRAME", "MORE", "PART", "REQUEST", "RESPONSE", "SIZE", "STOP", "STREAM", "WINDOW", "FrameBuffer",
]  # fmt: skip

REQUEST = struct.Struct("<IIH")
RESPONSE = struct.Struct("<IIHH")
MAX_FRAME = 128 * 1024 * 1024
GOING = RESPONSE.pack(RESPONSE.size - 4, 0, 503, 0)

SIZE = struct.Struct("<I")
PART = 0x80000000
STREAM = "/invocations-response-stream"
MORE = "/stream/more"
STOP = "/stream/stop"
WINDOW = 256 * 1024


class FrameBuffer:
    """Gathers the pieces of a stream until a whole frame is there, copying each byte once.

    Appending to one growing buffer instead would copy a body of 6 MB, which arrives in some 24 pieces, 12 times.
    """

    __slots__ = ("_have", "_need", "_parts")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 0

    def add(self, data: bytes) -> bytes:
        """Return what can be parsed now, from the start of a frame; b"" while a frame is incomplete."""
        if not self._parts:
            return data
        self._parts.append(data)
        self._have += len(data)
        if self._have < self._need:
            return b""
        whole = b"".join(self._parts)
        self._parts.clear()
        return whole

    def keep(self, rest: bytes, need: int) -> None:
        """Keep *rest*, the start of a frame, until *need* bytes from its start are there."""
        self._parts.append(rest)
        self._have = len(rest)
        self._need = need
