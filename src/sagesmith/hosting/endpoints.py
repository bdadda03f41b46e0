"""The driver of endpoints. Which rows are driven is `store.claims`' business, one endpoint's way `_endpoint`'s."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sagesmith.clock import Clock, system_clock
from sagesmith.fleet.api import Fleet
from sagesmith.hosting._endpoint import KIND, EndpointWorker, Hosts, NoHosts, Parts, RoutingTable
from sagesmith.images import Image, resolve
from sagesmith.instance.spec import ServerAddress
from sagesmith.lifecycle.endpoint import Deployment, Status
from sagesmith.store.claims import ClaimedRows
from sagesmith.store.logs import Logs
from sagesmith.store.metrics import Metrics
from sagesmith.store.resources import Resource, Resources
from sagesmith.store.role_keys import RoleKeys

__all__ = ["Endpoints"]

DRIVEN: Final = tuple(status.value for status in Status)


class Endpoints:
    """Keeps every endpoint as its row says. All methods but :meth:`notify` are for the event loop.

    Args:
        gateway: learns which instances serve.
        server: where instances reach this server; asked whenever one starts.
        resolve: what an image URI means.
        raised: returns those of a region's alarms that are, or since a time were, in state ALARM.
        deployed: learns what serves at each endpoint, by region and name; None when it is gone.
        hosts: who has copies of inference components on the instances.
        idle_s: after so long a serverless endpoint's container that has nothing to do ends.
        owner: the name under which rows are claimed; the same one after a restart.
        poll_s: how often all rows are looked at, in case a notification was lost.
    """

    def __init__(
        self,
        *,
        resources: Resources,
        fleet: Fleet,
        gateway: RoutingTable,
        logs: Logs,
        metrics: Metrics,
        identities: RoleKeys,
        server: Callable[[], ServerAddress],
        account_id: str,
        resolve: Callable[[str], Image] = resolve,
        raised: Callable[[str, Sequence[str], float], Sequence[str]] = lambda region, names, since: (),
        deployed: Callable[[str, str, Deployment | None], None] = lambda region, name, deployment: None,
        hosts: Hosts | None = None,
        clock: Clock = system_clock,
        idle_s: float = 300.0,
        owner: str = "server",
        poll_s: float = 10.0,
    ) -> None:
        self._parts = Parts(
            resources,
            fleet,
            gateway,
            logs,
            metrics,
            identities,
            server,
            resolve,
            account_id,
            clock,
            raised,
            deployed,
            hosts or NoHosts(),
            idle_s,
        )
        self._rows = ClaimedRows(resources, KIND, DRIVEN, self._make, owner=owner, clock=clock, poll_s=poll_s)

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
