"""What this machine has, and where on it things go that cannot be in the home folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Final

from sagesmith.fleet.api import InstanceShape

__all__ = ["available_memory", "host_addresses", "machine_shape", "short_folder"]

_LONGEST_SOCKET: Final = 100  # of 107 bytes
_MEMORY_NOW: Final = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
    ),
)
_MEMORY_LIMITS: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def machine_shape() -> InstanceShape:
    """Return the CPUs that we may use, the memory (or a control group's limit of it), and NVIDIA's GPUs."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _MEMORY_LIMITS:
        with contextlib.suppress(OSError, ValueError):
            memory = min(memory, int(Path(path).read_text()))
    gpus = [name for name in os.listdir("/dev") if re.fullmatch(r"nvidia\d+", name)]
    return InstanceShape(len(os.sched_getaffinity(0)), memory, len(gpus))


def available_memory() -> int:
    """Return how many bytes can be taken now without others having to give up theirs.

    It is what the kernel calls available, or what a control group's limit leaves if that is less; what it only keeps
    of files counts as free in both.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        memory = int(dict(line.split(":") for line in lines)["MemAvailable"].split()[0]) * 1024
    for limit, usage, statistics in _MEMORY_NOW:
        with contextlib.suppress(OSError, ValueError):
            kept = dict(line.split() for line in Path(statistics).read_text().splitlines())
            used = int(Path(usage).read_text()) - int(kept.get("inactive_file", 0))
            memory = min(memory, int(Path(limit).read_text()) - used)
    return memory


def host_addresses(group: str, hosts: tuple[str, ...]) -> dict[str, str]:
    """Return a loopback address for each of *hosts*, in a range that differs from other groups'.

    Jobs share the loopback interface; with the same addresses, two jobs that use the same port would meet. So *group*
    names the job and the server's home: several servers may run jobs of one name.
    """
    digest = hashlib.sha256(group.encode()).digest()
    network = f"127.{16 + digest[0] % 224}.{digest[1]}"
    return {host: f"{network}.{number % 254 + 1}" for number, host in enumerate(hosts)}


def short_folder(run: Path) -> str:
    """Return a path of the folder *run* short enough for a socket in it: "" if its own is, else a link's.

    Raises:
        PermissionError: somebody else owns the folder in /tmp where the link belongs.
    """
    if len(os.fsencode(run / "model.sock")) <= _LONGEST_SOCKET:
        return ""
    link = _links() / hashlib.sha256(os.fsencode(run)).hexdigest()[:16]
    link.unlink(missing_ok=True)
    link.symlink_to(run)
    return str(link)


def _links() -> Path:
    base = os.environ.get("XDG_RUNTIME_DIR") or "/tmp"  # noqa: S108 (checked below)
    folder = Path(base, f"sagesmith-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(
            f"{folder} must be a folder that only its owner, this user, can enter; remove it."
        )
    return folder
