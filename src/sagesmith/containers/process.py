"""Containers as processes: bubblewrap where it works, plain processes where it does not.

The process is forked by the thread of the event loop and dies with it (`PR_SET_PDEATHSIG` is bound to that
thread), so that an instance killed by SIGKILL leaves no container behind. In the sandbox the kernel ends
everything with the namespace's first process; a plain process is ended by session, by descent and by the
mark in its environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sagesmith.containers import processes
from sagesmith.containers._lines import LineSplitter
from sagesmith.containers.errors import ContainerError
from sagesmith.containers.runtime import ContainerPlan, Output, Usage
from sagesmith.containers.sandbox import HOME, RUN, Sandbox, python_of, write_etc

__all__ = ["ProcessContainer", "ProcessRuntime", "WarmProcess"]

_READ: Final = 256 * 1024
_DRAIN_S: Final = 2.0
_KEPT_LINES: Final = 20
_END_TRIES: Final = 1000
_QUIET_LOOKS: Final = 3
_SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ProcessRuntime:
    """Runs containers as processes of this machine, in *sandbox* or, if that is None, without one."""

    def __init__(self, sandbox: Sandbox | None) -> None:
        self._sandbox = sandbox

    def path_inside(self, plan: ContainerPlan, outside: Path) -> str:
        """Return the path under which the container sees *outside*, a path below the plan's folder."""
        if self._sandbox is None:
            return str(outside)
        inside = {"ml": "/opt/ml", "run": RUN, "tmp": "/tmp", "home": HOME}  # noqa: S108 (the container's own)
        first, *rest = outside.relative_to(plan.folder).parts
        return "/".join((inside[first], *rest))

    async def start(self, plan: ContainerPlan, output: Output) -> ProcessContainer:
        """Start the command of *plan*; see `ContainerRuntime`."""
        container = self._spawn(plan, plan.command, subprocess.DEVNULL, ())
        container.begin(output)
        return container

    async def prepare(self, plan: ContainerPlan, modules: Sequence[str]) -> WarmProcess:
        """Start a Python that imports *modules* and waits, in the container that *plan* describes."""
        ready, told = os.pipe()
        try:
            command = ("python", "-m", "sagesmith_toolkit.warm", *modules)
            container = self._spawn(plan, command, subprocess.PIPE, (told,), {"SAGESMITH_WARM_FD": str(told)})
        except BaseException:
            os.close(ready)
            raise
        finally:
            os.close(told)
        return WarmProcess(self, container, ready)

    def environment(self, plan: ContainerPlan) -> dict[str, str]:
        """Return the whole environment of the container: a few defaults, the plan's, and our mark."""
        prefix = os.path.dirname(python_of(plan.python_prefix))
        defaults = {
            "PATH": f"{prefix}:{_SYSTEM_PATH}",
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": HOME,
            "HOSTNAME": plan.hostname,
            # OpenMP's threads wait for each other after each of thousands of small steps. By default they spin, and
            # when another instance has one of the CPUs, they spin for as long as the kernel lets that run: XGBoost
            # on small data then takes twenty times as long. Sleeping costs nothing measurable on large data.
            # A bound for spinning helps less: with GOMP_SPINCOUNT=500 such a job took two to three times as long as
            # with none on a busy machine, with 10,000 seven to eighteen times.
            "OMP_WAIT_POLICY": "passive",
        }
        if self._sandbox is None:
            base = plan.folder / "ml"
            defaults |= {"SAGEMAKER_BASE_DIR": str(base), "HOME": str(plan.folder / "home"),
                         "TMPDIR": str(plan.folder / "tmp")}  # fmt: skip
        return {**defaults, **plan.environment, processes.MARK: plan.name}

    def argv(self, plan: ContainerPlan, command: Sequence[str]) -> list[str]:
        """Return *command* with the Python of the plan's environment for the word ``python``."""
        if command and command[0] in ("python", "python3"):
            return [python_of(plan.python_prefix), *command[1:]]
        return list(command)

    def _spawn(
        self,
        plan: ContainerPlan,
        command: Sequence[str],
        stdin: int,
        descriptors: tuple[int, ...],
        more_environment: Mapping[str, str] | None = None,
    ) -> ProcessContainer:
        for name in ("ml", "run", "tmp", "home"):
            (plan.folder / name).mkdir(exist_ok=True)
        argv = self.argv(plan, command)
        status_read = -1
        output_read, output_write = os.pipe()
        if self._sandbox is not None:
            status_read, status_write = os.pipe()
            descriptors = (*descriptors, status_write)
            argv = [*self._sandbox.command(plan), "--json-status-fd", str(status_write), "--", *argv]
        try:
            process = subprocess.Popen(
                argv,
                stdin=stdin,
                stdout=output_write,
                stderr=output_write,
                bufsize=0,
                env={**self.environment(plan), **(more_environment or {})},
                cwd=None if self._sandbox else plan.folder / "home",
                pass_fds=descriptors,
                start_new_session=True,
                preexec_fn=processes.die_with_parent(os.getpid()),  # noqa: PLW1509 (only calls made ready before)
            )
        except (OSError, ValueError) as error:
            os.close(output_read)
            if status_read >= 0:
                os.close(status_read)
            raise ContainerError(
                f"cannot run {argv[0]!r}: {error}", client_error=not self._sandbox
            ) from error
        finally:
            os.close(output_write)
            if self._sandbox is not None:
                os.close(status_write)
        return ProcessContainer(plan.name, process, output_read, status_read)


class ProcessContainer:
    """A container that is a process; see `Container`."""

    address = ""

    def __init__(self, name: str, process: subprocess.Popen[bytes], source: int, status: int) -> None:
        self._name = name
        self._process = process
        self._source = source
        self._status = status
        self._sandboxed = status >= 0
        self._loop = asyncio.get_running_loop()
        self._splitter = LineSplitter()
        self._output: Output | None = None
        self._read_to_end = self._loop.create_future()
        self._init = self._first_process() if self._sandboxed else process.pid
        self._init_fd = -1
        if self._sandboxed and self._init:
            with contextlib.suppress(ProcessLookupError):
                self._init_fd = os.pidfd_open(self._init)
        self._watch = self._loop.create_task(self._watch_to_end())
        self._watch.add_done_callback(_retrieve)

    @property
    def stdin(self) -> Any:
        """The pipe to the process, for warm ones."""
        return self._process.stdin

    @property
    def pids(self) -> list[int]:
        """All processes of the container, and the one that holds it."""
        own = self._process.pid
        return [own, *processes.descendants(own)]

    @property
    def ended(self) -> bool:
        """True once nothing of it is left."""
        return self._watch.done()

    def begin(self, output: Output) -> None:
        """Read what the container writes from now on, and give it to *output*, instead of to an earlier one."""
        self._output = output
        os.set_blocking(self._source, False)
        self._loop.add_reader(self._source, self._readable)

    async def wait(self) -> int:
        """Return the exit code once nothing of the container is left.

        Raises:
            ContainerError: the sandbox could not be made, or the command does not exist.
        """
        return await asyncio.shield(self._watch)

    async def stop(self, grace_s: float) -> int:
        """Send SIGTERM, then SIGKILL to everything after *grace_s* seconds; return the exit code."""
        if grace_s > 0 and self._process.returncode is None:
            processes.signal_all(processes.foreground(self._command()), signal.SIGTERM)
            with contextlib.suppress(asyncio.TimeoutError):
                return await asyncio.wait_for(asyncio.shield(self._watch), grace_s)
        self.kill()
        return await self.wait()

    def kill(self) -> None:
        """SIGKILL the whole tree."""
        if self._watch.done():
            return
        if self._init_fd >= 0:
            # The namespace's first process: the kernel ends all others with it.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._init_fd, signal.SIGKILL)
        elif self._process.returncode is None:  # else its number may be another's
            processes.signal_all([*processes.descendants(self._process.pid), self._process.pid])

    def usage(self) -> Usage:
        """Return what the processes of the container use."""
        return processes.usage_of(self.pids)

    def memory(self) -> int:
        """Return the memory that they take in bytes; of shared pages their part."""
        return sum(map(processes.memory_of, self.pids))

    def _first_process(self) -> int:
        """Read the pid of the namespace's first process; bubblewrap writes it before anything else. 0 if it failed."""
        line = b""
        while not line.endswith(b"\n"):
            piece = os.read(self._status, 1)
            if not piece:
                return 0
            line += piece
        return int(json.loads(line)["child-pid"])

    def _command(self) -> int:
        """The process of the user's command: the child of the namespace's first process."""
        if not self._sandboxed:
            return self._process.pid
        children = processes.descendants(self._init)
        return children[0] if children else self._init

    def _readable(self) -> None:
        try:
            data = os.read(self._source, _READ)
        except BlockingIOError:
            return
        lines = self._splitter.feed(data) if data else self._splitter.finish()
        if lines and self._output is not None:
            now = time.time_ns() // 1_000_000
            self._output([(now, line) for line in lines])
        if not data:
            self._loop.remove_reader(self._source)
            if not self._read_to_end.done():
                self._read_to_end.set_result(None)

    async def _watch_to_end(self) -> int:
        process_fd = os.pidfd_open(self._process.pid)
        try:
            await _readable(self._loop, process_fd)
            if not self._sandboxed:
                self._end_tree()
            code = self._process.wait()
            if self._init_fd >= 0:
                await _readable(self._loop, self._init_fd)
            await self._read_rest()
        finally:
            for descriptor in (process_fd, self._init_fd, self._source):
                if descriptor >= 0:
                    os.close(descriptor)
            if self._process.stdin is not None:
                self._process.stdin.close()
        if self._sandboxed:
            self._check_that_it_ran(code)
        return 128 - code if code < 0 else code

    def _end_tree(self) -> None:
        """End what the process left. It is not waited for yet, so that no other has its number."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        quiet = 0
        for _ in range(_END_TRIES):
            # One that was forking, or that had no environment while it became another program, is found the next time.
            quiet = 0 if processes.end_marked(self._name) else quiet + 1
            if quiet == _QUIET_LOOKS:
                break
            time.sleep(0.001)

    async def _read_rest(self) -> None:
        if self._output is None:
            return
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._read_to_end, _DRAIN_S)
        self._loop.remove_reader(self._source)

    def _check_that_it_ran(self, code: int) -> None:
        """Bubblewrap reports an exit code only of a command that it could start."""
        text = b""
        while piece := os.read(self._status, 4096):
            text += piece
        os.close(self._status)
        if b'"exit-code"' not in text and code > 0:
            raise ContainerError(
                "the container could not be started: its command does not exist or its sandbox could not be made; "
                "the last line of its log says which",
                client_error=True,
            )


class WarmProcess:
    """A container whose Python waits with its modules imported. It takes one job, or is discarded."""

    def __init__(self, runtime: ProcessRuntime, container: ProcessContainer, ready: int) -> None:
        self._runtime = runtime
        self._container = container
        self._said: deque[str] = deque(maxlen=_KEPT_LINES)
        container.begin(lambda lines: self._said.extend(text for _, text in lines))
        self._ready = asyncio.get_running_loop().create_task(_heard(ready))

    @property
    def pids(self) -> list[int]:
        """Its processes, for the report of what waiting costs."""
        return self._container.pids

    async def wait_ready(self) -> bool:
        """Wait until it can take a job; False if it ended instead."""
        return (await asyncio.shield(self._ready)).startswith(b"ready")

    @property
    def uncompiled(self) -> bool:
        """True if it is ready, and Python found no bytecode of some modules."""
        return self._ready.done() and self._ready.result() == b"ready uncompiled\n"

    async def wait_ended(self) -> str:
        """Wait until it has ended, and return how and with which last words."""
        try:
            how = f"exit code {await self._container.wait()}"
        except ContainerError as error:
            how = str(error)
        return f"{how}; it said: {' / '.join(self._said) or 'nothing'}"

    def take(self, plan: ContainerPlan, output: Output) -> ProcessContainer:
        """Give it the command of *plan* (made in the same folder) and return it as that container.

        Raises:
            BrokenPipeError: it has ended since it was ready.
        """
        if self._container.ended:
            raise BrokenPipeError
        write_etc(plan)
        job = {
            "argv": ["python", *self._runtime.argv(plan, plan.command)[1:]],
            "env": self._runtime.environment(plan),
        }
        if self._said:
            now = time.time_ns() // 1_000_000
            output([(now, text) for text in self._said])
        self._container.begin(output)
        self._container.stdin.write(json.dumps(job).encode() + b"\n")
        self._container.stdin.close()
        return self._container

    async def discard(self) -> None:
        """End it."""
        self._container.kill()
        with contextlib.suppress(ContainerError):
            await self._container.wait()


async def _heard(descriptor: int) -> bytes:
    try:
        await _readable(asyncio.get_running_loop(), descriptor)
        return os.read(descriptor, 64)
    finally:
        os.close(descriptor)


async def _readable(loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
    done = loop.create_future()

    def ready() -> None:
        if not done.done():
            done.set_result(None)

    loop.add_reader(descriptor, ready)
    try:
        await done
    finally:
        loop.remove_reader(descriptor)


def _retrieve(task: asyncio.Task[int]) -> None:
    if not task.cancelled():
        task.exception()
