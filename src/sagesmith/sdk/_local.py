"""The server of a home folder on this machine: its address, authority and administrator's key.

A running server writes ``run/server.json`` and ``credentials.json`` below its home folder; whoever may read
them may use the server. Nothing but files is looked at: this package works without the server's code.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LocalServer", "find"]


@dataclass(frozen=True, slots=True)
class LocalServer:
    """Where a server of this machine answers, and the key for it."""

    home: Path
    url: str
    region: str
    ca_file: Path
    access_key_id: str
    secret_access_key: str


def find(home: str | os.PathLike[str] | None = None) -> LocalServer | None:
    """Return the server that runs for *home*, for $SAGESMITH_HOME, or for ~/.sagesmith; None if there is none."""
    place = Path(home or os.environ.get("SAGESMITH_HOME") or "~/.sagesmith").expanduser()
    try:
        server = json.loads((place / "run" / "server.json").read_text("utf-8"))
        key = json.loads((place / "credentials.json").read_text("utf-8"))
        os.kill(int(server["pid"]), 0)
        return LocalServer(
            home=place,
            url=server["url"],
            region=server["region"],
            ca_file=place / "authority" / "ca.pem",
            access_key_id=key["AccessKeyId"],
            secret_access_key=key["SecretAccessKey"],
        )
    except PermissionError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
