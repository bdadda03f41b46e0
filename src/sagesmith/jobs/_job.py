"""One job on its way: its row is changed by events, and what the row then demands is done.

The row is the only truth. Whoever changes it (this class on a message from an instance, a request handler on
the Stop operation) only has to see to it that :meth:`Job.follow` runs afterwards; it performs those demands of
the present state that it has not performed yet. After a restart nothing counts as performed.

What kinds of jobs differ in is the subclass's: where the state is in the document, what messages mean, and what
instances are told.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

from sagesmith.background import Background
from sagesmith.clock import Clock
from sagesmith.errors import AwsError
from sagesmith.fleet.api import Fleet, InstanceLost
from sagesmith.images import Image
from sagesmith.instance import spec
from sagesmith.jobs._telemetry import Telemetry
from sagesmith.lifecycle import jobs as lifecycle
from sagesmith.store.database import Connection
from sagesmith.store.resources import Change, Missing, Resource, Resources
from sagesmith.store.role_keys import RoleKeys
from sagesmith.store.threads import in_thread

__all__ = ["Job", "Parts", "Run"]

WAIT_SHOWN_AFTER_S: Final = 0.5
"""An instance that has not started after that long is shown as waiting; starting one takes milliseconds."""

_log = logging.getLogger(__name__)


class RunHost(Protocol):
    """One instance of a job's state."""

    @property
    def instance_id(self) -> str: ...
    @property
    def is_planned(self) -> bool:
        """Whether nobody has heard of it yet."""
        ...

    @property
    def has_ended(self) -> bool:
        """Whether it has said its last word."""
        ...


class Run(Protocol):
    """The state of a job, as far as all kinds have it."""

    @property
    def uid(self) -> str: ...
    @property
    def epoch_ms(self) -> int: ...
    @property
    def hosts(self) -> Sequence[RunHost]: ...
    @property
    def status(self) -> lifecycle.Status: ...
    @property
    def over(self) -> bool: ...
    @property
    def deadline(self) -> float | None: ...


R = TypeVar("R", bound=Run)


@dataclass(frozen=True, slots=True)
class Parts:
    """What every job works with."""

    resources: Resources
    fleet: Fleet
    telemetry: Telemetry
    identities: RoleKeys
    server: Callable[[], spec.ServerAddress]
    resolve: Callable[[str], Image]
    account_id: str
    clock: Clock


class Job(ABC, Generic[R]):
    """Drives one job that has been claimed. Everything runs on the event loop; the database in threads.

    Args:
        resource: the job's row.
        on_end: called with the ARN once nothing is left to be done.
    """

    def __init__(self, parts: Parts, resource: Resource, on_end: Callable[[str], None]) -> None:
        self.arn = resource.arn
        self._parts = parts
        self._region = resource.region
        self._name = resource.name
        self.run: R = self.run_of(resource.document)
        self._document = resource.document
        self._on_end = on_end
        self._lock = asyncio.Lock()
        self._performed: set[Any] = set()
        # The row says what is still to be done: after a failure the driver's regular look at it tries again.
        self._work = Background(
            _log, f"a step of {self.arn} failed; it will be tried again", self._performed.clear
        )
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._role: asyncio.Task[spec.Credentials] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._closed = False

    # ---- from outside ----

    async def recover(self) -> None:
        """Take up the job after a restart: listen to its instances again, and replace those that are gone."""
        telemetry, fleet = self._parts.telemetry, self._parts.fleet
        await self._recall()
        for host in [h for h in self.run.hosts if not h.has_ended]:
            telemetry.expect_repeats(host.instance_id)
            if await fleet.attach(host.instance_id, self.listen):
                await self.apply(lifecycle.InstanceStarted(host.instance_id), follow=False)
            elif not host.is_planned:
                reason = "it was gone when the server came back"
                await self.apply(lifecycle.Lost(host.instance_id, reason, shutdown=True), follow=False)
        await self.follow()

    async def follow(self) -> None:
        """Read the row, and perform what it demands and has not been performed."""
        async with self._lock:
            resource = await in_thread(self._parts.resources.get, self.kind, self._region, self._name)
            if resource is None or not self._is_mine(resource):
                self._end()
                return
            await self._follow(resource)

    async def apply(
        self,
        event: Any,
        *,
        follow: bool = True,
        also: Callable[[Connection], None] | None = None,
    ) -> None:
        """Change the row by *event*, writing *also* with it, and perform what it then demands."""
        async with self._lock:
            try:
                resource = await in_thread(self._save, event, also)
            except Missing:
                self._end()
                return
            if follow:
                await self._follow(resource)
            else:
                self._document, self.run = resource.document, self.run_of(resource.document)

    async def listen(self, instance_id: str, message: spec.Message | InstanceLost) -> None:
        """Take a message of an instance; returns once what it says is stored."""
        if self._closed:
            raise asyncio.CancelledError
        telemetry = self._parts.telemetry
        number = next((n for n, h in enumerate(self.run.hosts, 1) if h.instance_id == instance_id), 0)
        match message:
            case spec.Log() if number:
                await telemetry.log(self._region, self._name, self.run, number, instance_id, message)
            case spec.MetricValue() if number:
                telemetry.metric(self._region, self._name, message)
            case spec.Utilization() if number:
                telemetry.utilization(self._region, self._name, number, message)
            case _:
                event = self._event(instance_id, message)
                if event is not None:
                    if isinstance(message, spec.Finished):
                        await telemetry.flush()
                    await self.apply(event)

    def close(self) -> list[asyncio.Task[None]]:
        """Stop working on the job, which goes on by itself; return the tasks that are being cancelled."""
        self._closed = True
        if self._deadline is not None:
            self._deadline.cancel()
        if self._role is not None:
            self._role.cancel()
        return self._work.cancel()

    # ---- the row ----

    def _is_mine(self, resource: Resource) -> bool:
        """Whether the row is still this job's: a deleted job's name may have been used again."""
        found: R = self.run_of(resource.document)
        return found.uid == self.run.uid

    def _save(self, event: Any, also: Callable[[Connection], None] | None = None) -> Resource:
        at = self._parts.clock()

        def edit(resource: Resource) -> Change | None:
            if not self._is_mine(resource):
                raise Missing(self.kind, self._name)
            before = self.run_of(resource.document)
            after = self._step(before, event, at)
            if after is before:
                return None
            return Change(after.status.value, self._document_of(resource.document, after))

        return self._parts.resources.update(
            self.kind, self._region, self._name, edit, self._why(event), also=also
        )

    async def _follow(self, resource: Resource) -> None:
        self._document = resource.document
        self.run = self.run_of(resource.document)
        for command in self.demands(self.run):
            if command not in self._performed and not self._closed:
                self._performed.add(command)
                await self._perform(command)
        self._set_deadline()
        if self.run.over:
            self._work.spawn(self._wait_for_the_rest())

    async def _wait_for_the_rest(self) -> None:
        """After the last state: let the releases end, then let go."""
        current = asyncio.current_task()
        while others := [t for t in self._work if t is not current]:
            await asyncio.wait(others)
        self._end()

    def _end(self) -> None:
        if not self._closed:
            self._closed = True
            if self._deadline is not None:
                self._deadline.cancel()
            self._parts.telemetry.forget(self._region, self._name)
            self._on_end(self.arn)

    def _set_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self.run.deadline is not None and not self._closed:
            delay = max(0.01, self.run.deadline - self._parts.clock())
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(
                min(delay, 86_400.0), lambda: self._work.spawn(self.apply(self._deadline_passed()))
            )

    # ---- commands ----

    async def _perform(self, command: Any) -> None:
        fleet = self._parts.fleet
        match command:
            case lifecycle.Start(instance_id):
                self._starts[instance_id] = self._work.spawn(self._start(instance_id))
            case lifecycle.Stop(instance_id, reason):
                await fleet.tell(instance_id, spec.Stop(reason))
            case lifecycle.Shutdown(instance_id):
                await fleet.tell(instance_id, spec.Shutdown())
            case lifecycle.Release(instance_id):
                self._work.spawn(self._release(instance_id))
            case lifecycle.Revoke(key_id):
                self._work.spawn(in_thread(self._parts.identities.revoke, key_id))

    async def _start(self, instance_id: str) -> None:
        loop = asyncio.get_running_loop()
        waiting = loop.call_later(
            WAIT_SHOWN_AFTER_S, lambda: self._work.spawn(self.apply(lifecycle.Waiting()))
        )
        try:
            role = await self._credentials()
            await self._parts.fleet.start(self._spec(instance_id, role), self.listen)
        except (AwsError, OSError) as error:
            message = (
                error.message if isinstance(error, AwsError) else f"An instance could not start: {error}"
            )
            await self.apply(
                lifecycle.Finished(instance_id, message, client_error=isinstance(error, AwsError))
            )
        else:
            await self.apply(lifecycle.InstanceStarted(instance_id))
        finally:
            waiting.cancel()

    async def _release(self, instance_id: str) -> None:
        start = self._starts.pop(instance_id, None)
        if start is not None and not start.done():
            start.cancel()
            await asyncio.wait([start])
        await self._parts.fleet.release(instance_id)

    async def _credentials(self) -> spec.Credentials:
        """Return keys of the execution role: one for all hosts, made when the first host asks."""
        if self._role is None:
            self._role = asyncio.get_running_loop().create_task(self._issue())
        return await asyncio.shield(self._role)

    async def _issue(self) -> spec.Credentials:
        identities = self._parts.identities
        name = f"SageMaker-{self._name}"[:64]
        key = await in_thread(identities.draft, self._role_arn(), name, None)
        issued = lifecycle.KeyIssued(key.access_key_id)
        await self.apply(issued, follow=False, also=partial(identities.store, key))
        return spec.Credentials(
            key.access_key_id, key.secret_access_key, key.session_token or "", key.expires or 0.0
        )

    # ---- what kinds of jobs differ in ----

    kind: ClassVar[str]

    @staticmethod
    @abstractmethod
    def run_of(document: Mapping[str, Any]) -> Any:
        """Return the state (an R) in *document*."""

    @staticmethod
    @abstractmethod
    def demands(run: Any) -> Sequence[Any]:
        """Return the commands that *run* asks for, the common ones and the kind's own."""

    @abstractmethod
    def _document_of(self, document: Mapping[str, Any], run: R) -> dict[str, Any]:
        """Return *document* with *run* in it."""

    @abstractmethod
    def _step(self, run: R, event: Any, at: float) -> R:
        """Return *run* after *event*; *run* itself if nothing changes."""

    @abstractmethod
    def _event(self, instance_id: str, message: spec.Message | InstanceLost) -> Any | None:
        """Return the event that *message* is, None if it changes nothing."""

    @abstractmethod
    def _spec(self, instance_id: str, role: spec.Credentials) -> spec.InstanceSpec:
        """Return what the instance is told. Raises `AwsError`."""

    def _role_arn(self) -> str:
        """The execution role."""
        role: str = self._document["RoleArn"]
        return role

    def _deadline_passed(self) -> Any:
        """Return the event of `Run.deadline`; kinds that have no deadline are never asked."""
        raise NotImplementedError

    async def _recall(self) -> None:
        """Find again what the last server had in its memory."""

    def _why(self, event: Any) -> str:
        match event:
            case lifecycle.Lost(instance_id, reason):
                return f"{instance_id} lost: {reason}"
            case lifecycle.Finished(instance_id, error):
                return f"{instance_id} finished: {error or 'well'}"
            case lifecycle.InstanceStarted(instance_id):
                return f"{instance_id}: InstanceStarted"
            case _:
                return type(event).__name__
