"""One inference component at work: an endpoint's worker whose instances are copies, each on an instance of an endpoint.

What differs from an endpoint: a copy starts once the register of copies (`_tenants`) has found a home for it, and waits
or fails where there is none; it writes to logs and metrics of its own; and the gateway knows it by its component.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import ceil
from typing import Any, Final, cast

from sagesmith.hosting._endpoint import AnyEvent, EndpointWorker
from sagesmith.hosting._gateway_components import component_key
from sagesmith.hosting._gateway_table import EMPTY
from sagesmith.hosting._serving_spec import instance_spec
from sagesmith.hosting._tenants import Found, Tenants
from sagesmith.hosting.parts import Parts
from sagesmith.instance import spec
from sagesmith.lifecycle import component, endpoint
from sagesmith.lifecycle.component import ComponentRun
from sagesmith.lifecycle.placement import Need
from sagesmith.lifecycle.records import component_document, component_run, component_status
from sagesmith.store.resources import Resource

__all__ = ["COMPONENT_KIND", "ComponentWorker", "log_group"]

COMPONENT_KIND: Final = "inference-component"
_MB: Final = 1024**2


def log_group(component: str) -> str:
    """Return the log group of an inference component's copies."""
    return f"/aws/sagemaker/InferenceComponents/{component}"


class ComponentWorker(EndpointWorker):
    """Drives one inference component that has been claimed.

    Args:
        tenants: who is on which instance.
    """

    kind = COMPONENT_KIND

    def __init__(
        self, parts: Parts, tenants: Tenants, resource: Resource, on_end: Callable[[str], None]
    ) -> None:
        super().__init__(parts, resource, on_end)
        self.endpoint: str = resource.document["EndpointName"]
        self.variant: str = resource.document["VariantName"]
        self.region = resource.region
        self._component_of = self.endpoint
        self._routed_as = component_key(resource.name)
        self._tenants = tenants

    @property
    def state(self) -> ComponentRun:
        """The component's state as it was last read."""
        return cast(ComponentRun, self.run)

    # ---- from outside ----

    async def recover(self) -> None:
        """Take up the component after a restart: copies go on, or are replaced, or move if their home is gone."""
        await super().recover()
        await self.rehome()

    async def rehome(self) -> None:
        """The endpoint's instances changed: move what must move, and look again for what had no room."""
        usable = self._tenants.usable(self.region, self.endpoint, self.variant)
        await self.apply(component.Homes(usable), follow=False)
        self.retry()
        await self.follow()

    def retry(self) -> None:
        """Let copies without a home look for one again when the row is looked at next."""
        homes = dict(self.state.homes)
        self._performed -= {
            c for c in self._performed if isinstance(c, endpoint.Start) and c.instance_id not in homes
        }

    @property
    def is_waiting(self) -> bool:
        """Whether copies are waiting for a home."""
        homes = dict(self.state.homes)
        return any(
            c.phase is endpoint.Phase.PLANNED and c.instance_id not in homes for c in self.run.instances
        )

    # ---- what differs from an endpoint ----

    def _read(self, document: Mapping[str, Any]) -> ComponentRun:
        return component_run(document)

    def _write(self, document: Mapping[str, Any], run: endpoint.EndpointRun) -> dict[str, Any]:
        return component_document(document, cast(ComponentRun, run))

    def _status(self, run: endpoint.EndpointRun) -> str:
        return component_status(cast(ComponentRun, run))

    def _step(self, run: endpoint.EndpointRun, event: AnyEvent, at: float) -> endpoint.EndpointRun:
        return component.step(cast(ComponentRun, run), event, at)

    def _told(self, run: endpoint.EndpointRun | None) -> None:
        if run is None:
            self._tenants.forget(self.arn)

    def _features(self, variant: endpoint.Served, run: endpoint.EndpointRun) -> list[str]:
        wanted = sum(v.wanted for v in run.current.variants) if run.current is not None else 0
        return [*super()._features(variant, run), *([] if wanted or variant.instances else [EMPTY])]

    async def _start(self, instance_id: str, variant: str, pending: bool) -> None:
        home = self.state.home_of(instance_id)
        if not home:
            deployment = self.run.pending if pending else self.run.current
            if deployment is None:
                return
            found = self._tenants.place(
                self.region, self.endpoint, variant, self.arn, instance_id, deployment.variants[0].details
            )
            if found.outcome is Found.WAIT:
                return
            if found.outcome is Found.NO_ROOM:
                await self.apply(component.NoRoom(instance_id, found.reason))
                return
            await self.apply(component.Placed(instance_id, found.home), follow=False)
            if self.state.home_of(instance_id) != found.home:  # it is not wanted any more
                self._tenants.leave(instance_id)
                return
        await super()._start(instance_id, variant, pending)

    async def _finish(self, instance_id: str) -> None:
        await super()._finish(instance_id)
        self._tenants.leave(instance_id)

    def _told_at_start(
        self, instance_id: str, variant: endpoint.Variant, role: spec.Credentials
    ) -> spec.InstanceSpec:
        details = variant.details
        home = self.state.home_of(instance_id)
        instance_type = self._tenants.instance_type(home) or details["instance_type"]
        shape = self._parts.fleet.shape(instance_type)
        need = Need.of(details["requirements"])
        most = details["requirements"].get("MaxMemoryRequiredInMb")
        shape = replace(
            shape,
            vcpus=max(1, min(ceil(need.cpus), shape.vcpus)),
            memory_bytes=min(most * _MB, shape.memory_bytes) if most else shape.memory_bytes,
            gpus=min(ceil(need.gpus), shape.gpus),
        )
        told = instance_spec(
            {**details, "instance_type": instance_type},
            instance_id,
            endpoint=self.endpoint,
            endpoint_arn=self.arn,
            variant=variant.name,
            region=self._region,
            account_id=self._parts.account_id,
            resolve=self._parts.resolve,
            shape=shape,
            server=self._parts.server(),
            role=role,
            answer_s=self._parts.answer_s,
        )
        task = cast(spec.ServingTask, told.task)
        return replace(told, task=replace(task, limited=bool(most)), log_group=self._log_group(), inside=home)

    # ---- logs and metrics ----

    def _log_group(self) -> str:
        return log_group(self._name)

    def _write_utilization(self, instance_id: str, message: spec.Utilization) -> None:
        deployment = self.run.current or self.run.pending
        if deployment is None:
            return
        need = Need.of(deployment.variants[0].details["requirements"])
        self._write_percent(
            "/aws/sagemaker/InferenceComponents",
            {"InferenceComponentName": self._name},
            {
                # Of what was asked for, or of one vCPU.
                "CPUUtilizationNormalized": message.cpu / (need.cpus or 1.0),
                "MemoryUtilizationNormalized": message.memory,
            },
            message.time,
        )
