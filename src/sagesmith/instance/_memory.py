"""A limit for the memory of a container that is processes of this machine.

A control group would have the kernel keep it, but only root may make one, and on many machines (in containers, with
the first version's hierarchies) not even root. So the agent looks, twice a second: what grows faster than that has
more for a moment, and then ends all the same. Docker's containers have their limits from the engine.
"""

from __future__ import annotations

import asyncio
from typing import Final

from sagesmith.containers import Container

__all__ = ["beyond"]

_LOOK_S: Final = 0.5
_MB: Final = 1024 * 1024


async def beyond(container: Container, limit_bytes: int) -> str:
    """Return, once *container* takes more than *limit_bytes*, a sentence that says so."""
    while True:
        await asyncio.sleep(_LOOK_S)
        # What its processes share counts for each of them at first, which is quickly found out, and then only once.
        if container.usage().memory_bytes > limit_bytes and (taken := container.memory()) > limit_bytes:
            return (
                f"it took {taken // _MB} MB of memory, and may take {limit_bytes // _MB} MB: give it more, with "
                "MemorySizeInMB of a serverless endpoint or MaxMemoryRequiredInMb of an inference component"
            )
