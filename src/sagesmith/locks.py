"""The lock of a home folder: one server at a time, and a way to see whether one lives.

A running server holds an exclusive lock on ``run/lock`` for as long as it lives; the system releases it when the
process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator

from sagesmith.config import Home

__all__ = ["HomeInUse", "hold_lock", "is_locked"]


class HomeInUse(RuntimeError):
    """Another server uses the home folder."""


@contextlib.contextmanager
def hold_lock(home: Home) -> Iterator[None]:
    """Hold the home's lock for the length of the block.

    Raises:
        HomeInUse: another process holds it.
    """
    home.runtime.mkdir(parents=True, exist_ok=True)
    with (home.runtime / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HomeInUse(f"Another Sagesmith server already uses the home folder {home.path}.") from None
        yield


def is_locked(home: Home) -> bool:
    """Whether a server of this home lives."""
    try:
        file = (home.runtime / "lock").open("r")
    except FileNotFoundError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
