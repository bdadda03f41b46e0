"""An endpoint's instance that serves nothing itself: a share of the machine that copies of components are inside of."""

from __future__ import annotations

import asyncio

from sagesmith.instance._host import Host
from sagesmith.instance.spec import Command, Finished, MergeArtifacts, Ready

__all__ = ["Vacant"]


class Vacant:
    """Is there, until told to end; the fleet ends what is inside it."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._ending = asyncio.Event()

    @property
    def hosts(self) -> list[Host]:
        """It has no containers."""
        return []

    def obey(self, command: Command) -> None:
        """Take *command*: both `Stop` and `Shutdown` end it."""
        if not isinstance(command, MergeArtifacts):
            self._ending.set()

    async def run(self) -> Finished:
        """Wait for the end."""
        self._host.link.send(Ready("vacant"))
        await self._ending.wait()
        return Finished()
