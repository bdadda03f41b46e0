"""Instances on this machine: one agent process each, forked by the nursery.

The fleet's memory is on disk, one folder for each instance below `Home.instances`, so that a server that
starts again finds what runs. A process is known by pid, start time and boot, and watched through a pidfd: its
end is noticed at once, whoever ended it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import os
import re
import secrets
import shutil
import signal
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import parse_qs

from sagesmith.config import Home, Settings
from sagesmith.containers import Sandbox
from sagesmith.containers.processes import descendants, end_marked, memory_of
from sagesmith.errors import AwsError
from sagesmith.fleet._admission import Admission, Request
from sagesmith.fleet._instance import Instance
from sagesmith.fleet._machine import available_memory, host_addresses, machine_shape, short_folder
from sagesmith.fleet._nursery import Nursery
from sagesmith.fleet._warm import PREFIX, WarmPool, WarmSlot, warm_memory
from sagesmith.fleet.api import InstanceShape, Listener
from sagesmith.fleet.instance_types import clamp, describe
from sagesmith.instance.folder import NODE, SPEC
from sagesmith.instance.node import Node
from sagesmith.instance.spec import (
    Command,
    Finished,
    InstanceSpec,
    NotebookTask,
    Ready,
    ServingTask,
    message_from_json,
    to_json,
)

__all__ = ["LocalFleet", "RawRequest"]

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PATH: Final = re.compile(r"/_sagesmith/instances/(?P<id>[^/]+)/(?P<what>messages|commands)")
_LONGEST_POLL_S: Final = 25.0
_END_S: Final = 10.0
_GONE: Final = ".gone-"
_log = logging.getLogger(__name__)

Answer = tuple[int, Mapping[str, str], bytes]


class RawRequest(Protocol):
    """A request to the fleet's private route. Names of `headers` are in lower case."""

    @property
    def method(self) -> str:
        """GET or POST."""
        ...

    @property
    def path(self) -> str:
        """The path, without the query."""
        ...

    @property
    def query(self) -> str:
        """The query, without the question mark."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers."""
        ...

    @property
    def body(self) -> bytes:
        """The whole body."""
        ...


class LocalFleet:
    """The `Fleet` of this machine. :meth:`open` before everything else; everything on one event loop.

    `warm_modules` are the modules that each kind of warm process has loaded; `Settings.warm_instances` of each
    kind are kept waiting. `sandbox` replaces the search for bubblewrap, `machine` what is given out.
    """

    def __init__(
        self,
        home: Home,
        settings: Settings,
        *,
        warm_modules: Mapping[str, tuple[str, ...]] | None = None,
        machine: InstanceShape | None = None,
    ) -> None:
        self._folder = home.instances
        self._images = settings.images(home)
        self._settings = settings
        self._machine = machine or machine_shape()
        self._admission = Admission(self._machine, available_memory)
        self._instances: dict[str, Instance] = {}
        self._nursery = Nursery()
        self._warm_modules = warm_modules or {}
        self._warm: WarmPool | None = None
        self._sandbox: Sandbox | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._closing = False
        self.sandbox_reason = ""

    @property
    def sandboxed(self) -> bool:
        """True if containers run in bubblewrap; if not, `sandbox_reason` says why."""
        return self._sandbox is not None

    async def open(self) -> None:
        """Start the nursery, and find the instances that an earlier server left.

        Raises:
            RuntimeError: the setting demands bubblewrap, and it does not work here.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._nursery.open()
        if self._settings.sandbox == "none":
            self.sandbox_reason = "the setting sandbox is none"
        else:
            self._sandbox, self.sandbox_reason = await asyncio.to_thread(Sandbox.find)
        if self._sandbox is None:
            if self._settings.sandbox == "bubblewrap":
                self._nursery.close()
                raise RuntimeError(f"sandbox = bubblewrap, but {self.sandbox_reason}.")
            _log.warning("containers run as plain processes, without isolation: %s", self.sandbox_reason)
        for folder in sorted(self._folder.iterdir()):
            self._find(folder)
        for instance in list(self._instances.values()):
            home = instance.spec.inside
            if home and not (home in self._instances and self._instances[home].alive):
                self._end_with(home, instance)
        count = self._settings.warm_instances
        self._warm = WarmPool(
            self._nursery,
            self._folder,
            self._sandbox,
            self._warm_modules,
            count,
            lambda: self._admission.training,
        )
        self._warm.fill()

    # ---- the Fleet -----------------------------------------------------------------------------------------

    def shape(self, instance_type: str) -> InstanceShape:
        """Return what *instance_type* offers here: AWS's numbers, at most what the machine has."""
        return clamp(describe(instance_type), self._machine)

    async def start(self, spec: InstanceSpec, listener: Listener) -> None:
        """Start an instance once there is room; see `Fleet`."""
        if not _ID.fullmatch(spec.instance_id):
            raise ValueError(f"{spec.instance_id!r} cannot be an instance's id.")
        folder = self._folder / spec.instance_id
        if spec.instance_id not in self._instances and folder.exists():
            self._find(folder)  # its agent may have begun after `open` had looked
        if await self.attach(spec.instance_id, listener):
            return
        if spec.inside:
            home = self._instances.get(spec.inside)
            if home is None or not home.alive:
                raise FileNotFoundError(f"the instance {spec.inside}, which it would be on, is gone")
            share = spec.vcpus
        else:
            share = await self._admission.enter(self._request(spec))
        try:
            await self._start(
                replace(spec, vcpus=share, agent_token=spec.agent_token or secrets.token_hex(24)), listener
            )
            if spec.inside and not (spec.inside in self._instances and self._instances[spec.inside].alive):
                self._end_with(spec.inside, self._instances[spec.instance_id])  # it ended meanwhile
        except BaseException:
            self._instances.pop(spec.instance_id, None)
            self._leave(spec.instance_id)
            raise

    async def attach(self, instance_id: str, listener: Listener) -> bool:
        """Listen to an instance that exists; see `Fleet`."""
        instance = self._instances.get(instance_id)
        if instance is None:
            return False
        instance.attach(listener)
        return True

    async def tell(self, instance_id: str, command: Command) -> None:
        """Send *command*; to an unknown instance it does nothing."""
        instance = self._instances.get(instance_id)
        if instance is not None:
            instance.tell(command)

    async def release(self, instance_id: str) -> None:
        """Forget the instance, end its process if it is still there, remove its folder."""
        instance = self._instances.pop(instance_id, None)
        if instance is None:
            return
        instance.released = True
        self._end_inside(instance_id)
        if instance.alive:
            instance.signal(signal.SIGKILL)
            instance.unwatch()
            await asyncio.to_thread(instance.end_rest)
        self._leave(instance_id)
        if instance.node.socket_folder:
            Path(instance.node.socket_folder).unlink(missing_ok=True)
        await asyncio.to_thread(_remove, instance.folder)

    async def sweep(self, keep: Sequence[str]) -> None:
        """End every instance that is not in *keep*, and remove what it left."""
        for instance_id in set(self._instances) - set(keep):
            await self.release(instance_id)
        for folder in list(self._folder.iterdir()):
            # Looked at one by one, since others begin meanwhile. A kept one without an instance is about to start.
            known = folder.name in self._instances or folder.name in keep
            if not known and not folder.name.startswith((PREFIX, _GONE)):
                await asyncio.to_thread(_remove, folder)

    async def close(self, *, end_instances: bool) -> None:
        """Stop listening; with *end_instances* end all instances first, and note that the shutdown did it."""
        self._closing = True
        if self._warm is not None:
            await self._warm.close()
        if end_instances:
            await self._end_all()
        for instance in self._instances.values():
            instance.unwatch()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self._nursery.close()

    # ---- for people ----------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return what runs, what waits and what that costs, as JSON-able data. Memory is in bytes. For any thread."""
        running = []
        for instance in list(self._instances.values()):
            pids = [instance.pid, *descendants(instance.pid)] if instance.alive and instance.pid else []
            running.append(
                {
                    "instance_id": instance.id,
                    "owner": instance.spec.owner_arn,
                    "instance_type": instance.spec.instance_type,
                    "host": instance.spec.host,
                    "pid": instance.pid,
                    "alive": instance.alive,
                    "memory_bytes": sum(memory_of(pid) for pid in pids),
                }
            )
        slots = self._warm.slots if self._warm else []
        return {
            "sandbox": "bubblewrap" if self._sandbox else f"none: {self.sandbox_reason}",
            "vcpus": self._machine.vcpus,
            "memory_bytes": self._machine.memory_bytes,
            "instances": running,
            "queue": self._admission.waiting,
            "nursery": {"pid": self._nursery.pid, "memory_bytes": memory_of(self._nursery.pid)},
            "warm": [
                {"kind": slot.kind, "pid": slot.pid, "ready": slot.ready, "memory_bytes": warm_memory(slot)}
                for slot in slots
            ],
        }

    # ---- the agents' route ---------------------------------------------------------------------------------

    async def raw_handler(self, request: RawRequest) -> Answer:
        """Answer an agent: POST .../messages, GET .../commands (a long poll)."""
        match = _PATH.fullmatch(request.path)
        instance = self._instances.get(match["id"]) if match else None
        if match is None or instance is None:
            return _answer(404, {"message": "there is no such instance"})
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(token.encode(), instance.spec.agent_token.encode()):
            return _answer(403, {"message": "that is not the token of this instance"})
        if (request.method, match["what"]) == ("POST", "messages"):
            return await self._messages(instance, request.body)
        if (request.method, match["what"]) == ("GET", "commands"):
            query = parse_qs(request.query)
            return await self._commands(instance, int(query["after"][0]), float(query["wait"][0]))
        return _answer(405, {"message": "POST messages, GET commands"})

    async def _messages(self, instance: Instance, body: bytes) -> Answer:
        messages = [(number, message_from_json(data)) for number, data in json.loads(body)["messages"]]
        if any(isinstance(message, (Ready, Finished)) for _, message in messages):
            self._admission.started(instance.id)
        before = instance.delivered
        delivered = await instance.deliver(messages)
        if delivered == before and messages and messages[-1][0] > delivered:
            return _answer(503, {"message": "nobody listens to this instance yet"})
        return _answer(200, {"delivered": delivered})

    async def _commands(self, instance: Instance, after: int, wait_s: float) -> Answer:
        if len(instance.commands) <= after:
            instance.told.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(instance.told.wait(), min(wait_s, _LONGEST_POLL_S))
        return _answer(200, {"commands": instance.commands[after:]})

    # ---- inside --------------------------------------------------------------------------------------------

    async def _start(self, spec: InstanceSpec, listener: Listener) -> None:
        folder = self._folder / spec.instance_id
        if folder.exists():
            await self._make_way(folder)
        slot = self._warm_slot(spec)
        if slot is not None:
            slot.folder.rename(folder)
        else:
            folder.mkdir(mode=0o700)
        node = Node(
            self._sandbox,
            hosts=host_addresses(f"{self._folder}/{spec.owner_arn}", spec.hosts),
            socket_folder=short_folder(folder / "run"),
            mark=slot.folder.name if slot else spec.instance_id,
            images=str(self._images),
            torch_backend=self._settings.torch_backend,
        )
        _write_private(folder / SPEC, to_json(spec))
        _write_private(folder / NODE, node.to_json())
        instance = Instance(folder, spec, node)
        instance.attach(listener)
        self._instances[spec.instance_id] = instance
        if slot is not None:
            slot.give(folder, spec.agent_token)
            instance.pidfd = slot.pidfd
            if self._warm is not None:
                self._warm.fill()
        else:
            instance.pidfd = await self._nursery.fork(folder, spec.agent_token)
        if instance.released:  # in the meantime
            instance.signal(signal.SIGKILL)
        instance.watch(self._ended)

    async def _make_way(self, folder: Path) -> None:
        """Take away the *folder* of an agent that had not begun when it was looked for.

        The nursery of a killed server may fork that agent even now. It looks for its folder again when it has written
        there who it is: so either it finds the folder gone, or it is found here.
        """
        gone = folder.with_name(f"{_GONE}{secrets.token_hex(8)}")
        folder.rename(gone)
        await asyncio.to_thread(_end_late, gone)

    def _warm_slot(self, spec: InstanceSpec) -> WarmSlot | None:
        container = spec.container
        fits = (
            container.runtime == "process"
            and container.network
            and not container.python_prefix
            and not spec.gpus
        )
        return self._warm.take(container.warm) if self._warm and container.warm and fits else None

    def _request(self, spec: InstanceSpec) -> Request:
        shape = InstanceShape(max(1, spec.vcpus), spec.memory_bytes, spec.gpus)
        serving = isinstance(spec.task, ServingTask | NotebookTask)
        with contextlib.suppress(AwsError):
            shape = self.shape(spec.instance_type)
        return Request(spec.instance_id, spec.owner_arn, len(spec.hosts), shape, serving)

    def _find(self, folder: Path) -> None:
        """Take up what an earlier server left in *folder*."""
        if folder.name.startswith(PREFIX):
            end_marked(folder.name)
            _remove(folder)
            return
        if folder.name.startswith(_GONE):
            _end_late(folder)
            return
        instance = Instance.found(folder)
        if instance is None:
            return  # its agent never began: starting it again replaces the folder, sweeping removes it
        self._instances[instance.id] = instance
        if instance.alive:
            if not instance.spec.inside:
                self._admission.take(self._request(instance.spec))
            instance.watch(self._ended)
        else:
            self._ended(instance)

    def _leave(self, instance_id: str) -> None:
        """Give back what the instance had of the machine."""
        self._admission.leave(instance_id)
        if self._warm is not None:
            self._warm.fill()

    def _end_inside(self, instance_id: str) -> None:
        """End the instances that are inside that one."""
        for instance in list(self._instances.values()):
            if instance.spec.inside == instance_id:
                self._end_with(instance_id, instance)

    def _end_with(self, home: str, instance: Instance) -> None:
        if instance.alive:
            _log.warning("instance %s ends with %s, which it was on", instance.id, home)
            instance.mark_shutdown()
            instance.signal(signal.SIGKILL)

    def _ended(self, instance: Instance) -> None:
        if not self._closing:
            self._end_inside(instance.id)
        if not instance.released:
            self._leave(instance.id)
        if not self._closing:
            self._in_background(instance.conclude())

    async def _end_all(self) -> None:
        alive = [instance for instance in self._instances.values() if instance.alive]
        for instance in alive:
            instance.mark_shutdown()
            instance.signal(signal.SIGTERM)
        deadline = asyncio.get_running_loop().time() + _END_S
        while any(instance.alive for instance in alive) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
        for instance in alive:
            instance.signal(signal.SIGKILL)
            await asyncio.to_thread(instance.end_rest)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _answer(status: int, content: Any) -> Answer:
    return status, {"content-type": "application/json"}, json.dumps(content).encode()


def _write_private(path: Path, content: Any) -> None:
    path.touch(0o600)
    path.write_text(json.dumps(content, separators=(",", ":")), "utf-8")


def _end_late(gone: Path) -> None:
    """End the agent that began in the folder *gone*, if one did, and remove the folder."""
    late = Instance.found(gone)
    if late is not None and late.alive:
        late.signal(signal.SIGKILL)
        os.close(late.pidfd)
        end_marked(late.node.mark)
    _remove(gone)


def _remove(folder: Path) -> None:
    """Remove *folder*; a container may have taken away its own rights in it."""

    def retry(remove: Any, path: str, _: Any) -> None:
        with contextlib.suppress(OSError):
            Path(path).parent.chmod(0o700)
            remove(path)

    shutil.rmtree(folder, onerror=retry)
