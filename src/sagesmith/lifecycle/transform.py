"""A transform job from its creation to its end: events in, the next state and the commands it demands out.

As with training jobs, what must be done follows from the state alone. Hosts work by themselves, each on its share of
the objects. An output carries the mark of its job, so that an instance that takes the place of a lost one goes on
after the last output that is there: losing an instance costs the time of the objects it was at, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from typing import Any, Final, TypeAlias

from sagesmith.lifecycle.jobs import (
    TERMINAL,
    Finished,
    InstanceStarted,
    KeyIssued,
    Lost,
    Release,
    Revoke,
    Start,
    Status,
    Stop,
    StopRequested,
    Waiting,
    with_fault,
)

__all__ = ["Cause", "Command", "Event", "Host", "Phase", "TransformRun", "demands", "plan", "step"]

FORGIVEN_LOSSES: Final = 3
"""How many instances a job may lose; one that ended with an orderly shutdown of the server does not count."""

Event: TypeAlias = KeyIssued | Waiting | InstanceStarted | Finished | Lost | StopRequested
Command: TypeAlias = Start | Stop | Release | Revoke


class Phase(IntEnum):
    """How far one host has come."""

    PLANNED = 0
    STARTED = 1
    ENDED = 2


class Cause(StrEnum):
    """Why a job does not end as completed."""

    NONE = ""
    STOP = "stop"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Host:
    """One instance of the job; the first is ``algo-1``. `attempt` counts those that had its place before."""

    instance_id: str
    phase: Phase = Phase.PLANNED
    attempt: int = 0

    @property
    def is_planned(self) -> bool:
        """Whether nobody has heard of it yet."""
        return self.phase is Phase.PLANNED

    @property
    def has_ended(self) -> bool:
        """Whether it has said its last word."""
        return self.phase is Phase.ENDED


@dataclass(frozen=True, slots=True)
class TransformRun:
    """The state of a transform job. `uid` is the common beginning of its instance ids, and marks its outputs.

    `epoch_ms` names its log streams, `key_ids` are the access keys that its hosts use as their execution role,
    `retired` are instances that were lost. Times are seconds since 1970.
    """

    uid: str
    hosts: tuple[Host, ...]
    created: float
    epoch_ms: int
    status: Status = Status.IN_PROGRESS
    cause: Cause = Cause.NONE
    failure_reason: str = ""
    losses: int = 0
    started: float | None = None
    ended: float | None = None
    key_ids: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()

    @property
    def over(self) -> bool:
        """Whether the job has reached its end."""
        return self.status in TERMINAL

    @property
    def deadline(self) -> float | None:
        """Transform jobs have no time limit."""
        return None


def plan(uid: str, *, instance_count: int, created: float) -> TransformRun:
    """Return a new job's state, its instances named but not started.

    Args:
        uid: what no other job's uid is: ``i-`` and 12 hexadecimal digits.
        instance_count: 1 or more.
        created: the time now.
    """
    hosts = tuple(Host(_instance_id(uid, 0, number)) for number in range(1, instance_count + 1))
    return TransformRun(uid, hosts, created, int(created * 1000))


def step(run: TransformRun, event: Event, at: float) -> TransformRun:
    """Return *run* after *event* at time *at*; *run* itself if the event says nothing new."""
    if run.over:
        return run
    after = _HANDLERS[type(event)](run, event, at)
    if all(host.has_ended for host in after.hosts):
        after = replace(after, status=_ENDS[after.cause], ended=at)
    return run if after == run else after


def demands(run: TransformRun) -> tuple[Command, ...]:
    """Return everything that *run*, as it is, asks to be done; each may have been done before."""
    commands: list[Command] = [Release(instance_id) for instance_id in run.retired]
    for host in run.hosts:
        if host.has_ended:
            commands.append(Release(host.instance_id))
        elif host.is_planned:
            commands.append(Start(host.instance_id))
        elif run.cause is Cause.STOP:
            commands.append(Stop(host.instance_id, "Stopping the transform job"))
    if run.over:
        commands.extend(Revoke(key_id) for key_id in run.key_ids)
    return tuple(commands)


def _key_issued(run: TransformRun, event: KeyIssued, at: float) -> TransformRun:
    return replace(run, key_ids=(*run.key_ids, event.key_id))


def _waiting(run: TransformRun, event: Waiting, at: float) -> TransformRun:
    return run


def _instance_started(run: TransformRun, event: InstanceStarted, at: float) -> TransformRun:
    host = _find(run, event.instance_id)
    if host is None or host.phase >= Phase.STARTED:
        return run
    started = at if run.started is None else run.started
    return replace(_change(run, replace(host, phase=Phase.STARTED)), started=started)


def _finished(run: TransformRun, event: Finished, at: float) -> TransformRun:
    host = _find(run, event.instance_id)
    if host is None or host.has_ended:
        return run
    run = _change(run, replace(host, phase=Phase.ENDED))
    if not event.error or run.cause is not Cause.NONE:
        return run
    return _fail(run, with_fault("ClientError" if event.client_error else "InternalServerError", event.error))


def _lost(run: TransformRun, event: Lost, at: float) -> TransformRun:
    host = _find(run, event.instance_id)
    if host is None or host.has_ended:
        return run
    if run.cause is Cause.STOP:
        return _change(run, replace(host, phase=Phase.ENDED))
    losses = run.losses + (not event.shutdown)
    if losses > FORGIVEN_LOSSES:
        run = replace(_change(run, replace(host, phase=Phase.ENDED)), losses=losses)
        reason = f"InternalServerError: Instances of the transform job were lost: {event.reason}"
        return _fail(run, reason)
    number, attempt = 1 + run.hosts.index(host), host.attempt + 1
    successor = Host(_instance_id(run.uid, attempt, number), attempt=attempt)
    hosts = tuple(successor if h is host else h for h in run.hosts)
    return replace(run, hosts=hosts, losses=losses, retired=(*run.retired, host.instance_id))


def _stop_requested(run: TransformRun, event: StopRequested, at: float) -> TransformRun:
    if run.status is Status.STOPPING:
        return run
    hosts = tuple(replace(h, phase=Phase.ENDED) if h.is_planned else h for h in run.hosts)
    return replace(run, hosts=hosts, status=Status.STOPPING, cause=Cause.STOP, failure_reason="")


_HANDLERS: Final[Mapping[type[Any], Callable[[TransformRun, Any, float], TransformRun]]] = {
    KeyIssued: _key_issued,
    Waiting: _waiting,
    InstanceStarted: _instance_started,
    Finished: _finished,
    Lost: _lost,
    StopRequested: _stop_requested,
}
_ENDS: Final[Mapping[Cause, Status]] = {
    Cause.NONE: Status.COMPLETED,
    Cause.STOP: Status.STOPPED,
    Cause.FAILURE: Status.FAILED,
}


def _instance_id(uid: str, attempt: int, number: int) -> str:
    return f"{uid}{attempt % 256:02x}{number:03x}"


def _find(run: TransformRun, instance_id: str) -> Host | None:
    return next((h for h in run.hosts if h.instance_id == instance_id), None)


def _change(run: TransformRun, host: Host) -> TransformRun:
    return replace(run, hosts=tuple(host if h.instance_id == host.instance_id else h for h in run.hosts))


def _fail(run: TransformRun, reason: str) -> TransformRun:
    if run.cause is not Cause.NONE:
        return run
    return replace(run, cause=Cause.FAILURE, failure_reason=reason[:1024])
