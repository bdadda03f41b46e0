"""`ManagedInstanceScaling` of variants: instances come when copies do not fit, and go when they are empty.

One at a time, and only while the endpoint is in service: what is asked for meanwhile is asked for again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any, Final

from sagesmith.background import Background
from sagesmith.clock import Clock
from sagesmith.lifecycle.endpoint import CapacityRequested, EndpointRun, Phase, Status, Variant, step
from sagesmith.lifecycle.records import endpoint_document, endpoint_run
from sagesmith.store.resources import Change, Missing, Resource, Resources
from sagesmith.store.threads import in_thread

__all__ = ["ManagedScaling"]

_log = logging.getLogger(__name__)
_KIND: Final = "endpoint"


class ManagedScaling:
    """Scales the variants that have it. On the event loop; the database in threads.

    Args:
        notify: tells the driver of endpoints to look at one.
        count: how many copies are on an instance.
        idle_s: how long an instance stays empty before it goes, unless its `ScaleInPolicy` says otherwise.
    """

    def __init__(
        self,
        resources: Resources,
        notify: Callable[[str], None],
        count: Callable[[str], int],
        *,
        clock: Clock,
        idle_s: float,
    ) -> None:
        self._resources = resources
        self._notify = notify
        self._count = count
        self._clock = clock
        self._idle_s = idle_s
        self._runs: dict[tuple[str, str], EndpointRun] = {}
        self._empty_since: dict[str, float] = {}
        self._work = Background(_log, "scaling the instances of an endpoint failed; it will be tried again")

    def hosts(self, region: str, name: str, run: EndpointRun | None) -> None:
        """Learn how the endpoint is now; None when it is gone."""
        if run is None:
            self._runs.pop((region, name), None)
        else:
            self._runs[region, name] = run

    def may_grow(self, region: str, name: str, variant: str) -> bool:
        """Return whether the variant gets another instance, and see to it that it does."""
        run = self._runs.get((region, name))
        found = next((v for v in _managed(run) if v.name == variant), None)
        if run is None or found is None or found.count >= found.details["scaling"]["MaxInstanceCount"]:
            return False
        if run.status is Status.IN_SERVICE and not self._work:
            self._ask(region, name, found, found.count + 1, ())
        return True

    def look(self) -> None:
        """Let an instance go that was empty for long enough. Call it about once a second."""
        now = self._clock()
        empty: set[str] = set()
        for (region, name), run in list(self._runs.items()):
            for variant in _managed(run):
                spare = [
                    i.instance_id
                    for i in variant.instances
                    if i.phase is Phase.READY and not self._count(i.instance_id)
                ]
                empty.update(spare)
                scaling = variant.details["scaling"]
                minutes = (scaling.get("ScaleInPolicy") or {}).get("CooldownInMinutes")
                idle_s = 60.0 * minutes if minutes else self._idle_s
                due = [i for i in spare if now - self._empty_since.setdefault(i, now) >= idle_s]
                least = scaling.get("MinInstanceCount", 1)
                if due and variant.count > least and run.status is Status.IN_SERVICE and not self._work:
                    self._ask(region, name, variant, variant.count - 1, (due[0],))
                    for instance_id in spare:  # the next one goes no sooner than after as long again
                        self._empty_since[instance_id] = now
        self._empty_since = {i: at for i, at in self._empty_since.items() if i in empty}

    def close(self) -> list[asyncio.Task[None]]:
        """Stop; return the tasks that are being cancelled."""
        return self._work.cancel()

    # ---- inside ----

    def _ask(self, region: str, name: str, variant: Variant, count: int, spare: tuple[str, ...]) -> None:
        self._work.spawn(self._scale(region, name, variant.name, count, spare))

    async def _scale(self, region: str, name: str, variant: str, count: int, spare: tuple[str, ...]) -> None:
        def edit(resource: Resource) -> Change | None:
            run = endpoint_run(resource.document)
            found = next((v for v in _managed(run) if v.name == variant), None)
            grows = found is not None and count > found.count
            if found is None or run.status is not Status.IN_SERVICE or abs(count - found.count) != 1:
                return None  # it was changed meanwhile
            if not grows and any(map(self._count, spare)):
                return None
            after, _ = step(run, CapacityRequested({variant: (None, count)}, spare), self._clock())
            return Change(after.status.value, endpoint_document(resource.document, after))

        why = f"managed instance scaling: {variant} goes to {count} instances"
        try:
            changed = await in_thread(self._resources.update, _KIND, region, name, edit, why)
        except Missing:
            return
        except Exception:
            _log.exception("scaling the instances of endpoint %s failed; it will be tried again", name)
            return
        _log.info("endpoint %s: %s", name, why)
        self._notify(changed.arn)


def _managed(run: EndpointRun | None) -> Iterator[Variant]:
    """The variants of the present deployment whose instances are managed."""
    current: Any = run.current if run is not None else None
    for variant in current.variants if current is not None else ():
        if (variant.details.get("scaling") or {}).get("Status") == "ENABLED":
            yield variant
