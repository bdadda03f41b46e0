"""Virtual environments of the real clients that the tests run: built once, with uv, from pinned requirements.

``requirements/{name}.in`` says what a client is, ``requirements/{name}.txt`` pins it. The folder of an
environment carries a digest of the pins, so that changing them builds a new one and nothing stale is used.
Several test processes may ask at once: one builds, the others wait on a lock file.

Run as a script to build ahead: ``python tests/clients/environments.py [NAME ...]``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["NAMES", "EnvironmentUnavailableError", "environment", "find_python", "find_uv"]

HERE: Final = Path(__file__).resolve().parent
ENVIRONMENTS: Final = HERE / ".environments"
REQUIREMENTS: Final = HERE / "requirements"

NAMES: Final = ("boto3", "cli", "sdk1", "sdk2", "sdk3")
PYTHONS: Final = {"sdk1": "3.8"}
"""The Python a client needs where it is not the one that runs the tests."""

BUILD_TIMEOUT_S: Final = 1800


class EnvironmentUnavailableError(RuntimeError):
    """The environment cannot be had on this machine; the sentence says why and what would help."""


def environment(name: str) -> Path:
    """Return the Python of environment *name*, building the environment first if it is not there.

    Raises:
        EnvironmentUnavailableError: no Python of the needed version, no uv, or the installation failed.
    """
    requirements = REQUIREMENTS / f"{name}.txt"
    pins = requirements.read_bytes()
    version = PYTHONS.get(name, f"{sys.version_info.major}.{sys.version_info.minor}")
    digest = hashlib.sha256(version.encode() + b"\n" + pins).hexdigest()[:12]
    folder = ENVIRONMENTS / f"{name}-{digest}"
    python = folder / "bin" / "python"
    complete = folder / ".complete"
    if complete.exists():
        return python
    ENVIRONMENTS.mkdir(exist_ok=True)
    with (ENVIRONMENTS / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            _build(name, version, folder, requirements)
            complete.touch()
    return python


def _build(name: str, version: str, folder: Path, requirements: Path) -> None:
    uv = find_uv()
    base = find_python(version)
    _say(f"building the {name} environment with Python {version} in {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    find_links = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS")
    variables = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    if find_links:
        variables["UV_FIND_LINKS"] = find_links
    _call([uv, "venv", "--quiet", "--python", str(base), str(folder)], variables, name)
    _call(
        [uv, "pip", "install", "--python", str(folder / "bin" / "python"), "-r", str(requirements)],
        variables,
        name,
    )
    _say(f"the {name} environment is ready")


def _call(command: list[str], variables: dict[str, str], name: str) -> None:
    try:
        done = subprocess.run(
            command, env=variables, timeout=BUILD_TIMEOUT_S, stderr=subprocess.PIPE, text=True, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise EnvironmentUnavailableError(
            f"building the {name} environment took more than {BUILD_TIMEOUT_S} s."
        ) from error
    if done.returncode:
        raise EnvironmentUnavailableError(
            f"cannot build the {name} environment: `{' '.join(command)}` failed.\n{done.stderr[-2000:]}"
        )


def find_uv() -> str:
    """Return the path of uv: that of this environment or of the repository's, else any.

    Raises:
        EnvironmentUnavailableError: there is none.
    """
    places = (Path(sys.executable).parent, HERE.parents[1] / ".venv" / "bin")
    found = next((str(place / "uv") for place in places if (place / "uv").exists()), shutil.which("uv"))
    if found is None:
        raise EnvironmentUnavailableError("uv was not found; install it with `pip install uv`.")
    return found


def find_python(version: str) -> Path:
    """Return a Python interpreter of *version* (such as ``3.8``) that works.

    Raises:
        EnvironmentUnavailableError: there is none.
    """
    for candidate in _candidates(version):
        try:
            answer = subprocess.run(
                [candidate, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if answer.returncode == 0 and answer.stdout.strip() == version:
            return candidate
    raise EnvironmentUnavailableError(
        f"there is no Python {version} on this machine; `pyenv install {version}` or "
        f"`uv python install {version}` would bring one."
    )


def _candidates(version: str) -> Iterator[Path]:
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        yield Path(sys.executable).resolve()
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True)
    managed = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or Path.home() / ".local/share/uv/python")
    yield from sorted(managed.glob(f"cpython-{version}.*/bin/python{version}"), reverse=True)
    on_path = shutil.which(f"python{version}")
    if on_path:
        yield Path(on_path)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    unavailable = 0
    for wanted in sys.argv[1:] or NAMES:
        try:
            print(wanted, environment(wanted))
        except EnvironmentUnavailableError as reason:
            print(wanted, reason)
            unavailable += 1
    sys.exit(1 if unavailable else 0)
