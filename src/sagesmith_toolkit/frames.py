"""The frames between the gateway and a model server: length-prefixed, numbered, pipelined on one stream.

Request::

    u32 length   of everything after these 4 bytes
    u32 number   chosen by the gateway; the response carries the same
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
"""

from __future__ import annotations

import struct

__all__ = ["MAX_FRAME", "REQUEST", "RESPONSE"]

REQUEST = struct.Struct("<IIH")
RESPONSE = struct.Struct("<IIHH")
MAX_FRAME = 128 * 1024 * 1024
