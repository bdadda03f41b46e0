"""An endpoint from its creation to its end: events in, the next state and the commands it demands out.

As in :mod:`sagesmith.lifecycle.training`, what must be done follows from the state alone (:func:`demands`), and
doing it twice is harmless.

A *deployment* is an endpoint configuration come to life. A new one is `pending` until all its instances have
passed their health check, then it becomes `current` in one step and the old one's instances end; so creating
and updating are one path, and an endpoint under update serves all the time. Instances of the current deployment
that crash are replaced, each after its own growing pause, while the others serve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, TypeAlias

__all__ = [
    "CapacityRequested",
    "Command",
    "DeleteRequested",
    "Deployment",
    "End",
    "EndpointRun",
    "Event",
    "Failed",
    "Instance",
    "InstanceReleased",
    "InstanceStarted",
    "KeyIssued",
    "LastWord",
    "Phase",
    "Ready",
    "Remove",
    "RetryDue",
    "Serve",
    "Served",
    "Start",
    "Status",
    "Unhealthy",
    "UpdateRequested",
    "Variant",
    "create",
    "demands",
    "step",
]


class Status(StrEnum):
    """`EndpointStatus`; DELETED is the moment before its row goes."""

    CREATING = "Creating"
    IN_SERVICE = "InService"
    UPDATING = "Updating"
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
class Variant:
    """A production variant: how many instances it should have, and which it has.

    `details` is everything an instance's start needs (model, image, instance type), as it was when the
    deployment was asked for; it means nothing here.
    """

    name: str
    weight: float
    count: int
    details: Mapping[str, Any] = field(default_factory=dict)
    instances: tuple[Instance, ...] = ()

    @property
    def ready(self) -> int:
        """How many instances serve."""
        return sum(i.phase is Phase.READY for i in self.instances)


@dataclass(frozen=True, slots=True)
class Deployment:
    """The variants of one endpoint configuration."""

    config_name: str
    variants: tuple[Variant, ...]

    @property
    def complete(self) -> bool:
        """Whether every instance that should be there serves."""
        return all(v.ready >= v.count for v in self.variants)


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
    ending: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    keys: tuple[tuple[str, str], ...] = ()
    failure_reason: str = ""

    @property
    def next_retry(self) -> float | None:
        """When the next :class:`RetryDue` is due."""
        return min((i.retry_at for _, _, i in _instances(self) if i.phase is Phase.PAUSED), default=None)

    @property
    def instances(self) -> tuple[Instance, ...]:
        """Every instance of both deployments, the paused ones too."""
        return tuple(instance for _, _, instance in _instances(self))

    def variant_of(self, instance_id: str) -> str:
        """Return the name of the variant that the instance belongs to, "" if it is ending or not known."""
        return next((v.name for _, v, i in _instances(self) if i.instance_id == instance_id), "")

    @property
    def instance_ids(self) -> tuple[str, ...]:
        """Every instance that exists or may exist."""
        alive = (i.instance_id for _, _, i in _instances(self) if i.phase is not Phase.PAUSED)
        return (*alive, *self.ending)


FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 300.0
STEADY_S: Final = 300.0
"""After that long in service, an instance's earlier failures are forgotten."""
ATTEMPTS: Final = 3
"""How often an instance of a pending deployment may be lost before the deployment fails."""


# ---- events ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeyIssued:
    """The execution role's key for the instance exists; it is revoked when the instance has ended."""

    instance_id: str
    key_id: str


@dataclass(frozen=True, slots=True)
class InstanceStarted:
    """The instance's process exists."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The model server passed its health check and listens at `address`."""

    instance_id: str
    address: str
    protocol: str = "frames"


@dataclass(frozen=True, slots=True)
class Unhealthy:
    """The model server does not answer; its agent is starting it again."""

    instance_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The instance is gone.

    `final` if it said itself that it cannot come up; `shutdown` if an orderly shutdown ended it, which is no
    failure of its own.
    """

    instance_id: str
    reason: str
    final: bool = False
    shutdown: bool = False


@dataclass(frozen=True, slots=True)
class LastWord:
    """An ending instance has ended; it is still to be released."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class InstanceReleased:
    """An ending instance is no more."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class RetryDue:
    """The time `EndpointRun.next_retry` has come."""


@dataclass(frozen=True, slots=True)
class UpdateRequested:
    """`UpdateEndpoint`: bring up this deployment, then switch to it."""

    deployment: Deployment


@dataclass(frozen=True, slots=True)
class CapacityRequested:
    """`UpdateEndpointWeightsAndCapacities`: by variant name, the new weight and count (None: as it is)."""

    wanted: Mapping[str, tuple[float | None, int | None]]


@dataclass(frozen=True, slots=True)
class DeleteRequested:
    """`DeleteEndpoint`."""


Event: TypeAlias = (
    KeyIssued
    | InstanceStarted
    | Ready
    | Unhealthy
    | Failed
    | LastWord
    | InstanceReleased
    | RetryDue
    | UpdateRequested
    | CapacityRequested
    | DeleteRequested
)


# ---- commands ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Start the instance for the variant of that name; of the pending deployment or of the current one."""

    instance_id: str
    variant: str
    pending: bool


@dataclass(frozen=True, slots=True)
class End:
    """Take no more requests to the instance, end it, release it, report :class:`InstanceReleased`."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class Served:
    """One variant as the gateway should know it; `instances` are (id, address, protocol)."""

    name: str
    weight: float
    instances: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class Serve:
    """Let the gateway serve exactly these variants; none at all if it should not know the endpoint."""

    variants: tuple[Served, ...]


@dataclass(frozen=True, slots=True)
class Remove:
    """Everything has ended: delete the endpoint's row."""


Command: TypeAlias = Start | End | Serve | Remove


# ---- the two functions -------------------------------------------------------------------------------


def create(uid: str, deployment: Deployment, at: float) -> EndpointRun:
    """Return a new endpoint's state, its instances named but not started.

    Args:
        uid: what no other endpoint's uid is: ``i-`` and 12 hexadecimal digits.
        deployment: what it should serve; its variants have no instances yet.
        at: the time now.
    """
    return _fill(EndpointRun(uid, Status.CREATING, pending=deployment, pending_since=at))


def step(run: EndpointRun, event: Event, at: float) -> tuple[EndpointRun, tuple[Command, ...]]:
    """Return *run* after *event* at time *at*, and the commands that must now be performed.

    An event that says nothing new, or comes from an instance that is not known (any more), returns *run* itself.
    """
    if run.status is Status.DELETED:
        return run, ()
    after = _settle(_fill(_HANDLERS[type(event)](run, event, at)))
    if after == run:
        return run, ()
    known = set(demands(run))
    return after, tuple(command for command in demands(after) if command not in known)


def demands(run: EndpointRun) -> tuple[Command, ...]:
    """Return everything that *run*, as it is, asks to be done; each may have been done before."""
    served: tuple[Served, ...] = ()
    if run.current is not None and run.status in (Status.IN_SERVICE, Status.UPDATING):
        served = tuple(_served(variant) for variant in run.current.variants)
    commands: list[Command] = [Serve(served)]
    for deployment, variant, instance in _instances(run):
        if instance.phase is Phase.PLANNED:
            commands.append(Start(instance.instance_id, variant.name, deployment is run.pending))
    commands.extend(End(instance_id) for instance_id in run.ending)
    if run.status is Status.DELETED:
        commands.append(Remove())
    return tuple(commands)


# ---- what each event does ----------------------------------------------------------------------------


def _key_issued(run: EndpointRun, event: KeyIssued, at: float) -> EndpointRun:
    return replace(run, keys=(*run.keys, (event.instance_id, event.key_id)))


def _instance_started(run: EndpointRun, event: InstanceStarted, at: float) -> EndpointRun:
    def started(instance: Instance) -> Instance:
        return replace(instance, phase=Phase.STARTED) if instance.phase is Phase.PLANNED else instance

    return _change(run, event.instance_id, started)


def _ready(run: EndpointRun, event: Ready, at: float) -> EndpointRun:
    def ready(instance: Instance) -> Instance:
        if (instance.phase, instance.address, instance.protocol) == (
            Phase.READY,
            event.address,
            event.protocol,
        ):
            return instance
        return replace(
            instance, phase=Phase.READY, address=event.address, protocol=event.protocol, ready_at=at
        )

    return _change(run, event.instance_id, ready)


def _unhealthy(run: EndpointRun, event: Unhealthy, at: float) -> EndpointRun:
    def unhealthy(instance: Instance) -> Instance:
        return replace(instance, phase=Phase.UNHEALTHY) if instance.phase is Phase.READY else instance

    return _change(run, event.instance_id, unhealthy)


def _failed(run: EndpointRun, event: Failed, at: float) -> EndpointRun:
    found = next((f for f in _instances(run) if f[2].instance_id == event.instance_id), None)
    if found is None or found[2].phase is Phase.PAUSED:
        return run
    deployment, variant, instance = found
    run = replace(run, ending=(*run.ending, instance.instance_id), gone=(*run.gone, instance.instance_id))
    if event.shutdown:
        return _renew(run, instance.instance_id, failures=0)
    steady = instance.ready_at and at - instance.ready_at >= STEADY_S
    failures = 1 if steady else instance.failures + 1
    if deployment is run.pending and (event.final or failures >= ATTEMPTS):
        return _give_up(run, _reason(variant.name, event))
    pause = min(FIRST_PAUSE_S * 2.0 ** (failures - 1), LONGEST_PAUSE_S)
    paused = replace(instance, phase=Phase.PAUSED, failures=failures, retry_at=at + pause, address="")
    return _change(run, instance.instance_id, lambda _: paused)


def _last_word(run: EndpointRun, event: LastWord, at: float) -> EndpointRun:
    if event.instance_id not in run.ending or event.instance_id in run.gone:
        return run
    return replace(run, gone=(*run.gone, event.instance_id))


def _released(run: EndpointRun, event: InstanceReleased, at: float) -> EndpointRun:
    return replace(
        run,
        ending=tuple(i for i in run.ending if i != event.instance_id),
        gone=tuple(i for i in run.gone if i != event.instance_id),
        keys=tuple(k for k in run.keys if k[0] != event.instance_id),
    )


def _retry_due(run: EndpointRun, event: RetryDue, at: float) -> EndpointRun:
    for _, _, instance in list(_instances(run)):
        if instance.phase is Phase.PAUSED and instance.retry_at <= at:
            run = _renew(run, instance.instance_id, failures=instance.failures)
    return run


def _update_requested(run: EndpointRun, event: UpdateRequested, at: float) -> EndpointRun:
    return replace(run, status=Status.UPDATING, pending=event.deployment, pending_since=at, failure_reason="")


def _capacity_requested(run: EndpointRun, event: CapacityRequested, at: float) -> EndpointRun:
    if run.current is None:
        return run
    ending: list[str] = []
    variants: list[Variant] = []
    for variant in run.current.variants:
        weight, count = event.wanted.get(variant.name, (None, None))
        wanted = replace(
            variant,
            weight=variant.weight if weight is None else weight,
            count=variant.count if count is None else count,
        )
        # Those that do not serve leave first.
        ranked = sorted(wanted.instances, key=lambda i: i.phase is not Phase.READY)
        surplus = {i.instance_id for i in ranked[wanted.count :]}
        ending += [
            i.instance_id
            for i in wanted.instances
            if i.instance_id in surplus and i.phase is not Phase.PAUSED
        ]
        kept = tuple(i for i in wanted.instances if i.instance_id not in surplus)
        variants.append(replace(wanted, instances=kept))
    return replace(
        run,
        status=Status.UPDATING,
        current=replace(run.current, variants=tuple(variants)),
        ending=(*run.ending, *ending),
    )


def _delete_requested(run: EndpointRun, event: DeleteRequested, at: float) -> EndpointRun:
    return replace(run, status=Status.DELETING, current=None, pending=None, ending=run.instance_ids)


_HANDLERS: Final[Mapping[type[Any], Callable[[EndpointRun, Any, float], EndpointRun]]] = {
    KeyIssued: _key_issued,
    InstanceStarted: _instance_started,
    Ready: _ready,
    Unhealthy: _unhealthy,
    Failed: _failed,
    LastWord: _last_word,
    InstanceReleased: _released,
    RetryDue: _retry_due,
    UpdateRequested: _update_requested,
    CapacityRequested: _capacity_requested,
    DeleteRequested: _delete_requested,
}


# ---- parts of the above ------------------------------------------------------------------------------


def _instances(run: EndpointRun) -> Iterator[tuple[Deployment, Variant, Instance]]:
    for deployment in (run.current, run.pending):
        for variant in deployment.variants if deployment else ():
            for instance in variant.instances:
                yield deployment, variant, instance  # type: ignore[misc]


def _map(
    run: EndpointRun, change: Callable[[Variant], Variant], *, which: tuple[str, ...] = ("current", "pending")
) -> EndpointRun:
    for part in which:
        deployment: Deployment | None = getattr(run, part)
        if deployment is not None:
            variants = tuple(change(v) for v in deployment.variants)
            run = replace(run, **{part: replace(deployment, variants=variants)})  # type: ignore[arg-type]
    return run


def _change(run: EndpointRun, instance_id: str, change: Callable[[Instance], Instance]) -> EndpointRun:
    def changed(variant: Variant) -> Variant:
        return replace(
            variant,
            instances=tuple(change(i) if i.instance_id == instance_id else i for i in variant.instances),
        )

    return _map(run, changed)


def _new_id(run: EndpointRun) -> tuple[EndpointRun, str]:
    serial = run.serial + 1
    return replace(run, serial=serial), f"{run.uid}{serial:05x}"


def _renew(run: EndpointRun, instance_id: str, *, failures: int) -> EndpointRun:
    """Put a new planned instance in the place of *instance_id*."""
    run, name = _new_id(run)
    return _change(run, instance_id, lambda _: Instance(name, failures=failures))


def _fill(run: EndpointRun) -> EndpointRun:
    """Plan the instances that variants lack."""
    for part in ("current", "pending"):
        deployment: Deployment | None = getattr(run, part)
        if deployment is None or all(len(v.instances) >= v.count for v in deployment.variants):
            continue
        variants: list[Variant] = []
        for variant in deployment.variants:
            instances = list(variant.instances)
            while len(instances) < variant.count:
                run, name = _new_id(run)
                instances.append(Instance(name))
            variants.append(replace(variant, instances=tuple(instances)))
        run = replace(run, **{part: replace(deployment, variants=tuple(variants))})  # type: ignore[arg-type]
    return run


def _settle(run: EndpointRun) -> EndpointRun:
    """Take the steps that follow from the state itself."""
    if run.status is Status.DELETING:
        return run if run.ending else replace(run, status=Status.DELETED)
    if run.pending is not None and run.pending.complete:
        old = replace(run, pending=None).instance_ids
        return replace(
            run, status=Status.IN_SERVICE, current=run.pending, pending=None, ending=tuple(dict.fromkeys(old))
        )
    if run.status is Status.UPDATING and run.pending is None and run.current and run.current.complete:
        return replace(run, status=Status.IN_SERVICE)
    return run


def _give_up(run: EndpointRun, reason: str) -> EndpointRun:
    """End the pending deployment; what served before goes on serving."""
    pending = replace(run, current=None).instance_ids
    return replace(
        run,
        status=Status.IN_SERVICE if run.current else Status.FAILED,
        pending=None,
        ending=tuple(dict.fromkeys(pending)),
        failure_reason=reason[:1024],
    )


def _served(variant: Variant) -> Served:
    ready = tuple((i.instance_id, i.address, i.protocol) for i in variant.instances if i.phase is Phase.READY)
    return Served(variant.name, variant.weight, ready)


def _reason(variant: str, event: Failed) -> str:
    return (
        f"The primary container for production variant {variant} did not pass the ping health check. "
        f"Please check CloudWatch logs for this endpoint. ({event.reason})"
    )
