"""A notebook instance: clones of repositories in, its scripts run, then a JupyterLab that is kept alive.

All of it runs in containers that share a home folder, which is new at each start, and the volume, which stays. The
script that runs once is said to have run by the stage `Created`; `Ready` is said when JupyterLab answers. What prevents
that ends the instance, with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Final

from sagesmith.connect import Upstream
from sagesmith.containers import Container, ContainerError
from sagesmith.instance._door import Door
from sagesmith.instance._host import Host, LogShipper, Sender, watch_utilization
from sagesmith.instance._notebook_plan import (
    clone_command,
    clone_folder,
    jupyter_command,
    lay_out_notebook,
    notebook_plan,
    script_command,
)
from sagesmith.instance.spec import (
    Command,
    Finished,
    Log,
    MergeArtifacts,
    Message,
    NotebookTask,
    Ready,
    Repository,
    Stage,
    Unhealthy,
)
from sagesmith.instance.volume import GIB, held_bytes
from sagesmith_toolkit.sockets import unix_address

__all__ = ["Notebook"]

SCRIPT_S: Final = 300.0
"""How long each script may take, as AWS has it."""
CLONE_S: Final = 300.0
JUPYTER_LOG: Final = "jupyter.log"
_START_S: Final = 180.0
_LOOK_S: Final = 0.1
_BACKOFF_S: Final = (0.5, 30.0)
_GRACE_S: Final = 10.0
_KEPT_LINES: Final = 3


class _Part:
    """Sends lines as those of one log stream of the notebook, and remembers the last."""

    def __init__(self, link: Sender, part: str) -> None:
        self._link = link
        self._part = part
        self.last: list[str] = []

    def send(self, message: Message) -> None:
        if isinstance(message, Log):
            self.last = [*self.last, *(text for _, text in message.lines if text.strip())][-_KEPT_LINES:]
            message = Log(message.lines, self._part)
        self._link.send(message)


class Notebook:
    """Runs one :class:`NotebookTask`; `obey` takes commands meanwhile."""

    def __init__(self, host: Host, task: NotebookTask) -> None:
        self._host = host
        self._task = task
        self._ending = asyncio.Event()
        self._overfull = False
        self._door = Door(
            host.spec.server.url, internet=task.internet, upstream=Upstream.from_environ(os.environ)
        )
        host.socket_name = "jupyter.sock"

    @property
    def hosts(self) -> list[Host]:
        """Where its containers run."""
        return [self._host]

    def obey(self, command: Command) -> None:
        """Take *command*: `Stop` and `Shutdown` end the notebook."""
        if not isinstance(command, MergeArtifacts):
            self._ending.set()

    async def run(self) -> Finished:
        """Bring JupyterLab up and keep it up until told to end, or return why that cannot be."""
        host, task = self._host, self._task
        if not task.internet and host.node.sandbox is None:
            raise ContainerError(
                "DirectInternetAccess cannot be Disabled on this machine: its containers run without a sandbox. Install "
                "bubblewrap, or enable it",
                client_error=True,
            )
        if not Path(task.volume).is_dir():
            raise ContainerError(f"the notebook's volume {task.volume} is not there")
        lay_out_notebook(host, task)
        log = LogShipper(_Part(host.link, JUPYTER_LOG))
        await self._or_ending(asyncio.create_task(host.prepare(log, self._ending.is_set)))
        await self._door.open(host.folder / "run" / "door.sock")
        try:
            for number, repository in enumerate(task.repositories):
                await self._clone(repository, log, is_default=task.opens_first and number == 0)
            if task.on_create and not task.created:
                await self._script("OnCreate", task.on_create)
            if not task.created and not self._ending.is_set():
                host.link.send(Stage("Created"))
            if task.on_start:
                await self._script("OnStart", task.on_start)
            return await self._keep_up(log)
        finally:
            await self._door.close()

    async def _clone(self, repository: Repository, log: LogShipper, *, is_default: bool) -> None:
        target = Path(self._task.volume, clone_folder(repository))
        if target.exists() or self._ending.is_set():
            return
        log.note(f"Cloning {repository.url}")
        part = _Part(self._host.link, JUPYTER_LOG)
        code = await self._run_for(clone_command(self._host, self._task, repository), part, CLONE_S)
        if code and not self._ending.is_set():
            await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)
            what = "The default" if is_default else "An additional"
            why = " ".join(part.last) or "git said nothing"
            how = f"took longer than {CLONE_S:.0f} s" if code < 0 else f"failed with exit code {code}"
            raise ContainerError(
                f"{what} code repository {repository.url} could not be cloned: git {how}: {why}",
                client_error=True,
            )

    async def _script(self, name: str, script: str) -> None:
        if self._ending.is_set():
            return
        task, part = self._task, _Part(self._host.link, f"LifecycleConfig{name}")
        file = self._host.folder / "home" / f".{name}.sh"
        file.write_text(script, "utf-8")
        code = await self._run_for(script_command(file, self._host), part, SCRIPT_S)
        if code and not self._ending.is_set():
            what = (
                f"Notebook Instance Lifecycle Config '{task.config_arn}' for Notebook Instance '{task.arn}'"
            )
            if code < 0:
                how = f"took longer than {SCRIPT_S / 60:.0f} minutes."
            else:
                how = f"failed: script {name} exited with error code {code}."
            raise ContainerError(
                f"{what} {how} Please check the log stream {task.name}/LifecycleConfig{name} of "
                "/aws/sagemaker/NotebookInstances",
                client_error=True,
            )

    async def _run_for(self, command: tuple[str, ...], part: _Part, limit_s: float) -> int:
        """Run *command* to its end and return its exit code; -1 if it was ended after *limit_s*."""
        output = LogShipper(part)
        container = await self._host.start(notebook_plan(self._host, self._task, command), output)
        try:
            waiting = asyncio.create_task(container.wait())
            async with asyncio.timeout(limit_s):
                await self._or_ending(waiting)
            return waiting.result() if waiting.done() else 0
        except TimeoutError:
            return -1
        finally:
            await container.stop(0.0)
            output.flush()

    async def _keep_up(self, log: LogShipper) -> Finished:
        pause, restarts, was_ready = _BACKOFF_S[0], 0, False
        while not self._ending.is_set():
            plan = notebook_plan(
                self._host,
                self._task,
                jupyter_command(self._host, self._task),
                SAGESMITH_NOTEBOOK_TOKEN=self._task.token,
            )
            Path(self._host.socket).unlink(missing_ok=True)
            began = time.monotonic()
            container = await self._host.start(plan, log)
            using = asyncio.create_task(
                watch_utilization(self._host, container, partial(self._volume_percent, log))
            )
            try:
                ready, reason = await self._once(container)
            finally:
                using.cancel()
                await container.stop(_GRACE_S if self._ending.is_set() else 0.0)
                log.flush()
            was_ready = was_ready or ready
            if self._ending.is_set():
                break
            if not was_ready:
                return Finished(error=f"JupyterLab did not start: {reason}", client_error=True)
            restarts += 1
            self._host.link.send(Unhealthy(reason, restarts))
            pause = _BACKOFF_S[0] if time.monotonic() - began > _START_S else min(2 * pause, _BACKOFF_S[1])
            log.note(f"JupyterLab ended ({reason}); it is started again in {pause:g} s.")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause)
        return Finished()

    async def _volume_percent(self, log: LogShipper) -> float:
        """Return how full the volume is, and note in the log when it has become fuller than full."""
        size = self._task.volume_bytes
        held = await asyncio.to_thread(held_bytes, Path(self._task.volume))
        if size and held > size and not self._overfull:
            log.note(
                f"The volume holds {held / GIB:.1f} GB, and VolumeSizeInGB says {size // GIB}. Remove files, or have it "
                "raised while the notebook instance is stopped (UpdateNotebookInstance): with more than it may hold it "
                "is not started again."
            )
        self._overfull = bool(size) and held > size
        return 100 * held / size if size else 0.0

    async def _once(self, container: Container) -> tuple[bool, str]:
        """Watch one JupyterLab until it ends or must; return whether it was ready, and why it is over."""
        ended = asyncio.create_task(container.wait())
        deadline = time.monotonic() + _START_S
        while not await self._answers():
            if ended.done():
                return (
                    False,
                    f"exit code {ended.result()}; see the log stream {self._task.name}/{JUPYTER_LOG}",
                )
            if self._ending.is_set():
                return False, "told to end"
            if time.monotonic() > deadline:
                return False, f"no answer in {_START_S:g} s"
            await asyncio.sleep(_LOOK_S)
        self._host.link.send(Ready(f"unix:{self._host.socket}", "http"))
        await self._or_ending(ended)
        return True, f"exit code {ended.result()}" if ended.done() else "told to end"

    async def _answers(self) -> bool:
        """Return whether JupyterLab answers with the token."""
        request = (
            f"GET {self._task.base_url}api/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"X-Sagesmith-Notebook: {self._task.token}\r\n\r\n"
        )
        with contextlib.suppress(OSError, EOFError, TimeoutError, ValueError):
            async with asyncio.timeout(5.0):
                with unix_address(self._host.socket) as short:
                    reader, writer = await asyncio.open_unix_connection(short)
                try:
                    writer.write(request.encode())
                    return (await reader.readline()).split()[1:2] == [b"200"]
                finally:
                    writer.close()
        return False

    async def _or_ending(self, task: asyncio.Task[int] | asyncio.Task[None]) -> None:
        """Wait until *task* is done, whose fault is raised, or the end was told."""
        ending = asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait([ending, task], return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()
        if task.done():
            task.result()
        elif self._ending.is_set():
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
