"""What installs packages: uv, or pip where there is none; where it finds them, and what is installed already.

PyTorch is a case of its own. On the Python package index a Linux build of it brings gigabytes of CUDA along. So a
folder of wheels that the server's administrator named (`UV_FIND_LINKS`, `PIP_FIND_LINKS`) comes first if it holds
builds of torch, and else uv takes it from PyTorch's own indexes, the one of the setting `torch_backend`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

__all__ = [
    "Unavailable",
    "find_uv",
    "install_arguments",
    "installer_variables",
    "own_environment_has",
    "requirement_name",
]


class Unavailable(RuntimeError):
    """No release that satisfies a requirement can be had here; the sentence names it."""


def find_uv() -> str:
    """Return the program uv: beside this Python, else on the path; "" if there is none."""
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if os.access(beside, os.X_OK) else shutil.which("uv") or ""


_UV_NAMES: Final[Mapping[str, str]] = {
    "find-links": "UV_FIND_LINKS",
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "cert": "SSL_CERT_FILE",
}
"""What pip is told, and the variable that tells uv the same."""


def installer_variables(environ: Mapping[str, str], files: Iterable[Path] | None = None) -> dict[str, str]:
    """Return *environ* with what it and pip's configuration *files* (by default: pip's own) say to pip said to uv."""
    variables = {name: value for name, value in environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    told = _pip_configuration(_pip_files(environ) if files is None else files)
    for option, uv in _UV_NAMES.items():
        value = environ.get(f"PIP_{option.upper().replace('-', '_')}") or told.get(option, "")
        if value:
            separator = "," if option == "find-links" else " "
            variables.setdefault(uv, separator.join(value.split()))
    if "UV_INDEX" in variables:
        variables.setdefault(
            "UV_INDEX_STRATEGY", "unsafe-best-match"
        )  # the best of all indexes, as pip has it
    return {**variables, "UV_PYTHON_DOWNLOADS": "never", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def _pip_files(environ: Mapping[str, str]) -> list[Path]:
    """Return where pip looks for its configuration; a later file counts more."""
    home = Path(environ.get("HOME") or Path.home())
    own = environ.get("PIP_CONFIG_FILE", "")
    if own == os.devnull:
        return []
    places = [Path("/etc/pip.conf"), home / ".pip" / "pip.conf", home / ".config" / "pip" / "pip.conf"]
    return [*places, Path(sys.prefix, "pip.conf"), *([Path(own)] if own else [])]


def _pip_configuration(files: Iterable[Path]) -> dict[str, str]:
    import configparser

    parser = configparser.RawConfigParser()
    with contextlib.suppress(configparser.Error, UnicodeDecodeError):
        parser.read(files, encoding="utf-8")
    sections = [parser[name] for name in ("global", "install") if parser.has_section(name)]
    return {option: section[option] for section in sections for option in _UV_NAMES if option in section}


_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9._-]+?)((?:==|<|>=)[0-9.*]+(?:,(?:<|>=)[0-9.]+)*)?")


def own_environment_has(requirements: tuple[str, ...]) -> bool:
    """Return True if the environment that runs Sagesmith satisfies all *requirements* (``==1.2.*``, ``<2``, ``>=1``)."""
    import importlib.metadata  # it brings half of `email` along

    for requirement in requirements:
        match = _REQUIREMENT.fullmatch(requirement)
        if match is None:
            return False
        try:
            version = importlib.metadata.version(match[1])
        except importlib.metadata.PackageNotFoundError:
            return False
        if not all(_satisfies(version, condition) for condition in (match[2] or "").split(",") if condition):
            return False
    return True


def _satisfies(version: str, condition: str) -> bool:
    operator, wanted = re.split(r"(?<=[=<>])(?=\d)", condition, maxsplit=1)
    if operator == "==":
        if wanted.endswith(".*"):
            return f"{version}.".startswith(wanted[:-1])
        return version == wanted
    have, limit = _numbers(version), _numbers(wanted)
    return have < limit if operator == "<" else have >= limit


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def install_arguments(
    requirements: Iterable[str], variables: Mapping[str, str], torch_backend: str
) -> list[str]:
    """Return what ``uv pip install`` is told to install *requirements* with *variables* as its environment.

    Raises:
        Unavailable: a folder of wheels has builds of torch for this Python, but none of the version wanted.
    """
    wanted = list(requirements)
    names = [requirement_name(requirement) for requirement in wanted]
    if "torch" not in names:
        return wanted
    folders = [
        Path(folder.removeprefix("file://"))
        for folder in re.split(r"[ ,]", variables.get("UV_FIND_LINKS", ""))
    ]
    builds = {name: _builds(name, folders) for name in ("torch", *_BESIDE_TORCH)}
    if not builds["torch"]:
        return [*wanted, "--torch-backend", torch_backend] if torch_backend else wanted
    chosen = []
    for requirement, name in zip(wanted, names, strict=True):
        if name not in builds:
            chosen.append(requirement)
            continue
        condition = requirement[len(name) :]
        found = [version for version in builds[name] if not condition or _satisfies(version, condition)]
        if found:
            chosen.append(f"{name}=={max(found, key=_numbers)}")
        elif name == "torch":
            raise Unavailable(
                f"{requirement} is not among the builds of torch that there are: {', '.join(builds[name])}"
            )
    return chosen


_BESIDE_TORCH: Final = ("torchvision", "torchaudio")
"""They must be of the same build as torch, so that they are left out where only torch is at hand."""


def _builds(name: str, folders: Iterable[Path]) -> list[str]:
    """Return the versions of *name* for this Python among the wheels in *folders*."""
    python, machine = f"cp{sys.version_info.major}{sys.version_info.minor}", os.uname().machine
    found = []
    for folder in folders:
        for wheel in sorted(folder.glob(f"{name}-*.whl")) if folder.parts else ():
            _, version, *_, tag, _, system = wheel.stem.split("-")
            if tag == python and system.endswith((machine, "universal2")):
                found.append(version.replace("%2B", "+"))
    return found


def requirement_name(requirement: str) -> str:
    """Return the name of the distribution that *requirement* is about."""
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower().replace("_", "-")
