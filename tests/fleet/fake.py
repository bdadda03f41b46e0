"""A fleet whose instances play a script. They outlive the driver, keep what it did not take, and hear commands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

from sagesmith.fleet.api import InstanceLost, InstanceShape, Listener
from sagesmith.fleet.instance_types import describe
from sagesmith.instance.spec import Command, Finished, InstanceSpec, Message

__all__ = ["FakeFleet", "FakeInstance", "Script"]


class FakeInstance:
    """One instance: what it was told at its start, and which commands it has heard."""

    def __init__(self, spec: InstanceSpec, listener: Listener) -> None:
        self.spec = spec
        self.commands: asyncio.Queue[Command] = asyncio.Queue()
        self.heard: list[Command] = []
        self.ended = False
        self._listener: Listener | None = listener
        self._attached = asyncio.Event()
        self._attached.set()

    @property
    def id(self) -> str:
        return self.spec.instance_id

    def attach(self, listener: Listener) -> None:
        self._listener = listener
        self._attached.set()

    def detach(self) -> None:
        self._listener = None
        self._attached.clear()

    async def say(self, message: Message | InstanceLost) -> None:
        """Deliver a message; if nobody takes it, wait for the next driver."""
        while True:
            await self._attached.wait()
            listener = self._listener
            assert listener is not None
            try:
                await listener(self.id, message)
            except Exception:
                if self._listener is listener:
                    self.detach()
            else:
                break
        if isinstance(message, Finished | InstanceLost):
            self.ended = True


Script: TypeAlias = Callable[[FakeInstance], Awaitable[None]]


class FakeFleet:
    """Implements `Fleet`. *script* is what each instance does after its start."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.room = asyncio.Event()
        self.room.set()
        self.instances: dict[str, FakeInstance] = {}
        self.started: list[str] = []
        self.released: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def shape(self, instance_type: str) -> InstanceShape:
        return describe(instance_type)

    async def start(self, spec: InstanceSpec, listener: Listener) -> None:
        known = self.instances.get(spec.instance_id)
        if known is not None:
            known.attach(listener)
            return
        await self.room.wait()
        self.started.append(spec.instance_id)
        instance = self.instances[spec.instance_id] = FakeInstance(spec, listener)
        self._tasks[spec.instance_id] = asyncio.create_task(self._play(instance))

    async def attach(self, instance_id: str, listener: Listener) -> bool:
        known = self.instances.get(instance_id)
        if known is None:
            return False
        known.attach(listener)
        return True

    async def tell(self, instance_id: str, command: Command) -> None:
        known = self.instances.get(instance_id)
        if known is not None and command not in known.heard:
            known.heard.append(command)
            known.commands.put_nowait(command)

    async def release(self, instance_id: str) -> None:
        self.released.append(instance_id)
        if self.instances.pop(instance_id, None) is not None:
            await self._cancel(instance_id)

    async def sweep(self, keep: Sequence[str]) -> None:
        for instance_id in [*self.instances]:
            if instance_id not in keep:
                await self.release(instance_id)

    async def close(self, *, end_instances: bool) -> None:
        for instance_id in [*self._tasks]:
            await self._cancel(instance_id)
        if end_instances:
            self.instances.clear()

    def detach(self) -> None:
        """The server is gone: nobody listens any more."""
        for instance in self.instances.values():
            instance.detach()

    async def kill(self, instance_id: str, reason: str = "killed by signal 9") -> None:
        """End an instance without a last word of its own, and those inside it."""
        await self._cancel(instance_id)
        await self.instances[instance_id].say(InstanceLost(reason))
        for other in [other for other in self.instances.values() if other.spec.inside == instance_id]:
            await self._cancel(other.id)
            await other.say(InstanceLost("the instance that it was on ended", shutdown=True))

    async def vanish(self, instance_id: str) -> None:
        """End an instance so that nothing is known of it any more, as an orderly shutdown does."""
        await self._cancel(instance_id)
        self.instances.pop(instance_id, None)

    async def _play(self, instance: FakeInstance) -> None:
        await self.script(instance)

    async def _cancel(self, instance_id: str) -> None:
        task = self._tasks.pop(instance_id, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
