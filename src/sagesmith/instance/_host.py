"""What all kinds of work share: the instance's folder, its container, its log, and its line home."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from sagesmith.containers import (
    Container,
    ContainerError,
    ContainerPlan,
    DockerRuntime,
    Engine,
    Line,
    ProcessRuntime,
)
from sagesmith.containers.process import WarmProcess
from sagesmith.containers.processes import die_with_parent
from sagesmith.images import BuildFailed, Environments, Use
from sagesmith.instance._docker import OwnImage, server_now
from sagesmith.instance._layout import base_environment, installer_environment, open_to_all
from sagesmith.instance._metrics import MetricScanner
from sagesmith.instance._objects import Objects
from sagesmith.instance.node import Node
from sagesmith.instance.spec import InstanceSpec, Log, Message, Stage, Utilization

__all__ = ["CA_FILE", "Host", "LogShipper", "Sender", "watch_utilization"]

CA_FILE: Final = "/etc/sagesmith/ca.pem"
_FLUSH_S: Final = 0.1
_LINES_PER_MESSAGE: Final = 1000
_UTILIZATION_S: Final = (1.0, 60.0)


class Sender(Protocol):
    """Where messages go: the link home, or somebody before it."""

    def send(self, message: Message) -> None:
        """Say *message*."""
        ...


class LogShipper:
    """Gathers lines and sends them about ten times a second, the first at once, with the metrics found in them."""

    def __init__(self, link: Sender, definitions: Iterable[tuple[str, str]] = ()) -> None:
        self._link = link
        self._scanner = MetricScanner(definitions)
        self._lines: list[Line] = []
        self._timer: asyncio.TimerHandle | None = None
        for fault in self._scanner.refused:
            self.note(f"WARNING: {fault}")

    def __call__(self, lines: Sequence[Line]) -> None:
        """Take *lines* of the container."""
        self._lines += lines
        if self._timer is None:
            self.flush()
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_S, self._flush_later)

    def note(self, text: str) -> None:
        """Put a line of the platform's own into the log."""
        self.flush()
        self._link.send(Log(((time.time_ns() // 1_000_000, text),)))

    def flush(self) -> None:
        """Send what has gathered."""
        lines, self._lines = self._lines, []
        for start in range(0, len(lines), _LINES_PER_MESSAGE):
            some = lines[start : start + _LINES_PER_MESSAGE]
            self._link.send(Log(tuple(some)))
            for at, text in some:
                for value in self._scanner.scan(text, at / 1000):
                    self._link.send(value)

    def _flush_later(self) -> None:
        self._timer = None
        if self._lines:
            self([])


@dataclass(slots=True)
class Host:
    """One instance, as its work sees it."""

    spec: InstanceSpec
    folder: Path
    node: Node
    link: Sender
    runtime: ProcessRuntime | DockerRuntime
    objects: Objects
    warm: WarmProcess | None = None
    container: Container | None = None
    python_prefix: str = ""
    own_image: OwnImage | None = None
    socket_name: str = "model.sock"
    _python_use: Use | None = None

    @classmethod
    def of(
        cls,
        spec: InstanceSpec,
        folder: Path,
        node: Node,
        link: Sender,
        objects: Objects,
        warm: WarmProcess | None = None,
    ) -> Host:
        """Return the host of *spec* with the runtime that its container needs."""
        host = cls(spec, folder, node, link, ProcessRuntime(node.sandbox), objects, warm)
        if spec.container.runtime == "docker":
            engine = Engine()
            host.runtime = DockerRuntime(engine, spec.server.url, lambda: server_now(spec.server))
            host.own_image = OwnImage(engine, spec)
        return host

    @property
    def sandboxed(self) -> bool:
        """True if the container sees only what it may."""
        return self.node.sandbox is not None or self.own_image is not None

    @property
    def may_link(self) -> bool:
        """True if data may be a link to the object store's file, which the container must be able to read only."""
        return self.own_image.as_root if self.own_image is not None else self.sandboxed

    @property
    def socket(self) -> str:
        """Where the model server listens, seen from outside."""
        return f"{self.node.socket_folder or self.folder / 'run'}/{self.socket_name}"

    def plan(
        self,
        environment: Mapping[str, str],
        *,
        read_only: tuple[str, ...] = (),
        folders: Mapping[str, Path] | None = None,
        port: int = 0,
    ) -> ContainerPlan:
        """Return the container that the spec asks for, with *environment* above the defaults.

        *port* is where it will listen, if it is one of the user's own image.
        """
        spec = self.spec
        if self.own_image is not None:
            return ContainerPlan(
                name=spec.instance_id,
                folder=self.folder,
                command=spec.container.command,
                entrypoint=spec.container.entrypoint,
                environment={**base_environment(spec, ""), **environment, **spec.container.environment},
                hostname=spec.container.hostname or spec.host,
                network=spec.container.network,
                read_only=read_only,
                folders=folders or {},
                gpus=spec.gpus,
                image=self.own_image.reference,
                vcpus=spec.vcpus,
                memory_bytes=spec.memory_bytes,
                group=spec.owner_arn if len(spec.hosts) > 1 else "",
                port=port,
            )
        ca_file = _with_public_roots(spec.server.ca_file)
        visible = CA_FILE if ca_file and self.sandboxed else ca_file
        return ContainerPlan(
            name=spec.instance_id,
            folder=self.folder,
            command=(*spec.container.entrypoint, *spec.container.command),
            environment={
                **base_environment(spec, visible),
                **(installer_environment(os.environ) if spec.container.python else {}),
                "SAGESMITH_HOSTS": json.dumps(dict(self.node.hosts)),
                **environment,
                **spec.container.environment,
            },
            hostname=spec.container.hostname or spec.host,
            hosts=self.node.hosts,
            network=spec.container.network,
            read_only=read_only,
            files={CA_FILE: Path(ca_file)} if ca_file and self.sandboxed else {},
            folders=folders or {},
            python_prefix=self.python_prefix or spec.container.python_prefix,
            gpus=spec.gpus,
            image=spec.container.image,
        )

    async def prepare(self, log: LogShipper, stop: Callable[[], bool]) -> None:
        """Have the image, or the environment that the container's Python comes from; *log* hears how that goes on.

        Raises:
            ContainerError: it cannot be pulled or built, or *stop* said to stop building.
        """
        if self.own_image is not None:
            await self.own_image.have(
                lambda: self.link.send(Stage("DownloadingTrainingImage", "Downloading the training image"))
            )
            return
        wanted = self.spec.container.python
        if wanted is None:
            return
        if wanted.note:
            log.note(f"WARNING: {wanted.note}")
        environments = Environments(Path(self.node.images), torch_backend=self.node.torch_backend)
        use = environments.find(wanted)
        if use is None:
            loop = asyncio.get_running_loop()

            def say(text: str) -> None:
                loop.call_soon_threadsafe(log.note, text)

            self.link.send(Stage("DownloadingTrainingImage", "Downloading the training image"))
            end_with_agent = die_with_parent(
                os.getpid()
            )  # or with its thread, which lives as long as the agent
            try:
                use = await asyncio.to_thread(
                    environments.make, wanted, say, stop=stop, before_exec=end_with_agent
                )
            except BuildFailed as error:
                raise ContainerError(str(error)) from error
        if use.note:
            log.note(f"WARNING: {use.note}")
        self.python_prefix = use.prefix
        self._python_use = use

    def check(self) -> None:
        """Refuse what cannot be run here, before anything is done for it.

        Raises:
            ContainerError: it needs a network that only the hosts of one job share, which processes have not.
        """
        spec = self.spec
        if self.own_image is None and not spec.container.network and len(spec.hosts) > 1:
            raise ContainerError(
                "EnableNetworkIsolation with more than one instance is not available in Sagesmith yet for this image: "
                "set it to false, or InstanceCount to 1",
                client_error=True,
            )

    async def start(self, plan: ContainerPlan, output: LogShipper) -> Container:
        """Start the container of *plan*, in the warm process that waits if there is one."""
        warm, self.warm = self.warm, None
        if warm is not None and not plan.folders and await warm.wait_ready():
            with contextlib.suppress(BrokenPipeError):
                self.container = warm.take(plan, output)
                return self.container
        if warm is not None:
            await warm.discard()
        if self.own_image is not None and not self.own_image.as_root:
            await asyncio.to_thread(open_to_all, self.folder / "ml")
        self.container = await self.runtime.start(plan, output)
        return self.container


def _with_public_roots(ca_file: str) -> str:
    """The file with the public authorities as well as ours, for containers: they also talk to others than us."""
    bundle = os.path.join(os.path.dirname(ca_file), "bundle.pem")
    return bundle if ca_file and os.path.exists(bundle) else ca_file


async def watch_utilization(
    host: Host, container: Container, disk: Callable[[], Awaitable[float]] | None = None
) -> None:
    """Say what *container* uses: soon after its start, then every minute. Runs until cancelled.

    *disk* returns how full that is where it writes, in percent; without it that is the machine's disk.
    """
    used, at = container.usage().cpu_s, time.monotonic()
    memory = host.spec.memory_bytes or 1
    pause, later = _UTILIZATION_S
    while True:
        await asyncio.sleep(pause)
        usage, now = container.usage(), time.monotonic()
        full = await disk() if disk is not None else _percent_of_disk(host.folder)
        host.link.send(
            Utilization(
                cpu=max(0.0, 100 * (usage.cpu_s - used) / (now - at)),
                memory=100 * usage.memory_bytes / memory,
                disk=full,
                time=time.time(),
            )
        )
        used, at, pause = usage.cpu_s, now, later


def _percent_of_disk(folder: Path) -> float:
    found = shutil.disk_usage(folder)
    return 100 * found.used / found.total
