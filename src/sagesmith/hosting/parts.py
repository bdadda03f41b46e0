"""What the drivers of endpoints and of inference components work with, and what they need of the gateway and each other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from sagesmith.clock import Clock, system_clock
from sagesmith.fleet.api import Fleet
from sagesmith.hosting._gateway_serverless import Concurrency
from sagesmith.images import Image, resolve
from sagesmith.instance.spec import ServerAddress
from sagesmith.lifecycle.endpoint import Deployment, EndpointRun
from sagesmith.store.logs import Logs
from sagesmith.store.metrics import Metrics
from sagesmith.store.resources import Resources
from sagesmith.store.role_keys import RoleKeys

__all__ = ["Hosts", "NoHosts", "Parts", "RoutingTable"]


class RoutingTable(Protocol):
    """What an endpoint needs of the gateway. On the event loop."""

    def set_endpoint(
        self,
        region: str,
        name: str,
        variants: Mapping[str, float],
        *,
        features: Mapping[str, Collection[str]] = MappingProxyType({}),
        shadows: Mapping[str, float] = MappingProxyType({}),
        component_of: str = "",
        serverless: Mapping[str, Concurrency] = MappingProxyType({}),
    ) -> None:
        """Make the endpoint known with its variants' weights, or change them; see `Gateway.set_endpoint`."""
        ...

    def remove_endpoint(self, region: str, name: str) -> None:
        """Forget the endpoint; harmless if it is not known."""
        ...

    def add_instance(self, region: str, name: str, variant: str, instance_id: str, address: str) -> None:
        """Send requests to the instance; harmless if it is known."""
        ...

    def remove_instance(self, instance_id: str) -> None:
        """Send nothing more to the instance."""
        ...

    def could_not_start(self, region: str, name: str, variant: str, instance_id: str, reason: str) -> None:
        """Tell a request that waits for a serverless variant's instance why there is none."""
        ...

    async def drain(self, instance_id: str) -> None:
        """Remove the instance and wait until nothing is in flight there."""
        ...


class Hosts(Protocol):
    """Who has copies of inference components on instances. On the event loop."""

    def hosts(self, region: str, name: str, run: EndpointRun | None) -> None:
        """Learn which instances the endpoint has now; None when it is gone."""
        ...

    async def vacated(self, instance_id: str) -> None:
        """Return when no copy is on the instance any more."""
        ...


class NoHosts:
    """Nobody has copies on instances."""

    def hosts(self, region: str, name: str, run: EndpointRun | None) -> None:
        """Nobody cares."""

    async def vacated(self, instance_id: str) -> None:
        """Return: there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What every endpoint and every component works with.

    `gateway` learns which instances serve. `server` tells where instances reach this server, and is asked whenever one
    starts; `resolve` what an image URI means. `raised` returns those of a region's alarms that are, or since a time
    were, in state ALARM. `deployed` learns what serves at each endpoint, by region and name; None when it is gone.
    `hosts` has copies of inference components on the instances. After `idle_s` a serverless endpoint's container that
    has nothing to do ends. A model may take `answer_s` for an answer, unless the endpoint is asynchronous.
    """

    resources: Resources
    fleet: Fleet
    gateway: RoutingTable
    logs: Logs
    metrics: Metrics
    identities: RoleKeys
    server: Callable[[], ServerAddress]
    account_id: str
    resolve: Callable[[str], Image] = resolve
    clock: Clock = system_clock
    raised: Callable[[str, Sequence[str], float], Sequence[str]] = lambda region, names, since: ()
    deployed: Callable[[str, str, Deployment | None], None] = lambda region, name, deployment: None
    hosts: Hosts = field(default_factory=NoHosts)
    idle_s: float = 300.0
    answer_s: float = 60.0
