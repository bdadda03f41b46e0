"""The driver of inference components: copies of models on the instances of endpoints that have no model themselves.

Which rows are driven is `store.claims`' business, one component's way `_component`'s, where copies go `_tenants`', and
how many instances there are for them `_managed_scaling`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from sagesmith.background import Background
from sagesmith.hosting._component import COMPONENT_KIND, ComponentWorker
from sagesmith.hosting._managed_scaling import ManagedScaling
from sagesmith.hosting._tenants import Tenants
from sagesmith.hosting.parts import Parts
from sagesmith.lifecycle.endpoint import EndpointRun, Status
from sagesmith.lifecycle.records import component_run
from sagesmith.store.claims import ClaimedRows
from sagesmith.store.resources import Resource
from sagesmith.store.threads import in_thread

__all__ = ["Components"]

DRIVEN: Final = tuple(status.value for status in Status)
_LOOK_S: Final = 0.5
_log = logging.getLogger(__name__)


class Components:
    """Keeps every inference component as its row says. All methods but :meth:`notify` are for the event loop.

    Its :meth:`hosts` and :meth:`vacated` are for the driver of endpoints, which is started before it.

    Args:
        parts: what it has of `deployed` and `hosts` is not used: copies have no copies.
        notify_endpoint: tells the driver of endpoints to look at one.
        idle_s: how long an instance whose number is managed stays empty before it goes.
        owner: the name under which rows are claimed; the same one after a restart.
        poll_s: how often all rows are looked at, in case a notification was lost.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        notify_endpoint: Callable[[str], None],
        idle_s: float = 60.0,
        owner: str = "server",
        poll_s: float = 10.0,
    ) -> None:
        self._parts = parts
        self._tenants = Tenants(self._may_grow, self._freed)
        self._scaling = ManagedScaling(
            parts.resources, notify_endpoint, self._tenants.count, clock=parts.clock, idle_s=idle_s
        )
        self._rows = ClaimedRows(
            parts.resources, COMPONENT_KIND, DRIVEN, self._make, owner=owner, clock=parts.clock, poll_s=poll_s
        )
        self._started = False
        self._work = Background(_log, "a step of inference components failed; it will be tried again")

    async def start(self) -> None:
        """Take up every component, then go on with whatever comes. Call it once, after the endpoints' driver's."""
        # All copies must be known before the first one looks for room.
        for row in await in_thread(self._parts.resources.with_status, COMPONENT_KIND, DRIVEN):
            run = component_run(row.document)
            details = next((d.variants[0].details for d in (run.current, run.pending) if d is not None), None)
            for copy, home in run.homes if details is not None else ():
                self._tenants.take(copy, home, row.arn, details["requirements"] if details else {})
        await self._rows.start()
        self._started = True
        self._work.spawn(self._look())

    def notify(self, arn: str) -> None:
        """Look at the component's row now: it is new, or was changed. Thread-safe, returns at once."""
        self._rows.notify(arn)

    def instances(self) -> list[str]:
        """Return the ids of all copies, which are instances of the fleet, of this server's components."""
        return [name for worker in self._rows.workers.values() for name in worker.run.instance_ids]

    async def close(self) -> None:
        """Stop driving. Copies go on serving, or are started again after the next start if they are ended."""
        self._started = False
        await asyncio.gather(*self._work.cancel(), *self._scaling.close(), return_exceptions=True)
        await self._rows.close()

    # ---- for the driver of endpoints ----

    def hosts(self, region: str, name: str, run: EndpointRun | None) -> None:
        """Learn which instances the endpoint has now; None when it is gone."""
        self._scaling.hosts(region, name, run)
        if self._tenants.set_hosts(region, name, run) and self._started:
            for worker in list(self._rows.workers.values()):
                if (worker.region, worker.endpoint) == (region, name):
                    self._work.spawn(worker.rehome())

    async def vacated(self, instance_id: str) -> None:
        """Return when no copy is on the instance any more."""
        await self._tenants.vacated(instance_id)

    # ---- inside ----

    def _make(self, row: Resource) -> ComponentWorker:
        return ComponentWorker(self._parts, self._tenants, row, self._rows.ended)

    def _may_grow(self, region: str, endpoint: str, variant: str) -> bool:
        return self._scaling.may_grow(region, endpoint, variant)

    def _freed(self) -> None:
        if self._started:
            self._retry(also_short=True)

    def _retry(self, *, also_short: bool) -> None:
        for worker in list(self._rows.workers.values()):
            if worker.is_waiting and (also_short or not worker.state.short):
                worker.retry()
                self._work.spawn(worker.follow())

    async def _look(self) -> None:
        """Look now and then at what waits for an instance, and at what is empty."""
        while True:
            await asyncio.sleep(_LOOK_S)
            self._scaling.look()
            self._retry(also_short=False)
