"""One instance as the server knows it: its folder, its process, who listens, what it was told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from sagesmith.containers import EngineError, remove_containers
from sagesmith.containers.processes import boot_id, end_marked, start_time
from sagesmith.fleet.api import InstanceLost, Listener
from sagesmith.instance.folder import AGENT, AGENT_LOG, JOURNAL, NODE, SPEC
from sagesmith.instance.journal import Journal
from sagesmith.instance.node import Node
from sagesmith.instance.spec import Command, Finished, InstanceSpec, Message, from_json, to_json

__all__ = ["Instance", "last_words"]

_DELIVERED: Final = "delivered"
_COMMANDS: Final = "commands"
_SHUTDOWN: Final = "shutdown"
_FINISHED: Final = "finished"
_log = logging.getLogger(__name__)


class Instance:
    """An instance of this machine. Lives on the event loop.

    Messages are given to the listener one at a time, and the number of the last one is written down when the
    listener has returned; so a message that comes again (the answer was lost, the server was) is known.
    """

    def __init__(self, folder: Path, spec: InstanceSpec, node: Node) -> None:
        self.folder = folder
        self.spec = spec
        self.node = node
        self.listener: Listener | None = None
        self.pidfd = -1
        self.shutdown = False
        self.finished = (folder / _FINISHED).exists()
        self.released = False
        self.commands: list[tuple[int, Any]] = []
        self.told = asyncio.Event()
        self.delivered = _number(folder / _DELIVERED)
        self._attached = asyncio.Event()
        self._delivering = asyncio.Lock()
        self._lost_told = False

    @classmethod
    def found(cls, folder: Path) -> Instance | None:
        """Return the instance that an earlier server left in *folder*; None if its agent never began."""
        try:
            identity = json.loads((folder / AGENT).read_bytes())
            spec = from_json(InstanceSpec, json.loads((folder / SPEC).read_bytes()))
            instance = cls(folder, spec, Node.from_json(json.loads((folder / NODE).read_bytes())))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        with contextlib.suppress(OSError, ValueError):
            lines = (folder / _COMMANDS).read_bytes().splitlines()
            instance.commands = [tuple(json.loads(line)) for line in lines]
        same_boot = identity["boot_id"] == boot_id()
        instance.shutdown = not same_boot or (folder / _SHUTDOWN).exists()
        pid = identity["pid"]
        if same_boot and start_time(pid) == identity["start_time"]:
            with contextlib.suppress(ProcessLookupError):
                instance.pidfd = os.pidfd_open(pid)
                if start_time(pid) != identity["start_time"]:  # the pid was given away in between
                    os.close(instance.pidfd)
                    instance.pidfd = -1
        return instance

    @property
    def id(self) -> str:
        """The instance's id."""
        return self.spec.instance_id

    @property
    def alive(self) -> bool:
        """True while its process is not known to have ended."""
        return self.pidfd >= 0

    @property
    def pid(self) -> int:
        """The agent's process, 0 if it has not said it yet."""
        try:
            return int(json.loads((self.folder / AGENT).read_bytes())["pid"])
        except (OSError, ValueError, KeyError):
            return 0

    def attach(self, listener: Listener) -> None:
        """Let *listener* hear from now on."""
        self.listener = listener
        self._attached.set()

    def watch(self, ended: Callable[[Instance], None]) -> None:
        """Call *ended* once when the process is gone."""
        loop = asyncio.get_running_loop()

        def gone() -> None:
            self.unwatch()
            ended(self)

        loop.add_reader(self.pidfd, gone)

    def unwatch(self) -> None:
        """Stop watching the process."""
        if self.pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self.pidfd)
            os.close(self.pidfd)
            self.pidfd = -1

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the agent, if it is there."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError, OSError):
                signal.pidfd_send_signal(self.pidfd, number)

    def tell(self, command: Command) -> None:
        """Keep *command* for the agent, also for the case that the server ends first."""
        entry = (len(self.commands) + 1, to_json(command))
        self.commands.append(entry)
        with contextlib.suppress(FileNotFoundError), (self.folder / _COMMANDS).open("ab") as file:
            file.write(json.dumps(entry).encode() + b"\n")
        self.told.set()

    def end_rest(self) -> None:
        """End what its agent left: processes and containers. May take some milliseconds: call it in a thread."""
        end_marked(self.node.mark)
        served = getattr(self.spec.task, "containers", ())
        if "docker" in (self.spec.container.runtime, *(each.container.runtime for each in served)):
            try:
                remove_containers(self.id, self.folder.parent)
            except EngineError as error:
                _log.warning("instance %s: its containers cannot be removed: %s", self.id, error)

    def mark_shutdown(self) -> None:
        """Note that the platform's own shutdown ended it."""
        self.shutdown = True
        with contextlib.suppress(FileNotFoundError):
            (self.folder / _SHUTDOWN).touch()

    async def deliver(self, messages: list[tuple[int, Message]], *, wait_s: float = 20.0) -> int:
        """Give *messages* to the listener, once there is one; return the number of the last that it took."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._attached.wait(), wait_s)
        async with self._delivering:
            for number, message in messages:
                if number <= self.delivered:
                    continue  # known already
                if self.listener is None:
                    break
                try:
                    await self.listener(self.id, message)
                except Exception:
                    _log.exception(
                        "instance %s: message %d was not taken; it will come again", self.id, number
                    )
                    break
                self.delivered = number
                self.finished = self.finished or isinstance(message, Finished)
                self._write_delivered()
        return self.delivered

    async def conclude(self) -> None:
        """After the end of its process: end what it left, deliver the rest of its journal, and say if it was lost."""
        await asyncio.to_thread(self.end_rest)
        await self._attached.wait()
        await self.deliver(list(Journal.read(self.folder / JOURNAL, self.delivered)))
        if self.finished or self.released or self._lost_told or self.listener is None:
            return
        self._lost_told = True
        if not self.shutdown:
            _log.warning("the process of instance %s is gone: %s", self.id, last_words(self.folder))
        reason = (
            _shutdown_reason(self.spec) if self.shutdown else "the instance's process was killed or crashed"
        )
        try:
            await self.listener(self.id, InstanceLost(reason, shutdown=self.shutdown))
        except Exception:
            _log.exception("instance %s: its loss was not taken; it will be told again", self.id)

    def _write_delivered(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            # In one write and without truncating, so that a server that is killed here leaves the old number
            # or the new one; the number only grows, so nothing of the old one stays.
            file = os.open(self.folder / _DELIVERED, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(file, str(self.delivered).encode())
            finally:
                os.close(file)
            if self.finished:
                (self.folder / _FINISHED).touch()


def _shutdown_reason(spec: InstanceSpec) -> str:
    return f"the instance {spec.inside} that it was on ended" if spec.inside else "the machine was shut down"


def last_words(folder: Path) -> str:
    """Return the last line that the agent of *folder* wrote: with luck why it ended."""
    with contextlib.suppress(OSError):
        lines = (folder / AGENT_LOG).read_text("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    return "its folder is gone"


def _number(path: Path) -> int:
    try:
        return int(path.read_text() or 0)
    except (OSError, ValueError):
        return 0
