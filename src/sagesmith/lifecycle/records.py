"""How the states live in their resources' documents.

A document is what Describe returns, and under `RUN` the state itself, which no client sees. Both are written
in one transaction, so that they never disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sagesmith.lifecycle._codec import from_plain, to_plain
from sagesmith.lifecycle.component import ComponentRun
from sagesmith.lifecycle.endpoint import Deployment, EndpointRun, Phase, Serverless, Status, Variant
from sagesmith.lifecycle.notebook import NotebookRun
from sagesmith.lifecycle.notebook import Status as NotebookStatus
from sagesmith.lifecycle.training import TrainingRun
from sagesmith.lifecycle.transform import TransformRun

__all__ = [
    "MODEL",
    "RUN",
    "component_document",
    "component_run",
    "component_status",
    "endpoint_document",
    "endpoint_run",
    "notebook_document",
    "notebook_run",
    "training_document",
    "training_run",
    "transform_document",
    "transform_run",
]

RUN: Final = "$run"
"""The private member; names with a dollar sign are no member names in any service model."""
MODEL: Final = "$model"
"""The private member of a transform job with the details of its model, as they were when the job was created."""


def training_run(document: Mapping[str, Any]) -> TrainingRun:
    """Return the state of the training job that *document* describes."""
    return from_plain(TrainingRun, document[RUN])


def training_document(document: Mapping[str, Any], run: TrainingRun) -> dict[str, Any]:
    """Return *document* with *run* and the members of DescribeTrainingJob that follow from it."""
    result = {
        **document,
        RUN: to_plain(run),
        "TrainingJobStatus": run.status.value,
        "SecondaryStatus": run.secondary,
        "SecondaryStatusTransitions": [
            {
                "Status": t.status,
                "StartTime": t.start,
                **({} if t.end is None else {"EndTime": t.end}),
                "StatusMessage": t.message,
            }
            for t in run.transitions
        ],
    }
    derived = {
        "TrainingStartTime": run.started,
        "TrainingEndTime": run.ended if run.started is not None else None,
        "TrainingTimeInSeconds": run.seconds,
        "BillableTimeInSeconds": run.seconds,
        "FailureReason": run.failure_reason or None,
    }
    return _with_derived(result, derived)


def transform_run(document: Mapping[str, Any]) -> TransformRun:
    """Return the state of the transform job that *document* describes."""
    return from_plain(TransformRun, document[RUN])


def transform_document(document: Mapping[str, Any], run: TransformRun) -> dict[str, Any]:
    """Return *document* with *run* and the members of DescribeTransformJob that follow from it."""
    derived = {
        "TransformStartTime": run.started,
        "TransformEndTime": run.ended,
        "FailureReason": run.failure_reason or None,
    }
    result = {**document, RUN: to_plain(run), "TransformJobStatus": run.status.value}
    return _with_derived(result, derived)


def _with_derived(result: dict[str, Any], derived: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in derived.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = value
    return result


def notebook_run(document: Mapping[str, Any]) -> NotebookRun:
    """Return the state of the notebook instance that *document* describes."""
    return from_plain(NotebookRun, document[RUN])


def notebook_document(document: Mapping[str, Any], run: NotebookRun) -> dict[str, Any]:
    """Return *document* with *run* and the members of DescribeNotebookInstance that follow from it."""
    result = {**document, RUN: to_plain(run), "NotebookInstanceStatus": run.status.value}
    failed = run.status is NotebookStatus.FAILED
    return _with_derived(result, {"FailureReason": run.failure_reason if failed else None})


def endpoint_run(document: Mapping[str, Any]) -> EndpointRun:
    """Return the state of the endpoint that *document* describes."""
    return from_plain(EndpointRun, document[RUN])


def endpoint_document(document: Mapping[str, Any], run: EndpointRun) -> dict[str, Any]:
    """Return *document* with *run* and the members of DescribeEndpoint that follow from it."""
    result = {**document, RUN: to_plain(run), "EndpointStatus": run.status.value}
    for name in (
        "ProductionVariants",
        "ShadowProductionVariants",
        "PendingDeploymentSummary",
        "FailureReason",
        "DataCaptureConfig",
        "AsyncInferenceConfig",
    ):
        result.pop(name, None)
    shown = run.current or run.pending
    if shown is not None:
        result["EndpointConfigName"] = shown.config_name
        result.update(_summaries(shown))
    if run.current is not None and run.pending is not None:
        result["PendingDeploymentSummary"] = {
            "EndpointConfigName": run.pending.config_name,
            **_summaries(run.pending),
            "StartTime": run.pending_since,
        }
    if run.failure_reason:
        result["FailureReason"] = run.failure_reason
    if shown is not None and shown.asynchronous:
        result["AsyncInferenceConfig"] = dict(shown.asynchronous)
    if shown is not None and shown.capture:
        result["DataCaptureConfig"] = _capture_summary(shown.capture, serves=shown is run.current)
    return result


def component_run(document: Mapping[str, Any]) -> ComponentRun:
    """Return the state of the inference component that *document* describes."""
    return from_plain(ComponentRun, document[RUN])


def component_status(run: ComponentRun) -> str:
    """Return the `InferenceComponentStatus`: one that is rolled back is Updating."""
    return _COMPONENT_STATUS.get(run.status, run.status.value)


def component_document(document: Mapping[str, Any], run: ComponentRun) -> dict[str, Any]:
    """Return *document* with *run* and the members of DescribeInferenceComponent that follow from it."""
    result = {**document, RUN: to_plain(run), "InferenceComponentStatus": component_status(run)}
    result.pop("FailureReason", None)
    shown = run.current or run.pending
    if shown is not None:
        variant = shown.variants[0]
        wanted = (run.pending or shown).variants[0].count
        ready = sum(each.variants[0].ready for each in (run.current, run.pending) if each is not None)
        result["RuntimeConfig"] = {"DesiredCopyCount": wanted, "CurrentCopyCount": ready}
        result["Specification"] = _specification_summary(variant.details)
    if run.failure_reason or run.short:
        result["FailureReason"] = run.failure_reason or run.short
    return result


_COMPONENT_STATUS: Final = {Status.ROLLING_BACK: "Updating", Status.DELETED: "Deleting"}
"""Statuses that inference components do not have."""


def _specification_summary(details: Mapping[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = dict(details["specification"])
    if "Container" in given:
        container = dict(given["Container"])
        image, at = container.pop("Image"), details["resolved"]
        deployed = {"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": at}
        given["Container"] = {"DeployedImage": deployed, **container}
    return given


def _capture_summary(config: Mapping[str, Any], *, serves: bool) -> dict[str, Any]:
    enabled = config.get("EnableCapture", True)
    return {
        "EnableCapture": enabled,
        "CaptureStatus": "Started" if enabled and serves else "Stopped",
        "CurrentSamplingPercentage": config["InitialSamplingPercentage"],
        "DestinationS3Uri": config["DestinationS3Uri"],
        "KmsKeyId": config.get("KmsKeyId", ""),
    }


def _summaries(deployment: Deployment) -> dict[str, Any]:
    found = {"ProductionVariants": [_variant_summary(v) for v in deployment.variants if not v.shadow]}
    shadows = [_variant_summary(v) for v in deployment.variants if v.shadow]
    return {**found, "ShadowProductionVariants": shadows} if shadows else found


def _variant_summary(variant: Variant) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "VariantName": variant.name,
        "CurrentWeight": variant.weight,
        "DesiredWeight": variant.weight,
    }
    if variant.serverless is not None:
        summary |= _concurrency(variant, variant.serverless)
    else:
        summary |= {"CurrentInstanceCount": variant.ready, "DesiredInstanceCount": variant.count}
    containers = variant.details.get("containers") or (variant.details,)
    images = [container["image"] for container in containers if container.get("image")]
    if images:
        at = variant.details.get("resolved", 0.0)
        summary["DeployedImages"] = [
            {"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": at} for image in images
        ]
    if variant.details.get("scaling"):
        summary["ManagedInstanceScaling"] = dict(variant.details["scaling"])
    if variant.details.get("vacant") and variant.details.get("routing"):
        summary["RoutingConfig"] = {"RoutingStrategy": variant.details["routing"]}
    coming = any(i.phase is Phase.PLANNED or i.phase is Phase.STARTED for i in variant.instances)
    if coming and variant.ready < variant.required:
        summary["VariantStatus"] = [{"Status": "Creating"}]
    return summary


def _concurrency(variant: Variant, serverless: Serverless) -> dict[str, Any]:
    wanted = {"MemorySizeInMB": serverless.memory_mb, "MaxConcurrency": serverless.max_concurrency}
    present = min(serverless.provisioned, variant.ready)
    return {
        "CurrentServerlessConfig": {**wanted, **({"ProvisionedConcurrency": present} if present else {})},
        "DesiredServerlessConfig": {
            **wanted,
            **({"ProvisionedConcurrency": serverless.provisioned} if serverless.provisioned else {}),
        },
    }
