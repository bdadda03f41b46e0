"""Work on the event loop that nobody awaits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

__all__ = ["Background"]


class Background:
    """Tasks that run to their end by themselves, kept from the garbage collector; all of it on one event loop.

    Args:
        log: told of what fails, with the traceback.
        failed: the sentence for that; it says what happens next.
        on_failure: called after a task has failed.
    """

    def __init__(
        self, log: logging.Logger, failed: str, on_failure: Callable[[], object] = lambda: None
    ) -> None:
        self._log: Final = log
        self._failed: Final = failed
        self._on_failure: Final = on_failure
        self._tasks: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[asyncio.Task[None]]:
        """The tasks that have not ended."""
        return iter([*self._tasks])

    def __len__(self) -> int:
        """How many those are."""
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin *work*; the task ends without an error whatever becomes of it."""
        task = asyncio.get_running_loop().create_task(self._guard(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: work.close())  # it may have been cancelled before it began
        return task

    def cancel(self) -> list[asyncio.Task[None]]:
        """Cancel all that runs; return it, to be awaited."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        return tasks

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            self._log.exception(self._failed)
            self._on_failure()
