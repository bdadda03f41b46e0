"""Rows that this server drives: each is claimed with a lease, and worked on until it needs nothing more.

A row is claimed by compare-and-set, so that of two servers on one database only one drives it. The lease is
renewed while the work lives; a server that died leaves a claim that runs out, or that its successor (of the same
owner name) takes up at once. What working on a row means is the business of a :class:`Worker`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from sagesmith.background import Background
from sagesmith.clock import Clock
from sagesmith.store.resources import Resource, Resources
from sagesmith.store.threads import in_thread

__all__ = ["LEASE_S", "ClaimedRows", "Worker"]

LEASE_S: Final = 120.0

_log = logging.getLogger(__name__)


class Worker(Protocol):
    """Works on one claimed row, on the event loop."""

    async def recover(self) -> None:
        """Take the work up where an earlier server left it."""
        ...

    async def follow(self) -> None:
        """The row is new or was changed: do what it demands now. Harmless when repeated."""
        ...

    def close(self) -> list[asyncio.Task[None]]:
        """Stop working, leave the row as it is, and return the tasks that are being cancelled."""
        ...


W = TypeVar("W", bound=Worker)


class ClaimedRows(Generic[W]):
    """All rows of one kind in some statuses, each with its worker. All but :meth:`notify` is for the event loop.

    Args:
        statuses: a row with another status needs no worker.
        make: makes the worker of a row; it calls `ended` with its ARN when nothing is left to be done.
        owner: the name under which rows are claimed; the same one after a restart.
        poll_s: how often all rows are looked at, in case a notification was lost.
    """

    def __init__(
        self,
        resources: Resources,
        kind: str,
        statuses: Sequence[str],
        make: Callable[[Resource], W],
        *,
        owner: str,
        clock: Clock,
        poll_s: float,
    ) -> None:
        self._resources = resources
        self._kind = kind
        self._statuses = statuses
        self._make = make
        self._owner = owner
        self._clock = clock
        self._poll_s = poll_s
        self._renewed: dict[str, float] = {}
        self._taking: set[str] = set()
        self._work = Background(_log, f"a row of kind {kind} could not be looked at; it will be tried again")
        self._loop: asyncio.AbstractEventLoop | None = None
        self.workers: dict[str, W] = {}

    async def start(self) -> None:
        """Recover every row, then go on with whatever comes. Call it once."""
        self._loop = asyncio.get_running_loop()
        rows = await in_thread(self._resources.with_status, self._kind, self._statuses)
        self._taking.update(row.arn for row in rows)  # whatever comes for them meanwhile
        for row in rows:
            try:
                worker = self._worker_of(await in_thread(self._resources.claim, row, self._owner, LEASE_S))
            finally:
                self._taking.discard(row.arn)
            if worker is not None:
                try:
                    await worker.recover()
                except Exception:
                    _log.exception("%s could not be taken up; it will be tried again", row.arn)
        self._work.spawn(self._poll())

    def notify(self, arn: str) -> None:
        """Look at the row now: it is new, or was changed. Thread-safe, returns at once.

        *arn* is spelled as in the row.
        """
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._wake, arn)

    def ended(self, arn: str) -> None:
        """Let go of the row: its worker has nothing more to do."""
        self.workers.pop(arn, None)
        self._renewed.pop(arn, None)
        if self._loop is not None:
            self._work.spawn(self._take(arn))  # the name may have been used again meanwhile

    async def close(self) -> None:
        """Stop all workers; the rows stay as they are and keep their claims."""
        self._loop = None
        tasks = self._work.cancel()
        for worker in self.workers.values():
            tasks += worker.close()
        self.workers.clear()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _wake(self, arn: str) -> None:
        if self._loop is not None:
            worker = self.workers.get(arn)
            self._work.spawn(worker.follow() if worker is not None else self._take(arn))

    async def _take(self, arn: str) -> None:
        if arn in self._taking:
            return
        self._taking.add(arn)
        try:
            if arn in self.workers:
                return
            claimed = await in_thread(self._find_and_claim, arn)
            worker = self._worker_of(claimed)
        finally:
            self._taking.discard(arn)
        if worker is not None:
            await worker.follow()

    def _find_and_claim(self, arn: str) -> Resource | None:
        row = self._resources.by_arn(arn)
        if row is None or row.status not in self._statuses:
            return None
        return self._resources.claim(row, self._owner, LEASE_S)

    def _worker_of(self, claimed: Resource | None) -> W | None:
        if claimed is None or self._loop is None:
            return None
        self._renewed[claimed.arn] = self._clock()
        worker = self.workers[claimed.arn] = self._make(claimed)
        return worker

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                rows = await in_thread(self._resources.with_status, self._kind, self._statuses)
                for row in rows:
                    await self._look_at(row)
            except Exception:
                _log.exception("looking at the rows of kind %s failed; it will be tried again", self._kind)

    async def _look_at(self, row: Resource) -> None:
        worker = self.workers.get(row.arn)
        if worker is None:
            await self._take(row.arn)
            return
        if self._clock() - self._renewed.get(row.arn, 0.0) > LEASE_S / 3:
            if await in_thread(self._resources.claim, row, self._owner, LEASE_S) is None:
                _log.warning("%s is gone, or another server drives it now", row.arn)
                self.workers.pop(row.arn, None)
                worker.close()
                return
            self._renewed[row.arn] = self._clock()
        await worker.follow()
