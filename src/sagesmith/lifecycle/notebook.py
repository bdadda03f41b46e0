"""A notebook instance's way: started, in service, stopped, started again, deleted; pure.

    Pending -> InService -> Stopping -> Stopped -> Pending ...
       |                                   |
       +-> Failed -------------------------+-> Deleting, then gone

Each start has an instance of its own (a new id) and a secret of its own; what outlives them is the volume, named by
`uid`. The row that holds a :class:`NotebookRun` is the only truth: what must now be done is :func:`demands` of it, and
doing that again is harmless.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, TypeAlias

__all__ = [
    "ATTEMPTS",
    "Command",
    "Created",
    "DeleteRequested",
    "End",
    "Event",
    "Failed",
    "InvalidTransition",
    "KeyIssued",
    "Lost",
    "NotebookRun",
    "Ready",
    "Released",
    "Remove",
    "Serve",
    "Start",
    "StartRequested",
    "Status",
    "StopRequested",
    "create",
    "demands",
    "step",
]

ATTEMPTS: Final = 3
"""How often in a row an instance is started that is lost before it serves."""


class Status(StrEnum):
    """As DescribeNotebookInstance spells it."""

    PENDING = "Pending"
    IN_SERVICE = "InService"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    FAILED = "Failed"
    DELETING = "Deleting"


@dataclass(frozen=True, slots=True)
class NotebookRun:
    """The state of a notebook instance.

    `uid` names its volume and is the beginning of its instances' ids, `serial` numbers them. `instance_id` is the one
    that is wanted ("" if none is), `address` where its JupyterLab answers. `secret` is that start's: who knows it may
    come in. `created` says that the script that runs once has run. `ending` are instances on their way out, `keys`
    (instance id, access key of the execution role).
    """

    uid: str
    status: Status
    serial: int = 0
    instance_id: str = ""
    secret: str = ""
    address: str = ""
    created: bool = False
    attempts: int = 0
    ending: tuple[str, ...] = ()
    keys: tuple[tuple[str, str], ...] = ()
    failure_reason: str = ""

    @property
    def instance_ids(self) -> tuple[str, ...]:
        """Every instance that exists or may exist."""
        return (*((self.instance_id,) if self.instance_id else ()), *self.ending)


# ---- events ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartRequested:
    """StartNotebookInstance, with the new start's secret."""

    secret: str


@dataclass(frozen=True, slots=True)
class StopRequested:
    """StopNotebookInstance."""


@dataclass(frozen=True, slots=True)
class DeleteRequested:
    """DeleteNotebookInstance."""


@dataclass(frozen=True, slots=True)
class KeyIssued:
    """The instance was given a key of the execution role."""

    instance_id: str
    access_key_id: str


@dataclass(frozen=True, slots=True)
class Created:
    """The script that runs once has run to its good end."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class Ready:
    """JupyterLab answers at *address*."""

    instance_id: str
    address: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The instance cannot come up, for a reason that another try would not mend."""

    instance_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The instance is gone by itself; *shutdown* if the platform's own end took it along."""

    instance_id: str
    reason: str
    shutdown: bool = False


@dataclass(frozen=True, slots=True)
class Released:
    """Nothing is left of the instance."""

    instance_id: str


Event: TypeAlias = (
    StartRequested | StopRequested | DeleteRequested | KeyIssued | Created | Ready | Failed | Lost | Released
)


# ---- commands ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Start the instance, or listen to it if it is there."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class Serve:
    """Lead those who have a session to *address*."""

    address: str
    secret: str


@dataclass(frozen=True, slots=True)
class End:
    """End the instance, forget it, and let its keys work no longer."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove the volume and the row."""


Command: TypeAlias = Start | Serve | End | Remove


class InvalidTransition(ValueError):
    """The notebook instance is not in a status from which it can go there; `allowed` are those."""

    def __init__(self, status: Status, allowed: tuple[Status, ...], to: Status) -> None:
        super().__init__(
            f"Status ({status.value}) not in ([{', '.join(s.value for s in allowed)}]). "
            f"Unable to transition to ({to.value})"
        )


def create(uid: str, secret: str) -> NotebookRun:
    """Return a new notebook instance, which starts."""
    return _planned(NotebookRun(uid, Status.PENDING, secret=secret))


def step(run: NotebookRun, event: Event) -> NotebookRun:
    """Return *run* after *event*; *run* itself if the event means nothing to it (any more).

    Raises:
        InvalidTransition: a request that the status does not allow.
    """
    match event:
        case StartRequested(secret):
            _demand(run, (Status.STOPPED, Status.FAILED), Status.PENDING)
            fresh = replace(run, status=Status.PENDING, secret=secret, attempts=0, failure_reason="")
            return _planned(fresh)
        case StopRequested():
            _demand(run, (Status.IN_SERVICE,), Status.STOPPING)
            return _settled(_without_instance(replace(run, status=Status.STOPPING)))
        case DeleteRequested():
            if run.status is Status.DELETING:
                return run
            _demand(run, (Status.STOPPED, Status.FAILED), Status.DELETING)
            return replace(run, status=Status.DELETING)
        case KeyIssued(instance_id, key):
            return replace(run, keys=(*run.keys, (instance_id, key)))
        case Released(instance_id):
            ending = tuple(name for name in run.ending if name != instance_id)
            keys = tuple(pair for pair in run.keys if pair[0] != instance_id)
            changed = replace(run, ending=ending, keys=keys)
            return run if changed == run else _settled(changed)
        case _:
            return _heard(run, event) if event.instance_id == run.instance_id else run


def demands(run: NotebookRun) -> list[Command]:
    """Return what the state demands now."""
    wanted: list[Command] = [End(instance_id) for instance_id in run.ending]
    if run.status is Status.IN_SERVICE:
        wanted.append(Serve(run.address, run.secret))
    if run.instance_id and run.status is Status.PENDING:
        wanted.append(Start(run.instance_id))
    if run.status is Status.DELETING and not run.ending:
        wanted.append(Remove())
    return wanted


def _heard(run: NotebookRun, event: Created | Ready | Failed | Lost) -> NotebookRun:
    """Return *run* after what its present instance said, or after its loss."""
    match event:
        case Created():
            return replace(run, created=True)
        case Ready(_, address):
            changed = replace(run, status=Status.IN_SERVICE, address=address, attempts=0, failure_reason="")
            return run if changed == run else changed
        case Failed(_, reason):
            return _given_up(run, reason)
        case Lost(_, reason, shutdown):
            attempts = run.attempts if shutdown else run.attempts + 1
            if attempts >= ATTEMPTS:
                return _given_up(run, reason)
            again = _without_instance(replace(run, status=Status.PENDING, attempts=attempts))
            return _planned(again)


def _demand(run: NotebookRun, allowed: tuple[Status, ...], to: Status) -> None:
    if run.status not in allowed:
        raise InvalidTransition(run.status, allowed, to)


def _planned(run: NotebookRun) -> NotebookRun:
    serial = run.serial + 1
    return replace(run, serial=serial, instance_id=f"{run.uid}{serial:05x}", address="")


def _without_instance(run: NotebookRun) -> NotebookRun:
    ending = (*run.ending, run.instance_id) if run.instance_id else run.ending
    return replace(run, instance_id="", address="", ending=ending)


def _given_up(run: NotebookRun, reason: str) -> NotebookRun:
    """Return *run* without an instance. It counts as failed once nothing is left of that."""
    return _settled(_without_instance(replace(run, status=Status.PENDING, failure_reason=reason[:1024])))


def _settled(run: NotebookRun) -> NotebookRun:
    """Return *run* as stopped or failed, if it was on the way there and nothing is left of its instances."""
    if run.instance_ids:
        return run
    if run.status is Status.STOPPING:
        return replace(run, status=Status.STOPPED)
    return replace(run, status=Status.FAILED) if run.status is Status.PENDING else run
