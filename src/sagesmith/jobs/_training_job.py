"""A training job on its way: what it adds to :class:`Job`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sagesmith.fleet.api import InstanceLost
from sagesmith.instance import spec
from sagesmith.jobs._job import Job
from sagesmith.jobs._training_spec import instance_spec
from sagesmith.lifecycle import training as lifecycle
from sagesmith.lifecycle.records import training_document, training_run

__all__ = ["TrainingJob"]


class TrainingJob(Job[lifecycle.TrainingRun]):
    """Drives one training job: its metrics are recalled after a restart, the artifacts of several hosts merged."""

    kind = "training-job"
    run_of = staticmethod(training_run)
    demands = staticmethod(lifecycle.demands)

    async def _recall(self) -> None:
        definitions = self._document["AlgorithmSpecification"].get("MetricDefinitions") or ()
        await self._parts.telemetry.recall(self._region, self._name, self.run, definitions)

    def _document_of(self, document: Mapping[str, Any], run: lifecycle.TrainingRun) -> dict[str, Any]:
        result = training_document(document, run)
        metrics = self._parts.telemetry.final_metrics(self._region, self._name) if run.over else []
        if metrics:
            result["FinalMetricDataList"] = metrics
        return result

    def _step(self, run: lifecycle.TrainingRun, event: Any, at: float) -> lifecycle.TrainingRun:
        return lifecycle.step(run, event, at)[0]

    def _deadline_passed(self) -> lifecycle.DeadlinePassed:
        return lifecycle.DeadlinePassed()

    def _spec(self, instance_id: str, role: spec.Credentials) -> spec.InstanceSpec:
        parts = self._parts
        return instance_spec(
            self._document,
            self.run,
            instance_id,
            region=self._region,
            account_id=parts.account_id,
            image=parts.resolve(self._document["AlgorithmSpecification"]["TrainingImage"]),
            shape=parts.fleet.shape(self._document["ResourceConfig"]["InstanceType"]),
            server=parts.server(),
            role=role,
        )

    async def _perform(self, command: Any) -> None:
        if isinstance(command, lifecycle.Merge):
            await self._parts.fleet.tell(command.instance_id, spec.MergeArtifacts(command.part_uris))
        else:
            await super()._perform(command)

    def _event(self, instance_id: str, message: spec.Message | InstanceLost) -> lifecycle.Event | None:
        match message:
            case spec.Stage(stage, text):
                return lifecycle.StageReached(instance_id, stage, text)
            case spec.Exited(exit_code, failure):
                return lifecycle.ContainerExited(instance_id, exit_code, failure)
            case spec.Uploaded():
                return lifecycle.Uploaded(instance_id, message.part_uri, message.model_uri)
            case spec.Finished(error, client_error):
                return lifecycle.Finished(instance_id, error, client_error)
            case InstanceLost(reason, shutdown):
                return lifecycle.Lost(instance_id, reason, shutdown)
            case _:
                return None

    def _why(self, event: Any) -> str:
        match event:
            case lifecycle.ContainerExited(instance_id, exit_code):
                return f"{instance_id}: the container ended with exit code {exit_code}"
            case lifecycle.StageReached(instance_id, stage):
                return f"{instance_id}: {stage}"
            case lifecycle.Uploaded(instance_id):
                return f"{instance_id}: Uploaded"
            case _:
                return super()._why(event)
