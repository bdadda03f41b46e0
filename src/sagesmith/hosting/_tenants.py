"""The register of copies: which instances endpoints have, which copies are on them, and where another one goes.

It is kept in memory and made anew from the rows after a restart; whoever is placed is in it at once, so that two copies
placed in the same moment do not get the same room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sagesmith.errors import AwsError
from sagesmith.fleet.instance_types import describe
from sagesmith.lifecycle.endpoint import EndpointRun, Phase
from sagesmith.lifecycle.placement import Need, Tenant, choose, fits

__all__ = ["Found", "Outcome", "Tenants"]


class Found(Enum):
    """What came of looking for a home."""

    HOME = "home"
    WAIT = "wait"
    NO_ROOM = "no room"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A `home`, or the `reason` why there is none; one that waits looks again when instances or copies changed."""

    outcome: Found
    home: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """An instance of an endpoint that copies may be on."""

    variant: str
    instance_type: str
    total: Need


class Tenants:
    """The register. On the event loop.

    Args:
        may_grow: whether a variant of an endpoint gets another instance for a copy, by region, endpoint and name.
        freed: called when a copy has left, and with it there may be room for another.
    """

    def __init__(self, may_grow: Callable[[str, str, str], bool], freed: Callable[[], None]) -> None:
        self._may_grow = may_grow
        self._freed = freed
        self._hosts: dict[tuple[str, str], dict[str, Host]] = {}
        self._coming: dict[tuple[str, str], set[str]] = {}
        self._tenants: dict[str, Tenant] = {}
        self._changed = asyncio.Event()

    # ---- instances ----

    def set_hosts(self, region: str, endpoint: str, run: EndpointRun | None) -> bool:
        """Learn which instances the endpoint has; return whether that is news."""
        hosts: dict[str, Host] = {}
        coming: set[str] = set()
        for deployment in (run.current, run.pending) if run is not None else ():
            for variant in deployment.variants if deployment is not None else ():
                if not variant.details.get("vacant"):
                    continue
                kind = variant.details["instance_type"]
                host = Host(variant.name, kind, _total(kind))
                hosts.update({i.instance_id: host for i in variant.instances if i.phase is Phase.READY})
                if variant.ready < variant.wanted:
                    coming.add(variant.name)
        key = (region, endpoint)
        before = self._hosts.get(key), self._coming.get(key)
        if run is None:
            self._hosts.pop(key, None)
            self._coming.pop(key, None)
        else:
            self._hosts[key], self._coming[key] = hosts, coming
        return before != (self._hosts.get(key), self._coming.get(key))

    def usable(self, region: str, endpoint: str, variant: str) -> tuple[str, ...]:
        """Return the instances that copies on that variant may be on."""
        return tuple(i for i, host in self._at(region, endpoint).items() if host.variant == variant)

    def instance_type(self, instance_id: str) -> str:
        """Return the type of an instance, "" if it is not known."""
        every = (hosts[instance_id] for hosts in self._hosts.values() if instance_id in hosts)
        return next((host.instance_type for host in every), "")

    def count(self, instance_id: str) -> int:
        """Return how many copies are on the instance."""
        return sum(tenant.instance_id == instance_id for tenant in self._tenants.values())

    async def vacated(self, instance_id: str) -> None:
        """Return when no copy is on the instance any more."""
        while self.count(instance_id):
            self._changed.clear()
            await self._changed.wait()

    # ---- copies ----

    def place(
        self,
        region: str,
        endpoint: str,
        variant: str,
        component: str,
        copy: str,
        details: Mapping[str, Any],
    ) -> Outcome:
        """Find a home for *copy* of the component, and let it have the room there."""
        need = Need.of(details["requirements"])
        if (region, endpoint) not in self._hosts:
            return Outcome(Found.NO_ROOM, reason=f"The endpoint {endpoint} does not exist any more.")
        hosts = {i: h for i, h in self._at(region, endpoint).items() if h.variant == variant}
        totals = {instance_id: host.total for instance_id, host in hosts.items()}
        pack = details.get("strategy") == "BINPACK"
        home = choose(need, component, totals, self._tenants.values(), pack=pack)
        if home is not None:
            self._tenants[copy] = Tenant(home, component, need)
            return Outcome(Found.HOME, home)
        could = not totals or any(fits(need, total) for total in totals.values())
        if could and (variant in self._coming[region, endpoint] or self._may_grow(region, endpoint, variant)):
            return Outcome(Found.WAIT)
        kinds = ", ".join(sorted({host.instance_type for host in hosts.values()}))
        asked = f"{need.cpus:g} CPU cores, {need.gpus:g} accelerators and {need.memory_mb:g} MB of memory"
        return Outcome(
            Found.NO_ROOM,
            reason="CapacityError: There are not enough hardware resources on the instances to create a copy of the "
            f"inference component: it requires {asked}, and none of the {len(totals)} instances ({kinds}) of variant "
            f"{variant} has that left. Ask for less, give the variant more or larger instances, or remove copies.",
        )

    def take(self, copy: str, home: str, component: str, requirements: Mapping[str, Any]) -> None:
        """Note that *copy* is on an instance already."""
        self._tenants[copy] = Tenant(home, component, Need.of(requirements))

    def leave(self, copy: str) -> None:
        """Note that *copy* is no more."""
        if self._tenants.pop(copy, None) is not None:
            self._changed.set()
            self._freed()

    def forget(self, component: str) -> None:
        """Note that the component and all its copies are no more."""
        for copy in [copy for copy, tenant in self._tenants.items() if tenant.component == component]:
            self.leave(copy)

    def _at(self, region: str, endpoint: str) -> Mapping[str, Host]:
        return self._hosts.get((region, endpoint), {})


def _total(instance_type: str) -> Need:
    try:
        shape = describe(instance_type)
    except AwsError:
        return Need()
    return Need(shape.vcpus, shape.gpus, shape.memory_bytes / 1024**2)
