"""Processes of this machine, read from ``/proc``: who is whose child, what they use, and how to end them all."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Iterable
from typing import Final

from sagesmith.containers.runtime import Usage

__all__ = [
    "MARK",
    "adopt_orphans",
    "boot_id",
    "descendants",
    "die_with_parent",
    "end_marked",
    "foreground",
    "memory_of",
    "set_background",
    "signal_all",
    "start_time",
    "usage_of",
]

MARK: Final = "SAGESMITH_INSTANCE"
"""The environment variable that every process of an instance inherits; its value is the instance's id."""

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_SHELLS: Final = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh"})
_LISTS_CHILDREN: Final = os.path.exists(f"/proc/self/task/{os.getpid()}/children")
_libc = ctypes.CDLL(None, use_errno=True)


def boot_id() -> str:
    """Return the kernel's name for this boot of the machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def start_time(pid: int) -> int | None:
    """Return when process *pid* started, in clock ticks after boot, or None if it is gone or a zombie."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else int(fields[19])


def descendants(pid: int) -> list[int]:
    """Return *pid*'s children, grandchildren and so on, parents first; itself not included."""
    found: list[int] = []
    queue = [pid]
    while queue:
        children = _children(queue.pop(0))
        found += children
        queue += children
    return found


def foreground(pid: int) -> list[int]:
    """Return the processes that a signal to *pid* is meant for: itself or, if it is a shell, what it waits for.

    In Docker the command is process 1, and a shell there ignores SIGTERM while its child runs. Outside of
    Docker it would end and take the child with it before that could save its work.
    """
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        if file.read().strip() in _SHELLS and (children := _children(pid)):
            return [target for child in children for target in foreground(child)]
    return [pid]


def usage_of(pids: Iterable[int]) -> Usage:
    """Return the sum of what *pids* use; children that have ended count for the parent that waited for them."""
    ticks = memory = 0
    for pid in pids:
        fields = _stat(pid)
        if fields is not None:
            ticks += sum(int(field) for field in fields[11:15])
            memory += int(fields[21]) * _PAGE
    return Usage(cpu_s=ticks / _TICKS, memory_bytes=memory)


def memory_of(pid: int) -> int:
    """Return the memory that *pid* takes in bytes, shared pages divided among those that share them; 0 if gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def signal_all(pids: Iterable[int], number: int = signal.SIGKILL) -> None:
    """Send signal *number* to those of *pids* that still exist."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def end_marked(value: str) -> int:
    """SIGKILL every process whose environment has `MARK` = *value*, or that and a slash and more; return how many.

    This finds what has left its process group and session, too. Several containers of one instance have their numbers
    after the slash.
    """
    wanted = f"{MARK}={value}".encode()
    numbered = wanted + b"/"
    mine = os.getpid()
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != mine:
            with contextlib.suppress(OSError), open(f"/proc/{entry}/environ", "rb") as file:
                content = b"\0" + file.read()
                if b"\0" + wanted + b"\0" in content or b"\0" + numbered in content:
                    found.append(int(entry))
    signal_all(found)
    return len(found)


def adopt_orphans() -> None:
    """Become the parent of descendants that lose theirs, so that they can still be found."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent: int) -> Callable[[], None]:
    """Return a function for a new child of *parent*: SIGKILL comes when the thread that forked it ends."""
    prctl, getppid, leave, kill = _libc.prctl, os.getppid, os._exit, int(signal.SIGKILL)

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, kill, 0, 0, 0)
        if getppid() != parent:
            leave(128 + kill)

    return arrange


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/{pid}/stat after the name (proc(5) counts them from 3)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2].decode("ascii").split()
    except OSError:
        return None


def _children(pid: int) -> list[int]:
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    if not _LISTS_CHILDREN:
        return _children_by_parent(pid)
    found: list[int] = []
    for task in tasks:
        with (
            contextlib.suppress(OSError),
            open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file,
        ):
            found += [int(word) for word in file.read().split()]
    return found


def _children_by_parent(pid: int) -> list[int]:
    """For kernels without CONFIG_PROC_CHILDREN."""
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [child for child in pids if (fields := _stat(child)) is not None and int(fields[1]) == pid]


def set_background(pids: Iterable[int], *, on: bool) -> None:
    """Let *pids*, all threads, run only when nothing else wants to, or as usual again (which only root may)."""
    policy = os.SCHED_IDLE if on else os.SCHED_OTHER
    for pid in pids:
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setscheduler(int(thread), policy, os.sched_param(0))
