"""A transform job on its way: what it adds to :class:`Job`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sagesmith.fleet.api import InstanceLost
from sagesmith.instance import spec
from sagesmith.jobs._job import Job
from sagesmith.jobs._transform_spec import instance_spec
from sagesmith.lifecycle import transform as lifecycle
from sagesmith.lifecycle.jobs import Finished, Lost
from sagesmith.lifecycle.records import MODEL, transform_document, transform_run

__all__ = ["TransformJob"]


class TransformJob(Job[lifecycle.TransformRun]):
    """Drives one transform job."""

    kind = "transform-job"
    run_of = staticmethod(transform_run)
    demands = staticmethod(lifecycle.demands)

    def _document_of(self, document: Mapping[str, Any], run: lifecycle.TransformRun) -> dict[str, Any]:
        return transform_document(document, run)

    def _step(self, run: lifecycle.TransformRun, event: Any, at: float) -> lifecycle.TransformRun:
        return lifecycle.step(run, event, at)

    def _role_arn(self) -> str:
        role: str = self._document[MODEL]["role_arn"]
        return role

    def _spec(self, instance_id: str, role: spec.Credentials) -> spec.InstanceSpec:
        parts = self._parts
        return instance_spec(
            self._document,
            self.run,
            instance_id,
            region=self._region,
            account_id=parts.account_id,
            image=parts.resolve(self._document[MODEL]["image"]),
            shape=parts.fleet.shape(self._document["TransformResources"]["InstanceType"]),
            server=parts.server(),
            role=role,
        )

    def _event(self, instance_id: str, message: spec.Message | InstanceLost) -> lifecycle.Event | None:
        match message:
            case spec.Finished(error, client_error):
                return Finished(instance_id, error, client_error)
            case InstanceLost(reason, shutdown):
                return Lost(instance_id, reason, shutdown)
            case _:
                return None
