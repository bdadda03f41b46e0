"""The sandbox around a process: what bubblewrap is told.

An allow-list: the container sees the system's programs and libraries, Python and the packages that run in
containers, a few harmless files of /etc, and what belongs to its own instance. Everything else (home
folders, other jobs, the platform's state, other users' files) does not exist in there. It runs as an
unprivileged user of an own user namespace, without capabilities, in an own process tree, on a read-only
system. `/tmp` and the home folder are on disk, not in memory: a job's scratch files may be large.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sagesmith.containers.runtime import ContainerPlan

__all__ = ["HOME", "RUN", "Sandbox", "prepare_for_forks", "python_of", "write_etc"]

HOME: Final = "/home/sagemaker-user"
RUN: Final = "/run/sagesmith"
_USER: Final = "1000"
_PACKAGES: Final = ("sagesmith_toolkit", "sagesmith_algorithms")
_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
_ETC_FILES: Final = (
    "ld.so.cache", "localtime", "mime.types", "os-release", "protocols", "resolv.conf", "services", "timezone",
    "ssl/cert.pem", "ssl/openssl.cnf", "pki/tls/cert.pem",
)  # fmt: skip
_ETC_FOLDERS: Final = ("alternatives", "pki/ca-trust/extracted", "pki/tls/certs", "ssl/certs")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A bubblewrap that works on this machine. Without `user_namespace` only root could make it work."""

    program: str
    user_namespace: bool = True

    @classmethod
    def find(cls) -> tuple[Sandbox | None, str]:
        """Return the sandbox of this machine or None, and why there is none; tried out by running ``true``."""
        program = shutil.which("bwrap")
        if program is None:
            return None, "bubblewrap (bwrap) is not installed; on Debian: apt-get install bubblewrap"
        reason = ""
        for candidate in (cls(program), cls(program, user_namespace=False)):
            command = [*candidate.isolation(network=False), *_system_binds(), "--", "true"]
            try:
                run = subprocess.run(command, capture_output=True, timeout=20, check=False)
            except (OSError, subprocess.TimeoutExpired) as error:
                return None, f"bubblewrap ({program}) does not run here: {error}"
            if run.returncode == 0:
                return candidate, ""
            reason = reason or run.stderr.decode(errors="replace").strip()
        return None, f"bubblewrap ({program}) does not work here: {reason}"

    def isolation(self, *, network: bool) -> list[str]:
        """Return the part of the command that makes namespaces, /proc and /dev."""
        return [
            self.program,
            *(("--unshare-user", "--uid", _USER, "--gid", _USER) if self.user_namespace else ()),
            *("--unshare-pid", "--unshare-ipc", "--unshare-uts"),
            *(() if network else ("--unshare-net",)),
            *("--cap-drop", "ALL", "--die-with-parent", "--new-session"),
            *("--proc", "/proc", "--dev", "/dev"),
        ]

    def command(self, plan: ContainerPlan) -> list[str]:
        """Return the command line, up to where the container's own command begins. Writes what goes to /etc."""
        folder = plan.folder
        write_etc(plan)
        more_files = {
            target: source for target, source in plan.files.items() if not target.startswith("/etc/")
        }
        return [
            *self.isolation(network=plan.network),
            *("--hostname", plan.hostname),
            *_system_binds(),
            *_sources(("/sys/devices/system", "/sys/devices/system")),
            *("--ro-bind", str(folder / "etc"), "/etc"),
            *_sources(*((f"/etc/{name}", f"/etc/{name}") for name in _etc_folders())),
            # Before Python's own folders, which may lie below /tmp.
            *("--bind", str(folder / "tmp"), "/tmp"),  # noqa: S108 (the container's own)
            *("--bind", str(folder / "home"), HOME),
            *_sources(*((path, path) for path in _python_folders(plan.python_prefix or sys.prefix))),
            *_sources(*((str(source), target) for target, source in more_files.items())),
            *(argument for device in _gpu_devices(plan.gpus) for argument in ("--dev-bind", device, device)),
            *("--bind", str(folder / "ml"), "/opt/ml"),
            *(
                argument
                for path in plan.read_only
                for argument in ("--ro-bind", str(folder / "ml" / path), f"/opt/ml/{path}")
            ),
            *(word for target, source in plan.folders.items() for word in ("--bind", str(source), target)),
            *("--bind", str(folder / "run"), RUN),
            *("--symlink", "/tmp", "/var/tmp"),  # noqa: S108
            *("--chdir", HOME),
            *("--remount-ro", "/"),
        ]


def python_of(prefix: str) -> str:
    """Return the Python program of the environment *prefix*, or of this process."""
    program = os.path.join(prefix or sys.prefix, "bin", "python")
    return program if os.path.exists(program) else sys.executable


def _sources(*binds: tuple[str, str]) -> Iterator[str]:
    for source, target in binds:
        yield from ("--ro-bind-try", source, target)


@functools.cache
def _system_binds() -> tuple[str, ...]:
    arguments: list[str] = []
    for path in _SYSTEM:
        if os.path.islink(path):
            arguments += ("--symlink", os.readlink(path), path)
        elif os.path.isdir(path):
            arguments += ("--ro-bind", path, path)
    return tuple(arguments)


@functools.cache
def _python_folders(prefix: str) -> tuple[str, ...]:
    """The folders that Python of *prefix* needs, without those that the system's part has already."""
    candidates = [prefix, *_base_prefixes(prefix)]
    if prefix == sys.prefix:
        candidates += [sys.base_prefix, sys.exec_prefix]
        candidates += [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        candidates += [path for path in (spec.submodule_search_locations or ()) if path] if spec else []
    chosen: list[str] = []
    for candidate in candidates:
        for path in (candidate, os.path.realpath(candidate)):
            covered = any(Path(path).is_relative_to(parent) for parent in (*_SYSTEM, *chosen))
            if os.path.isdir(path) and not covered:
                chosen.append(path)
    return tuple(chosen)


def _base_prefixes(prefix: str) -> list[str]:
    """The installation that a virtual environment was made from."""
    try:
        text = Path(prefix, "pyvenv.cfg").read_text("utf-8")
    except OSError:
        return []
    settings = dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)
    home = {key.strip(): value.strip() for key, value in settings.items()}.get("home", "")
    return [os.path.dirname(home)] if home else []


def _gpu_devices(gpus: int) -> list[str]:
    if not gpus:
        return []
    return [entry.path for entry in os.scandir("/dev") if entry.name.startswith("nvidia")]


def write_etc(plan: ContainerPlan) -> None:
    """Make the container's /etc in the instance's folder: our own files, and copies of harmless ones.

    One mount with copies, not a mount for each file: bubblewrap reads the whole table of mounts for every one.
    The files are written in place, since a warm process may have them mounted already.
    """
    names = "".join(f"{address} {name}\n" for name, address in plan.hosts.items())
    texts = {
        "hosts": f"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{names}",
        "passwd": "root:x:0:0:root:/root:/bin/sh\n"
        f"sagemaker-user:x:{_USER}:{_USER}::{HOME}:/bin/bash\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        "group": f"root:x:0:\nsagemaker-user:x:{_USER}:\nnogroup:x:65534:\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    }
    folder = plan.folder / "etc"
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    for name in _etc_folders():
        (folder / name).mkdir(parents=True, exist_ok=True)
    copies = {name: Path("/etc", name) for name in _ETC_FILES}
    copies |= {
        target.removeprefix("/etc/"): source
        for target, source in plan.files.items()
        if target.startswith("/etc/")
    }
    for name, source in copies.items():
        with contextlib.suppress(FileNotFoundError, PermissionError):
            content = source.read_bytes()
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


def prepare_for_forks() -> None:
    """Find out once what every command needs, for a process that forks those that need it."""
    _system_binds()
    _python_folders(sys.prefix)
    _etc_folders()


@functools.cache
def _etc_folders() -> tuple[str, ...]:
    return tuple(name for name in _ETC_FOLDERS if os.path.isdir(f"/etc/{name}"))
