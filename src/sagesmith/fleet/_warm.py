"""Agents that wait with a warm process: what makes a built-in algorithm start in milliseconds.

Each waits in a folder of its own, which becomes the instance's folder when it gets its job. A job uses one
up, and the next is made in the background. While a training job uses the machine it is made at the lowest
priority, where we may raise that again when it gets work or the training ends; where we may not, it is made
some seconds later or when the training ends, whichever comes first.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sagesmith.containers import Sandbox
from sagesmith.containers.processes import descendants, end_marked, memory_of, set_background
from sagesmith.fleet._instance import last_words
from sagesmith.fleet._nursery import Nursery
from sagesmith.instance.folder import NODE
from sagesmith.instance.node import Node

__all__ = ["PREFIX", "WarmPool", "WarmSlot"]

PREFIX: Final = ".warm-"
_POLITE_S: Final = 10.0
_BACKOFF_S: Final = (1.0, 60.0)
_MESSAGE: Final = 64
_UNCOMPILED: Final = b"ready uncompiled\n"
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class WarmSlot:
    """One agent that waits. `pidfd` and `control` belong to whoever holds the slot.

    Once it has `begun`, the agent needs the folder's name no more, and the folder may get another. It is `ready` when its
    modules are imported.
    """

    kind: str
    folder: Path
    pidfd: int
    control: socket.socket
    begun: bool = False
    ready: bool = False
    background: bool = False

    @property
    def pid(self) -> int:
        """The agent's process; 0 or less if it has ended, or if somebody else has taken it over."""
        fields: dict[str, str] = {}
        with (
            contextlib.suppress(OSError),
            open(f"/proc/self/fdinfo/{self.pidfd}", encoding="ascii") as file,
        ):
            fields = dict(line.split(":", 1) for line in file if ":" in line)
        return int(fields.get("Pid", "0"))

    @property
    def pids(self) -> list[int]:
        """The agent, its container and what holds it."""
        return [self.pid, *descendants(self.pid)] if self.pid > 0 else []

    def hurry(self) -> None:
        """Let it load at the usual priority."""
        if self.background:
            self.background = False
            set_background(self.pids, on=False)

    def give(self, folder: Path, token: str) -> None:
        """Let it begin the job of this *token* that is in *folder*, where its own folder is now."""
        self.hurry()
        self.control.setblocking(True)
        with contextlib.suppress(OSError):  # it died: its pidfd says so
            self.control.sendall(token.encode() + b" " + os.fsencode(folder) + b"\n")
        self.control.close()


class WarmPool:
    """Keeps *count* agents waiting for each kind of warm process. Lives on the event loop.

    Folders in *folder* whose name begins with `PREFIX` are the pool's: nobody else removes them while it lives.
    *busy* says whether a training job uses the machine; :meth:`fill` is to be called when that ends, too.
    """

    def __init__(
        self,
        nursery: Nursery,
        folder: Path,
        sandbox: Sandbox | None,
        modules: Mapping[str, tuple[str, ...]],
        count: int,
        busy: Callable[[], bool],
    ) -> None:
        self._nursery = nursery
        self._folder = folder
        self._sandbox = sandbox
        self._modules = modules
        self._count = count
        self._busy = busy
        self._slots: list[WarmSlot] = []
        self._filling: asyncio.Task[None] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._look = asyncio.Event()
        self._pause = _BACKOFF_S[0]
        self._compiling: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def slots(self) -> list[WarmSlot]:
        """Those that wait now."""
        return list(self._slots)

    def fill(self) -> None:
        """Begin to make what is missing; returns at once."""
        if self._closed:
            return
        self._look.set()
        if not self._busy():
            for slot in self._slots:
                slot.hurry()
        if self._filling is None or self._filling.done():
            self._filling = asyncio.get_running_loop().create_task(self._fill())

    def take(self, kind: str) -> WarmSlot | None:
        """Return an agent that waits, the one that is furthest; None if none of this *kind* has begun."""
        begun = (slot for slot in self._slots if slot.kind == kind and slot.begun)
        slots = sorted(begun, key=lambda slot: not slot.ready)
        if not slots:
            return None
        self._forget(slots[0])
        return slots[0]

    async def close(self) -> None:
        """End all that wait."""
        self._closed = True
        if self._again is not None:
            self._again.cancel()
        tasks = [task for task in (self._filling, self._compiling) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for slot in self.slots:
            self._forget(slot)
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(slot.pidfd, signal.SIGKILL)
            if self._sandbox is None:
                end_marked(slot.folder.name)
            await asyncio.to_thread(self._discard, slot)

    async def _fill(self) -> None:
        try:
            # One after the other: the first is of use sooner.
            while (kind := self._missing()) is not None and all(slot.ready for slot in self._slots):
                background = self._busy()
                if background and not _may_return_from_background():
                    await self._training_ended(_POLITE_S)
                    background = False
                await self._add(kind, background=background)
        except OSError as error:
            _log.warning("no warm process could be made (%s); it is tried again in %g s", error, self._pause)
            self._fill_later()

    def _missing(self) -> str | None:
        """A kind of which too few wait."""
        waiting = Counter(slot.kind for slot in self._slots)
        return next((kind for kind in self._modules if waiting[kind] < self._count), None)

    async def _training_ended(self, timeout_s: float) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._busy():
                    self._look.clear()
                    await self._look.wait()

    def _fill_later(self) -> None:
        """Try again after a pause, which grows until one becomes ready."""
        if self._again is not None:
            self._again.cancel()
        if not self._closed:
            self._again = asyncio.get_running_loop().call_later(self._pause, self.fill)
        self._pause = min(2 * self._pause, _BACKOFF_S[1])

    async def _add(self, kind: str, *, background: bool) -> None:
        folder = self._folder / f"{PREFIX}{secrets.token_hex(8)}"
        folder.mkdir(mode=0o700, parents=True)
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                node = Node(self._sandbox, mark=folder.name)
                (folder / NODE).write_text(json.dumps(node.to_json()))
                pidfd = await self._nursery.fork(folder, "", self._modules[kind], theirs)
        except BaseException:
            ours.close()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        ours.setblocking(False)
        slot = WarmSlot(kind, folder, pidfd, ours, background=background)
        if background:
            set_background([slot.pid], on=True)
        self._slots.append(slot)
        asyncio.get_running_loop().add_reader(ours.fileno(), self._heard, slot)

    async def _compile(self, kind: str) -> None:
        """Have bytecode and machine code of the modules written, outside of the sandbox: in there they cannot be.

        Some installers leave that to the first import, and where PYTHONDONTWRITEBYTECODE is set none of these would write
        any. Without bytecode every start takes several times as long. It is no business of the processes that wait, even
        where they may write: a job would wait with them.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sagesmith_toolkit.warm", "--compile", *self._modules[kind]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env={name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        )
        try:
            set_background([process.pid], on=True)
            await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    def _heard(self, slot: WarmSlot) -> None:
        """It began, it became ready, or it ended."""
        try:
            said = slot.control.recv(_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if said:
            slot.begun = True
            if b"ready" in said:
                slot.ready = True
                self._pause = _BACKOFF_S[0]
                self.fill()
            if said.endswith(_UNCOMPILED) and self._compiling is None and _may_write():
                self._compiling = asyncio.get_running_loop().create_task(self._compile(slot.kind))
            return
        _log.warning("a warm process ended while it waited: %s", last_words(slot.folder))
        self._forget(slot)
        self._discard(slot)
        self._fill_later()

    def _forget(self, slot: WarmSlot) -> None:
        asyncio.get_running_loop().remove_reader(slot.control.fileno())
        self._slots.remove(slot)

    @staticmethod
    def _discard(slot: WarmSlot) -> None:
        slot.control.close()
        os.close(slot.pidfd)
        shutil.rmtree(slot.folder, ignore_errors=True)


def warm_memory(slot: WarmSlot) -> int:
    """Return the memory that *slot* takes, in bytes; shared pages are divided among those that share them."""
    return sum(memory_of(pid) for pid in slot.pids)


def _may_write() -> bool:
    return os.access(sysconfig.get_path("purelib"), os.W_OK)


def _may_return_from_background() -> bool:
    """Only root (CAP_SYS_NICE) may make an idle process an ordinary one again."""
    return os.geteuid() == 0
