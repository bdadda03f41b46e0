"""What drivers ask of a fleet: instances that start, speak, hear and end.

A fleet gets its instances somewhere (this machine, a Ray cluster) and carries messages and commands.
It decides nothing: what a message means is the driver's business.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from sagesmith.instance.spec import Command, InstanceSpec, Message

__all__ = ["Fleet", "InstanceLost", "InstanceShape", "Listener"]


@dataclass(frozen=True, slots=True)
class InstanceLost:
    """The instance's process is gone without a `Finished`: killed, or its node vanished.

    `shutdown` is True if the fleet's own orderly shutdown (or a reboot of the machine) ended it, so that the
    work may be started again.
    """

    reason: str
    shutdown: bool = False


@dataclass(frozen=True, slots=True)
class InstanceShape:
    """What an instance type offers here. Memory is in bytes."""

    vcpus: int
    memory_bytes: int
    gpus: int = 0


Listener: TypeAlias = Callable[[str, "Message | InstanceLost"], Awaitable[None]]
"""Called with (instance id, message) in order, one at a time for each instance. When it returns, the message
is acknowledged and will not come again; when it raises, it comes again after the next start."""


class Fleet(Protocol):
    """Instances of one kind of place. All methods run on the event loop and return quickly."""

    def shape(self, instance_type: str) -> InstanceShape:
        """Return what *instance_type* offers here.

        Raises:
            AwsError: `ValidationException`, the type is unknown.
        """
        ...

    async def start(self, spec: InstanceSpec, listener: Listener) -> None:
        """Start an instance, once there is room for it; return when its process exists.

        Starting an id that already runs (after a restart of the server) only attaches *listener* to it.
        Waits while vCPUs or memory are taken: the caller shows that as a queue.
        """
        ...

    async def attach(self, instance_id: str, listener: Listener) -> bool:
        """Listen again to an instance that an earlier server started; False if nothing is known of it.

        An instance that ended in the meantime still delivers its journal and then `Finished` or `InstanceLost`.
        """
        ...

    async def tell(self, instance_id: str, command: Command) -> None:
        """Send *command*; it is delivered even if the instance cannot be reached at the moment."""
        ...

    async def release(self, instance_id: str) -> None:
        """Forget the instance: its work is over. Ends its process if it is still there, removes its folder."""
        ...

    async def sweep(self, keep: Sequence[str]) -> None:
        """After recovery: end every instance that is not in *keep*, and remove what it left."""
        ...

    async def close(self, *, end_instances: bool) -> None:
        """Stop listening; with *end_instances* end them all in order first (`sagesmith down`)."""
        ...
