"""The gateway: takes an invocation to an instance of its endpoint and the answer back, on the event loop.

The hosting driver feeds the routing table; from then on an invocation touches no database, and nothing is made
for it but itself. The parts: the table with the choice of variant and instance (`_gateway_table`), one pipelined
connection for each instance (`_gateway_link`), answers in parts (`_gateway_stream`), counters (`_gateway_metrics`), words (`_gateway_errors`).

All methods run on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from math import inf
from time import monotonic
from types import MappingProxyType
from typing import Any, Final, Protocol

from sagesmith.clock import Clock, system_clock
from sagesmith.errors import AwsError
from sagesmith.hosting import _gateway_errors as errors
from sagesmith.hosting._gateway_chain import ChainLink
from sagesmith.hosting._gateway_components import Component, component_key
from sagesmith.hosting._gateway_http import HttpLink
from sagesmith.hosting._gateway_link import Invocation, Link, Owner
from sagesmith.hosting._gateway_models import ModelsLink
from sagesmith.hosting._gateway_serverless import Concurrency, ServerlessVariant
from sagesmith.hosting._gateway_stream import TOO_LONG, Stream
from sagesmith.hosting._gateway_table import (
    DIRECT,
    EMPTY,
    ENDING,
    MODELS,
    RANDOM,
    STARTING,
    AnyLink,
    Endpoint,
    Limits,
    Variant,
)
from sagesmith.store.metrics import Datum
from sagesmith_toolkit.frames import STREAM

__all__ = [
    "DIRECT",
    "EMPTY",
    "MODELS",
    "RANDOM",
    "STREAM_PATH",
    "Answer",
    "Endpoint",
    "Gateway",
    "Invocation",
    "MetricSink",
    "Stream",
    "request_head",
]

log = logging.getLogger(__name__)

NAMESPACE: Final = "AWS/SageMaker"
STREAM_PATH: Final = STREAM.encode()
"""The path in the heads of requests whose answers may come in parts."""
_SEVERAL: Final = ("serial|", "direct|")
_MANY: Final = ("models|",)


class MetricSink(Protocol):
    """Where counters go: `store.Metrics.put`."""

    def __call__(self, namespace: str, data: Iterable[Datum], *, region: str) -> None:
        """Keep *data*. Called in a worker thread, one call at a time."""
        ...


def request_head(
    content_type: bytes, accept: bytes, attributes: bytes, path: bytes = b"/invocations", fields: bytes = b""
) -> bytes:
    """Return the head of a request's frame. *fields* are further ``name=value``, separated by NUL.

    Raises:
        AwsError: `ValidationError`, one of them is longer than 1024 bytes or not ASCII.
    """
    for name, value in (
        ("contentType", content_type), ("accept", accept), ("customAttributes", attributes),
    ):  # fmt: skip
        if len(value) > 1024:
            raise AwsError(
                "ValidationError",
                f"1 validation error detected: Value at '{name}' failed to satisfy constraint: "
                "Member must have length less than or equal to 1024",
            )
        if not value.isascii() or b"\0" in value:
            raise AwsError(
                "ValidationError",
                f"1 validation error detected: Value at '{name}' failed to satisfy constraint: "
                "Member must satisfy regular expression pattern: \\p{ASCII}*",
            )
    head = b"\0".join((path, content_type, accept, attributes))
    return head + b"\0" + fields if fields else head


class Gateway:
    """The routing table and everything in flight.

    Args:
        account_id: the account that owns the endpoints.
        sink: takes the counters of each variant, every *flush_s* seconds and once more on `close`.
        timeout_s: how long a model may take for one invocation.
        stream_s: how long an answer that comes in parts may take, from its request on.
        max_in_flight: how many requests one instance may have; further ones are refused at once.
        console_url: where errors say the logs are; without it they name the log group.

    Attributes:
        starting: whether there may be endpoints that are not known yet: invocations of such are to be tried again.
    """

    def __init__(
        self,
        account_id: str,
        *,
        sink: MetricSink,
        clock: Clock = system_clock,
        flush_s: float = 10.0,
        timeout_s: float = 60.0,
        stream_s: float = 480.0,
        max_in_flight: int = 1000,
        console_url: str = "",
    ) -> None:
        self.account_id = account_id
        self._endpoints: dict[tuple[str, str], Endpoint] = {}
        self._instances: dict[str, AnyLink] = {}
        self._links: dict[AnyLink, Variant] = {}
        self._limits = Limits(max_in_flight, console_url, timeout_s / 20)
        self._timeout_s = timeout_s
        self._stream_s = stream_s
        self._tick_s = min(0.5, timeout_s / 4)
        self._sink = sink
        self._clock = clock
        self._flush_s = flush_s
        self._unsunk: list[tuple[str, list[Datum]]] = []
        self._sinking: asyncio.Future[None] | None = None
        self._timers: list[asyncio.Task[None]] = []
        self._ending = False
        self.starting = False

    def start(self) -> None:
        """Begin to watch timeouts and to flush counters; call it once, on the event loop."""
        self._timers = [
            asyncio.create_task(self._every(self._tick_s, self._expire), name="gateway timeouts"),
            asyncio.create_task(self._every(self._flush_s, self.flush), name="gateway metrics"),
        ]

    async def close(self) -> None:
        """Fail what is in flight, close all connections, hand the last counters to the sink."""
        for timer in self._timers:
            timer.cancel()
        await asyncio.gather(*self._timers, return_exceptions=True)
        for link in tuple(self._links):
            link.abort()
        self.flush()
        while self._sinking is not None:
            await asyncio.wait([self._sinking])
        await asyncio.sleep(0)

    # ---- the table -------------------------------------------------------------------------------------

    def set_endpoint(
        self,
        region: str,
        name: str,
        variants: Mapping[str, float],
        *,
        status: str = "InService",
        features: Mapping[str, Collection[str]] = MappingProxyType({}),
        shadows: Mapping[str, float] = MappingProxyType({}),
        component_of: str = "",
        serverless: Mapping[str, Concurrency] = MappingProxyType({}),
    ) -> None:
        """Make the endpoint known, or change it: its *variants* with their weights, and its *status*.

        The key of a variant is its name; during an update, when it may be there twice, a NUL and what tells the two
        apart may follow. *features* of variants, by key: those with `RANDOM` send each request to any instance, the
        others to that with the fewest in flight; to those with `DIRECT` requests name their container, to those with
        `MODELS` their model; those with `EMPTY` are to have no instances. *shadows* have weight 0 and get that part of the
        others' requests as copies. *serverless* variants give each instance one request at a time, and say how many
        instances they need.

        Variants that are no longer named are retired: their instances take no new requests and are forgotten
        when those in flight are answered. Invocations are refused while *status* is not one that serves. An endpoint
        without variants serves through inference components: these are made known as if they were endpoints, with
        their `component_key` as *name*, and the endpoint's name as *component_of*.
        """
        endpoint = self._endpoints.get((region, name))
        if endpoint is None:
            if component_of:
                endpoint = Component(region, name, self.account_id, component_of)
            else:
                endpoint = Endpoint(region, name, self.account_id)
            self._endpoints[region, name] = endpoint
        endpoint.status = ENDING if self._ending else status

        def make(endpoint: Endpoint, key: str, weight: float, limits: Limits) -> Variant:
            if key not in serverless:
                return Variant(endpoint, key, weight, limits)
            return ServerlessVariant(endpoint, key, weight, limits, serverless[key])

        for gone in endpoint.set_variants(variants, self._limits, shadows, make):
            self._retire(gone)
        for key, variant in endpoint.variants.items():
            variant.features = frozenset(features.get(key, ()))
            variant.random = RANDOM in variant.features
            if isinstance(variant, ServerlessVariant):
                variant.concurrency = serverless[key]

    def remove_endpoint(self, region: str, name: str) -> None:
        """Forget the endpoint. What is in flight is still answered if its instances live that long."""
        endpoint = self._endpoints.pop((region, name), None)
        if endpoint is not None:
            for variant in endpoint.variants.values():
                self._retire(variant)

    def add_instance(self, region: str, name: str, variant: str, instance_id: str, address: str) -> None:
        """Connect to an instance that serves *variant*: ``unix:/path``, ``tcp:host:port`` or ``http:host:port``,
        or several containers (see `_gateway_chain`) or many models (see `_gateway_models`).

        Requests may come at once: they wait for the connection. Adding it again with another address
        replaces it; with the same, it changes nothing.

        Raises:
            KeyError: no such endpoint or variant was set.
            ValueError: the address is of no such form.
        """
        if not address.startswith(("unix:", "tcp:", "http:", *_SEVERAL, *_MANY)):
            raise ValueError(f"the address {address!r} of instance {instance_id} is of no known form")
        owner = self._endpoints[region, name].variants[variant]
        known = self._instances.get(instance_id)
        if known is not None:
            if known.address == address and known.owner is owner:
                return
            self.remove_instance(instance_id)
        most = self._limits.max_in_flight
        link: AnyLink
        if address.startswith(_SEVERAL):
            link = ChainLink(instance_id, address, owner, self._forget, most, _link)
        elif address.startswith(_MANY):
            link = ModelsLink(instance_id, address, owner, self._forget, most, _link)
        else:
            link = _link(instance_id, address, owner, self._forget, most)
        owner.links.append(link)
        self._instances[instance_id] = link
        self._links[link] = owner
        owner.refresh()

    def remove_instance(self, instance_id: str) -> None:
        """Send nothing more to the instance; its connection closes when all in flight is answered."""
        link = self._instances.pop(instance_id, None)
        if link is not None:
            self._links[link].links.remove(link)
            link.retire()

    def could_not_start(self, region: str, name: str, variant: str, instance_id: str, reason: str) -> None:
        """An instance of a serverless variant could not start: a request that waits for one is told why."""
        endpoint = self._endpoints.get((region, name))
        found = endpoint.variants.get(variant) if endpoint is not None else None
        if isinstance(found, ServerlessVariant):
            found.could_not_start(instance_id, reason)

    async def drain(self, instance_id: str) -> None:
        """Remove the instance, and return when nothing is in flight there any more."""
        self.remove_instance(instance_id)
        for link in [link for link in self._links if link.instance_id == instance_id]:
            await link.settled()

    async def end(self, grace_s: float) -> None:
        """Take nothing new, and return when all that is in flight is answered, or after *grace_s* seconds."""
        self._ending = True
        for endpoint in self._endpoints.values():
            endpoint.status = ENDING
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                for endpoint in tuple(self._endpoints.values()):
                    for variant in tuple(endpoint.variants.values()):
                        await variant.settled()
                for link in tuple(self._links):
                    await link.settled()

    def _forget(self, link: AnyLink) -> None:
        owner = self._links.pop(link, None)
        if owner is not None:
            self._keep_counters(owner)

    def _retire(self, variant: Variant) -> None:
        variant.give_up(inf)
        for link in tuple(variant.links):
            self.remove_instance(link.instance_id)
        self._keep_counters(variant)

    # ---- invocations -----------------------------------------------------------------------------------

    def endpoint(self, region: str, name: str) -> Endpoint:
        """Return the endpoint, in whatever status it is; for one that does not exist, one that refuses all.

        Who may not invoke an endpoint must not learn whether it exists, so the way is: look it up, ask whether the
        caller may invoke its `arn`, `choose` a variant, `submit` to that.
        """
        found = self._endpoints.get((region, name))
        if found is None:
            found = Endpoint(region, name, self.account_id)
            if self.starting:
                found.status = STARTING
        return found

    def component(self, endpoint: Endpoint, name: str) -> Endpoint:
        """Return the inference component *name* of *endpoint*.

        Raises:
            AwsError: `ValidationError`, there is no such endpoint, or it has no such component that serves.
        """
        found = self._endpoints.get((endpoint.region, component_key(name)))
        if found is None or found.name != endpoint.name or not endpoint.status:
            if self.starting:
                raise errors.server_starts()
            if not endpoint.status:
                raise errors.endpoint_not_found(endpoint.name, self.account_id)
            raise errors.component_not_found(
                name, endpoint.name, self.account_id, has_models=bool(endpoint.variants)
            )
        return found

    async def call(
        self,
        region: str,
        name: str,
        head: bytes,
        body: bytes,
        target_variant: str = "",
        *,
        needs: frozenset[str] = frozenset(),
        component: str = "",
    ) -> Answer:
        """Invoke an endpoint and wait for the answer, for callers that are not in a hurry.

        Args:
            needs: features that the variant must have.
            component: the inference component that the request names.

        Raises:
            AwsError: as the runtime's InvokeEndpoint.
        """
        invocation = Answer(head, body, monotonic())
        endpoint = self.endpoint(region, name)
        if component:
            endpoint = self.component(endpoint, component)
        variant = endpoint.choose(target_variant)
        variant.check(needs)
        variant.submit(invocation)
        if variant.shadow is not None:
            variant.shadow.copy(head, body)
        await invocation.done
        return invocation

    def stream(self, variant: Variant, stream: Stream) -> None:
        """Submit an invocation whose answer may come in parts.

        Raises:
            AwsError: as `Variant.submit`.
        """
        variant.submit(stream)
        loop = asyncio.get_running_loop()
        stream.limit(loop.call_later(self._stream_s, self._break_off, variant, stream))

    def leave(self, variant: Variant, stream: Stream) -> None:
        """Have the model end what it does for *stream*, for which nobody waits any more."""
        if not stream.over:
            stream.close()
            self._cancel(variant, stream, broken=False)

    def _break_off(self, variant: Variant, stream: Stream) -> None:
        if stream.begun and not stream.over:
            self._cancel(variant, stream, broken=True)
            stream.break_off(TOO_LONG, errors.stream_too_long())

    def _cancel(self, variant: Variant, stream: Stream, *, broken: bool) -> None:
        if variant.withdraw(stream):
            return
        if any(link.cancel(stream) for link in tuple(self._links)) and stream.begun:
            variant.count_begun(stream, broken=broken)

    def _expire(self) -> None:
        now = monotonic()
        for link, owner in tuple(self._links.items()):
            timeout_s = owner.endpoint.timeout_s or self._timeout_s
            for invocation in link.expire(now - timeout_s):
                owner.timed_out(link, invocation)
            link.pace(now - timeout_s / 4)
        for endpoint in self._endpoints.values():
            for variant in endpoint.variants.values():
                variant.tick(now, self._timeout_s)

    # ---- metrics ---------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Hand what was counted since the last time to the sink, in a thread."""
        for endpoint in self._endpoints.values():
            for variant in endpoint.variants.values():
                self._keep_counters(variant)
        if self._unsunk and self._sinking is None:
            batch, self._unsunk = self._unsunk, []
            self._sinking = asyncio.get_running_loop().run_in_executor(None, self._sink_all, batch)
            self._sinking.add_done_callback(self._sunk)

    def _keep_counters(self, variant: Variant) -> None:
        counters = variant.counters
        if counters.invocations or counters.more:
            variant.counters = type(counters)()
            data = counters.data(variant.endpoint.name, variant.name, len(variant.links), self._clock())
            if isinstance(variant.endpoint, Component):
                data = variant.endpoint.metrics(data)
            self._unsunk.append((variant.endpoint.region, data))

    def _sink_all(self, batch: list[tuple[str, list[Datum]]]) -> None:
        for region, data in batch:
            self._sink(NAMESPACE, data, region=region)

    def _sunk(self, done: asyncio.Future[None]) -> None:
        self._sinking = None
        if not done.cancelled() and done.exception() is not None:
            log.error("the metrics of endpoints could not be stored", exc_info=done.exception())

    async def _every(self, seconds: float, do: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(seconds)
            do()


def _link(
    instance_id: str, address: str, owner: Owner, forget: Callable[[Any], None], max_in_flight: int
) -> Link:
    kind = HttpLink if address.startswith("http:") else Link
    return kind(instance_id, address, owner, forget, max_in_flight)


class Answer(Invocation):
    """An invocation whose outcome can be awaited: `headers` and `body` are there when `done` is."""

    __slots__ = ("done", "headers")

    def __init__(self, head: bytes, body: bytes, arrived: float) -> None:
        super().__init__(head, body, arrived)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.headers = b""

    def succeed(self, headers: bytes, body: bytes) -> None:
        """Keep the answer and wake who awaits it."""
        self.headers, self.body = headers, body
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, error: AwsError) -> None:
        """Raise *error* where the answer is awaited."""
        if not self.done.done():
            self.done.set_exception(error)
