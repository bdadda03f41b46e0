"""The driver of endpoints. Which rows are driven is `store.claims`' business, one endpoint's way `_endpoint`'s."""

from __future__ import annotations

from typing import Final

from sagesmith.hosting._endpoint import KIND, EndpointWorker
from sagesmith.hosting.parts import Parts
from sagesmith.lifecycle.endpoint import Status
from sagesmith.store.claims import ClaimedRows
from sagesmith.store.resources import Resource

__all__ = ["Endpoints"]

DRIVEN: Final = tuple(status.value for status in Status)


class Endpoints:
    """Keeps every endpoint as its row says. All methods but :meth:`notify` are for the event loop.

    Args:
        owner: the name under which rows are claimed; the same one after a restart.
        poll_s: how often all rows are looked at, in case a notification was lost.
    """

    def __init__(self, parts: Parts, *, owner: str = "server", poll_s: float = 10.0) -> None:
        self._parts = parts
        self._rows = ClaimedRows(
            parts.resources, KIND, DRIVEN, self._make, owner=owner, clock=parts.clock, poll_s=poll_s
        )

    async def start(self) -> None:
        """Take up every endpoint and fill the gateway's table, then go on with whatever comes. Call it once."""
        await self._rows.start()

    def notify(self, arn: str) -> None:
        """Look at the endpoint's row now: it is new, or was changed. Thread-safe, returns at once."""
        self._rows.notify(arn)

    def instances(self) -> list[str]:
        """Return the ids of all instances that belong to endpoints of this server."""
        return [name for worker in self._rows.workers.values() for name in worker.run.instance_ids]

    async def close(self) -> None:
        """Stop driving. Instances go on serving, or are started again after the next start if they are ended."""
        await self._rows.close()

    def _make(self, row: Resource) -> EndpointWorker:
        return EndpointWorker(self._parts, row, self._rows.ended)
