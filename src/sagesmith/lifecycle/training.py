"""A training job from its creation to its end: events in, the next state and the commands it demands out.

The rule that keeps it simple: what must be done follows from the state alone. :func:`demands` says it, and
:func:`step` returns those demands that the event has added. A driver that died between writing a state and
acting on it therefore only has to perform all demands of what it finds; doing one twice is harmless.

Each host climbs through the :class:`Phase` list and never goes back, so that a message that comes a second time
changes nothing. The job's own status follows from its hosts and from what ends it early, its :class:`Cause`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from math import ceil
from typing import Any, Final, TypeAlias

from sagesmith.lifecycle.jobs import (
    TERMINAL,
    Finished,
    InstanceStarted,
    KeyIssued,
    Lost,
    Release,
    Revoke,
    Shutdown,
    Start,
    Status,
    Stop,
    StopRequested,
    Waiting,
    with_fault,
)

__all__ = [
    "TERMINAL",
    "Cause",
    "Command",
    "ContainerExited",
    "DeadlinePassed",
    "Event",
    "Finished",
    "Host",
    "InstanceStarted",
    "KeyIssued",
    "Lost",
    "Merge",
    "Phase",
    "Release",
    "Revoke",
    "Shutdown",
    "StageReached",
    "Start",
    "Status",
    "Stop",
    "StopRequested",
    "TrainingRun",
    "Transition",
    "Uploaded",
    "Waiting",
    "demands",
    "plan",
    "step",
]


class Phase(IntEnum):
    """How far one host has come."""

    PLANNED = 0
    STARTED = 1
    DOWNLOADING = 2
    TRAINING = 3
    EXITED = 4
    UPLOADED = 5
    ENDED = 6


class Cause(StrEnum):
    """Why a job ends before all its containers have ended well."""

    NONE = ""
    STOP = "stop"
    MAX_RUNTIME = "max_runtime"
    MAX_WAIT = "max_wait"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Host:
    """One instance of the job; the first is ``algo-1``.

    With several hosts, `part_uri` is what this one uploaded; the first is `merged` once it made one artifact of all.
    """

    instance_id: str
    phase: Phase = Phase.PLANNED
    exit_code: int | None = None
    part_uri: str = ""
    merged: bool = False

    @property
    def is_planned(self) -> bool:
        """Whether nobody has heard of it yet."""
        return self.phase is Phase.PLANNED

    @property
    def has_ended(self) -> bool:
        """Whether it has said its last word."""
        return self.phase is Phase.ENDED


@dataclass(frozen=True, slots=True)
class Transition:
    """One entry of `SecondaryStatusTransitions`; the last one is open."""

    status: str
    start: float
    message: str
    end: float | None = None


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """The state of a training job. `uid` is the common beginning of its instance ids.

    `epoch_ms` names its log streams, `key_ids` are the access keys that its hosts use as their execution role
    (a server that starts anew cannot read an old one's secret, and issues another), `retired` are instances of
    earlier attempts, `retries` is how many more losses are forgiven. Times are seconds since 1970.
    """

    uid: str
    hosts: tuple[Host, ...]
    created: float
    epoch_ms: int
    max_runtime_s: float
    max_wait_s: float | None = None
    retries: int = 0
    status: Status = Status.IN_PROGRESS
    cause: Cause = Cause.NONE
    failure_reason: str = ""
    transitions: tuple[Transition, ...] = ()
    attempt: int = 0
    started: float | None = None
    ended: float | None = None
    key_ids: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()

    @property
    def over(self) -> bool:
        """Whether the job has reached its end."""
        return self.status in TERMINAL

    @property
    def secondary(self) -> str:
        """`SecondaryStatus`."""
        return self.transitions[-1].status

    @property
    def deadline(self) -> float | None:
        """When :class:`DeadlinePassed` is due; None if nothing is left to cut short."""
        if self.over or self.cause or all(h.phase >= Phase.EXITED for h in self.hosts):
            return None
        ends = [] if self.started is None else [self.started + self.max_runtime_s]
        if self.max_wait_s is not None:
            ends.append(self.created + self.max_wait_s)
        return min(ends, default=None)

    @property
    def seconds(self) -> int | None:
        """`TrainingTimeInSeconds`: from the first instance's start to the end, at least 1; None before."""
        if self.started is None or self.ended is None:
            return None
        return max(1, ceil(self.ended - self.started))


# ---- events ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StageReached:
    """The host says what it does now: Downloading, DownloadingTrainingImage, Training or Uploading."""

    instance_id: str
    stage: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class ContainerExited:
    """The host's container ended. `failure` is what it wrote to /opt/ml/output/failure."""

    instance_id: str
    exit_code: int
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Uploaded:
    """The host's artifacts are in S3.

    `part_uri` is set if they are still to be merged with other hosts', `model_uri` if they are the job's.
    """

    instance_id: str
    part_uri: str = ""
    model_uri: str = ""


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The time `TrainingRun.deadline` has come."""


Event: TypeAlias = (
    KeyIssued
    | Waiting
    | InstanceStarted
    | StageReached
    | ContainerExited
    | Uploaded
    | Finished
    | Lost
    | StopRequested
    | DeadlinePassed
)


# ---- commands ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Merge:
    """Tell the host to make one artifact of all hosts' parts."""

    instance_id: str
    part_uris: tuple[str, ...]


Command: TypeAlias = Start | Stop | Merge | Shutdown | Release | Revoke


# ---- tables ------------------------------------------------------------------------------------------

MESSAGES: Final[Mapping[str, str]] = {
    "Pending": "Waiting for instances: other work takes this fleet's vCPUs or memory.",
    "Starting": "Preparing the instances for training",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Uploading": "Uploading generated training model",
    "Stopping": "Stopping the training job",
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
    "MaxWaitTimeExceeded": "Training job exceeded MaxWaitTimeInSeconds provided",
}

_STAGES: Final[Mapping[str, tuple[Phase, str]]] = {
    "Downloading": (Phase.DOWNLOADING, "Downloading input data"),
    "DownloadingTrainingImage": (Phase.DOWNLOADING, "Downloading the training image"),
    "Training": (Phase.TRAINING, "Training image download completed. Training in progress."),
    "Uploading": (Phase.EXITED, "Uploading generated training model"),
}

_ENDS: Final[Mapping[Cause, tuple[Status, str]]] = {
    Cause.NONE: (Status.COMPLETED, "Completed"),
    Cause.STOP: (Status.STOPPED, "Stopped"),
    Cause.MAX_RUNTIME: (Status.STOPPED, "MaxRuntimeExceeded"),
    Cause.MAX_WAIT: (Status.STOPPED, "MaxWaitTimeExceeded"),
    Cause.FAILURE: (Status.FAILED, "Failed"),
}

_ORDER: Final = ("Restarting", "Pending", "Starting", "Downloading", "Training", "Uploading")


def plan(
    uid: str,
    *,
    instance_count: int,
    created: float,
    max_runtime_s: float,
    max_wait_s: float | None = None,
    retries: int = 0,
) -> TrainingRun:
    """Return a new job's state, its instances named but not started.

    Args:
        uid: what no other job's uid is: ``i-`` and 12 hexadecimal digits.
        instance_count: 1 or more.
        created: the time now.
        max_runtime_s: `MaxRuntimeInSeconds`.
        max_wait_s: `MaxWaitTimeInSeconds`, of jobs on spot instances.
        retries: `MaximumRetryAttempts`: how often a lost instance starts the job again.
    """
    return TrainingRun(
        uid=uid,
        hosts=_hosts(uid, 0, instance_count),
        created=created,
        epoch_ms=int(created * 1000),
        max_runtime_s=max_runtime_s,
        max_wait_s=max_wait_s,
        retries=retries,
        transitions=(Transition("Starting", created, "Starting the training job"),),
    )


def step(run: TrainingRun, event: Event, at: float) -> tuple[TrainingRun, tuple[Command, ...]]:
    """Return *run* after *event* at time *at*, and the commands that must now be performed.

    An event that says nothing new (it came before, its instance is of an earlier attempt, the job is over)
    returns *run* itself.
    """
    if run.over:
        return run, ()
    after = _HANDLERS[type(event)](run, event, at)
    if all(h.phase is Phase.ENDED for h in after.hosts):
        after = _end(after, at)
    if after == run:
        return run, ()
    known = set(demands(run))
    return after, tuple(command for command in demands(after) if command not in known)


def demands(run: TrainingRun) -> tuple[Command, ...]:
    """Return everything that *run*, as it is, asks to be done; each may have been done before."""
    commands: list[Command] = [Release(instance_id) for instance_id in run.retired]
    several = len(run.hosts) > 1
    for index, host in enumerate(run.hosts):
        name, phase = host.instance_id, host.phase
        if phase is Phase.ENDED:
            commands.append(Release(name))
        elif phase is Phase.PLANNED:
            commands.append(Start(name))
        elif run.cause is Cause.FAILURE:
            if phase < Phase.EXITED or (several and phase is Phase.UPLOADED):
                commands.append(Shutdown(name))
        elif phase < Phase.EXITED:
            if run.cause:
                commands.append(Stop(name, MESSAGES[_ENDS[run.cause][1]]))
        elif several and phase is Phase.UPLOADED and all(h.phase >= Phase.UPLOADED for h in run.hosts):
            parts = tuple(h.part_uri for h in run.hosts if h.part_uri)
            commands.append(Merge(name, parts) if index == 0 and parts else Shutdown(name))
    if run.over:
        commands.extend(Revoke(key_id) for key_id in run.key_ids)
    return tuple(commands)


# ---- what each event does ----------------------------------------------------------------------------


def _key_issued(run: TrainingRun, event: KeyIssued, at: float) -> TrainingRun:
    run = _show(run, "Starting", "Launching requested ML instances", at)
    return replace(run, key_ids=(*run.key_ids, event.key_id))


def _waiting(run: TrainingRun, event: Waiting, at: float) -> TrainingRun:
    if run.cause or any(h.phase > Phase.PLANNED for h in run.hosts):
        return run
    return _show(run, "Pending", MESSAGES["Pending"], at)


def _instance_started(run: TrainingRun, event: InstanceStarted, at: float) -> TrainingRun:
    run = _reach(run, event.instance_id, Phase.STARTED, at)
    return (
        run
        if run.secondary in ("Downloading", "Training")
        else _show(run, "Starting", MESSAGES["Starting"], at)
    )


def _stage_reached(run: TrainingRun, event: StageReached, at: float) -> TrainingRun:
    if event.stage not in _STAGES or not _is_known(run, event.instance_id):
        return run
    phase, message = _STAGES[event.stage]
    run = _reach(run, event.instance_id, Phase.STARTED, at)
    if phase is not Phase.EXITED:
        run = _reach(run, event.instance_id, phase, at)
    elif any(h.phase < Phase.EXITED for h in run.hosts):
        return run
    secondary = "Downloading" if phase is Phase.DOWNLOADING else event.stage
    return _show(run, secondary, event.message or message, at)


def _container_exited(run: TrainingRun, event: ContainerExited, at: float) -> TrainingRun:
    host = _find(run, event.instance_id)
    if host is None or host.phase >= Phase.EXITED:
        return run
    run = _change(run, replace(host, phase=Phase.EXITED, exit_code=event.exit_code))
    if event.exit_code != 0:
        run = _fail(run, _algorithm_error(event), at)
    elif all(h.phase >= Phase.EXITED for h in run.hosts):
        run = _show(run, "Uploading", MESSAGES["Uploading"], at)
    return run


def _uploaded(run: TrainingRun, event: Uploaded, at: float) -> TrainingRun:
    host = _find(run, event.instance_id)
    if host is None or host.phase is Phase.ENDED:
        return run
    if host.phase is Phase.UPLOADED:
        return _change(run, replace(host, merged=True)) if event.model_uri else run
    return _change(
        run,
        replace(host, phase=Phase.UPLOADED, part_uri=event.part_uri, merged=bool(event.model_uri)),
    )


def _finished(run: TrainingRun, event: Finished, at: float) -> TrainingRun:
    host = _find(run, event.instance_id)
    if host is None or host.phase is Phase.ENDED:
        return run
    run = _change(run, replace(host, phase=Phase.ENDED))
    if event.error and (run.cause in (Cause.NONE, Cause.FAILURE) or host.phase >= Phase.EXITED):
        fault = "ClientError" if event.client_error else "InternalServerError"
        return _fail(run, with_fault(fault, event.error), at, even_if_stopping=True)
    if host.exit_code is None and run.cause is Cause.NONE:
        return _fail(run, "InternalServerError: An instance ended before its container did. Try again.", at)
    return run


def _lost(run: TrainingRun, event: Lost, at: float) -> TrainingRun:
    host = _find(run, event.instance_id)
    if host is None or host.phase is Phase.ENDED:
        return run
    is_first = host is run.hosts[0]
    done = host.phase is Phase.UPLOADED and (len(run.hosts) == 1 or host.merged or not is_first)
    if done or run.cause is not Cause.NONE:
        return _change(run, replace(host, phase=Phase.ENDED))
    if event.shutdown:
        # The time until the server came back is not the job's: its clock starts again, too.
        message = "The server was shut down; the job starts again from its beginning."
        return replace(_restart(run, message, at), started=None)
    if run.retries > 0:
        message = f"An instance was lost ({event.reason}); the job starts again."
        return replace(_restart(run, message, at), retries=run.retries - 1)
    run = _change(run, replace(host, phase=Phase.ENDED))
    return _fail(run, f"InternalServerError: An instance of the training job was lost: {event.reason}", at)


def _stop_requested(run: TrainingRun, event: StopRequested, at: float) -> TrainingRun:
    return _cut_short(run, Cause.STOP, at)


def _deadline_passed(run: TrainingRun, event: DeadlinePassed, at: float) -> TrainingRun:
    if run.deadline is None or at < run.deadline:
        return run
    by_runtime = run.started is not None and at >= run.started + run.max_runtime_s
    return _cut_short(run, Cause.MAX_RUNTIME if by_runtime else Cause.MAX_WAIT, at)


_HANDLERS: Final[Mapping[type[Any], Callable[[TrainingRun, Any, float], TrainingRun]]] = {
    KeyIssued: _key_issued,
    Waiting: _waiting,
    InstanceStarted: _instance_started,
    StageReached: _stage_reached,
    ContainerExited: _container_exited,
    Uploaded: _uploaded,
    Finished: _finished,
    Lost: _lost,
    StopRequested: _stop_requested,
    DeadlinePassed: _deadline_passed,
}


# ---- parts of the above ------------------------------------------------------------------------------


def _hosts(uid: str, attempt: int, count: int) -> tuple[Host, ...]:
    return tuple(Host(f"{uid}{attempt:02x}{number:03x}") for number in range(1, count + 1))


def _find(run: TrainingRun, instance_id: str) -> Host | None:
    return next((h for h in run.hosts if h.instance_id == instance_id), None)


def _is_known(run: TrainingRun, instance_id: str) -> bool:
    return _find(run, instance_id) is not None


def _change(run: TrainingRun, host: Host) -> TrainingRun:
    return replace(run, hosts=tuple(host if h.instance_id == host.instance_id else h for h in run.hosts))


def _reach(run: TrainingRun, instance_id: str, phase: Phase, at: float) -> TrainingRun:
    host = _find(run, instance_id)
    if host is None or host.phase >= phase:
        return run
    return replace(
        _change(run, replace(host, phase=phase)), started=at if run.started is None else run.started
    )


def _show(run: TrainingRun, status: str, message: str, at: float) -> TrainingRun:
    """Let the job say *status* with *message*: forward only, except between Pending and Starting."""
    last = run.transitions[-1]
    if status in _ORDER and (
        run.cause
        or last.status not in _ORDER
        or (_ORDER.index(status) < _ORDER.index(last.status) and status != "Pending")
    ):
        return run
    if last.status == status:
        changed = (*run.transitions[:-1], replace(last, message=message))
        return run if last.message == message else replace(run, transitions=changed)
    closed = replace(last, end=at)
    return replace(run, transitions=(*run.transitions[:-1], closed, Transition(status, at, message)))


def _cut_short(run: TrainingRun, cause: Cause, at: float) -> TrainingRun:
    if run.cause is not Cause.NONE:
        return run
    hosts = tuple(replace(h, phase=Phase.ENDED) if h.phase is Phase.PLANNED else h for h in run.hosts)
    run = _show(run, "Stopping", MESSAGES["Stopping"], at)
    return replace(run, hosts=hosts, status=Status.STOPPING, cause=cause)


def _fail(run: TrainingRun, reason: str, at: float, *, even_if_stopping: bool = False) -> TrainingRun:
    if run.cause is Cause.FAILURE or (run.cause is not Cause.NONE and not even_if_stopping):
        return run
    hosts = tuple(replace(h, phase=Phase.ENDED) if h.phase is Phase.PLANNED else h for h in run.hosts)
    return replace(run, hosts=hosts, cause=Cause.FAILURE, failure_reason=reason[:1024])


def _restart(run: TrainingRun, message: str, at: float) -> TrainingRun:
    attempt = run.attempt + 1
    closed = replace(run.transitions[-1], end=at)
    return replace(
        run,
        attempt=attempt,
        retired=(*run.retired, *(h.instance_id for h in run.hosts)),
        hosts=_hosts(run.uid, attempt, len(run.hosts)),
        transitions=(*run.transitions[:-1], closed, Transition("Restarting", at, message)),
    )


def _end(run: TrainingRun, at: float) -> TrainingRun:
    status, secondary = _ENDS[run.cause]
    run = _show(run, secondary, MESSAGES[secondary], at)
    closed = replace(run.transitions[-1], end=at)
    return replace(run, status=status, ended=at, transitions=(*run.transitions[:-1], closed))


def _algorithm_error(event: ContainerExited) -> str:
    text = event.failure.strip()
    if not text and event.exit_code in (137, -9):
        text = (
            "The container was killed, as a rule because it needed more memory than its instance has. "
            "Use an instance type with more memory, or less data per instance"
        )
    if not text:
        text = "The container wrote nothing to /opt/ml/output/failure; its log stream says more"
    suffix = f", exit code: {event.exit_code}"
    return with_fault("AlgorithmError", text)[: 1024 - len(suffix)] + suffix
