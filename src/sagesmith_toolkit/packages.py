"""A job's own packages: a virtual environment of its own above the one that runs, which is never changed.

Several jobs share a framework's environment, and it is read-only to them. What ``requirements.txt`` asks for
goes into a folder of the job's: a virtual environment that begins its path with its own packages and goes on
with those of the environment below, so that the installer takes these for installed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Dict, List, Mapping, Sequence

from sagesmith_toolkit.failures import InstallRequirementsError
from sagesmith_toolkit.processes import run

__all__ = ["add_programs", "install", "installer_environment", "make_overlay", "new_folder"]

_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


def make_overlay(folder: Path) -> Path:
    """Make a virtual environment in *folder* above the running one, and return its Python."""
    base = Path(os.path.realpath(sys.executable))
    packages = folder / "lib" / ("python%d.%d" % sys.version_info[:2]) / "site-packages"
    packages.mkdir(parents=True)
    (folder / "bin").mkdir()
    for name in ("python", "python3"):
        (folder / "bin" / name).symlink_to(base)
    (folder / "pyvenv.cfg").write_text(
        "home = %s\ninclude-system-site-packages = false\nversion = %d.%d.%d\n"
        % (base.parent, *sys.version_info[:3]),
        encoding="utf-8",
    )
    below = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    # Not a plain line with the path: the files of that kind in the folder below must be read as well.
    lines = ["import site; site.addsitedir(%r)" % path for path in below]
    (packages / "_environment_below.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "bin" / "python"


def new_folder() -> Path:
    """Return an empty folder for packages, which lasts as long as the container."""
    import tempfile  # takes longer than all that most scripts need here

    return Path(tempfile.mkdtemp(prefix="packages-"))


def add_programs(python: Path) -> None:
    """Put the programs of the environment below (``pip``, ``torchrun``, ...) beside *python*, to be run by it."""
    for program in Path(sys.executable).parent.iterdir():
        target = python.with_name(program.name)
        if target.exists() or not program.is_file():
            continue
        with program.open("rb") as file:
            first = file.readline(4096)
            if first.startswith(b"#!") and b"python" in first:
                target.write_bytes(b"#!%s\n" % os.fsencode(str(python)) + file.read())
                target.chmod(0o755)


def install(code_dir: Path, *, package: bool = False) -> str:
    """Install the requirements.txt of *code_dir*, and with *package* its setup.py too; return the Python to use.

    Raises:
        InstallRequirementsError: something cannot be installed.
    """
    wanted: List[str] = ["--upgrade", "."] if package else []
    if (code_dir / "requirements.txt").is_file():
        wanted += ["-r", "requirements.txt"]
    if not wanted:
        return sys.executable
    python = str(make_overlay(new_folder()))
    command = [python, "-m", "pip", "install", *wanted]
    print("Installing dependencies: %s" % " ".join(command), flush=True)
    ended = run(command, code_dir, installer_environment(os.environ))
    if ended.code:
        raise InstallRequirementsError(ended.code, _errors(ended.last_lines), command)
    return python


def installer_environment(environ: Mapping[str, str]) -> Dict[str, str]:
    """Return the environment for pip: *environ*, but with the machine's own authorities for the package index."""
    result = {name: value for name, value in environ.items() if name not in _CA_VARIABLES}
    result.update(PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1", PIP_ROOT_USER_ACTION="ignore")
    if not os.path.exists(result.get("PIP_CERT", "")):
        result.pop("PIP_CERT", None)
    return result


def _errors(text: str) -> str:
    """The lines of pip's output that say what is wrong, or all."""
    lines: Sequence[str] = [line for line in text.splitlines() if line.lstrip().startswith("ERROR:")]
    return "\n".join(lines) or text
