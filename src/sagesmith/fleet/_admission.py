"""Who may start now: the vCPUs and the memory of this machine, given out in the order of asking.

The unit is the *group*: all instances of one training job, admitted together or not at all, so that two jobs
of two instances can never hold half of the machine each and wait for the other half. A group larger than
the machine gets all of it, and its instances share it.

Instances of endpoints are admitted by an account of their own: they mostly wait, and must come up while a training job
uses everything. Eight for each vCPU always may; beyond that it is the memory that the machine really has left which
counts, since an idle model takes a hundredth of what its instance type offers. Only some start at a time: two hundred
at once would come up together after minutes, and the first of them in a second otherwise.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from sagesmith.fleet.api import InstanceShape

__all__ = ["Admission", "Request"]

_SERVING_INSTANCES_PER_VCPU = 8
_STARTING_PER_VCPU = 4
_LONGEST_START_S = 20.0  # what takes longer waits for something else than the processor
_START_BYTES = 256 * 1024 * 1024  # what one that starts may still take
_RESERVED = 8  # a part of the memory that endpoints leave free
_LOOK_AGAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Request:
    """One instance that wants to start. `size` is the number of instances in its group."""

    instance_id: str
    group: str
    size: int
    shape: InstanceShape
    serving: bool = False


@dataclass(slots=True)
class _Group:
    vcpus: int
    memory_bytes: int
    members: set[str] = field(default_factory=set)


class Admission:
    """Admits requests in order, on one event loop.

    *available* returns the bytes of memory that the machine has left now; by default all that it has.
    """

    def __init__(self, machine: InstanceShape, available: Callable[[], int] | None = None) -> None:
        self._machine = machine
        self._available = available or (lambda: machine.memory_bytes)
        self._starting: set[str] = set()
        self._again: asyncio.TimerHandle | None = None
        self._groups: dict[str, _Group] = {}
        self._group_of: dict[str, str] = {}
        self._serving: set[str] = set()
        self._queues: dict[bool, deque[tuple[Request, asyncio.Future[None]]]] = {
            False: deque(),
            True: deque(),
        }

    async def enter(self, request: Request) -> int:
        """Wait until there is room for *request*, take it, and return the vCPUs that are its share."""
        queue = self._queues[request.serving]
        if request.group in self._groups and not request.serving:
            self._admit(request)
        elif queue or not self._fits(request):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            queue.append((request, turn))
            self._look_again()
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.leave(request.instance_id)
                queue_now = self._queues[request.serving]
                self._queues[request.serving] = deque(item for item in queue_now if item[1] is not turn)
                self._admit_waiting()
                raise
        else:
            self._admit(request)
        return self.share(request)

    def take(self, request: Request) -> int:
        """Take room for an instance that runs already, whether there is any or not; return its share."""
        self._take(request)
        return self.share(request)

    def started(self, instance_id: str) -> None:
        """Note that an instance of an endpoint has come up, or will not; unknown names do nothing."""
        if instance_id in self._starting:
            self._starting.discard(instance_id)
            self._admit_waiting()

    def leave(self, instance_id: str) -> None:
        """Give back what *instance_id* has; unknown names do nothing."""
        self._serving.discard(instance_id)
        self._starting.discard(instance_id)
        group = self._groups.get(name := self._group_of.pop(instance_id, ""))
        if group is not None:
            group.members.discard(instance_id)
            if not group.members:
                del self._groups[name]
        self._admit_waiting()

    def share(self, request: Request) -> int:
        """Return the vCPUs that an instance may use: its type's, or its part of what its group has."""
        if request.serving:
            return max(1, min(request.shape.vcpus, self._machine.vcpus))
        return max(1, min(request.shape.vcpus, self._machine.vcpus // max(1, request.size)))

    @property
    def training(self) -> bool:
        """True while a training group has room taken."""
        return bool(self._groups)

    @property
    def waiting(self) -> list[str]:
        """The instances in the queues, in order."""
        return [request.instance_id for queue in self._queues.values() for request, _ in list(queue)]

    def _fits(self, request: Request) -> bool:
        if request.serving:
            return self._serving_fits()
        if not self._groups:
            return True
        wanted = self._claim(request)
        vcpus = sum(group.vcpus for group in self._groups.values())
        memory = sum(group.memory_bytes for group in self._groups.values())
        return (
            vcpus + wanted.vcpus <= self._machine.vcpus
            and memory + wanted.memory_bytes <= self._machine.memory_bytes
        )

    def _serving_fits(self) -> bool:
        vcpus, starting = self._machine.vcpus, len(self._starting)
        if starting >= _STARTING_PER_VCPU * vcpus:
            return False
        if len(self._serving) < _SERVING_INSTANCES_PER_VCPU * vcpus:
            return True
        return self._available() - starting * _START_BYTES >= self._machine.memory_bytes // _RESERVED

    def _claim(self, request: Request) -> _Group:
        return _Group(
            vcpus=min(request.shape.vcpus * request.size, self._machine.vcpus),
            memory_bytes=min(request.shape.memory_bytes * request.size, self._machine.memory_bytes),
        )

    def _admit(self, request: Request) -> None:
        """Take room for an instance that will start now."""
        self._take(request)
        if request.serving:
            self._starting.add(request.instance_id)
            loop = asyncio.get_running_loop()
            loop.call_later(_LONGEST_START_S, self.started, request.instance_id)

    def _look_again(self) -> None:
        """Let those in the queue of endpoints be looked at again: nobody tells when the machine has more memory."""
        if self._queues[True] and self._again is None:
            self._again = asyncio.get_running_loop().call_later(_LOOK_AGAIN_S, self._look)

    def _look(self) -> None:
        self._again = None
        self._admit_waiting()

    def _take(self, request: Request) -> None:
        if request.serving:
            self._serving.add(request.instance_id)
            return
        group = self._groups.setdefault(request.group, self._claim(request))
        group.members.add(request.instance_id)
        self._group_of[request.instance_id] = request.group

    def _admit_waiting(self) -> None:
        """Admit from the front while there is room; a group that is in brings its members along from anywhere."""
        for serving, queue in self._queues.items():
            left: deque[tuple[Request, asyncio.Future[None]]] = deque()
            for request, turn in queue:
                if turn.done():
                    continue
                member = not serving and request.group in self._groups
                if member or (not left and self._fits(request)):
                    self._admit(request)
                    turn.set_result(None)
                else:
                    left.append((request, turn))
            self._queues[serving] = left
        self._look_again()
