"""The gateway's routing table: endpoints, their production variants, and which instance gets a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from random import random
from time import monotonic
from types import MappingProxyType
from typing import Final, TypeAlias, cast

from mypy_extensions import mypyc_attr

from sagesmith.arns import Arn, partition_of
from sagesmith.errors import AwsError
from sagesmith.hosting import _gateway_errors as errors
from sagesmith.hosting._gateway_chain import ChainLink
from sagesmith.hosting._gateway_link import MAX_QUEUED_BYTES, Invocation, Link
from sagesmith.hosting._gateway_metrics import VariantCounters
from sagesmith.hosting._gateway_models import ModelsLink
from sagesmith.hosting._gateway_stream import Stream

__all__ = [
    "DIRECT",
    "EMPTY",
    "ENDING",
    "FEATURES",
    "MODELS",
    "RANDOM",
    "STARTING",
    "AnyLink",
    "Endpoint",
    "Limits",
    "Variant",
]

AnyLink: TypeAlias = Link | ChainLink | ModelsLink
"""An instance, as a variant sees it."""

_MOST_HELD: Final = 100  # so many requests wait while no instance can be reached
_CACHED_HEADS: Final = 1024
ENDING: Final = "Ending"
"""The status of every endpoint while the server ends: what is in flight is answered, and nothing new is taken."""
STARTING: Final = "Starting"
"""The status of an endpoint that is not known while the server starts: perhaps it exists."""

RANDOM: Final = "random"
DIRECT: Final = "direct"
MODELS: Final = "models"
EMPTY: Final = "empty"
"""Of a variant that is to have no instances at all."""

FEATURES: Final[Mapping[str, str]] = {DIRECT: "TargetContainerHostname", MODELS: "TargetModel"}
"""Which member of a request needs which feature of a variant."""

MID_STREAM: Final = "MidStreamErrors"
_SERVING: Final = frozenset(("InService", "Updating", "SystemUpdating", "RollingBack"))


class Limits:
    """What one instance is burdened with, how long a request waits for any, and where the logs are to be found."""

    __slots__ = ("console_url", "max_in_flight", "patience_s")

    def __init__(self, max_in_flight: int, console_url: str, patience_s: float) -> None:
        self.max_in_flight = max_in_flight
        self.console_url = console_url
        self.patience_s = patience_s


@mypyc_attr(allow_interpreted_subclasses=True)
class Variant:
    """A production variant: its weight, its instances and what was counted of it.

    During an update a variant may be there twice, with other instances: *key* is its name and, after a NUL, what
    tells the two apart.
    """

    def __init__(self, endpoint: Endpoint, key: str, weight: float, limits: Limits) -> None:
        self.endpoint = endpoint
        self.name = key.partition("\0")[0]
        self.weight = weight
        self.random = False
        self.features: frozenset[str] = frozenset()
        self.shadow: Shadow | None = None
        self._held: list[Invocation] = []
        self.credit = 0.0
        self.links: list[AnyLink] = []
        self.counters = VariantCounters()
        self._limits = limits
        self._usable: list[AnyLink] = []
        self._headers: dict[bytes, bytes] = {}

    def refresh(self) -> None:
        """Look again which instances can take requests, and send what waited for one."""
        self._usable = [link for link in self.links if link.usable]
        if self._held and self._usable:
            held, self._held = self._held, []
            for invocation in held:
                self.resubmit(invocation)

    @property
    def can_be_reached(self) -> bool:
        """Whether an instance can take requests now."""
        return bool(self._usable)

    def give_up(self, before: float) -> None:
        """Refuse what came in *before* that time and still waits for an instance."""
        if self._held:
            late = [invocation for invocation in self._held if invocation.arrived < before]
            self._held = [invocation for invocation in self._held if invocation.arrived >= before]
            for invocation in late:
                invocation.fail(errors.no_instance(self.endpoint.name, self.name))

    def tick(self, now: float, timeout_s: float) -> None:
        """Do what is due at the time *now*; called about twice a second. A model may take *timeout_s* for an answer."""
        self.give_up(now - timeout_s / 20)

    async def settled(self) -> None:
        """Return when nothing waits for an instance that is still to start."""

    def check(self, needs: frozenset[str]) -> None:
        """Refuse a request that *needs* a feature which the variant does not have.

        Raises:
            AwsError: `ValidationError`, naming the member of the request.
        """
        for need in needs - self.features:
            raise errors.no_such_feature(self.endpoint.name, self.name, FEATURES[need])

    def submit(self, invocation: Invocation) -> None:
        """Send *invocation* to the instance with the fewest in flight; among equals, or if `random`, to any.

        Raises:
            AwsError: `ServiceUnavailable`, no instance can be reached; `ThrottlingException`, all are busy.
        """
        usable = self._usable
        if len(usable) == 1:
            link = usable[0]
            load = len(link.waiting) + len(link.queue) + len(link.late)
        else:
            found = self._least_busy(usable)
            if found is None:
                self._hold(invocation)
                return
            link, load = found
        if load >= link.limit or link.queued_bytes > MAX_QUEUED_BYTES:
            raise errors.busy(self.endpoint.name, self.name, load)
        link.send(invocation)

    def _least_busy(self, usable: list[AnyLink]) -> tuple[AnyLink, int] | None:
        """Return the link with the fewest requests, and how many; the search starts anywhere. None if there is none."""
        links = usable or [link for link in self.links if link.connecting and not link.retired]
        if not links:
            return None
        start = int(random() * len(links))  # noqa: S311 - only to spread load
        best, least = links[start], -1
        if self.random:
            return best, len(best.waiting) + len(best.queue) + len(best.late)
        for at in range(start, start + len(links)):
            link = links[at % len(links)]
            load = len(link.waiting) + len(link.queue) + len(link.late)
            if load < least or least < 0:
                best, least = link, load
        return best, least

    def _hold(self, invocation: Invocation) -> None:
        """Let *invocation* wait a moment for an instance: those that crashed are being started again."""
        waited_s = monotonic() - invocation.arrived
        if len(self._held) >= _MOST_HELD or waited_s > self._limits.patience_s:
            raise errors.no_instance(self.endpoint.name, self.name)
        self._held.append(invocation)

    # ---- what links report -----------------------------------------------------------------------------

    def answered(
        self, link: AnyLink, invocation: Invocation, status: int, head: bytes, body: bytes, now: float
    ) -> None:
        """Pass the model's answer on and count it; the client does not wait for the counting. *now* is when it arrived."""
        if 200 <= status < 300:
            invocation.succeed(self._headers.get(head) or self._headers_of(head), body)
            self._count(invocation, now)
            return
        self._count(invocation, now)
        counters = self.counters
        if invocation.begun:
            counters.note(MID_STREAM, "None", 1.0)
        elif 400 <= status < 500:
            counters.client_errors += 1
        else:
            counters.server_errors += 1
        invocation.fail(self.model_error(link, status, body.decode("utf-8", "replace")))

    def part(
        self, link: AnyLink, invocation: Invocation, head: bytes, body: bytes, more: Callable[[int], None]
    ) -> None:
        """Pass a part of the model's answer on; the first one is counted."""
        stream = cast(Stream, invocation)
        if not stream.begun:
            now, note = monotonic(), self.counters.note
            note("FirstChunkLatency", "Microseconds", _micros(now - stream.arrived))
            note("FirstChunkModelLatency", "Microseconds", _micros(now - stream.sent))
            note("FirstChunkOverheadLatency", "Microseconds", _micros(stream.sent - stream.arrived))
        stream.part(self._headers.get(head) or self._headers_of(head), body, more)

    def withdraw(self, invocation: Invocation) -> bool:
        """Forget *invocation* if it still waits for an instance; return whether it did."""
        if invocation in self._held:
            self._held.remove(invocation)
            return True
        return False

    def count_begun(self, stream: Invocation, *, broken: bool) -> None:
        """Count an answer in parts that began, and has ended before its end."""
        self._count(stream, monotonic())
        if broken:
            self.counters.note(MID_STREAM, "None", 1.0)

    def _count(self, invocation: Invocation, now: float) -> None:
        """Count an invocation whose answer was there at time *now*."""
        counters = self.counters
        counters.invocations += 1
        counters.model_latency.add(int((now - invocation.sent) * 1e6))
        counters.overhead.add(int((invocation.sent - invocation.arrived) * 1e6))

    def lost(self, link: AnyLink, invocation: Invocation) -> None:
        """The connection broke after *invocation* was written: nobody knows what the model did with it."""
        self._failed(link, invocation, errors.LOST)

    def timed_out(self, link: AnyLink, invocation: Invocation) -> None:
        """The model did not answer in time."""
        self._failed(link, invocation, errors.TIMED_OUT)

    def resubmit(self, invocation: Invocation) -> None:
        """An unsent request lost its instance: try another."""
        try:
            self.submit(invocation)
        except AwsError as error:
            invocation.fail(error)

    def _failed(self, link: AnyLink, invocation: Invocation, message: str) -> None:
        if invocation.begun:
            self.count_begun(invocation, broken=True)
        else:
            self.counters.invocations += 1
            self.counters.failures += 1
        invocation.fail(self.model_error(link, 0, message))

    def model_error(self, link: AnyLink, status: int, message: str) -> AwsError:
        """Return `ModelError` around what a model at *link* answered."""
        return errors.model_error(
            self.endpoint.arn, self.name, link.instance_id, status, message, self._limits.console_url
        )

    def _headers_of(self, head: bytes) -> bytes:
        """Return the response's header lines. A model cannot add lines of its own: it writes one line each."""
        content_type, _, rest = head.partition(b"\0")
        attributes = rest.partition(b"\0")[0]
        lines = [
            b"Content-Type: %b\r\n" % (_one_line(content_type) or b"application/octet-stream"),
            b"x-Amzn-Invoked-Production-Variant: %b\r\n" % self.name.encode(),
        ]
        if attributes:
            lines.append(b"X-Amzn-SageMaker-Custom-Attributes: %b\r\n" % _one_line(attributes))
        headers = b"".join(lines)
        if len(self._headers) >= _CACHED_HEADS:
            self._headers.clear()
        self._headers[head] = headers
        return headers


class Shadow:
    """A variant that gets copies of another's requests. What it answers counts for its metrics, and goes nowhere."""

    __slots__ = ("_credit", "_part", "_variant")

    def __init__(self, variant: Variant, part: float) -> None:
        self._variant = variant
        self._part = part
        self._credit = 0.0

    def copy(self, head: bytes, body: bytes) -> None:
        """Copy a request, if it is its turn; nothing happens if no instance can take it."""
        self._credit += self._part
        if self._credit >= 1.0 - 1e-9:
            self._credit -= 1.0
            if self._variant.can_be_reached:
                with suppress(AwsError):
                    self._variant.submit(_Copy(head, body, monotonic()))


class _Copy(Invocation):
    """A copied request, for whose answer nobody waits."""

    __slots__ = ()

    def succeed(self, headers: bytes, body: bytes) -> None:
        pass

    def fail(self, error: AwsError) -> None:
        pass


def _micros(seconds: float) -> float:
    """Return microseconds with two digits that count: so few different values are easy to keep."""
    return float(f"{seconds * 1e6:.2g}")


def _one_line(text: bytes) -> bytes:
    return bytes(byte for byte in text if 32 <= byte < 127).strip()


@mypyc_attr(allow_interpreted_subclasses=True)
class Endpoint:
    """An endpoint's variants by name, and the choice between them.

    `timeout_s` replaces the gateway's limit for one invocation. An `asynchronous` endpoint takes no invocations from
    clients, who hand theirs to `AsyncInference`. One without variants serves through inference components only.
    """

    def __init__(self, region: str, name: str, account: str) -> None:
        self.region = region
        self.name = name
        self.account = account
        self.arn = str(Arn("sagemaker", region, account, f"endpoint/{name}", partition_of(region)))
        self.status = ""  # does not exist
        self.timeout_s: float | None = None
        self.asynchronous = False
        self.variants: dict[str, Variant] = {}
        self._named: dict[str, list[Variant]] = {}
        self._weighted: list[Variant] = []

    def set_variants(
        self,
        weights: Mapping[str, float],
        limits: Limits,
        shadows: Mapping[str, float] = MappingProxyType({}),
        make: Callable[[Endpoint, str, float, Limits], Variant] = Variant,
    ) -> list[Variant]:
        """Take over *weights*; variants that stay keep their instances. Return those that are gone.

        *shadows* are variants that get that part of the others' requests as copies, and no requests of their own.
        *make* makes those that are new.
        """
        gone = [variant for name, variant in self.variants.items() if name not in weights]
        kept = self.variants
        self.variants = {
            name: kept.get(name) or make(self, name, weight, limits) for name, weight in weights.items()
        }
        for name, weight in weights.items():
            variant = self.variants[name]
            variant.weight, variant.credit = weight, 0.0
        self._weighted = [variant for variant in self.variants.values() if variant.weight > 0]
        self._named = {}
        for key, variant in self.variants.items():
            if key not in shadows:
                self._named.setdefault(variant.name, []).append(variant)
                of_same = (other for other in shadows if other.partition("\0")[2] == key.partition("\0")[2])
                shadow = next(of_same, None)
                variant.shadow = (
                    Shadow(self.variants[shadow], shadows[shadow]) if shadow is not None else None
                )
        return gone

    def choose(self, target: str = "") -> Variant:
        """Return the variant named *target*, or the one whose turn it is.

        Turns are given by smooth weighted round robin: after any number of requests each variant is less than
        one request away from its share, which drawing by chance would reach only after very many.

        Raises:
            AwsError: `ValidationError`, no such endpoint, not in service, or no such variant.
        """
        if self.status not in _SERVING:
            if not self.status:
                raise errors.endpoint_not_found(self.name, self.account)
            if self.status == ENDING:
                raise errors.server_ends()
            if self.status == STARTING:
                raise errors.server_starts()
            raise errors.endpoint_not_in_service(self.name, self.account, self.status)
        if target:
            named = self._named.get(target)
            if named is None:
                if not self.variants:
                    raise errors.no_component()
                raise errors.variant_not_found(self.name, target, list(self._named))
            return named[0] if len(named) == 1 else self._turn(named)
        weighted = self._weighted
        if len(weighted) == 1:
            return weighted[0]
        if not self.variants:
            raise errors.no_component()
        if not weighted:
            raise errors.no_instance(self.name, "with a weight above 0")
        return self._turn(weighted)

    def _turn(self, weighted: list[Variant]) -> Variant:
        total, best = 0.0, weighted[0]
        for variant in weighted:
            total += variant.weight
            variant.credit += variant.weight
            if variant.credit > best.credit:
                best = variant
        best.credit -= total
        return best
