"""The peers' environments: one virtual environment each under ``.bench/``, made by uv from pinned requirements."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.clients.environments import EnvironmentUnavailableError, find_python, find_uv

from bench.report import progress

__all__ = ["ROOT", "WORK", "EnvironmentMissing", "environment", "find_uv"]

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".bench"
# The usual build of PyTorch takes gigabytes, so it comes from PyTorch's own index; but not past a folder that has a build.
_WHEELS = [Path(folder) for folder in re.split(r"[ ,]", os.environ.get("UV_FIND_LINKS", "")) if folder]
_TORCH_BUILD = (
    {} if any(next(each.glob("torch-*"), None) for each in _WHEELS) else {"UV_TORCH_BACKEND": "cpu"}
)


class EnvironmentMissing(RuntimeError):
    """A peer's environment could not be made, so the peer is left out; the sentence says why."""


def environment(name: str) -> Path:
    """Return the ``bin`` folder of the peer's environment, made on first use or when its requirements change.

    A line ``# python 3.10`` among them names the version of Python that the peer needs.

    Raises:
        EnvironmentMissing: uv failed; mostly there is no network.
    """
    folders = (ROOT / "bench" / "requirements", ROOT / "tests" / "clients" / "requirements")
    found = (folder / f"{name}.txt" for folder in folders)
    requirements = next(path for path in found if path.is_file())
    place = WORK / name
    stamp = place / ".requirements"
    digest = hashlib.sha256(_read(requirements).encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return place / "bin"
    progress(f"making the environment of {name} (once)")
    uv = find_uv()
    version = re.search(r"^# python (\S+)$", requirements.read_text(), re.MULTILINE)
    try:
        python = find_python(version[1]) if version else sys.executable
    except EnvironmentUnavailableError as error:
        raise EnvironmentMissing(f"{name} is left out: {error}") from error
    commands: list[list[str | Path]] = [
        [uv, "venv", "--quiet", "--clear", "--python", python, place],
        [uv, "pip", "install", "--quiet", "--python", place / "bin" / "python", "-r", requirements],
    ]
    for command in commands:
        variables = {**_TORCH_BUILD, **os.environ}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
        if done.returncode:
            raise EnvironmentMissing(f"{name} is left out: {done.stderr.strip().splitlines()[-1]}")
    stamp.write_text(digest)
    return place / "bin"


def _read(requirements: Path) -> str:
    """Return the requirements with those that they include (``-r FILE``)."""
    text = requirements.read_text()
    included = re.findall(r"^-r (\S+)$", text, re.MULTILINE)
    return "\n".join([text, *(_read(requirements.with_name(name)) for name in included)])
