"""An endpoint's instance with several containers: each is served as if it were alone, and ready when all are.

Their addresses go to the gateway, which takes requests from one container to the next, or to the one they name.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from sagesmith.instance._host import Host
from sagesmith.instance._serving import Serving
from sagesmith.instance.spec import (
    Command,
    Finished,
    Log,
    Message,
    Ready,
    ServedContainer,
    ServingTask,
    Shutdown,
    Stage,
    Unhealthy,
    Utilization,
)

__all__ = ["Pipeline"]

_GRACE_S: Final = 30.0


class Pipeline:
    """Runs one :class:`ServingTask` with `containers`; `obey` takes commands meanwhile."""

    def __init__(self, host: Host, task: ServingTask) -> None:
        self._host = host
        self._task = task
        self._addresses: dict[int, str] = {}
        self._ready = False
        self._used: dict[int, Utilization] = {}
        self._parts = [self._part(number, each) for number, each in enumerate(task.containers, start=1)]

    @property
    def hosts(self) -> list[Host]:
        """Where its containers run."""
        return [host for part in self._parts for host in part.hosts]

    def obey(self, command: Command) -> None:
        """Take *command*: both `Stop` and `Shutdown` end all containers."""
        for part in self._parts:
            part.obey(command)

    async def run(self) -> Finished:
        """Serve until told to end, or until one of the containers cannot be made ready."""
        running = [asyncio.create_task(part.run()) for part in self._parts]
        try:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            self.obey(Shutdown(_GRACE_S))
            await asyncio.wait(running)
        finally:
            for task in running:
                task.cancel()
        outcomes = [task.result() for task in running]  # raises what one of them raised
        return next((outcome for outcome in outcomes if outcome.error), Finished())

    def said(self, number: int, message: Message) -> None:
        """Take a *message* of container *number*, and say what it means for all of them."""
        name = self._task.containers[number - 1].name
        match message:
            case Log(lines):
                self._host.link.send(Log(lines, name))
            case Stage():
                if number == 1:
                    self._host.link.send(message)
            case Ready(address):
                self._addresses[number] = address
                if len(self._addresses) == len(self._parts) and not self._ready:
                    self._ready = True
                    self._host.link.send(Ready(self._address()))
            case Unhealthy(reason, restarts):
                self._addresses.pop(number, None)
                if self._ready:
                    self._ready = False
                    self._host.link.send(Unhealthy(f"container {name}: {reason}", restarts))
            case Utilization():
                self._used[number] = message
                if number == len(self._parts):
                    self._host.link.send(self._utilization(message))
            case _:
                self._host.link.send(message)

    def _address(self) -> str:
        mode = "direct" if self._task.direct else "serial"
        names = (each.name for each in self._task.containers)
        places = (self._addresses[number] for number in sorted(self._addresses))
        return "|".join([mode, *(f"{name}={place}" for name, place in zip(names, places, strict=True))])

    def _utilization(self, last: Utilization) -> Utilization:
        used = self._used.values()
        return replace(last, cpu=sum(each.cpu for each in used), memory=sum(each.memory for each in used))

    def _part(self, number: int, each: ServedContainer) -> Serving:
        host = self._host
        task = replace(
            self._task,
            model_data=each.model_data,
            model_data_type=each.model_data_type,
            model_data_compression=each.model_data_compression,
            code_uri=each.code_uri,
            containers=(),
        )
        spec = replace(
            host.spec, instance_id=f"{host.spec.instance_id}/{number}", container=each.container, task=task
        )
        link = _PartLink(self, number)
        if number == 1:  # in the instance's own folder, where a warm process may wait
            return Serving(Host.of(spec, host.folder, host.node, link, host.objects, host.warm), task)
        folder = host.folder / "containers" / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        node = replace(host.node, socket_folder="")
        return Serving(Host.of(spec, folder, node, link, host.objects), task)


class _PartLink:
    """What one container's server says goes to the pipeline."""

    def __init__(self, pipeline: Pipeline, number: int) -> None:
        self._pipeline = pipeline
        self._number = number

    def send(self, message: Message) -> None:
        self._pipeline.said(self._number, message)
