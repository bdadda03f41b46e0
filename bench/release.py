"""The release: a wheel built of this tree, with its hot modules compiled, in an environment of its own below ``.bench/``.

What users install is measured, not the sources. `python -m bench` makes the environment anew when a source has changed and
goes on in it; with ``--sources`` it measures the tree as it is.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from bench.environments import ROOT, WORK, find_uv
from bench.report import progress

__all__ = ["is_compiled", "is_here", "python"]

_PLACE = WORK / "release"


def python() -> Path:
    """Return the Python of the release's environment.

    Raises:
        RuntimeError: it could not be made; the sentence is what failed last.
    """
    stamp, digest = _PLACE / ".sources", _digest()
    found = _PLACE / "bin" / "python"
    if stamp.is_file() and stamp.read_text() == digest:
        return found
    progress("building the release and its environment (once for each change of the sources; two minutes)")
    wheels, uv = WORK / "wheels", find_uv()
    shutil.rmtree(wheels, ignore_errors=True)
    _call("make", "wheel", f"WHEELS={wheels}")
    _call(uv, "venv", "--quiet", "--clear", "--python", Path(sys.executable).resolve(), _PLACE)
    install = (uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", found)
    _call(*install, "-r", ROOT / "requirements.lock")
    _call(*install, "--no-deps", *wheels.glob("*.whl"))
    _call(found, "-m", "sagesmith_toolkit.warm", "--compile", "sagesmith_algorithms.warm")
    stamp.write_text(digest)
    return found


def is_here() -> bool:
    """Whether this process runs in the release's environment."""
    return Path(sys.prefix).resolve() == _PLACE.resolve()


def is_compiled() -> bool:
    """Whether the hot modules of the Sagesmith that runs here are compiled."""
    from sagesmith.aws import _tls

    return not str(_tls.__file__).endswith(".py")


def _digest() -> str:
    """Return what tells this tree, for this Python, from any other."""
    files = [ROOT / "pyproject.toml", ROOT / "requirements.lock", *sorted((ROOT / "src").rglob("*"))]
    whole = hashlib.sha256(sys.version.encode())
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts:
            whole.update(f"{file.relative_to(ROOT)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()


def _call(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise RuntimeError(f"{' '.join(map(str, command))}: {said[-1] if said else done.returncode}")


if __name__ == "__main__":
    print(python())
