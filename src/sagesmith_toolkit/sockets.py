"""Unix sockets whose path is longer than the 107 bytes that the kernel takes.

Home folders and test folders easily are. Linux reaches such a socket through a descriptor of its folder:
``/proc/self/fd/{descriptor}/{name}``.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import Iterator

__all__ = ["unix_address"]

_LONGEST = 107


@contextmanager
def unix_address(path: str) -> Iterator[str]:
    """Give a name for the socket *path* that is short enough to bind or connect to, while in the block."""
    if len(os.fsencode(path)) <= _LONGEST:
        yield path
        return
    folder, name = os.path.split(path)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)
