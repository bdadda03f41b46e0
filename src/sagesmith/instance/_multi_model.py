"""An endpoint's instance with many models: each that is asked for is served by a model server of its own.

The gateway says which (`ModelOrders`). A model is taken to need as much memory as the largest one has.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from sagesmith.containers import ContainerError
from sagesmith.instance._host import Host, LogShipper
from sagesmith.instance._model_orders import Answer, LoadError, ModelOrders, model_uri, ready_address
from sagesmith.instance._objects import DataError, split_uri
from sagesmith.instance._serving import Serving
from sagesmith.instance.spec import (
    Command,
    Finished,
    Message,
    Ready,
    ServingTask,
    Shutdown,
    Stage,
    Unhealthy,
    Utilization,
)

__all__ = ["MEMORY", "MultiModel"]

MEMORY: Final = "SAGESMITH_MULTI_MODEL_MEMORY_MB"
"""The container's variable that says how much memory its models may take; by default all that the instance has."""

_UNLOAD_S: Final = 10.0
_GROWTH: Final = 1.0


class MultiModel:
    """Runs one :class:`ServingTask` with `many`; `obey` takes commands meanwhile."""

    def __init__(self, host: Host, task: ServingTask) -> None:
        self._host = host
        self._task = task
        self._ending = asyncio.Event()
        self._models: dict[str, _Loaded] = {}
        self._numbers = itertools.count(1)
        self._used: dict[int, Utilization] = {}
        self._command: Command = Shutdown(_UNLOAD_S)
        megabytes = host.spec.container.environment.get(MEMORY, "")
        self._memory_bytes = int(megabytes) * 1024**2 if megabytes.isdigit() else host.spec.memory_bytes

    @property
    def hosts(self) -> list[Host]:
        """Where its containers run."""
        return [host for model in self._models.values() for host in model.serving.hosts]

    def obey(self, command: Command) -> None:
        """Take *command*: both `Stop` and `Shutdown` end all models."""
        self._command = command
        self._ending.set()

    async def run(self) -> Finished:
        """Load and unload what is asked for, until told to end."""
        host = self._host
        host.check()
        log = LogShipper(host.link)
        await host.prepare(log, self._ending.is_set)
        host.link.send(Stage("Starting", "Waiting for models"))
        (host.folder / "run").mkdir(exist_ok=True)
        orders = ModelOrders(host.socket, self.load, self.unload)
        await orders.open()
        try:
            host.link.send(Ready(ready_address(host.socket, cached=self._task.cached)))
            await self._ending.wait()
            for model in self._models.values():
                model.serving.obey(self._command)
            if self._models:
                await asyncio.wait([model.running for model in self._models.values()])
        finally:
            orders.close()
            for model in self._models.values():
                model.running.cancel()
        return Finished()

    # ---- models ------------------------------------------------------------------------------------------

    async def load(self, name: str) -> Answer:
        """Return where the model *name* answers, once it does, and how long it took to fetch.

        Raises:
            LoadError: there is no such model, no memory for it, or it cannot be served.
        """
        model = self._models.get(name)
        if model is None:
            uri = model_uri(self._task.model_data, name)
            size = await asyncio.to_thread(self._size, uri)
            if name not in self._models:  # meanwhile
                self._check_room(size)
                self._models[name] = self._start(name, uri)
            model = self._models[name]
        either: list[asyncio.Future[Any]] = [model.running, model.ready]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if model.ready.done():
            return Answer(model.ready.result(), model.serving.fetched_s)
        if self._models.get(name) is model:
            del self._models[name]
        raise LoadError(500, _why(model.running) or f"the model {name} could not be loaded")

    async def unload(self, name: str) -> None:
        """End the server of *name*, if there is one."""
        model = self._models.pop(name, None)
        if model is not None:
            model.serving.obey(Shutdown(_UNLOAD_S))
            await asyncio.wait([model.running])

    def _size(self, uri: str) -> int:
        bucket, key = split_uri(uri)
        found = self._host.objects.head(bucket, key)
        if found is None:
            raise LoadError.absent(bucket, key)
        return found.size

    def _check_room(self, size: int) -> None:
        """Refuse what would not fit: a model is taken to need what the largest one has, or its artifact's size."""
        used = [
            host.container.usage().memory_bytes
            for model in self._models.values()
            for host in model.serving.hosts
            if host.container is not None
        ]
        need = max([size, *used])
        if self._models and sum(used) + need * _GROWTH > self._memory_bytes:
            raise LoadError(
                507,
                f"{len(used)} models take {sum(used) >> 20} MB of the {self._memory_bytes >> 20} MB that there are",
            )

    def _start(self, name: str, uri: str) -> _Loaded:
        host, number = self._host, next(self._numbers)
        task = replace(self._task, model_data=uri, model_data_type="S3Object", many=False)
        spec = replace(host.spec, instance_id=f"{host.spec.instance_id}/{number}", task=task)
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        link = _ModelLink(lambda message: self._said(number, message, ready))
        if number == 1:  # in the instance's own folder, where a warm process may wait
            node = replace(host.node, socket_folder="")
            own = Host.of(spec, host.folder, node, link, host.objects, host.warm)
            own.socket_name = "first.sock"
        else:
            folder = host.folder / "containers" / str(number)
            folder.mkdir(parents=True, exist_ok=True)
            own = Host.of(spec, folder, replace(host.node, socket_folder=""), link, host.objects)
        own.python_prefix = host.python_prefix
        serving = Serving(own, task)
        running = asyncio.get_running_loop().create_task(serving.run())
        running.add_done_callback(lambda _: self._ended(name, number, running))
        return _Loaded(serving, running, ready)

    def _ended(self, name: str, number: int, running: asyncio.Task[Finished]) -> None:
        self._used.pop(number, None)
        model = self._models.get(name)
        if model is not None and model.running is running and model.ready.done():
            del self._models[name]

    def _said(self, number: int, message: Message, ready: asyncio.Future[str]) -> None:
        match message:
            case Ready(address):
                if not ready.done():
                    ready.set_result(address)
            case Utilization():
                self._used[number] = message
                used = self._used.values()
                self._host.link.send(
                    replace(
                        message, cpu=sum(each.cpu for each in used), memory=sum(each.memory for each in used)
                    )
                )
            case Stage() | Unhealthy():
                pass  # one model's affair: its link breaks, and comes back
            case _:
                self._host.link.send(message)


@dataclass(slots=True)
class _Loaded:
    serving: Serving
    running: asyncio.Task[Finished]
    ready: asyncio.Future[str]


class _ModelLink:
    """What one model's server says goes to the instance."""

    def __init__(self, said: Callable[[Message], None]) -> None:
        self._said = said

    def send(self, message: Message) -> None:
        self._said(message)


def _why(running: asyncio.Task[Finished]) -> str:
    if running.cancelled():
        return "the instance is ending"
    fault = running.exception()
    if isinstance(fault, DataError | ContainerError):
        return str(fault)
    return f"{type(fault).__name__}: {fault}" if fault is not None else running.result().error
