"""Having an image in the engine: there under its name, or pulled."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Final

from sagesmith.containers._engine import Engine, EngineError

__all__ = ["ImageSource", "find_image", "pull_image", "runs_as_root"]

_ROOT: Final = ("", "0", "root")


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Where an image is pulled from: its reference there and, if the registry wants them, user and password."""

    reference: str
    user: str = ""
    password: str = ""


def find_image(engine: Engine, reference: str) -> bool:
    """Return whether the engine has the image *reference*.

    Raises:
        EngineError: there is no engine to ask.
    """
    try:
        engine.ask("GET", f"/images/{reference}/json")
    except EngineError as error:
        if error.status in (400, 404):  # 400: the engine's grammar of references is narrower than ours
            return False
        raise
    return True


def runs_as_root(engine: Engine, reference: str) -> bool:
    """Return whether programs of the image run as root; False if that is not known."""
    try:
        found = engine.ask("GET", f"/images/{reference}/json")
    except EngineError:
        return False
    return str((found.get("Config") or {}).get("User") or "").partition(":")[0] in _ROOT


async def pull_image(engine: Engine, source: ImageSource) -> None:
    """Bring the image into the engine.

    Raises:
        EngineError: it cannot be pulled; the message is the engine's or the registry's.
    """
    name, _, tag = source.reference.rpartition(":")
    if "/" in tag or not name:
        name, tag = source.reference, "latest"
    query = {"fromImage": source.reference} if "@" in source.reference else {"fromImage": name, "tag": tag}
    server = source.reference.partition("/")[0]
    auth = {"username": source.user, "password": source.password, "serveraddress": server}
    headers = (
        {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(auth).encode()).decode()}
        if source.user
        else {}
    )
    stream = await engine.open("POST", "/images/create", query, headers=headers)
    try:
        async for line in stream.lines():
            if "error" in line:
                raise EngineError(404, str(line["error"]))
    finally:
        stream.close()
