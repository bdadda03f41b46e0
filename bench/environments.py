"""The peers' environments: one virtual environment each under ``.bench/``, made by uv from pinned requirements."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.clients.environments import EnvironmentUnavailableError, find_python

from bench.report import progress

__all__ = ["ROOT", "WORK", "EnvironmentMissing", "environment"]

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".bench"


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
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return place / "bin"
    progress(f"making the environment of {name} (once)")
    uv = Path(sys.executable).with_name("uv")
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
        variables = {"UV_TORCH_BACKEND": "cpu", **os.environ}  # the usual build of PyTorch takes gigabytes
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
        if done.returncode:
            raise EnvironmentMissing(f"{name} is left out: {done.stderr.strip().splitlines()[-1]}")
    stamp.write_text(digest)
    return place / "bin"
