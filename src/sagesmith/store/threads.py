"""Calling the database from the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

__all__ = ["in_thread"]

T = TypeVar("T")


async def in_thread(function: Callable[..., T], /, *args: Any, **options: Any) -> T:
    """Return what *function* returns, called in a worker thread.

    Cancelling waits until the call has ended (a thread cannot be stopped): whoever has awaited the cancelled task
    knows that nothing more is written, and may close the database.
    """
    call = asyncio.get_running_loop().run_in_executor(None, partial(function, *args, **options))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        await asyncio.wait([call])
        if not call.cancelled():
            call.exception()  # looked at, so that asyncio does not complain
        raise
