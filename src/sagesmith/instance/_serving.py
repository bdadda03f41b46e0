"""An endpoint's instance: the model in, a model server that is kept alive.

`Ready` is said each time the server passes `/ping` after a start, `Unhealthy` when it stops doing so; a server
that ends or hangs is started again, later each time. One that never becomes ready ends the instance.
"""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
import time
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Final

from sagesmith.containers import Container, ContainerPlan
from sagesmith.instance import _artifacts
from sagesmith.instance._host import Host, LogShipper, watch_utilization
from sagesmith.instance._layout import lay_out_serving
from sagesmith.instance._memory import beyond
from sagesmith.instance._objects import DataError, split_uri
from sagesmith.instance._ping import ping
from sagesmith.instance._staging import fetch_code, stage
from sagesmith.instance.spec import (
    ChannelSpec,
    Command,
    Finished,
    MergeArtifacts,
    Ready,
    ServingTask,
    Shutdown,
    Stage,
    Unhealthy,
)

__all__ = ["Serving"]

_PING_TIMEOUT_S: Final = 2.0
_PING_EVERY_S: Final = 5.0
_FAILED_PINGS: Final = 3
_HUNG_S: Final = 60.0
_STARTS_BEFORE_READY: Final = 3
_BACKOFF_S: Final = (0.5, 30.0)
_STEADY_S: Final = 60.0
_LOOK_S: Final = (0.003, 0.1)
_GRACE_S: Final = 30.0
_PORT: Final = 8080


class Serving:
    """Runs one :class:`ServingTask`; `obey` takes commands meanwhile."""

    def __init__(self, host: Host, task: ServingTask) -> None:
        self._host = host
        self._task = task
        self._log = LogShipper(host.link)
        self._ending = asyncio.Event()
        self._grace_s = _GRACE_S
        self._restarts = 0
        self._was_ready = False
        self._deadline = 0.0
        self._address = ""
        self.fetched_s = 0.0

    @property
    def hosts(self) -> list[Host]:
        """Where its containers run."""
        return [self._host]

    def obey(self, command: Command) -> None:
        """Take *command*: both `Stop` and `Shutdown` end the server."""
        if not isinstance(command, MergeArtifacts):
            self._grace_s = (
                command.grace_s if isinstance(command, Shutdown) else min(command.grace_s, _GRACE_S)
            )
            self._ending.set()

    async def run(self) -> Finished:
        """Serve until told to end, or until the server cannot be made ready."""
        host = self._host
        host.check()
        host.link.send(Stage("Downloading", "Downloading model data"))
        lay_out_serving(host.folder / "ml")
        download = asyncio.create_task(asyncio.to_thread(self._download))
        limit_s = self._task.download_timeout_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._or_ending(download)
        if self._ending.is_set():
            return Finished()
        if not download.done():
            return Finished(
                error=f"The model data could not be downloaded within {limit_s:g} s. Allow it more time "
                "(ModelDataDownloadTimeoutInSeconds), or make the artifact smaller.",
                client_error=True,
            )
        await download
        prepare = asyncio.create_task(host.prepare(self._log, self._ending.is_set))
        await self._or_ending(prepare)
        if self._ending.is_set():
            await asyncio.gather(prepare, return_exceptions=True)
            return Finished()
        await prepare
        host.link.send(Stage("Starting", "Starting the model server"))
        self._deadline = time.monotonic() + self._task.startup_timeout_s
        pause = _BACKOFF_S[0]
        while not self._ending.is_set():
            began = time.monotonic()
            reason = await self._serve_once()
            if self._ending.is_set():
                break
            self._restarts += 1
            gave_up = self._restarts >= _STARTS_BEFORE_READY or time.monotonic() >= self._deadline
            if not self._was_ready and gave_up:
                return Finished(error=self._never_ready(reason), client_error=True)
            if self._was_ready:
                host.link.send(Unhealthy(reason, self._restarts))
            if time.monotonic() - began > _STEADY_S:
                pause = _BACKOFF_S[0]
            self._log.note(f"The model server ended ({reason}); it is started again in {pause:g} s.")
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause)
            pause = min(2 * pause, _BACKOFF_S[1])
        return Finished()

    async def _serve_once(self) -> str:
        """Start the server, watch it until it ends or must be ended, and return why."""
        host = self._host
        container = await host.start(self._plan(), self._log)
        # The user's own image speaks HTTP on an address of its own; ours frames on a socket in the instance's folder.
        self._address = f"http:{container.address}:{_PORT}" if container.address else f"unix:{host.socket}"
        beside = asyncio.create_task(watch_utilization(host, container))
        watches = [asyncio.create_task(self._watch(container))]
        if self._task.limited and host.own_image is None:
            watches.append(asyncio.create_task(beyond(container, host.spec.memory_bytes)))
        try:
            ended = asyncio.create_task(container.wait())
            await self._or_ending(ended, *watches)
            if ended.done():
                return f"exit code {ended.result()}"
            return next((watch.result() for watch in watches if watch.done()), "told to end")
        finally:
            for each in (beside, *watches):
                each.cancel()
            await container.stop(self._grace_s if self._ending.is_set() else _PING_TIMEOUT_S)
            self._log.flush()

    @property
    def _ready(self) -> Ready:
        return Ready(self._address, "http" if self._address.startswith("http:") else "frames")

    def _plan(self) -> ContainerPlan:
        host = self._host
        if host.own_image is not None:
            return host.plan({}, read_only=("model",), port=_PORT)
        Path(host.socket).unlink(missing_ok=True)
        plan = host.plan({}, read_only=("model",))
        socket = host.folder / "run" / host.socket_name
        inside = host.socket if not host.sandboxed else host.runtime.path_inside(plan, socket)
        workers = str(max(1, self._task.workers))
        return replace(
            plan,
            environment={
                "SAGESMITH_SOCKET": inside,
                "SAGESMITH_WORKERS": workers,
                "SAGEMAKER_MODEL_SERVER_TIMEOUT": f"{self._task.invocation_timeout_s:g}",
                **plan.environment,
            },
        )

    async def _watch(self, container: Container) -> str:
        """Ping until the server must be ended; return why."""
        pause, later = _LOOK_S
        while not await ping(self._address, _PING_TIMEOUT_S):
            if not self._was_ready and time.monotonic() > self._deadline:
                return f"no answer to /ping in {self._task.startup_timeout_s:g} s"
            await asyncio.sleep(pause)
            pause = min(pause * 1.3, later)
        self._was_ready = True
        self._host.link.send(self._ready)
        failed, last_success = 0, time.monotonic()
        while True:
            await asyncio.sleep(_PING_EVERY_S)
            if await ping(self._address, _PING_TIMEOUT_S):
                if failed >= _FAILED_PINGS:
                    self._host.link.send(self._ready)
                failed, last_success = 0, time.monotonic()
                continue
            failed += 1
            if failed == _FAILED_PINGS:
                self._host.link.send(Unhealthy("the model server does not answer /ping", self._restarts))
            if time.monotonic() - last_success > _HUNG_S:
                return f"no answer to /ping for {_HUNG_S:g} s"

    async def _or_ending(self, *tasks: asyncio.Task[str] | asyncio.Task[int] | asyncio.Task[None]) -> None:
        """Wait until one of *tasks* is done, or the end was told."""
        ending = asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait([ending, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()

    def _never_ready(self, reason: str) -> str:
        variant = self._task.variant_name
        what = f"The primary container for production variant {variant}" if variant else "The model container"
        where = "endpoint" if variant else "job"
        return (
            f"{what} did not pass the ping health check ({reason}). "
            f"Please check CloudWatch logs for this {where}."
        )

    def _download(self) -> None:
        began = time.monotonic()
        self._fetch_all()
        self.fetched_s = time.monotonic() - began

    def _fetch_all(self) -> None:
        task, host = self._task, self._host
        model = host.folder / "ml" / "model"
        if task.code_uri:
            fetch_code(host.objects, task.code_uri, host.folder / "code.tar.gz", host.folder / "ml" / "code")
        if not task.model_data:
            return
        if task.model_data_type == "S3Prefix" and task.model_data_compression != "Gzip":
            channel = ChannelSpec("model", posixpath.join(task.model_data, ""))
            self._stage_plain(channel)
            return
        archive = host.folder / "model.tar.gz"
        bucket, key = split_uri(task.model_data)
        if host.objects.head(bucket, key) is None:
            raise DataError(f"Could not find model data at {task.model_data}.")
        host.objects.get(bucket, key, archive, link=True)
        try:
            _artifacts.unpack(archive, model, task.model_data)
        finally:
            archive.unlink()

    def _stage_plain(self, channel: ChannelSpec) -> None:
        host = self._host
        stage(
            host.objects,
            (channel,),
            host.folder / "ml",
            hosts=host.spec.hosts,
            host=host.spec.host,
            may_link=host.may_link,
            cancelled=Event(),
        )
