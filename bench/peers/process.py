"""The processes of a peer: started, waited for, frozen while others are measured, ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

__all__ = ["Peer", "PeerMissing", "peer"]

_MARK = "SAGESMITH_BENCH_PEER"


class PeerMissing(RuntimeError):
    """A peer does not run here, so it is left out; the sentence says why."""


class Peer:
    """A server and all that it starts: its processes inherit a mark in their environment."""

    def __init__(
        self, command: Sequence[str | Path], environ: Mapping[str, str], folder: Path, name: str = ""
    ) -> None:
        self.log = folder / f"{name or Path(command[0]).name}.log"
        self._mark = uuid.uuid4().hex
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=folder, env={**os.environ, **environ, _MARK: self._mark}, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def wait_for(self, url: str, timeout_s: float = 120.0) -> None:
        """Return when a GET of *url* succeeds.

        Raises:
            PeerMissing: the process ended or answered nothing in time; the sentence ends with its last lines.
        """
        until = time.monotonic() + timeout_s
        while time.monotonic() < until and self._process.poll() is None:
            try:
                with urllib.request.urlopen(url, timeout=5):
                    return
            except OSError:  # a status of 400 and above as well
                time.sleep(0.1)
        raise PeerMissing(
            f"{self.log.name} did not become ready: {self.log.read_text('utf-8', 'replace')[-500:]}"
        )

    def freeze(self) -> None:
        """Take the processor from it."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it run again."""
        self._signal(signal.SIGCONT)

    def memory_bytes(self) -> int:
        """Return the proportional memory of the whole session."""
        import psutil

        return sum(psutil.Process(member).memory_full_info().pss for member in self._members())

    def end(self) -> None:
        """End all its processes."""
        self.thaw()
        members = self._members()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        for member in members | self._members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        for process in self._members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def _members(self) -> set[int]:
        """Return all its processes: some leave its session and its family, others write over their environment."""
        import psutil

        found = set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
                ours = os.getsid(process.pid) == self._process.pid
                if ours or process.environ().get(_MARK) == self._mark:
                    found |= {process.pid, *(child.pid for child in process.children(recursive=True))}
        return found


@contextlib.contextmanager
def peer(
    command: Sequence[str | Path],
    url: str,
    folder: Path,
    environ: Mapping[str, str] | None = None,
    name: str = "",
) -> Iterator[Peer]:
    """Run *command* until *url* answers; freeze it; end it when the block ends."""
    server = Peer(command, environ or {}, folder, name)
    try:
        server.wait_for(url)
        server.freeze()
        yield server
    finally:
        server.end()
