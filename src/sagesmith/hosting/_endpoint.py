"""One endpoint at work: its row is changed by events, and what the row then demands is done.

The row is the only truth. Whoever changes it (this class on a message from an instance, a request handler on
UpdateEndpoint) only has to see to it that :meth:`EndpointWorker.follow` runs afterwards; it performs those
demands of the present state that it has not performed yet. After a restart nothing counts as performed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeAlias, cast

from sagesmith.background import Background
from sagesmith.errors import AwsError
from sagesmith.fleet.api import InstanceLost
from sagesmith.hosting._gateway_table import DIRECT, MODELS, RANDOM
from sagesmith.hosting._serverless import Demand, is_starting
from sagesmith.hosting._serving_spec import instance_spec, log_group
from sagesmith.hosting.async_inference import LONGEST_S
from sagesmith.hosting.parts import Parts
from sagesmith.instance import spec
from sagesmith.lifecycle import endpoint as lifecycle
from sagesmith.lifecycle.component import ComponentEvent
from sagesmith.lifecycle.records import endpoint_document, endpoint_run
from sagesmith.store.database import Connection
from sagesmith.store.metrics import Datum
from sagesmith.store.resources import Change, Changed, Missing, Resource
from sagesmith.store.threads import in_thread

__all__ = ["AnyEvent", "EndpointWorker"]

KIND: Final = "endpoint"
GRACE_S: Final = 30.0
DRAIN_S: Final = 60.0
VACATE_S: Final = 3600.0
"""How long an instance waits for the copies on it to come up elsewhere."""
ALARMS_S: Final = 0.5
"""How often alarms are looked at during an update."""

AnyEvent: TypeAlias = lifecycle.Event | ComponentEvent

_log = logging.getLogger(__name__)


class EndpointWorker:
    """Drives one endpoint that has been claimed. Everything runs on the event loop; the database in threads.

    Args:
        resource: the endpoint's row.
        on_end: called with the ARN once the endpoint is gone.
    """

    kind = KIND

    def __init__(self, parts: Parts, resource: Resource, on_end: Callable[[str], None]) -> None:
        self.arn = resource.arn
        self.run = self._read(resource.document)
        self._parts = parts
        self._region = resource.region
        self._name = self._routed_as = resource.name
        self._component_of = ""
        self._on_end = on_end
        self._lock = asyncio.Lock()
        self._performed: set[lifecycle.Command] = set()
        self._served: lifecycle.Serve | None = None
        self._routed: set[str] = set()
        # The row says what is still to be done: after a failure the driver's regular look at it tries again.
        self._work = Background(
            _log, f"a step of {self.arn} failed; it will be tried again", self._performed.clear
        )
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._variants: dict[str, str] = {}
        self._last_words: dict[str, asyncio.Event] = {}
        self._retry: asyncio.TimerHandle | None = None
        self._alarm_watch: asyncio.Task[None] | None = None
        self._closed = False
        self._demand = Demand(lambda: self.run, self.apply, self._work.spawn, parts.idle_s)

    # ---- from outside ----

    async def recover(self) -> None:
        """Take up the endpoint after a restart: listen to its instances again, and replace those that are gone."""
        for instance_id in self.run.ending:
            await self._parts.fleet.attach(instance_id, self.listen)
        for instance in self.run.instances:
            name = instance.instance_id
            if instance.phase is lifecycle.Phase.PAUSED:
                continue
            if await self._parts.fleet.attach(name, self.listen):
                await self.apply(lifecycle.InstanceStarted(name), follow=False)
            elif instance.phase is not lifecycle.Phase.PLANNED:
                reason = "it was gone when the server came back"
                await self.apply(lifecycle.Failed(name, reason, shutdown=True), follow=False)
        await self.follow()

    async def follow(self) -> None:
        """Read the row, and perform what it demands and has not been performed."""
        async with self._lock:
            resource = await in_thread(self._parts.resources.get, self.kind, self._region, self._name)
            if resource is None or not self._is_mine(resource):
                self._end()
            else:
                await self._follow(resource)

    async def apply(
        self,
        event: AnyEvent,
        *,
        follow: bool = True,
        also: Callable[[Connection], None] | None = None,
    ) -> None:
        """Change the row by *event*, writing *also* with it, and perform what it then demands."""
        async with self._lock:
            lost = None
            if isinstance(event, lifecycle.Failed) and event.final:
                lost = is_starting(self.run, event.instance_id)
            if follow:
                # Who reads InService may invoke at once: the gateway has to know before the row says so.
                self._serve_all(self._step(self.run, event, self._parts.clock()))
            try:
                resource = await in_thread(self._save, event, also)
            except Missing:
                self._end()
                return
            self.run = self._read(resource.document)
            if follow:
                await self._follow(resource)
        if lost is not None and isinstance(event, lifecycle.Failed):
            key = _key(*lost)
            self._parts.gateway.could_not_start(
                self._region, self._name, key, event.instance_id, event.reason
            )

    async def listen(self, instance_id: str, message: spec.Message | InstanceLost) -> None:
        """Take a message of an instance; returns once what it says is stored."""
        if self._closed:
            raise RuntimeError(f"nobody drives {self.arn} at the moment")
        if isinstance(message, spec.Finished | InstanceLost) and instance_id in self.run.ending:
            await self.apply(lifecycle.LastWord(instance_id), follow=False)
            self._last_word(instance_id).set()
            return
        match message:
            case spec.Log(lines, container):
                await in_thread(self._write_lines, instance_id, lines, container)
            case spec.Utilization():
                await in_thread(self._write_utilization, instance_id, message)
            case spec.Ready(address, protocol):
                await self.apply(lifecycle.Ready(instance_id, address, protocol))
            case spec.Unhealthy(reason):
                await self.apply(lifecycle.Unhealthy(instance_id, reason))
            case spec.Finished(error):
                await self.apply(lifecycle.Failed(instance_id, error or "it ended", final=bool(error)))
            case InstanceLost(reason, shutdown):
                await self.apply(lifecycle.Failed(instance_id, reason, shutdown=shutdown))
            case _:
                pass

    def close(self) -> list[asyncio.Task[None]]:
        """Stop working on the endpoint, whose instances go on; return the tasks that are being cancelled."""
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
        return self._work.cancel()

    # ---- the row ----

    def _read(self, document: Mapping[str, Any]) -> lifecycle.EndpointRun:
        return endpoint_run(document)

    def _write(self, document: Mapping[str, Any], run: lifecycle.EndpointRun) -> dict[str, Any]:
        return endpoint_document(document, run)

    def _status(self, run: lifecycle.EndpointRun) -> str:
        return run.status.value

    def _step(self, run: lifecycle.EndpointRun, event: AnyEvent, at: float) -> lifecycle.EndpointRun:
        return lifecycle.step(run, cast(lifecycle.Event, event), at)[0]

    def _is_mine(self, resource: Resource) -> bool:
        """Whether the row is still this endpoint's: a deleted one's name may have been used again."""
        return self._read(resource.document).uid == self.run.uid

    def _save(self, event: AnyEvent, also: Callable[[Connection], None] | None = None) -> Resource:
        at = self._parts.clock()

        def edit(resource: Resource) -> Change | None:
            if not self._is_mine(resource):
                raise Missing(self.kind, self._name)
            before = self._read(resource.document)
            after = self._step(before, event, at)
            if after is before:
                return None
            return Change(self._status(after), self._write(resource.document, after))

        return self._parts.resources.update(self.kind, self._region, self._name, edit, _why(event), also=also)

    async def _follow(self, resource: Resource) -> None:
        self.run = self._read(resource.document)
        self._serve_all(self.run)
        for command in lifecycle.demands(self.run):
            if self._closed:
                return
            if command not in self._performed and not isinstance(command, lifecycle.Serve):
                self._performed.add(command)
                await self._perform(command)
        self._set_retry()
        rollout = self.run.rollout
        watched = self._alarm_watch is not None and not self._alarm_watch.done()
        if rollout is not None and rollout.policy.alarms and not watched and not self._closed:
            self._alarm_watch = self._work.spawn(self._watch_alarms())

    def _end(self) -> None:
        if not self._closed:
            self._closed = True
            if self._retry is not None:
                self._retry.cancel()
            self._told(None)
            self._on_end(self.arn)

    def _set_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        due = self.run.next_due
        if due is not None and not self._closed:
            delay = max(0.05, due - self._parts.clock())
            self._retry = asyncio.get_running_loop().call_later(
                delay, lambda: self._work.spawn(self.apply(lifecycle.Due()))
            )

    async def _watch_alarms(self) -> None:
        """Tell of an alarm that is raised during an update, as long as that can be taken back."""
        while (rollout := self.run.rollout) is not None and not rollout.back and not self._closed:
            raised = await in_thread(self._parts.raised, self._region, rollout.policy.alarms, rollout.began)
            if raised:
                await self.apply(lifecycle.AlarmRaised(raised[0]))
                return
            await asyncio.sleep(ALARMS_S)

    # ---- commands ----

    def _serve_all(self, run: lifecycle.EndpointRun) -> None:
        for command in lifecycle.demands(run):
            if isinstance(command, lifecycle.Serve) and command != self._served and not self._closed:
                self._serve(command, run)
        if not self._closed:
            self._told(run)

    def _told(self, run: lifecycle.EndpointRun | None) -> None:
        """Tell others what there is now."""
        self._parts.deployed(self._region, self._name, run.current if run is not None else None)
        self._parts.hosts.hosts(self._region, self._name, run)

    def _serve(self, command: lifecycle.Serve, run: lifecycle.EndpointRun) -> None:
        """Bring the gateway's table to what *command* says. Ending instances are left to :meth:`_finish`."""
        gateway = self._parts.gateway
        self._served = command
        if not command.variants:
            gateway.remove_endpoint(self._region, self._routed_as)
            self._routed.clear()
            return
        # Instances that serve nothing themselves are the homes of components' copies.
        variants = [v for v in command.variants if not v.details.get("vacant")]
        keys = {v: _key(v.name, v.number) for v in variants}
        concurrency = {keys[v]: self._demand.concurrency(v) for v in variants}
        gateway.set_endpoint(
            self._region,
            self._routed_as,
            {keys[v]: 0.0 if v.shadow else v.weight for v in variants},
            shadows={keys[v]: v.weight for v in variants if v.shadow},
            features={keys[v]: self._features(v, run) for v in variants},
            component_of=self._component_of,
            serverless={key: limits for key, limits in concurrency.items() if limits is not None},
        )
        wanted = {i[0]: (keys[v], i[1]) for v in variants for i in v.instances}
        for instance_id, (variant, address) in wanted.items():
            gateway.add_instance(self._region, self._routed_as, variant, instance_id, address)
        for instance_id in self._routed - set(wanted) - set(run.ending):
            gateway.remove_instance(instance_id)
        self._routed = set(wanted)

    def _features(self, variant: lifecycle.Served, run: lifecycle.EndpointRun) -> list[str]:
        return _features(variant.details)

    async def _perform(self, command: lifecycle.Command) -> None:
        match command:
            case lifecycle.Start(instance_id, variant, pending):
                self._starts[instance_id] = self._work.spawn(self._start(instance_id, variant, pending))
            case lifecycle.End(instance_id):
                self._work.spawn(self._finish(instance_id))
            case lifecycle.Remove():
                self._work.spawn(self._remove())
            case lifecycle.Serve():
                pass  # done already

    async def _start(self, instance_id: str, variant: str, pending: bool) -> None:
        deployment = self.run.pending if pending else self.run.current
        found = next((v for v in deployment.variants if v.name == variant), None) if deployment else None
        if found is None:
            return
        try:
            role = await self._credentials(instance_id, found.details["role_arn"])
            await self._parts.fleet.start(self._told_at_start(instance_id, found, role), self.listen)
        except AwsError as error:
            await self.apply(lifecycle.Failed(instance_id, error.message, final=True))
        except OSError as error:
            await self.apply(lifecycle.Failed(instance_id, f"it could not start: {error}"))
        else:
            await self.apply(lifecycle.InstanceStarted(instance_id))

    def _told_at_start(
        self, instance_id: str, variant: lifecycle.Variant, role: spec.Credentials
    ) -> spec.InstanceSpec:
        return instance_spec(
            variant.details,
            instance_id,
            endpoint=self._name,
            endpoint_arn=self.arn,
            variant=variant.name,
            region=self._region,
            account_id=self._parts.account_id,
            resolve=self._parts.resolve,
            shape=self._parts.fleet.shape(variant.details["instance_type"]),
            server=self._parts.server(),
            role=role,
            answer_s=LONGEST_S if self._is_asynchronous else self._parts.answer_s,
        )

    @property
    def _is_asynchronous(self) -> bool:
        return any(each is not None and each.asynchronous for each in (self.run.current, self.run.pending))

    async def _credentials(self, instance_id: str, role_arn: str) -> spec.Credentials:
        identities = self._parts.identities
        key = await in_thread(identities.draft, role_arn, f"SageMaker-{self._name}"[:64], None)
        issued = lifecycle.KeyIssued(instance_id, key.access_key_id)
        await self.apply(issued, follow=False, also=partial(identities.store, key))
        return spec.Credentials(
            key.access_key_id, key.secret_access_key, key.session_token or "", key.expires or 0.0
        )

    async def _finish(self, instance_id: str) -> None:
        """Let an instance answer what it has, end it, and forget it."""
        start = self._starts.pop(instance_id, None)
        if start is not None and not start.done():
            start.cancel()
            await asyncio.wait([start])
        last_word = self._last_word(instance_id)
        if instance_id not in self.run.gone:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._parts.hosts.vacated(instance_id), VACATE_S)
        try:
            await asyncio.wait_for(self._parts.gateway.drain(instance_id), DRAIN_S)
            is_there = instance_id not in self.run.gone
            if is_there and await self._parts.fleet.attach(instance_id, self.listen):
                await self._parts.fleet.tell(instance_id, spec.Shutdown(GRACE_S))
                await asyncio.wait_for(last_word.wait(), GRACE_S + 5.0)
        except TimeoutError:
            _log.warning(
                "instance %s of %s did not end in time; its process is killed", instance_id, self.arn
            )
        await self._parts.fleet.release(instance_id)
        self._last_words.pop(instance_id, None)
        self._variants.pop(instance_id, None)
        for owner, key_id in self.run.keys:
            if owner == instance_id:
                await in_thread(self._parts.identities.revoke, key_id)
        await self.apply(lifecycle.InstanceReleased(instance_id))

    async def _remove(self) -> None:
        resources = self._parts.resources
        while True:
            resource = await in_thread(resources.get, self.kind, self._region, self._name)
            if resource is None or not self._is_mine(resource):
                break
            try:
                await in_thread(resources.delete, resource)
                break
            except Changed:
                continue
        self._end()

    def _last_word(self, instance_id: str) -> asyncio.Event:
        return self._last_words.setdefault(instance_id, asyncio.Event())

    # ---- logs and metrics ----

    def _variant_of(self, instance_id: str) -> str:
        name = self.run.variant_of(instance_id)
        if name:
            self._variants[instance_id] = name
        return name or self._variants.get(instance_id, "")

    def _write_lines(self, instance_id: str, lines: tuple[tuple[int, str], ...], container: str = "") -> None:
        stream = f"{self._variant_of(instance_id) or 'AllTraffic'}/{instance_id}"
        stream = f"{stream}/{container}" if container else stream
        self._parts.logs.put(self._log_group(), stream, lines, region=self._region)

    def _log_group(self) -> str:
        return log_group(self._name)

    def _write_utilization(self, instance_id: str, message: spec.Utilization) -> None:
        variant = self._variant_of(instance_id)
        if not variant:
            return
        self._write_percent(
            "/aws/sagemaker/Endpoints",
            {"EndpointName": self._name, "VariantName": variant},
            {
                "CPUUtilization": message.cpu,
                "MemoryUtilization": message.memory,
                "DiskUtilization": message.disk,
            },
            message.time,
        )

    def _write_percent(
        self, namespace: str, dimensions: Mapping[str, str], values: Mapping[str, float], time: float
    ) -> None:
        data = [Datum(name, dimensions, time, value, "Percent") for name, value in values.items()]
        self._parts.metrics.put(namespace, data, region=self._region)


def _key(variant: str, number: int) -> str:
    """Return a variant's key in the gateway's table; *number* is its deployment's."""
    return f"{variant}\0{number}" if number else variant


def _features(details: Mapping[str, Any]) -> list[str]:
    has = {
        RANDOM: details.get("routing") == "RANDOM",
        DIRECT: bool(details.get("direct")),
        MODELS: bool(details.get("multi_model")),
    }
    return [feature for feature, present in has.items() if present]


def _why(event: AnyEvent) -> str:
    match event:
        case lifecycle.Failed(instance_id, reason):
            return f"{instance_id}: {reason}"[:500]
        case lifecycle.Unhealthy(instance_id, reason):
            return f"{instance_id} is unhealthy: {reason}"[:500]
        case lifecycle.Ready(instance_id) | lifecycle.InstanceStarted(instance_id):
            return f"{instance_id}: {type(event).__name__}"
        case _:
            return type(event).__name__
