"""Containers of the user's own image, run by a Docker engine of this machine.

The image runs as SageMaker runs it: ``docker run IMAGE train``, or with the entrypoint and arguments that the
request names, ``/opt/ml`` from the instance's folder, limits from the instance type. One thing is added: a first
process of Docker's own (``--init``), since the kernel lets a container's first process ignore signals, its own included.

The engine keeps a container when its agent is killed. So each has a label with the instance that it belongs to; who
notices the end of an agent calls `remove_containers`. The engine keeps no copy of the output: an agent that is slow
to read slows the container down, and nothing is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from sagesmith.containers import processes
from sagesmith.containers._engine import Engine, EngineError, EngineStream, EngineUnavailable
from sagesmith.containers._forward import Forwarder, Target
from sagesmith.containers._lines import LineSplitter
from sagesmith.containers._networks import Network, network_of, remove_network
from sagesmith.containers.errors import ContainerError
from sagesmith.containers.runtime import ContainerPlan, Output, Usage

__all__ = ["DockerContainer", "DockerRuntime", "remove_containers"]

_INSTANCE: Final = "sagesmith.instance"
_FOLDER: Final = "sagesmith.folder"
_INSIDE: Final = "/opt/ml"
_NOT_RUN: Final = (126, 127)
_DRAIN_S: Final = 2.0
_REMOVED_S: Final = 10.0


class DockerRuntime:
    """Runs containers in *engine*.

    Args:
        engine: where.
        server_url: the control plane's address. An environment variable of a plan that is exactly this gets an
            address that leads there from inside.
        server: says where the control plane answers at the moment, if that may be elsewhere.
    """

    def __init__(
        self,
        engine: Engine | None = None,
        server_url: str = "",
        server: Callable[[], Target] | None = None,
    ) -> None:
        self._engine = engine or Engine()
        self._server_url = server_url
        self._server = server or (lambda: Target(server_url))

    def path_inside(self, plan: ContainerPlan, outside: Path) -> str:
        """Return the path under which the container sees *outside*, a path below ``ml`` of the plan's folder."""
        return "/".join((_INSIDE, *outside.relative_to(plan.folder / "ml").parts))

    async def start(self, plan: ContainerPlan, output: Output) -> DockerContainer:
        """Start the container of *plan*; see `ContainerRuntime`. The image must be there already."""
        forwarder: Forwarder | None = None
        identity = ""
        try:
            network = await network_of(self._engine, plan)
            environment = dict(plan.environment)
            if self._server_url in environment.values() and plan.network:
                forwarder = Forwarder(self._server)
                await _listen(forwarder, network)
                environment = {
                    name: forwarder.url if value == self._server_url else value
                    for name, value in environment.items()
                }
            (plan.folder / "ml").mkdir(exist_ok=True)
            wanted = _configuration(plan, network, environment)
            name = f"sagesmith-{plan.name.replace('/', '-')}-{secrets.token_hex(3)}"
            identity = (await self._engine.call("POST", "/containers/create", {"name": name}, wanted))["Id"]
            lines = await self._engine.open(
                "POST", f"/containers/{identity}/attach", {"stream": "1", "stdout": "1", "stderr": "1"}
            )
            ended = await self._engine.open("POST", f"/containers/{identity}/wait", {"condition": "removed"})
            await self._engine.call("POST", f"/containers/{identity}/start")
            state = await self._engine.call("GET", f"/containers/{identity}/json")
        except EngineError as error:
            await _abandon(self._engine, identity, forwarder)
            raise _translated(error, plan) from error
        except BaseException:
            await _abandon(self._engine, identity, forwarder)
            raise
        address = _address(state, network)
        if forwarder is not None:
            forwarder.allow(address)
        container = DockerContainer(
            self._engine, identity, state["State"]["Pid"], address, network, forwarder, output
        )
        container.begin(lines, ended)
        return container


class DockerContainer:
    """A container in the engine; see `Container`."""

    def __init__(
        self,
        engine: Engine,
        identity: str,
        pid: int,
        address: str,
        network: Network,
        forwarder: Forwarder | None,
        output: Output,
    ) -> None:
        self.address = address
        self._engine = engine
        self._path = f"/containers/{identity}"
        self._pid = pid
        self._network = network
        self._forwarder = forwarder
        self._output = output
        self._first_lines: list[str] = []
        self._watch: asyncio.Task[int]

    def begin(self, lines: EngineStream, ended: EngineStream) -> None:
        """Read what it writes, and watch for its end."""
        loop = asyncio.get_running_loop()
        reading = loop.create_task(self._read(lines))
        self._watch = loop.create_task(self._watch_to_end(reading, lines, ended))
        self._watch.add_done_callback(_retrieve)

    async def wait(self) -> int:
        """Return the exit code once the container is removed and its output is read.

        Raises:
            ContainerError: its command does not exist, or the engine is gone.
        """
        return await asyncio.shield(self._watch)

    async def stop(self, grace_s: float) -> int:
        """Send SIGTERM, then SIGKILL to everything after *grace_s* seconds; return the exit code."""
        if grace_s > 0 and not self._watch.done():
            await self._terminate()
            with contextlib.suppress(asyncio.TimeoutError):
                return await asyncio.wait_for(asyncio.shield(self._watch), grace_s)
        if not self._watch.done():
            with contextlib.suppress(EngineError):
                await self._engine.call("POST", f"{self._path}/kill", {"signal": "SIGKILL"})
        return await self.wait()

    def usage(self) -> Usage:
        """Return what the processes of the container use."""
        return processes.usage_of(processes.descendants(self._pid))

    def memory(self) -> int:
        """Return the memory that they take in bytes; of shared pages their part."""
        return sum(map(processes.memory_of, processes.descendants(self._pid)))

    async def _terminate(self) -> None:
        """Signal the command or, if that is a shell, what it waits for; the engine could reach only the former."""
        children = processes.descendants(self._pid)
        try:
            for pid in processes.foreground(children[0]) if children else ():
                os.kill(pid, signal.SIGTERM)
            if children:
                return
        except (PermissionError, ProcessLookupError):  # not ours to signal, or just ending
            pass
        with contextlib.suppress(EngineError):
            await self._engine.call("POST", f"{self._path}/kill", {"signal": "SIGTERM"})

    async def _read(self, stream: EngineStream) -> None:
        splitters = {1: LineSplitter(), 2: LineSplitter()}
        async for number, data in stream.frames():
            self._say(splitters[2 if number == 2 else 1].feed(data))
        for splitter in splitters.values():
            self._say(splitter.finish())

    def _say(self, lines: list[str]) -> None:
        if not lines:
            return
        if not self._first_lines:
            self._first_lines = lines[:1]
        now = time.time_ns() // 1_000_000
        self._output([(now, line) for line in lines])

    async def _watch_to_end(
        self, reading: asyncio.Task[None], lines: EngineStream, ended: EngineStream
    ) -> int:
        code = None
        try:
            async for answer in ended.lines():
                code = int(answer["StatusCode"])
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(reading, _DRAIN_S)
        finally:
            reading.cancel()
            lines.close()
            ended.close()
            if self._forwarder is not None:
                self._forwarder.close()
            await remove_network(self._engine, self._network)
        if code is None:
            raise ContainerError("the Docker engine ended while it ran the container")
        if code in _NOT_RUN and self._first_lines and self._first_lines[0].startswith("[FATAL tini"):
            reason = self._first_lines[0].partition("] ")[2]
            raise ContainerError(f"the container could not be started: {reason}", client_error=True)
        return code


def remove_containers(instance_id: str, folder: Path, engine: Engine | None = None) -> int:
    """Remove what is left of an instance whose folder lies in *folder*; return how many containers there were.

    Raises:
        EngineError: there is no engine any more.
    """
    engine = engine or Engine()
    filters = f'{{"label":["{_INSTANCE}={instance_id}","{_FOLDER}={folder}"]}}'
    found = engine.ask("GET", "/containers/json", {"all": "1", "filters": filters})
    for container in found:
        path = f"/containers/{container['Id']}"
        with contextlib.suppress(EngineError):
            engine.ask("DELETE", path, {"force": "1"})
        with contextlib.suppress(
            EngineError
        ):  # the engine may be removing it already, and refuse to do it twice
            engine.ask("POST", f"{path}/wait", {"condition": "removed"}, timeout_s=_REMOVED_S)
        for name in container["NetworkSettings"]["Networks"]:
            if name.startswith("sagesmith-"):  # in use by other hosts, or shared: refused or harmless
                with contextlib.suppress(EngineError):
                    engine.ask("DELETE", f"/networks/{name}")
    return len(found)


def _labels(plan: ContainerPlan) -> dict[str, str]:
    """Whom the container belongs to. One of several of an instance has a number, and if not the first a folder, in it."""
    instance, _, number = plan.name.partition("/")
    folder = plan.folder if number in ("", "1") else plan.folder.parent.parent
    return {_INSTANCE: instance, _FOLDER: str(folder.parent)}


def _configuration(plan: ContainerPlan, network: Network, environment: dict[str, str]) -> dict[str, Any]:
    mounts = [_mount(plan.folder / "ml", _INSIDE)]
    mounts += [
        _mount(plan.folder / "ml" / path, f"{_INSIDE}/{path}", read_only=True) for path in plan.read_only
    ]
    mounts += [_mount(source, target, read_only=True) for target, source in plan.files.items()]
    mounts += [_mount(source, target) for target, source in plan.folders.items()]
    host: dict[str, Any] = {
        "AutoRemove": True,
        "Init": True,
        "NetworkMode": network.name,
        "Mounts": mounts,
        "LogConfig": {"Type": "none"},
        "CapDrop": ["NET_RAW"],  # it could listen to its neighbours on the bridge
    }
    if plan.vcpus:
        host["NanoCpus"] = int(plan.vcpus * 1_000_000_000)
    if plan.memory_bytes:
        # No swap, as on an instance. /dev/shm, where data loaders hand over batches, may take half of it.
        host |= {"Memory": plan.memory_bytes, "MemorySwap": plan.memory_bytes}
        host["ShmSize"] = plan.memory_bytes // 2
    if plan.gpus:
        host["DeviceRequests"] = [{"Driver": "nvidia", "Count": plan.gpus, "Capabilities": [["gpu"]]}]
    wanted: dict[str, Any] = {
        "Image": plan.image,
        "Env": [f"{name}={value}" for name, value in {**environment, processes.MARK: plan.name}.items()],
        "Labels": _labels(plan),
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": host,
        "Hostname": plan.hostname,
    }
    if plan.entrypoint:
        wanted["Entrypoint"] = list(plan.entrypoint)
    if plan.command:
        wanted["Cmd"] = list(plan.command)
    if network.own:
        wanted["NetworkingConfig"] = {"EndpointsConfig": {network.name: {"Aliases": [plan.hostname]}}}
    return wanted


def _mount(source: Path, target: str, *, read_only: bool = False) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": read_only}


async def _listen(forwarder: Forwarder, network: Network) -> None:
    try:
        await forwarder.open(network.gateway)
    except OSError as error:
        raise ContainerError(
            f"{network.gateway}, the gateway of the Docker network {network.name}, is no address of this machine "
            f"({error.strerror}): Sagesmith needs an engine that runs on the same machine as it, not rootless and not "
            "Docker Desktop"
        ) from error


async def _abandon(engine: Engine, identity: str, forwarder: Forwarder | None) -> None:
    if forwarder is not None:
        forwarder.close()
    if identity:
        with contextlib.suppress(EngineError):
            await engine.call("DELETE", f"/containers/{identity}", {"force": "1"})


def _address(state: dict[str, Any], network: Network) -> str:
    found = (state["NetworkSettings"]["Networks"] or {}).get(network.name) or {}
    return str(found.get("IPAddress") or "")


def _translated(error: EngineError, plan: ContainerPlan) -> ContainerError:
    if isinstance(error, EngineUnavailable):
        return ContainerError(f"cannot run the image {plan.image!r}: {error}. Start Docker")
    if error.status == 404:
        return ContainerError(f"the Docker engine has no image {plan.image!r}", client_error=True)
    return ContainerError(
        f"the image {plan.image!r} cannot be run: {error}", client_error=400 <= error.status < 500
    )


def _retrieve(task: asyncio.Task[int]) -> None:
    if not task.cancelled():
        task.exception()
