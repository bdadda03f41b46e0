"""The server as a process: is one running for this home, start one aside, end it.

A running server holds an exclusive lock on ``run/lock`` of its home for as long as it lives, and writes
``run/server.json`` once it answers. The lock, not the file, says whether it is alive: a killed server leaves
its file behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sagesmith.config import Home
from sagesmith.locks import is_locked

__all__ = ["NotRunning", "Running", "follow", "running", "start_aside", "stop", "the_running"]


class NotRunning(RuntimeError):
    """No server runs for a home folder, or it did not start; the sentence says what to do."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers. `http_url` is empty when plain HTTP is off; `token` opens its private routes.

    It is `ready` when it has taken up the endpoints and jobs of before its start.
    """

    url: str
    http_url: str
    pid: int
    region: str
    account_id: str
    started: float
    token: str
    ready: bool


def running(home: Home) -> Running | None:
    """Return the server that runs for *home*, or None."""
    if not is_locked(home):
        return None
    try:
        data = json.loads(home.server_file.read_text("utf-8"))
        return Running(
            url=data["url"],
            http_url=data["http_url"],
            pid=data["pid"],
            region=data["region"],
            account_id=data["account_id"],
            started=data["started"],
            token=data["token"],
            ready=data.get("ready", True),  # earlier versions do not say
        )
    except (FileNotFoundError, ValueError, KeyError):
        return None


def the_running(home: Home) -> Running:
    """Return the server that runs for *home*.

    Raises:
        NotRunning: there is none.
    """
    found = running(home)
    if found is None:
        raise NotRunning(
            f"No Sagesmith server runs for the home folder {home.path}. Start one with `sagesmith up`."
        )
    return found


def start_aside(home: Home, arguments: Sequence[str], *, timeout_s: float = 60.0) -> Running:
    """Start a server in the background and return when it is ready, or answers and gets ready for longer than *timeout_s*.

    Raises:
        NotRunning: it ended or did not answer in time; the message holds the end of its log.
    """
    home.logs.mkdir(parents=True, exist_ok=True)
    log = home.logs / "server.log"
    with log.open("ab") as output:
        start = output.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "sagesmith.server", "--home", str(home.path), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            close_fds=True,
        )
    deadline = time.monotonic() + timeout_s
    found: Running | None = None
    while time.monotonic() < deadline:
        found = running(home)
        if found is not None and found.pid == process.pid and found.ready:
            return found
        if process.poll() is not None:
            raise NotRunning(
                f"The server ended with exit code {process.returncode}.\n{_tail(log, start)}".rstrip()
            )
        time.sleep(0.01)
    if found is not None and found.pid == process.pid:
        return found
    process.terminate()
    raise NotRunning(f"The server did not answer within {timeout_s:.0f} s.\n{_tail(log, start)}".rstrip())


def stop(server: Running, home: Home, *, timeout_s: float = 180.0) -> bool:
    """Ask the server to end, and wait until its process is gone. Return False if it was still there after *timeout_s*."""
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(server.pid)
        try:
            if is_locked(home):  # else it ended just now, and its pid may be another's
                signal.pidfd_send_signal(process, signal.SIGTERM)
                return bool(select.select([process], [], [], timeout_s)[0])
        finally:
            os.close(process)
    return not is_locked(home)


def follow(path: Path, lines: int, *, endless: bool) -> Iterator[str]:
    """Yield the last *lines* lines of the file, and with *endless* those that come after, as they come."""
    with path.open("r", encoding="utf-8", errors="replace") as file:
        yield from _last_lines(file, lines)
        while endless:
            line = file.readline()
            if line:
                yield line.rstrip("\n")
            else:
                time.sleep(0.1)


def _last_lines(file: IO[str], lines: int) -> list[str]:
    return [line.rstrip("\n") for line in file.readlines()[-lines:]] if lines else []


def _tail(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-15:])
