"""The driver of notebook instances. Which rows are driven is `store.claims`' business, one notebook's way `_notebook`'s."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sagesmith.clock import Clock, system_clock
from sagesmith.fleet.api import Fleet
from sagesmith.instance.spec import ServerAddress
from sagesmith.lifecycle.notebook import Status
from sagesmith.notebooks._notebook import KIND, NotebookWorker, Parts, Table
from sagesmith.notebooks.volumes import Volumes
from sagesmith.store.claims import ClaimedRows
from sagesmith.store.logs import Logs
from sagesmith.store.metrics import Metrics
from sagesmith.store.resources import Resource, Resources
from sagesmith.store.role_keys import RoleKeys

__all__ = ["Notebooks"]

DRIVEN: Final = tuple(
    status.value for status in (Status.PENDING, Status.IN_SERVICE, Status.STOPPING, Status.DELETING)
)


class Notebooks:
    """Keeps every notebook as its row says. All methods but :meth:`notify` are for the event loop.

    Args:
        table: learns where each notebook answers.
        server: where instances reach this server; asked whenever one starts.
        owner: the name under which rows are claimed; the same one after a restart.
        poll_s: how often all rows are looked at, in case a notification was lost.
    """

    def __init__(
        self,
        *,
        resources: Resources,
        fleet: Fleet,
        table: Table,
        volumes: Volumes,
        logs: Logs,
        metrics: Metrics,
        identities: RoleKeys,
        server: Callable[[], ServerAddress],
        account_id: str,
        clock: Clock = system_clock,
        owner: str = "server",
        poll_s: float = 10.0,
    ) -> None:
        self._parts = Parts(
            resources, fleet, table, volumes, logs, metrics, identities, server, account_id, clock
        )
        self._rows = ClaimedRows(resources, KIND, DRIVEN, self._make, owner=owner, clock=clock, poll_s=poll_s)

    async def start(self) -> None:
        """Take up every notebook and fill the table, then go on with whatever comes. Call it once."""
        await self._rows.start()

    def notify(self, arn: str) -> None:
        """Look at the notebook's row now: it is new, or was changed. Thread-safe, returns at once."""
        self._rows.notify(arn)

    def instances(self) -> list[str]:
        """Return the ids of all instances that belong to notebooks of this server."""
        return [name for worker in self._rows.workers.values() for name in worker.run.instance_ids]

    async def close(self) -> None:
        """Stop driving. Notebooks go on, or are started again after the next start if they are ended."""
        await self._rows.close()

    def _make(self, row: Resource) -> NotebookWorker:
        return NotebookWorker(self._parts, row, self._rows.ended)
