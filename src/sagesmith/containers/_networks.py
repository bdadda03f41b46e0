"""The Docker networks that containers are in.

`sagesmith` is shared by all that run alone: they reach the world, but not each other. The hosts of one job get
a network of their own, in which ``algo-1`` to ``algo-n`` resolve; it goes with the last of them. Containers without
network get none at all or, if the gateway or other hosts must reach them, one that leads nowhere else.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sagesmith.containers._engine import Engine, EngineError
from sagesmith.containers.runtime import ContainerPlan

__all__ = ["Network", "network_of", "remove_network"]

_SHARED: Final = "sagesmith"
_ISOLATED: Final = "sagesmith-isolated"
_NO_TALK: Final = {"com.docker.network.bridge.enable_icc": "false"}


@dataclass(frozen=True, slots=True)
class Network:
    """One network: its name ("none": no network), this machine's address in it, and whether it is one job's own."""

    name: str
    gateway: str = ""
    own: bool = False


async def network_of(engine: Engine, plan: ContainerPlan) -> Network:
    """Return the network for *plan*, made if need be.

    Raises:
        EngineError: the engine cannot make it.
    """
    if plan.group:
        kind = _SHARED if plan.network else _ISOLATED
        name = f"{kind}-{hashlib.sha256(plan.group.encode()).hexdigest()[:12]}"
        return await _make(engine, plan.folder.parent, name, internal=not plan.network, options={}, own=True)
    if plan.network:
        return await _make(engine, plan.folder.parent, _SHARED, internal=False, options=_NO_TALK, own=False)
    if plan.port:
        return await _make(engine, plan.folder.parent, _ISOLATED, internal=True, options=_NO_TALK, own=False)
    return Network("none")


async def remove_network(engine: Engine, network: Network) -> None:
    """Remove a job's network; while other hosts are in it, the engine refuses, and they will."""
    if network.own:
        with contextlib.suppress(EngineError):
            await engine.call("DELETE", f"/networks/{network.name}")


async def _make(
    engine: Engine, beside: Path, name: str, *, internal: bool, options: Mapping[str, str], own: bool
) -> Network:
    found = await _find(engine, name)
    if found is None:
        # Docker does not keep names of networks unique, and the hosts of a job begin at the same time.
        with _alone(beside):
            found = await _find(engine, name)
            if found is None:
                wanted = {
                    "Name": name,
                    "Driver": "bridge",
                    "Internal": internal,
                    "Options": dict(options),
                    "Labels": {"sagesmith": "network"},
                    "CheckDuplicate": True,
                }
                await engine.call("POST", "/networks/create", body=wanted)
                found = await _find(engine, name)
    configs = ((found or {}).get("IPAM") or {}).get("Config") or [{}]
    gateway = configs[0].get("Gateway", "").partition("/")[0]
    return Network(name, gateway, own)


async def _find(engine: Engine, name: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = await engine.call("GET", f"/networks/{name}")
    except EngineError as error:
        if error.status == 404:
            return None
        raise
    return found


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other agents out that share *folder*; they wait some milliseconds."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
