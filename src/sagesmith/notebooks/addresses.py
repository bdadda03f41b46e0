"""Where notebooks are found on the server's one address."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["PREFIX", "base_path", "notebook_of"]

PREFIX: Final = "/_sagesmith/notebooks/"
_PATH: Final = re.compile(r"/_sagesmith/notebooks/([a-z0-9-]{1,32})/([A-Za-z0-9-]{1,63})(?:/|$)")


def base_path(region: str, name: str) -> str:
    """Return the path below which a notebook lies, with a slash at its end."""
    return f"{PREFIX}{region}/{name}/"


def notebook_of(path: str) -> tuple[str, str] | None:
    """Return region and name of the notebook that *path* belongs to, or None."""
    match = _PATH.match(path)
    return (match[1], match[2]) if match else None
