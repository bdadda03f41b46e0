"""What the requests at an endpoint's serverless variants demand, told to the endpoint's state.

The gateway says for every change how many requests are there; each change of the state is a write. So only the last
number of each variant counts, only what the state does not have already is written, and one write goes on at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from sagesmith.hosting._gateway_serverless import Concurrency
from sagesmith.lifecycle import endpoint as lifecycle

__all__ = ["Demand", "is_starting"]


class Demand:
    """The demand at one endpoint. On the event loop.

    Args:
        run: returns the endpoint's state.
        apply: changes it by an event.
        spawn: begins a task that ends with the endpoint's worker.
        idle_s: a container ends when it had nothing to do for so long.
    """

    def __init__(
        self,
        run: Callable[[], lifecycle.EndpointRun],
        apply: Callable[[lifecycle.Event], Coroutine[Any, Any, None]],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        idle_s: float,
    ) -> None:
        self._run = run
        self._apply = apply
        self._spawn = spawn
        self._idle_s = idle_s
        self._events: dict[tuple[str, int], lifecycle.Event] = {}
        self._task: asyncio.Task[None] | None = None

    def concurrency(self, served: lifecycle.Served) -> Concurrency | None:
        """Return what the gateway may do with a variant, None if it is not serverless."""
        limits = served.serverless
        if limits is None:
            return None
        name, number = served.name, served.number

        def want(count: int) -> None:
            self._tell((name, number), lifecycle.ContainersWanted(name, number, count))

        def idle(instance_ids: Sequence[str]) -> None:
            self._tell(("\0idle", number), lifecycle.ContainersIdle(tuple(instance_ids)))

        def stuck(instance_id: str) -> None:
            self._tell((f"\0{instance_id}", number), lifecycle.ContainerStuck(instance_id))

        return Concurrency(limits.max_concurrency, limits.provisioned, self._idle_s, want, idle, stuck)

    def _tell(self, key: tuple[str, int], event: lifecycle.Event) -> None:
        self._events[key] = event
        if self._task is None or self._task.done():
            self._task = self._spawn(self._tell_all())

    async def _tell_all(self) -> None:
        while self._events:
            event = self._events.pop(next(iter(self._events)))
            if lifecycle.step(self._run(), event, 0.0)[0] is not self._run():
                await self._apply(event)


def is_starting(run: lifecycle.EndpointRun, instance_id: str) -> tuple[str, int] | None:
    """Return the variant and its deployment's number of a serverless container that comes up; None for any other."""
    for deployment in (run.current, run.pending):
        for variant in deployment.variants if deployment is not None else ():
            for instance in variant.instances:
                if instance.instance_id == instance_id and deployment is not None:
                    coming = instance.phase in (lifecycle.Phase.PLANNED, lifecycle.Phase.STARTED)
                    return (variant.name, deployment.number) if variant.serverless and coming else None
    return None
