"""A serverless variant as the gateway sees it: one request to a container at a time, and containers by demand.

What finds no free container waits for one that starts; what is beyond the maximum concurrency is refused at once.
The variant says how many containers it could use and which of them are idle; whoever keeps the instances decides.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import Final

from sagesmith.errors import AwsError
from sagesmith.hosting import _gateway_errors as errors
from sagesmith.hosting._gateway_link import Invocation
from sagesmith.hosting._gateway_metrics import VariantCounters
from sagesmith.hosting._gateway_table import AnyLink, Endpoint, Limits, Variant
from sagesmith.store.metrics import Datum

__all__ = ["MAX_BODY", "Concurrency", "ServerlessVariant"]

MAX_BODY: Final = 4 * 1024 * 1024
"""The largest body that a serverless endpoint takes, which is less than others take."""


@dataclass(frozen=True, slots=True)
class Concurrency:
    """What a serverless variant may do, and whom it tells what it needs. The callbacks return at once.

    Args:
        most: so many requests may be there at a time.
        provisioned: so many containers stay although they are idle.
        idle_s: a container that had nothing to do for so long is idle.
        want: called with the number of requests that are there, each of which could use a container.
        idle: called with the ids of containers that are idle; again, as long as they are there.
        stuck: called with the id of a container that did not answer in time.
    """

    most: int
    provisioned: int
    idle_s: float
    want: Callable[[int], None]
    idle: Callable[[Sequence[str]], None]
    stuck: Callable[[str], None]


class ServerlessVariant(Variant):
    """A serverless production variant."""

    def __init__(
        self, endpoint: Endpoint, key: str, weight: float, limits: Limits, concurrency: Concurrency
    ) -> None:
        super().__init__(endpoint, key, weight, limits)
        self.concurrency = concurrency
        self.counters = ServerlessCounters()
        self._waiting: deque[Invocation] = deque()
        self._free_since: dict[str, float] = {}
        self._wanted = 0
        self._retired = False
        self._load = _Load(monotonic())

    @property
    def load(self) -> int:
        """How many requests are there: those with a container, and those that wait for one."""
        return len(self._waiting) + sum(_busy(link) for link in self.links)

    # ---- requests --------------------------------------------------------------------------------------

    def submit(self, invocation: Invocation) -> None:
        """Give *invocation* to a free container, or let it wait for one.

        Raises:
            AwsError: `ThrottlingException`, as many are there as may be; `ValidationError`, the body is too large.
        """
        load, limits = self.load, self.concurrency
        if load >= limits.most:
            raise errors.throttled(self.endpoint.name, limits.most)
        if len(invocation.body) > MAX_BODY:
            raise errors.serverless_body_too_large(len(invocation.body), MAX_BODY)
        if limits.provisioned:
            kind = "Invocations" if load < limits.provisioned else "SpilloverInvocations"
            self.counters.note(f"ServerlessProvisionedConcurrency{kind}", "Count", 1.0)
        self._waiting.append(invocation)
        self._dispatch()

    def withdraw(self, invocation: Invocation) -> bool:
        """Forget *invocation* if it still waits for a container; return whether it did."""
        if invocation in self._waiting:
            self._waiting.remove(invocation)
            return True
        return False

    def resubmit(self, invocation: Invocation) -> None:
        """Take back a request that was not sent: it is the next one, here or with who came after this variant."""
        if self._retired:
            self._pass_on(invocation)
        else:
            self._waiting.appendleft(invocation)
            self._dispatch()

    def refresh(self) -> None:
        """Look again which containers can take requests."""
        super().refresh()
        self._wanted = 0
        self._dispatch()

    def answered(
        self, link: AnyLink, invocation: Invocation, status: int, head: bytes, body: bytes, now: float
    ) -> None:
        """Pass the answer on; the container is free for the next request."""
        super().answered(link, invocation, status, head, body, now)
        self._free_since[link.instance_id] = now
        self._dispatch()

    def timed_out(self, link: AnyLink, invocation: Invocation) -> None:
        """The model did not answer in time; it may never do."""
        super().timed_out(link, invocation)
        self.concurrency.stuck(link.instance_id)

    def could_not_start(self, instance_id: str, reason: str) -> None:
        """A container could not start: the request that waits for longest is told why."""
        if self._waiting:
            invocation = self._waiting.popleft()
            self.counters.invocations += 1
            self.counters.failures += 1
            invocation.fail(
                errors.model_error(
                    self.endpoint.arn, self.name, instance_id, 0, reason, self._limits.console_url
                )
            )
        self._dispatch()

    def _dispatch(self) -> None:
        while self._waiting and not self._retired:
            link = self._free()
            if link is None:
                break
            invocation, now = self._waiting.popleft(), monotonic()
            if link.instance_id not in self._free_since:
                self._free_since[link.instance_id] = now
                setup = round((now - invocation.arrived) * 1e6, -3)
                if setup:  # it waited, by milliseconds
                    self.counters.note("ModelSetupTime", "Microseconds", setup)
            link.send(invocation)
        load = self.load
        self._load.is_now(load, self.concurrency.provisioned, monotonic())
        if self._waiting and not self._retired and load != self._wanted:
            self._wanted = load
            self.concurrency.want(load)

    def _free(self) -> AnyLink | None:
        """Return the free container that worked last, so that the others become idle."""
        best, latest = None, -1.0
        for link in self._usable:
            if not _busy(link):
                since = self._free_since.get(link.instance_id, 0.0)
                if since > latest:
                    best, latest = link, since
        return best

    def _pass_on(self, invocation: Invocation) -> None:
        try:
            successor = self.endpoint.choose()
            if successor is self:
                raise errors.no_instance(self.endpoint.name, self.name)
            successor.submit(invocation)
        except AwsError as error:
            invocation.fail(error)

    # ---- time ------------------------------------------------------------------------------------------

    def tick(self, now: float, timeout_s: float) -> None:
        """Refuse what waited too long, report what is idle, and note how much was in use."""
        while self._waiting and self._waiting[0].arrived < now - timeout_s:
            invocation = self._waiting.popleft()
            self.counters.invocations += 1
            self.counters.failures += 1
            invocation.fail(errors.no_container(self.endpoint.name, timeout_s))
        self._dispatch()
        limits = self.concurrency
        if self._waiting or self._wanted:
            self._wanted = self.load if self._waiting else 0
            limits.want(self.load)
        ids = {link.instance_id for link in self.links}
        self._free_since = {name: since for name, since in self._free_since.items() if name in ids}
        free = [link.instance_id for link in self._usable if not _busy(link)]
        for name in free:
            self._free_since.setdefault(name, now)
        idle = sorted(
            (name for name in free if self._free_since[name] <= now - limits.idle_s),
            key=lambda name: self._free_since[name],
        )[: max(0, len(self.links) - limits.provisioned)]
        if idle:
            limits.idle(idle)
        self._load.note(self.counters, limits, now)

    def give_up(self, before: float) -> None:
        """Hand everything that waits to the variant that came after this one, if it is retired (*before* is infinite)."""
        if before == inf:
            self._retired = True
            waiting, self._waiting = self._waiting, deque()
            for invocation in waiting:
                self._pass_on(invocation)

    async def settled(self) -> None:
        """Return when nothing waits for a container."""
        while self._waiting:
            await asyncio.sleep(0.02)


def _busy(link: AnyLink) -> int:
    return len(link.waiting) + len(link.queue) + len(link.late)


class _Load:
    """How many requests were there, and how many of the provisioned containers were in use, averaged over time."""

    def __init__(self, now: float) -> None:
        self._at = self._began = now
        self._load = self._used = 0
        self._all = self._provisioned = 0.0

    def is_now(self, load: int, provisioned: int, now: float) -> None:
        """From *now* on, it is *load*."""
        passed, self._at = now - self._at, now
        self._all += self._load * passed
        self._provisioned += self._used * passed
        self._load, self._used = load, min(load, provisioned)

    def note(self, counters: VariantCounters, limits: Concurrency, now: float) -> None:
        """Count the averages since the last time in *counters*; nothing if nothing was there."""
        self.is_now(self._load, limits.provisioned, now)
        passed = now - self._began
        if self._all and passed > 0:
            counters.note(
                "ServerlessConcurrentExecutionsUtilization",
                "None",
                round(self._all / passed / limits.most, 3),
            )
            if limits.provisioned:
                used = self._provisioned / passed
                counters.note("ServerlessProvisionedConcurrencyExecutions", "Count", round(used, 2))
                counters.note(
                    "ServerlessProvisionedConcurrencyUtilization", "None", round(used / limits.provisioned, 3)
                )
        self._began, self._all, self._provisioned = now, 0.0, 0.0


class ServerlessCounters(VariantCounters):
    """What happened at a serverless variant; without any number per instance."""

    __slots__ = ()

    def data(self, endpoint: str, variant: str, instances: int, time: float) -> list[Datum]:
        """Return the metric data of namespace ``AWS/SageMaker``."""
        found = super().data(endpoint, variant, instances, time)
        return [datum for datum in found if datum.name != "InvocationsPerInstance"]
