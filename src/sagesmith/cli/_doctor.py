"""`sagesmith doctor`: does this machine have what Sagesmith needs, and what would more give?"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sagesmith.cli._process import running
from sagesmith.config import Home, Settings

__all__ = ["Finding", "examine"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `level` is ``ok``, ``note`` (works, but with less) or ``fault`` (must be mended)."""

    subject: str
    level: str
    sentence: str


def examine(home: Home, settings: Settings) -> Iterator[Finding]:
    """Yield what was found, one subject after the other."""
    for check in (
        _python,
        _bytecode,
        _sandbox,
        _home_folder,
        _disk,
        _port,
        _sockets,
        _compute,
        _docker,
        _server,
    ):
        yield check(home, settings)


def _python(home: Home, settings: Settings) -> Finding:
    version = sys.version.split()[0]
    return Finding("Python", "ok" if sys.version_info >= (3, 11) else "fault", f"{version} at {sys.prefix}")


def _bytecode(home: Home, settings: Settings) -> Finding:
    import importlib.util

    folders = [
        folder
        for package in ("sagesmith", "sagesmith_algorithms", "sagesmith_toolkit")
        if (spec := importlib.util.find_spec(package)) is not None
        for folder in spec.submodule_search_locations or ()
    ]
    files = [file for folder in folders for file in Path(folder).rglob("*.py")]
    missing = sum(not _is_compiled(file) for file in files)
    if missing:
        return Finding(
            "Bytecode",
            "note",
            f"{missing} of Sagesmith's {len(files)} modules have none. If Python may not write it "
            "(PYTHONDONTWRITEBYTECODE, no access), each start compiles them anew and takes twice as long. "
            f"Once as who owns them: {sys.executable} -m compileall -q {' '.join(folders)}",
        )
    return Finding("Bytecode", "ok", f"there for all of Sagesmith's {len(files)} modules.")


def _is_compiled(file: Path) -> bool:
    import importlib.util

    try:
        return os.stat(importlib.util.cache_from_source(str(file))).st_mtime >= file.stat().st_mtime
    except OSError:
        return False


def _sandbox(home: Home, settings: Settings) -> Finding:
    if settings.sandbox == "none":
        return Finding(
            "Sandbox", "note", "switched off by the setting `sandbox`; containers are plain processes."
        )
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return Finding(
            "Sandbox",
            "fault" if settings.sandbox == "bubblewrap" else "note",
            "bubblewrap is not installed: containers run as plain processes that can see each other. "
            "Install the package `bubblewrap` to isolate them.",
        )
    probe = subprocess.run(
        [
            bwrap,
            "--ro-bind",
            "/",
            "/",
            "--unshare-user-try",
            "--unshare-pid",
            "--unshare-net",
            "--",
            "/bin/true",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    if probe.returncode != 0:
        return Finding(
            "Sandbox",
            "note",
            f"bubblewrap cannot make namespaces here ({probe.stderr.strip()}); allow unprivileged user namespaces.",
        )
    return Finding("Sandbox", "ok", f"bubblewrap at {bwrap}: containers are isolated from each other.")


def _home_folder(home: Home, settings: Settings) -> Finding:
    try:
        home.path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home.path):
            pass
    except OSError as error:
        return Finding("Home folder", "fault", f"{home.path} cannot be written: {error.strerror}.")
    return Finding("Home folder", "ok", str(home.path))


def _disk(home: Home, settings: Settings) -> Finding:
    place = home.path if home.path.exists() else home.path.parent
    free = shutil.disk_usage(place).free / 2**30
    return Finding(
        "Disk", "ok" if free >= 5 else "note", f"{free:.1f} GiB free for data, models and environments."
    )


def _port(home: Home, settings: Settings) -> Finding:
    found = running(home)
    if found is not None or settings.port == 0:
        return Finding("Port", "ok", found.url if found else "chosen at start")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            return Finding(
                "Port",
                "fault",
                f"{settings.host}:{settings.port} cannot be used ({error.strerror}): give another with `--port`.",
            )
    return Finding("Port", "ok", f"{settings.host}:{settings.port} is free.")


def _sockets(home: Home, settings: Settings) -> Finding:
    limit = len(os.fsencode(str(home.path)))
    return Finding(
        "Path length",
        "ok" if limit <= 200 else "note",
        f"the home folder's path has {limit} bytes"
        + (": shorter is better, Unix sockets below it need short names." if limit > 200 else "."),
    )


def _compute(home: Home, settings: Settings) -> Finding:
    cpus = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Finding("Compute", "ok", f"{cpus} CPUs and {memory:.1f} GiB: instance types are clamped to that.")


def _docker(home: Home, settings: Settings) -> Finding:
    from sagesmith.containers import Engine, EngineError

    engine = Engine()
    try:
        version = engine.ask("GET", "/version", timeout_s=5)["Version"]
    except EngineError as error:
        reason = str(error)
        return Finding(
            "Docker",
            "note",
            f"{reason[0].upper()}{reason[1:]}: images of your own need it, built-in and framework ones do not.",
        )
    return Finding("Docker", "ok", f"engine {version} at {engine.path}: images of your own run.")


def _server(home: Home, settings: Settings) -> Finding:
    found = running(home)
    if found is None:
        return Finding("Server", "note", "not running; start it with `sagesmith up`.")
    return Finding("Server", "ok", f"{found.url}, pid {found.pid}")
