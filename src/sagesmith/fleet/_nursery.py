"""The server's end of the nursery."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["Nursery"]

_ANSWER = 4096


class Nursery:
    """Forks agents through the nursery process, which is started when it is first needed, or needed again."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._lock = asyncio.Lock()

    @property
    def pid(self) -> int:
        """The nursery's process, 0 if it does not run."""
        return self._process.pid if self._process is not None else 0

    def open(self) -> None:
        """Start the process; returns before it has loaded anything."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sagesmith.fleet.nursery", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        ours.setblocking(False)
        self._control = ours

    async def fork(
        self,
        folder: Path,
        token: str = "",
        modules: Sequence[str] = (),
        control: socket.socket | None = None,
    ) -> int:
        """Start an agent in *folder* and return its pidfd, which the caller closes. If cancelled, there is no agent.

        With a *token*, it does only what a spec with this `agent_token` says.

        Raises:
            ChildProcessError: the nursery cannot do it, not even a fresh one.
        """
        request = json.dumps({"folder": str(folder), "token": token, "modules": list(modules)}).encode()
        asking = asyncio.ensure_future(
            self._ask_in_turn(request, [os.dup(control.fileno())] if control else [])
        )
        try:
            # Questions and answers are told apart by their order: a question must not be left without its answer.
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(_end)
            raise

    async def _ask_in_turn(self, request: bytes, descriptors: list[int]) -> int:
        try:
            async with self._lock:
                for _ in range(2):
                    if self._control is None:
                        self.open()
                    try:
                        return await self._ask(request, descriptors)
                    except (OSError, EOFError):
                        self.close()
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        raise ChildProcessError("the process that starts instances ended twice; see the server's log")

    def close(self) -> None:
        """Let the nursery end."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = self._control = None

    async def _ask(self, request: bytes, descriptors: list[int]) -> int:
        control = self._control
        if control is None:
            raise EOFError
        socket.send_fds(control, [request], descriptors)
        await _readable(control.fileno())
        data, received, _, _ = socket.recv_fds(control, _ANSWER, 1)
        if not data:
            raise EOFError
        if not received:  # it ended before it had a pidfd: one that is readable at once says the same
            read, write = os.pipe()
            os.close(write)
            return read
        return received[0]


def _end(asking: asyncio.Future[int]) -> None:
    """End the agent that nobody wants any more."""
    if not asking.cancelled() and asking.exception() is None:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(asking.result(), signal.SIGKILL)
        os.close(asking.result())


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def ready() -> None:
        if not done.done():
            done.set_result(None)

    loop.add_reader(descriptor, ready)
    try:
        await done
    finally:
        loop.remove_reader(descriptor)
