"""Python environments of frameworks: what each must hold, and the folder in which they are built once and shared.

A :class:`PythonEnvironment` says what is wanted; :class:`Environments` finds or builds it. One folder for each,
named by its content, so that a change of what is wanted builds a new one. Whoever uses one holds a shared lock
on it for as long; building and removing need the lock alone. An environment without its mark of completeness was
interrupted, and is built anew. Where Sagesmith's own environment has all that is wanted, it serves as it is. Where
what is wanted cannot be had, another one stands in for it, which is found out once and then remembered.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sagesmith.images._installer import (
    Unavailable,
    find_uv,
    install_arguments,
    installer_variables,
    own_environment_has,
    requirement_name,
)

__all__ = ["BuildFailed", "Built", "Environments", "PythonEnvironment", "Use"]

_FORMAT: Final = 1
_MARK: Final = "environment.json"
_LOCK_POLL_S: Final = 0.1
_LAST_LINES: Final = 12
_TOOLKIT: Final = "sagesmith_toolkit"


class BuildFailed(RuntimeError):
    """An environment cannot be built; the sentence says what failed."""


@dataclass(frozen=True, slots=True)
class PythonEnvironment:
    """What an environment must hold.

    `name` is for people, `requirements` are as pip takes them. `modules` are imported once it is built: that shows
    that it works, and compiles them. `note` is said to every job: what it gets instead of what its tag names.
    `nearest` stands in for it where its requirements cannot be had, or do not work with each other. `compiled`: all of it
    is compiled, for those who import what `modules` does not say.
    """

    name: str
    requirements: tuple[str, ...]
    modules: tuple[str, ...] = ()
    note: str = ""
    nearest: PythonEnvironment | None = None
    compiled: bool = False

    @property
    def folder_name(self) -> str:
        """The name of its folder: changes with all that decides what is in it."""
        parts = json.dumps([_FORMAT, sys.version_info[:2], sys.platform, *self.requirements])
        return f"{self.name}-{hashlib.sha256(parts.encode()).hexdigest()[:12]}"


@dataclass(slots=True)
class Use:
    """An environment in use: `prefix` is its folder, or "" for Sagesmith's own. Keep it until nobody needs it.

    `note` says which other one stands in for the one that was wanted.
    """

    prefix: str
    _lock: int = -1
    note: str = ""

    def release(self) -> None:
        """Let others remove it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


@dataclass(frozen=True, slots=True)
class Built:
    """One environment that is there, for lists."""

    name: str
    folder: Path
    requirements: tuple[str, ...]
    size_bytes: int
    last_used: float
    in_use: bool


class Environments:
    """The environments below *folder*. Safe for any number of processes at once.

    *torch_backend* is the build of PyTorch, in uv's words: ``cpu``, ``cu128``, ``auto`` for what this machine can use.
    """

    def __init__(self, folder: Path, *, torch_backend: str = "auto") -> None:
        self._folder = folder
        self._torch_backend = torch_backend

    def find(self, wanted: PythonEnvironment) -> Use | None:
        """Return *wanted* if it is there, in use from now on; None if it must be built first."""
        target = self._folder / wanted.folder_name
        if not (
            target / _MARK
        ).exists():  # asked first, since the other question takes a job's start much longer
            return Use("") if own_environment_has(wanted.requirements) else None
        lock = self._open_lock(wanted)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # being removed
            os.close(lock)
            return None
        mark = _read(target / _MARK)
        if mark is None or "instead" in mark:
            os.close(lock)
            use = self.find(wanted.nearest) if mark and wanted.nearest else None
            return use and replace(use, note=str(mark and mark["instead"]))
        os.utime(target / _MARK)
        _link_toolkit(target)
        return Use(str(target), lock)

    def make(
        self,
        wanted: PythonEnvironment,
        say: Callable[[str], None],
        *,
        stop: Callable[[], bool] = lambda: False,
        before_exec: Callable[[], None] | None = None,
    ) -> Use:
        """Return *wanted*, after building it if need be; *say* gets lines about how it goes on.

        Args:
            stop: asked now and then; once it is true the building ends.
            before_exec: called in each process that is started, before its program.

        Raises:
            BuildFailed: it cannot be built, or was told to stop.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        told = False

        def say_once(line: str) -> None:
            """Say that it waits: when several wait, one may have to do so again for those before it to look."""
            nonlocal told
            if not told:
                told = True
                say(line)

        while True:
            found = self.find(wanted)
            if found is not None:
                return found
            with self._alone(wanted, say_once, stop) as alone:
                mark = _read(self._folder / wanted.folder_name / _MARK)
                if not alone or (mark is not None and "instead" not in mark):
                    continue
                if mark is None and self._built(wanted, say, stop, before_exec):
                    continue
                if wanted.nearest is not None:
                    use = self.make(wanted.nearest, say, stop=stop, before_exec=before_exec)
                    self._complete(wanted, instead=_described(wanted, use))
                    use.release()

    def all(self) -> list[Built]:
        """Return all environments that are there."""
        built = []
        for mark in sorted(self._folder.glob(f"*/{_MARK}")):
            with contextlib.suppress(OSError, ValueError):
                content = json.loads(mark.read_text("utf-8"))
                if "instead" in content:
                    continue
                last_used = mark.stat().st_mtime
                size = sum(entry.stat().st_size for entry in _files(mark.parent))
                in_use = self._is_in_use(mark.parent.name)
                requirements = tuple(content["requirements"])
                built.append(Built(content["name"], mark.parent, requirements, size, last_used, in_use))
        return built

    def prune(self, *, unused_s: float = 0.0) -> list[str]:
        """Remove what nobody uses and nobody has used for *unused_s* seconds, and what was never completed."""
        removed = []
        folders = [path for path in self._folder.iterdir() if path.is_dir()] if self._folder.is_dir() else []
        for folder in sorted(folders):
            mark = folder / _MARK
            if mark.exists() and time.time() - mark.stat().st_mtime < unused_s:
                continue
            with (self._folder / f"{folder.name}.lock").open("a+") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                mark.unlink(missing_ok=True)
                shutil.rmtree(folder)
                removed.append(folder.name)
        return removed

    # ---- inside ------------------------------------------------------------------------------------------

    def _built(
        self,
        wanted: PythonEnvironment,
        say: Callable[[str], None],
        stop: Callable[[], bool],
        before_exec: Callable[[], None] | None,
    ) -> bool:
        """Build *wanted*, or return False if it cannot be had and another one may stand in for it."""
        try:
            self._build(wanted, say, stop, before_exec)
        except Unavailable as error:
            if wanted.nearest is None:
                raise BuildFailed(f"The environment {wanted.name} could not be built: {error}") from None
            say(f"The environment {wanted.name} cannot be had here: {error}")
            return False
        return True

    def _complete(self, wanted: PythonEnvironment, **more: str) -> None:
        """Mark the folder of *wanted* as complete."""
        target = self._folder / wanted.folder_name
        target.mkdir(exist_ok=True)
        new = target / f"{_MARK}.new"
        content = {"name": wanted.name, "requirements": wanted.requirements, "python": sys.version.split()[0]}
        new.write_text(json.dumps({**content, **more}), "utf-8")
        new.rename(target / _MARK)

    def _open_lock(self, wanted: PythonEnvironment) -> int:
        return os.open(
            self._folder / f"{wanted.folder_name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )

    def _is_complete(self, wanted: PythonEnvironment) -> bool:
        return (self._folder / wanted.folder_name / _MARK).exists()

    def _is_in_use(self, name: str) -> bool:
        with (self._folder / f"{name}.lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    @contextlib.contextmanager
    def _alone(
        self, wanted: PythonEnvironment, say: Callable[[str], None], stop: Callable[[], bool]
    ) -> Iterator[bool]:
        """Wait for the lock; give True once it is held, False if somebody else has built *wanted* meanwhile."""
        lock, waited = self._open_lock(wanted), False
        try:
            alone = False
            while not alone and not (waited and self._is_complete(wanted)):
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    alone = True
                    continue
                except BlockingIOError:
                    say(f"Waiting for the environment {wanted.name}, which is being built for another job.")
                    waited = True
                if stop():
                    raise BuildFailed(f"told to stop while the environment {wanted.name} was being built")
                time.sleep(_LOCK_POLL_S)
            yield alone
        finally:
            os.close(lock)

    def _build(
        self,
        wanted: PythonEnvironment,
        say: Callable[[str], None],
        stop: Callable[[], bool],
        before_exec: Callable[[], None] | None,
    ) -> None:
        import compileall  # and all that it imports is of no use to jobs whose environment is there

        began = time.monotonic()
        target = self._folder / wanted.folder_name
        say(f"Building the environment {wanted.name} ({', '.join(wanted.requirements)}); this is done once.")
        if target.exists():
            shutil.rmtree(target)
        python = str(target / "bin" / "python")
        uv = find_uv()
        variables = installer_variables(os.environ)
        if uv:
            what = install_arguments(wanted.requirements, variables, self._torch_backend)
            if wanted.compiled:
                what = [*what, "--compile-bytecode"]
            commands = [
                [uv, "venv", "--quiet", "--python", sys.executable, str(target)],
                [uv, "pip", "install", "--no-progress", "--python", python, *what],
            ]
        else:
            pip = [python, "-m", "pip", "install", "--progress-bar", "off", "--no-compile"]
            commands = [[sys.executable, "-m", "venv", str(target)], [*pip, *wanted.requirements]]
        if wanted.modules:
            commands.append([python, "-c", f"import {', '.join(wanted.modules)}"])
        for command in commands:
            self._call(command, variables, wanted, say, stop, before_exec)
        _link_toolkit(target)
        # Containers may not write bytecode, so that without this each would compile it.
        compileall.compile_dir(os.path.realpath(_toolkit_in(target)), quiet=2)
        self._complete(wanted)
        say(f"The environment {wanted.name} is ready after {time.monotonic() - began:.1f} s.")

    def _call(
        self,
        command: list[str],
        variables: Mapping[str, str],
        wanted: PythonEnvironment,
        say: Callable[[str], None],
        stop: Callable[[], bool],
        before_exec: Callable[[], None] | None,
    ) -> None:
        last: list[str] = []
        with subprocess.Popen(
            command,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            preexec_fn=before_exec,  # noqa: PLW1509 (given only by single-purpose processes)
        ) as process:
            for line in process.stdout or ():
                text = line.rstrip()
                if text:
                    say(text)
                    last = [*last[1 - _LAST_LINES :], text]
                if stop():
                    process.kill()
        if stop():
            raise BuildFailed(f"told to stop while the environment {wanted.name} was being built")
        if process.returncode:
            reason = f"{Path(command[0]).name} ended with exit code {process.returncode}: {' '.join(last)}"
            # Nothing to choose from, or a choice that does not work: another day will not help, another version may.
            if "No solution found" in reason or command[-1].startswith("import "):
                raise Unavailable(reason)
            raise BuildFailed(f"The environment {wanted.name} could not be built: {reason}")


def _read(mark: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(mark.read_text("utf-8"))
    except FileNotFoundError:
        return None
    return content


def _described(wanted: PythonEnvironment, use: Use) -> str:
    """Return what a job is told that wants *wanted* and gets *use*: the versions of what was wanted exactly."""
    import importlib.metadata

    path = (
        [str(folder) for folder in Path(use.prefix).glob("lib/python*/site-packages")]
        if use.prefix
        else sys.path
    )
    found = {
        each.metadata["Name"].lower(): each.version for each in importlib.metadata.distributions(path=path)
    }
    names = [requirement_name(requirement) for requirement in wanted.requirements if "==" in requirement]
    versions = ", ".join(f"{name} {found.get(name, '(unknown)')}" for name in names)
    return (
        f"{wanted.name} cannot be had with the packages that this server finds; this job runs with the nearest that "
        f"can: {versions}."
    )


def _toolkit_in(target: Path) -> Path:
    return next(target.glob("lib/python*/site-packages")) / _TOOLKIT


def _link_toolkit(target: Path) -> None:
    """Let the environment's Python find the toolkit of this Sagesmith, wherever it is now."""
    spec = importlib.util.find_spec(_TOOLKIT)
    folder = next(iter(spec.submodule_search_locations or ()), "") if spec else ""
    link = _toolkit_in(target)
    if os.path.islink(link) and os.readlink(link) == folder:
        return
    new = link.with_name(f"{_TOOLKIT}.{os.getpid()}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(folder)
    new.rename(link)


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield entry
