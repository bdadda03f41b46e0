"""On which instance a copy of an inference component goes: the one that has room, and the fewest copies of it so far.

Room is counted by what copies ask for, against what the instance type has on AWS, so that what fits there fits here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Need", "Tenant", "choose", "fits"]

_EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class Need:
    """What a copy takes of its instance, or what an instance has: vCPUs, accelerators, memory in MB."""

    cpus: float = 0.0
    gpus: float = 0.0
    memory_mb: float = 0.0

    @classmethod
    def of(cls, requirements: Mapping[str, Any]) -> Need:
        """Return what `ComputeResourceRequirements` ask for."""
        return cls(
            float(requirements.get("NumberOfCpuCoresRequired") or 0.0),
            float(requirements.get("NumberOfAcceleratorDevicesRequired") or 0.0),
            float(requirements["MinMemoryRequiredInMb"]),
        )

    def __add__(self, other: Need) -> Need:
        return Need(self.cpus + other.cpus, self.gpus + other.gpus, self.memory_mb + other.memory_mb)


@dataclass(frozen=True, slots=True)
class Tenant:
    """A copy that is on an instance; `component` tells whose it is."""

    instance_id: str
    component: str
    need: Need


def fits(need: Need, total: Need) -> bool:
    """Whether *need* is not more than *total*."""
    return (
        need.cpus <= total.cpus + _EPSILON
        and need.gpus <= total.gpus + _EPSILON
        and need.memory_mb <= total.memory_mb + _EPSILON
    )


def choose(
    need: Need,
    component: str,
    instances: Mapping[str, Need],
    tenants: Iterable[Tenant],
    *,
    pack: bool = False,
) -> str | None:
    """Return the instance for another copy of *component*, None if none has room.

    Copies are spread: the instance with the fewest copies of this component comes first, then the one with the fewest
    in all, then the first. With *pack* it is the one with the most in all, so that others stay empty.

    Args:
        instances: what each has in all, by id.
        tenants: the copies that are on them.
    """
    taken = dict.fromkeys(instances, Need())
    own, every = dict.fromkeys(instances, 0), dict.fromkeys(instances, 0)
    for tenant in tenants:
        if tenant.instance_id in taken:
            taken[tenant.instance_id] += tenant.need
            own[tenant.instance_id] += tenant.component == component
            every[tenant.instance_id] += 1
    free = [i for i, total in instances.items() if fits(taken[i] + need, total)]
    if pack:
        return max(free, key=lambda i: every[i], default=None)
    return min(free, key=lambda i: (own[i], every[i]), default=None)
