"""What the drivers of all kinds of jobs do. Which rows are driven is `store.claims`' business, one job's way `_job`'s."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final

from sagesmith.clock import Clock, system_clock
from sagesmith.fleet.api import Fleet
from sagesmith.images import Image, resolve
from sagesmith.instance.spec import ServerAddress
from sagesmith.jobs._job import Job, Parts
from sagesmith.jobs._telemetry import Telemetry
from sagesmith.lifecycle.jobs import TERMINAL, Revoke, Status
from sagesmith.store.claims import ClaimedRows
from sagesmith.store.logs import Logs
from sagesmith.store.metrics import Metrics
from sagesmith.store.resources import ListQuery, Resource, Resources
from sagesmith.store.role_keys import RoleKeys
from sagesmith.store.threads import in_thread

__all__ = ["Driver"]

UNFINISHED: Final = (Status.IN_PROGRESS.value, Status.STOPPING.value)
FINISHED: Final = tuple(status.value for status in TERMINAL)
LOOKED_AFTER: Final = 100
"""How many of the jobs that ended last are looked at after a restart: their keys may still have to be revoked."""


class Driver:
    """Drives every unfinished job of one kind. All methods but :meth:`notify` are for the event loop.

    Args:
        server: where instances reach this server; asked whenever one starts.
        resolve: what an image URI means.
        owner: the name under which rows are claimed; the same one after a restart.
        poll_s: how often all rows are looked at, in case a notification was lost.
    """

    job: ClassVar[type[Job[Any]]]
    log_group: ClassVar[str]

    def __init__(
        self,
        *,
        resources: Resources,
        fleet: Fleet,
        logs: Logs,
        metrics: Metrics,
        identities: RoleKeys,
        server: Callable[[], ServerAddress],
        account_id: str,
        resolve: Callable[[str], Image] = resolve,
        clock: Clock = system_clock,
        owner: str = "server",
        poll_s: float = 10.0,
    ) -> None:
        telemetry = Telemetry(logs, metrics, self.log_group)
        self._parts = Parts(resources, fleet, telemetry, identities, server, resolve, account_id, clock)
        self._rows = ClaimedRows(
            resources, self.job.kind, UNFINISHED, self._make, owner=owner, clock=clock, poll_s=poll_s
        )

    async def start(self) -> None:
        """Take up every unfinished job, then go on with whatever comes. Call it once."""
        await self._revoke_forgotten_keys()
        await self._rows.start()

    def notify(self, arn: str) -> None:
        """Look at the job's row now: it is new, or was changed. Thread-safe, returns at once."""
        self._rows.notify(arn)

    def instances(self) -> list[str]:
        """Return the ids of all instances that belong to unfinished jobs of this server."""
        return [host.instance_id for job in self._rows.workers.values() for host in job.run.hosts]

    async def close(self) -> None:
        """Stop driving. Jobs go on in their instances, or start again if those are ended, after the next start."""
        await self._rows.close()
        await self._parts.telemetry.close()

    def _make(self, row: Resource) -> Job[Any]:
        return self.job(self._parts, row, self._rows.ended)

    async def _revoke_forgotten_keys(self) -> None:
        """A job's end is written before its keys are revoked; a crash between the two leaves them."""
        query = ListQuery(status=FINISHED, sort_by="modified", descending=True, limit=LOOKED_AFTER)
        page = await in_thread(self._parts.resources.list, self.job.kind, None, query)
        for row in page.items:
            for command in self.job.demands(self.job.run_of(row.document)):
                if isinstance(command, Revoke):
                    await in_thread(self._parts.identities.revoke, command.key_id)
