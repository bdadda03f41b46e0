"""An endpoint from its creation to its end: events in, the next state and the commands it demands out.

As in :mod:`sagesmith.lifecycle.training`, what must be done follows from the state alone (:func:`demands`), and
doing it twice is harmless.

A *deployment* is an endpoint configuration come to life. A new one is `pending` while its instances come up and
traffic goes over to it (:mod:`sagesmith.lifecycle._rollout`), then it becomes `current` and the old one's
instances end; so creating and updating are one path, and an endpoint under update serves all the time. Instances
that crash are replaced, each after its own growing pause, while the others serve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from sagesmith.lifecycle import _rollout, _serverless
from sagesmith.lifecycle._endpoint_state import (
    Deployment,
    EndpointRun,
    Instance,
    Phase,
    Policy,
    Rollout,
    Serverless,
    Size,
    Status,
    Variant,
    change_instance,
    fill,
    instances_of,
    renew,
)
from sagesmith.lifecycle._serverless import serverless_variant

__all__ = [
    "AlarmRaised",
    "CapacityRequested",
    "Command",
    "ContainerStuck",
    "ContainersIdle",
    "ContainersWanted",
    "DeleteRequested",
    "Deployment",
    "Due",
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
    "Policy",
    "Ready",
    "Remove",
    "Rollout",
    "Serve",
    "Served",
    "Serverless",
    "Size",
    "Start",
    "Status",
    "Unhealthy",
    "UpdateRequested",
    "Variant",
    "create",
    "demands",
    "serverless_variant",
    "step",
]


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
class Due:
    """The time `EndpointRun.next_due` has come."""


@dataclass(frozen=True, slots=True)
class UpdateRequested:
    """`UpdateEndpoint`: bring up this deployment, and go over to it as the policy says."""

    deployment: Deployment
    policy: Policy = field(default_factory=Policy)


@dataclass(frozen=True, slots=True)
class AlarmRaised:
    """An alarm that watches the update is in state ALARM."""

    name: str


@dataclass(frozen=True, slots=True)
class CapacityRequested:
    """`UpdateEndpointWeightsAndCapacities`: by variant name, the new weight and count (None: as it is).

    If instances have to leave, those in `spare` do before others that serve. `concurrency` has the maximum and the
    provisioned concurrency of serverless variants (None: as it is).
    """

    wanted: Mapping[str, tuple[float | None, int | None]]
    spare: tuple[str, ...] = ()
    concurrency: Mapping[str, tuple[int | None, int | None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContainersWanted:
    """So many requests are with a serverless variant, or wait for a container; `number` is its deployment's."""

    variant: str
    number: int
    concurrency: int


@dataclass(frozen=True, slots=True)
class ContainersIdle:
    """Containers of serverless variants had nothing to do for a while; they end, but for provisioned ones."""

    instance_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContainerStuck:
    """A container of a serverless variant did not answer in time, and is still at it: it ends."""

    instance_id: str


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
    | Due
    | UpdateRequested
    | AlarmRaised
    | CapacityRequested
    | ContainersWanted
    | ContainersIdle
    | ContainerStuck
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
    """One variant as the gateway should know it; `instances` are (id, address, protocol).

    During an update a variant may be there twice: `number` is its deployment's. `details` are the variant's. The weight
    of a `shadow` is the part of its deployment's requests that it gets copies of. `serverless` tells how many instances
    a serverless one may have.
    """

    name: str
    weight: float
    instances: tuple[tuple[str, str, str], ...]
    number: int = 0
    shadow: bool = False
    details: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)
    serverless: Serverless | None = None


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
    return fill(EndpointRun(uid, Status.CREATING, pending=deployment, pending_since=at))


def step(run: EndpointRun, event: Event, at: float) -> tuple[EndpointRun, tuple[Command, ...]]:
    """Return *run* after *event* at time *at*, and the commands that must now be performed.

    An event that says nothing new, or comes from an instance that is not known (any more), returns *run* itself.
    """
    if run.status is Status.DELETED:
        return run, ()
    after = _settle(fill(_HANDLERS[type(event)](run, event, at)), at)
    if after == run:
        return run, ()
    known = set(demands(run))
    return after, tuple(command for command in demands(after) if command not in known)


def demands(run: EndpointRun) -> tuple[Command, ...]:
    """Return everything that *run*, as it is, asks to be done; each may have been done before."""
    commands: list[Command] = [Serve(tuple(_all_served(run)))]
    for deployment, variant, instance in instances_of(run):
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

    return change_instance(run, event.instance_id, started)


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

    return _serverless.prove(change_instance(run, event.instance_id, ready), event.instance_id)


def _unhealthy(run: EndpointRun, event: Unhealthy, at: float) -> EndpointRun:
    def unhealthy(instance: Instance) -> Instance:
        return replace(instance, phase=Phase.UNHEALTHY) if instance.phase is Phase.READY else instance

    found = next((f for f in instances_of(run) if f[2].instance_id == event.instance_id), None)
    if found is not None and _serverless.is_spare(found[1]):
        return _serverless.discard(run, (event.instance_id,))
    return change_instance(run, event.instance_id, unhealthy)


def _failed(run: EndpointRun, event: Failed, at: float) -> EndpointRun:
    found = next((f for f in instances_of(run) if f[2].instance_id == event.instance_id), None)
    if found is None or found[2].phase is Phase.PAUSED:
        return run
    deployment, variant, instance = found
    run = replace(run, ending=(*run.ending, instance.instance_id), gone=(*run.gone, instance.instance_id))
    if _serverless.is_spare(variant):
        return _serverless.discard(run, (instance.instance_id,))
    if event.shutdown:
        return renew(run, instance.instance_id, failures=0)
    steady = instance.ready_at and at - instance.ready_at >= STEADY_S
    failures = 1 if steady else instance.failures + 1
    is_new = deployment is run.pending and not (run.rollout is not None and run.rollout.back)
    if is_new and (event.final or failures >= ATTEMPTS):
        return _rollout.take_back(run, _reason(variant.name, event))
    pause = min(FIRST_PAUSE_S * 2.0 ** (failures - 1), LONGEST_PAUSE_S)
    paused = replace(instance, phase=Phase.PAUSED, failures=failures, retry_at=at + pause, address="")
    return change_instance(run, instance.instance_id, lambda _: paused)


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


def _due(run: EndpointRun, event: Due, at: float) -> EndpointRun:
    for _, _, instance in list(instances_of(run)):
        if instance.phase is Phase.PAUSED and instance.retry_at <= at:
            run = renew(run, instance.instance_id, failures=instance.failures)
    return run


def _update_requested(run: EndpointRun, event: UpdateRequested, at: float) -> EndpointRun:
    return _rollout.begin(run, event.deployment, event.policy, at)


def _alarm_raised(run: EndpointRun, event: AlarmRaised, at: float) -> EndpointRun:
    if run.rollout is None or event.name not in run.rollout.policy.alarms:
        return run
    return _rollout.take_back(run, f"The update was taken back: alarm {event.name} is in state ALARM.")


def _capacity_requested(run: EndpointRun, event: CapacityRequested, at: float) -> EndpointRun:
    if run.current is None:
        return run
    ending: list[str] = []
    variants: list[Variant] = []
    for variant in run.current.variants:
        weight, count = event.wanted.get(variant.name, (None, None))
        wanted = replace(
            _serverless.resize(variant, event.concurrency.get(variant.name, (None, None))),
            weight=variant.weight if weight is None else weight,
        )
        if count is not None:
            wanted = replace(wanted, count=count)
        # Those that do not serve leave first.
        ranked = sorted(
            wanted.instances, key=lambda i: (i.phase is not Phase.READY, i.instance_id in event.spare)
        )
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


def _containers_wanted(run: EndpointRun, event: ContainersWanted, at: float) -> EndpointRun:
    return _serverless.want(run, event.variant, event.number, event.concurrency)


def _containers_idle(run: EndpointRun, event: ContainersIdle, at: float) -> EndpointRun:
    return _serverless.discard(run, event.instance_ids)


def _container_stuck(run: EndpointRun, event: ContainerStuck, at: float) -> EndpointRun:
    return _serverless.discard(run, (event.instance_id,), replaced=True)


def _delete_requested(run: EndpointRun, event: DeleteRequested, at: float) -> EndpointRun:
    return replace(
        run, status=Status.DELETING, current=None, pending=None, rollout=None, ending=run.instance_ids
    )


_HANDLERS: Final[Mapping[type[Any], Callable[[EndpointRun, Any, float], EndpointRun]]] = {
    KeyIssued: _key_issued,
    InstanceStarted: _instance_started,
    Ready: _ready,
    Unhealthy: _unhealthy,
    Failed: _failed,
    LastWord: _last_word,
    InstanceReleased: _released,
    Due: _due,
    UpdateRequested: _update_requested,
    AlarmRaised: _alarm_raised,
    CapacityRequested: _capacity_requested,
    ContainersWanted: _containers_wanted,
    ContainersIdle: _containers_idle,
    ContainerStuck: _container_stuck,
    DeleteRequested: _delete_requested,
}


# ---- parts of the above ------------------------------------------------------------------------------


def _settle(run: EndpointRun, at: float) -> EndpointRun:
    """Take the steps that follow from the state itself, or from the time."""
    if run.status is Status.DELETING:
        return run if run.ending else replace(run, status=Status.DELETED)
    while (further := fill(_rollout.advance(run, at))) != run:
        run = further
    if run.pending is None and run.current is not None and run.current.complete:
        back = run.status is Status.ROLLING_BACK and not run.ending
        if back or run.status is Status.UPDATING:
            return replace(run, status=Status.IN_SERVICE)
    return run


def _all_served(run: EndpointRun) -> list[Served]:
    """What the gateway should know: during an update both deployments, each with its share of the traffic."""
    if run.current is None or run.status not in _SERVING:
        return []
    share = run.rollout.share if run.rollout is not None else 0.0
    if run.pending is None or not share:
        return _part_served(run.current, None)
    return _part_served(run.current, 1.0 - share) + _part_served(run.pending, share)


def _part_served(deployment: Deployment, part: float | None) -> list[Served]:
    """The variants of a deployment that has *part* of the traffic; None: all of it."""
    whole = sum(v.weight for v in deployment.variants if not v.shadow) or 1.0
    scale = 1.0 if part is None else part / whole
    return [
        _served(v, min(1.0, v.weight / whole) if v.shadow else v.weight * scale, deployment.number)
        for v in deployment.variants
    ]


_SERVING: Final = (Status.IN_SERVICE, Status.UPDATING, Status.ROLLING_BACK)


def _served(variant: Variant, weight: float, number: int) -> Served:
    ready = tuple((i.instance_id, i.address, i.protocol) for i in variant.instances if i.phase is Phase.READY)
    return Served(
        variant.name, weight, ready, number, variant.shadow, variant.details, serverless=variant.serverless
    )


def _reason(variant: str, event: Failed) -> str:
    return (
        f"The primary container for production variant {variant} did not pass the ping health check. "
        f"Please check CloudWatch logs for this endpoint. ({event.reason})"
    )
