"""What an endpoint is at a moment: deployments, their variants and instances, and small changes of them.

Nothing here decides; :mod:`sagesmith.lifecycle.endpoint` and :mod:`sagesmith.lifecycle._rollout` do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

__all__ = [
    "Deployment",
    "EndpointRun",
    "Instance",
    "Phase",
    "Policy",
    "Rollout",
    "Serverless",
    "Size",
    "Status",
    "Variant",
    "change_instance",
    "fill",
    "instances_of",
    "map_variants",
    "new_id",
    "renew",
]


class Status(StrEnum):
    """`EndpointStatus`; DELETED is the moment before its row goes."""

    CREATING = "Creating"
    IN_SERVICE = "InService"
    UPDATING = "Updating"
    ROLLING_BACK = "RollingBack"
    FAILED = "Failed"
    DELETING = "Deleting"
    DELETED = "Deleted"


class Phase(StrEnum):
    """What an instance is doing."""

    PLANNED = "planned"
    STARTED = "started"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of a variant. A PAUSED one is gone; its successor starts at `retry_at`.

    `failures` counts the crashes in a row, `ready_at` is when it last became READY.
    """

    instance_id: str
    phase: Phase = Phase.PLANNED
    address: str = ""
    protocol: str = ""
    failures: int = 0
    ready_at: float = 0.0
    retry_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Serverless:
    """How a serverless variant's containers come and go; `memory_mb` is the size of each.

    At most `max_concurrency` requests are served at a time, each by a container of its own; `provisioned` containers
    are there always. `proven` is True once a container served.
    """

    memory_mb: int
    max_concurrency: int
    provisioned: int = 0
    proven: bool = False


@dataclass(frozen=True, slots=True)
class Variant:
    """A production variant: how many instances it should have, and which it has.

    `details` is everything an instance's start needs (model, image, instance type), as it was when the
    deployment was asked for; it means nothing here. A rolling update brings `held` of the `count` instances
    not yet, or no more. A `shadow` gets copies of the others' requests: `weight` is to theirs as its part of them.
    The `count` of a `serverless` variant follows the demand (:mod:`sagesmith.lifecycle._serverless`).
    """

    name: str
    weight: float
    count: int
    details: Mapping[str, Any] = field(default_factory=dict)
    instances: tuple[Instance, ...] = ()
    held: int = 0
    shadow: bool = False
    serverless: Serverless | None = None

    @property
    def wanted(self) -> int:
        """How many instances it should have now."""
        return self.count - self.held

    @property
    def required(self) -> int:
        """How many instances must serve before the variant counts as complete."""
        if self.serverless is None:
            return self.wanted
        return max(self.serverless.provisioned, 0 if self.serverless.proven else 1)

    @property
    def ready(self) -> int:
        """How many instances serve."""
        return sum(i.phase is Phase.READY for i in self.instances)


@dataclass(frozen=True, slots=True)
class Deployment:
    """The variants of one endpoint configuration, its `DataCaptureConfig` and its `AsyncInferenceConfig`
    (empty if it has none).

    `number` tells the deployments of one endpoint apart.
    """

    config_name: str
    variants: tuple[Variant, ...]
    number: int = 0
    capture: Mapping[str, Any] = field(default_factory=dict)
    asynchronous: Mapping[str, Any] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every instance that should be there serves."""
        return all(v.ready >= v.required for v in self.variants)


@dataclass(frozen=True, slots=True)
class Size:
    """A part of a variant's instances: so many, or so many percent of them."""

    value: int
    percent: bool = False

    def of(self, total: int) -> int:
        """Return how many of *total* instances that is; at least one."""
        return min(total, max(1, -(-total * self.value // 100) if self.percent else self.value))

    def share(self, total: int) -> float:
        """Return what part of *total* instances that is."""
        return min(1.0, self.value / 100 if self.percent else self.value / max(1, total))


@dataclass(frozen=True, slots=True)
class Policy:
    """How traffic goes over to a new deployment (`DeploymentConfig`). Times are in seconds.

    Blue/green updates (`rolling` False) start all new instances, then turn traffic over: the share `first`, then
    `further` at a time, with `wait_s` after each turn; None stands for all that is left. The old instances end
    `termination_wait_s` after the last. Rolling updates replace `first` instances at a time, and go back `further`
    at a time. `alarms` that are raised, and an update longer than `timeout_s` (0: any length), take it back.
    """

    rolling: bool = False
    first: Size | None = None
    further: Size | None = None
    wait_s: float = 0.0
    termination_wait_s: float = 0.0
    timeout_s: float = 0.0
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rollout:
    """How far an update is: `share` of the traffic is turned over, and is watched until `until`.

    That is None while instances are waited for. `back` is True while the update is being taken back.
    """

    policy: Policy = field(default_factory=Policy)
    began: float = 0.0
    share: float = 0.0
    until: float | None = None
    back: bool = False


@dataclass(frozen=True, slots=True)
class EndpointRun:
    """The state of an endpoint. `uid` is the common beginning of its instance ids, `serial` numbers them.

    `ending` are instances on their way out; those of them in `gone` have ended. `keys` are (instance id, access key of the model's execution role).
    """

    uid: str
    status: Status
    serial: int = 0
    current: Deployment | None = None
    pending: Deployment | None = None
    pending_since: float = 0.0
    rollout: Rollout | None = None
    ending: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    keys: tuple[tuple[str, str], ...] = ()
    failure_reason: str = ""

    @property
    def next_due(self) -> float | None:
        """When the next `Due` is due: a pause ends, or a step of an update."""
        times = [i.retry_at for _, _, i in instances_of(self) if i.phase is Phase.PAUSED]
        if self.rollout is not None and not self.rollout.back:
            times += [self.rollout.until] if self.rollout.until is not None else []
            timeout_s = self.rollout.policy.timeout_s
            times += [self.rollout.began + timeout_s] if timeout_s else []
        return min(times, default=None)

    @property
    def instances(self) -> tuple[Instance, ...]:
        """Every instance of both deployments, the paused ones too."""
        return tuple(instance for _, _, instance in instances_of(self))

    def variant_of(self, instance_id: str) -> str:
        """Return the name of the variant that the instance belongs to, "" if it is ending or not known."""
        return next((v.name for _, v, i in instances_of(self) if i.instance_id == instance_id), "")

    @property
    def instance_ids(self) -> tuple[str, ...]:
        """Every instance that exists or may exist."""
        alive = (i.instance_id for _, _, i in instances_of(self) if i.phase is not Phase.PAUSED)
        return (*alive, *self.ending)


def instances_of(run: EndpointRun) -> Iterator[tuple[Deployment, Variant, Instance]]:
    for deployment in (run.current, run.pending):
        for variant in deployment.variants if deployment else ():
            for instance in variant.instances:
                yield deployment, variant, instance  # type: ignore[misc]


def map_variants(
    run: EndpointRun, change: Callable[[Variant], Variant], *, which: tuple[str, ...] = ("current", "pending")
) -> EndpointRun:
    for part in which:
        deployment: Deployment | None = getattr(run, part)
        if deployment is not None:
            variants = tuple(change(v) for v in deployment.variants)
            run = replace(run, **{part: replace(deployment, variants=variants)})  # type: ignore[arg-type]
    return run


def change_instance(
    run: EndpointRun, instance_id: str, change: Callable[[Instance], Instance]
) -> EndpointRun:
    def changed(variant: Variant) -> Variant:
        return replace(
            variant,
            instances=tuple(change(i) if i.instance_id == instance_id else i for i in variant.instances),
        )

    return map_variants(run, changed)


def new_id(run: EndpointRun) -> tuple[EndpointRun, str]:
    serial = run.serial + 1
    return replace(run, serial=serial), f"{run.uid}{serial:05x}"


def renew(run: EndpointRun, instance_id: str, *, failures: int) -> EndpointRun:
    """Put a new planned instance in the place of *instance_id*."""
    run, name = new_id(run)
    return change_instance(run, instance_id, lambda _: Instance(name, failures=failures))


def fill(run: EndpointRun) -> EndpointRun:
    """Plan the instances that variants lack."""
    for part in ("current", "pending"):
        deployment: Deployment | None = getattr(run, part)
        if deployment is None or all(len(v.instances) >= v.wanted for v in deployment.variants):
            continue
        variants: list[Variant] = []
        for variant in deployment.variants:
            instances = list(variant.instances)
            while len(instances) < variant.wanted:
                run, name = new_id(run)
                instances.append(Instance(name))
            variants.append(replace(variant, instances=tuple(instances)))
        run = replace(run, **{part: replace(deployment, variants=tuple(variants))})  # type: ignore[arg-type]
    return run
