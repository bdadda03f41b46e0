"""What the lifecycles of all kinds of jobs share: their statuses, and the events and commands of any instance.

A job runs on instances that it names itself. What an event does, and when a command is demanded, is each
lifecycle's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = [
    "TERMINAL",
    "Finished",
    "InstanceStarted",
    "KeyIssued",
    "Lost",
    "Release",
    "Revoke",
    "Shutdown",
    "Start",
    "Status",
    "Stop",
    "StopRequested",
    "Waiting",
    "with_fault",
]

_KNOWN_FAULTS: Final = ("AlgorithmError:", "ClientError:", "InternalServerError:")


class Status(StrEnum):
    """`TrainingJobStatus`, `TransformJobStatus`."""

    IN_PROGRESS = "InProgress"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPING = "Stopping"
    STOPPED = "Stopped"


TERMINAL: Final = frozenset({Status.COMPLETED, Status.FAILED, Status.STOPPED})


# ---- events ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeyIssued:
    """The execution role's key for this job's hosts exists."""

    key_id: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """There is no room for the instances yet."""


@dataclass(frozen=True, slots=True)
class InstanceStarted:
    """The instance's process exists."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The instance said its last word. `error` is what went wrong outside the container."""

    instance_id: str
    error: str = ""
    client_error: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """The instance is gone without a last word; through an orderly shutdown if `shutdown`."""

    instance_id: str
    reason: str
    shutdown: bool = False


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The user asked for the job's end."""


# ---- commands ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Start the instance (and issue the key first, if there is none)."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Tell the host to end its work early."""

    instance_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Tell the host that its work is over."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class Release:
    """Forget the instance; cancel its start if it has not started."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class Revoke:
    """The key is not needed any more."""

    key_id: str


def with_fault(fault: str, text: str) -> str:
    """Return a `FailureReason`: *text*, after the kind of *fault* unless it names one itself."""
    return text if text.startswith(_KNOWN_FAULTS) else f"{fault}: {text}"
