"""Where the time comes from: a function without arguments, so that tests can bring their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Clock", "system_clock"]

Clock: TypeAlias = Callable[[], float]
"""Returns the time in seconds since 1970-01-01 UTC, as a float with at least millisecond precision."""

system_clock: Clock = time.time
