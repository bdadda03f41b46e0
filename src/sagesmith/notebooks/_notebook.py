"""One notebook instance at work: its row is changed by events, and what the row then demands is done.

As with endpoints the row is the only truth, and whoever changes it sees to it that :meth:`NotebookWorker.follow` runs
afterwards, which performs those demands that it has not performed yet. After a restart nothing counts as performed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from sagesmith.background import Background
from sagesmith.clock import Clock
from sagesmith.errors import AwsError
from sagesmith.fleet.api import Fleet, InstanceLost
from sagesmith.instance import spec
from sagesmith.lifecycle import notebook as lifecycle
from sagesmith.lifecycle.records import notebook_document, notebook_run
from sagesmith.notebooks._spec import LOG_GROUP, instance_spec
from sagesmith.notebooks.volumes import Volumes
from sagesmith.store.database import Connection
from sagesmith.store.logs import Logs
from sagesmith.store.metrics import Datum, Metrics
from sagesmith.store.resources import Change, Changed, Missing, Resource, Resources
from sagesmith.store.role_keys import RoleKeys
from sagesmith.store.threads import in_thread

__all__ = ["KIND", "NotebookWorker", "Parts", "Table"]

KIND: Final = "notebook-instance"
GRACE_S: Final = 20.0
RETRY_S: Final = 1.0

_log = logging.getLogger(__name__)


class Table(Protocol):
    """Where requests to notebooks are led. On the event loop."""

    def set(self, region: str, name: str, address: str, secret: str) -> None:
        """Lead those who have a session of *secret* to *address*."""
        ...

    def remove(self, region: str, name: str) -> None:
        """Lead nobody there any more; harmless if it is not known."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What every notebook works with."""

    resources: Resources
    fleet: Fleet
    table: Table
    volumes: Volumes
    logs: Logs
    metrics: Metrics
    identities: RoleKeys
    server: Callable[[], spec.ServerAddress]
    account_id: str
    clock: Clock


class NotebookWorker:
    """Drives one notebook that has been claimed. Everything runs on the event loop; the database in threads.

    Args:
        resource: the notebook's row.
        on_end: called with the ARN once nothing is left to be done.
    """

    def __init__(self, parts: Parts, resource: Resource, on_end: Callable[[str], None]) -> None:
        self.arn = resource.arn
        self.run = notebook_run(resource.document)
        self._parts = parts
        self._region = resource.region
        self._name = resource.name
        self._on_end = on_end
        self._lock = asyncio.Lock()
        self._performed: set[lifecycle.Command] = set()
        # The row says what is still to be done: after a failure the driver's regular look at it tries again.
        self._work = Background(
            _log, f"a step of {self.arn} failed; it will be tried again", self._performed.clear
        )
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._last_words: dict[str, asyncio.Event] = {}
        self._closed = False

    # ---- from outside ----

    async def recover(self) -> None:
        """Take the notebook up after a restart: listen to its instance again, or replace it if it is gone."""
        name = self.run.instance_id
        if self.run.status is lifecycle.Status.IN_SERVICE and not await self._parts.fleet.attach(
            name, self.listen
        ):
            await self.apply(lifecycle.Lost(name, "it was gone when the server came back", shutdown=True))
        else:
            await self.follow()

    async def follow(self) -> None:
        """Read the row, and perform what it demands and has not been performed."""
        async with self._lock:
            resource = await in_thread(self._parts.resources.get, KIND, self._region, self._name)
            if resource is None or not self._is_mine(resource):
                self._end()
            else:
                await self._follow(resource)

    async def apply(
        self, event: lifecycle.Event, *, follow: bool = True, also: Callable[[Connection], None] | None = None
    ) -> None:
        """Change the row by *event*, writing *also* with it, and perform what it then demands."""
        async with self._lock:
            if follow:
                # Who reads InService may come in at once: the table has to know before the row says so.
                self._lead(lifecycle.step(self.run, event))
            try:
                resource = await in_thread(self._save, event, also)
            except Missing:
                self._end()
                return
            self.run = notebook_run(resource.document)
            if follow:
                await self._follow(resource)

    async def listen(self, instance_id: str, message: spec.Message | InstanceLost) -> None:
        """Take a message of an instance; returns once what it says is stored."""
        if self._closed:
            raise RuntimeError(f"nobody drives {self.arn} at the moment")
        match message:
            case spec.Log(lines, part):
                await in_thread(self._write_lines, lines, part)
            case spec.Utilization():
                await in_thread(self._write_utilization, message)
            case spec.Stage("Created"):
                await self.apply(lifecycle.Created(instance_id), follow=False)
            case spec.Ready(address):
                await self.apply(lifecycle.Ready(instance_id, address))
            case spec.Finished(error):
                self._last_word(instance_id).set()
                await self.apply(
                    lifecycle.Failed(instance_id, error or "The notebook instance ended by itself.")
                )
            case InstanceLost(reason, shutdown):
                self._last_word(instance_id).set()
                await self.apply(lifecycle.Lost(instance_id, reason, shutdown))
            case _:
                pass

    def close(self) -> list[asyncio.Task[None]]:
        """Stop working on the notebook, whose instance goes on; return the tasks that are being cancelled."""
        self._closed = True
        self._parts.table.remove(self._region, self._name)
        return self._work.cancel()

    # ---- the row ----

    def _is_mine(self, resource: Resource) -> bool:
        """Whether the row is still this notebook's: a deleted one's name may have been used again."""
        return notebook_run(resource.document).uid == self.run.uid

    def _save(self, event: lifecycle.Event, also: Callable[[Connection], None] | None = None) -> Resource:
        def edit(resource: Resource) -> Change | None:
            if not self._is_mine(resource):
                raise Missing(KIND, self._name)
            before = notebook_run(resource.document)
            after = lifecycle.step(before, event)
            if after is before:
                return None
            return Change(after.status.value, notebook_document(resource.document, after))

        return self._parts.resources.update(KIND, self._region, self._name, edit, _why(event), also=also)

    async def _follow(self, resource: Resource) -> None:
        self.run = notebook_run(resource.document)
        self._lead(self.run)
        for command in lifecycle.demands(self.run):
            if self._closed:
                return
            if command not in self._performed:
                self._performed.add(command)
                match command:
                    case lifecycle.Start(instance_id):
                        self._starts[instance_id] = self._work.spawn(self._start(resource, instance_id))
                    case lifecycle.End(instance_id):
                        self._work.spawn(self._finish(instance_id))
                    case lifecycle.Remove():
                        self._work.spawn(self._remove())
                    case lifecycle.Serve():
                        pass  # done already
        if not lifecycle.demands(self.run):
            self._end()

    def _lead(self, run: lifecycle.NotebookRun) -> None:
        """Bring the table to what *run* says."""
        if self._closed:
            return
        served = next((each for each in lifecycle.demands(run) if isinstance(each, lifecycle.Serve)), None)
        if served is None:
            self._parts.table.remove(self._region, self._name)
        else:
            self._parts.table.set(self._region, self._name, served.address, served.secret)

    def _end(self) -> None:
        if not self._closed:
            self._closed = True
            self._parts.table.remove(self._region, self._name)
            self._on_end(self.arn)

    # ---- commands ----

    async def _start(self, resource: Resource, instance_id: str) -> None:
        fleet = self._parts.fleet
        try:
            if await fleet.attach(instance_id, self.listen):
                return
            shape = fleet.shape(resource.document["InstanceType"])
            volume = await in_thread(self._parts.volumes.ensure, self.run.uid)
            role = await self._credentials(instance_id, resource.document["RoleArn"])
            told = await in_thread(
                partial(
                    instance_spec,
                    resource,
                    self.run,
                    resources=self._parts.resources,
                    volume=volume,
                    account_id=self._parts.account_id,
                    shape=shape,
                    server=self._parts.server(),
                    role=role,
                )
            )
            if told.instance_id == instance_id:
                await fleet.start(told, self.listen)
        except AwsError as error:
            await self.apply(lifecycle.Failed(instance_id, error.message))
        except OSError as error:
            await asyncio.sleep(RETRY_S)
            await self.apply(lifecycle.Lost(instance_id, f"The instance could not be started: {error}"))

    async def _credentials(self, instance_id: str, role_arn: str) -> spec.Credentials:
        identities = self._parts.identities
        key = await in_thread(identities.draft, role_arn, f"SageMaker-{self._name}"[:64], None)
        issued = lifecycle.KeyIssued(instance_id, key.access_key_id)
        await self.apply(issued, follow=False, also=partial(identities.store, key))
        return spec.Credentials(
            key.access_key_id, key.secret_access_key, key.session_token or "", key.expires or 0.0
        )

    async def _finish(self, instance_id: str) -> None:
        """End an instance and forget it."""
        start = self._starts.pop(instance_id, None)
        if start is not None and not start.done() and start is not asyncio.current_task():
            start.cancel()
            await asyncio.wait([start])
        last_word = self._last_word(instance_id)
        if not last_word.is_set() and await self._parts.fleet.attach(instance_id, self.listen):
            await self._parts.fleet.tell(instance_id, spec.Shutdown(GRACE_S))
            try:
                await asyncio.wait_for(last_word.wait(), GRACE_S + 5.0)
            except TimeoutError:
                _log.warning(
                    "instance %s of %s did not end in time; its process is killed", instance_id, self.arn
                )
        await self._parts.fleet.release(instance_id)
        self._last_words.pop(instance_id, None)
        for owner, key_id in self.run.keys:
            if owner == instance_id:
                await in_thread(self._parts.identities.revoke, key_id)
        await self.apply(lifecycle.Released(instance_id))

    async def _remove(self) -> None:
        resources = self._parts.resources
        await in_thread(self._parts.volumes.remove, self.run.uid)
        while True:
            resource = await in_thread(resources.get, KIND, self._region, self._name)
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

    def _write_lines(self, lines: tuple[tuple[int, str], ...], part: str) -> None:
        stream = f"{self._name}/{part or 'jupyter.log'}"
        self._parts.logs.put(LOG_GROUP, stream, lines, region=self._region)

    def _write_utilization(self, message: spec.Utilization) -> None:
        values = {
            "CPUUtilization": message.cpu,
            "MemoryUtilization": message.memory,
            "DiskUtilization": message.disk,
        }
        dimensions = {"NotebookInstanceName": self._name}
        data = [Datum(name, dimensions, message.time, value, "Percent") for name, value in values.items()]
        self._parts.metrics.put(LOG_GROUP, data, region=self._region)


def _why(event: lifecycle.Event) -> str:
    match event:
        case lifecycle.Failed(instance_id, reason) | lifecycle.Lost(instance_id, reason):
            return f"{instance_id}: {reason}"[:500]
        case _:
            return type(event).__name__
