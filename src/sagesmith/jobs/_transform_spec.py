"""From a transform job's document to what its instances are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sagesmith.fleet.api import InstanceShape
from sagesmith.images import Image, code_uri
from sagesmith.instance.model_container import model_container, model_image
from sagesmith.instance.spec import Credentials, InstanceSpec, ServerAddress, TransformTask
from sagesmith.jobs._telemetry import log_stream
from sagesmith.lifecycle.records import MODEL
from sagesmith.lifecycle.transform import TransformRun

__all__ = ["LOG_GROUP", "instance_spec"]

LOG_GROUP: Final = "/aws/sagemaker/TransformJobs"


def instance_spec(
    document: Mapping[str, Any],
    run: TransformRun,
    instance_id: str,
    *,
    region: str,
    account_id: str,
    image: Image,
    shape: InstanceShape,
    server: ServerAddress,
    role: Credentials,
) -> InstanceSpec:
    """Return what the instance *instance_id* of the job that *document* describes is told at its start."""
    details, name = document[MODEL], document["TransformJobName"]
    image = model_image(details, image)
    index = next(i for i, h in enumerate(run.hosts) if h.instance_id == instance_id)
    environment = {**_batch_environment(document), **(document.get("Environment") or {})}
    return InstanceSpec(
        instance_id=instance_id,
        owner_arn=document["TransformJobArn"],
        instance_type=document["TransformResources"]["InstanceType"],
        region=region,
        account_id=account_id,
        server=server,
        agent_token="",  # the fleet makes one
        role=role,
        container=model_container(details, image, region, environment),
        task=_task(document, details, run, index, image, shape),
        log_group=LOG_GROUP,
        log_stream=log_stream(name, run, index + 1),
        host=f"algo-{index + 1}",
        hosts=tuple(f"algo-{n}" for n in range(1, len(run.hosts) + 1)),
        vcpus=shape.vcpus,
        memory_bytes=shape.memory_bytes,
        gpus=shape.gpus,
    )


def _batch_environment(document: Mapping[str, Any]) -> dict[str, str]:
    """What tells a container that it serves a transform job; where the request is silent, the defaults."""
    strategy = document.get("BatchStrategy", "MultiRecord")
    return {
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": str(document.get("MaxPayloadInMB", 6)),
        "SAGEMAKER_BATCH_STRATEGY": "SINGLE_RECORD" if strategy == "SingleRecord" else "MULTI_RECORD",
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": str(document.get("MaxConcurrentTransforms") or 1),
    }


def _task(
    document: Mapping[str, Any],
    details: Mapping[str, Any],
    run: TransformRun,
    index: int,
    image: Image,
    shape: InstanceShape,
) -> TransformTask:
    given, output = document["TransformInput"], document["TransformOutput"]
    source, processing = given["DataSource"]["S3DataSource"], document.get("DataProcessing") or {}
    client, capture = document.get("ModelClientConfig") or {}, document.get("DataCaptureConfig") or {}
    environment = {**details.get("environment", {}), **(document.get("Environment") or {})}
    return TransformTask(
        job_name=document["TransformJobName"],
        uid=run.uid,
        attempt=run.hosts[index].attempt,
        created=run.created,
        input_uri=source["S3Uri"],
        input_type=source["S3DataType"],
        output_uri=output["S3OutputPath"],
        model_data=details.get("model_data", ""),
        model_data_type=details.get("model_data_type", "S3Object"),
        model_data_compression=details.get("model_data_compression", "Gzip"),
        code_uri=code_uri(environment) if image.kind == "framework" else "",
        workers=shape.vcpus,
        invocation_timeout_s=float(client.get("InvocationsTimeoutInSeconds", 600)),
        max_retries=client.get("InvocationsMaxRetries", 3),
        content_type=given.get("ContentType", ""),
        compression=given["CompressionType"],
        split_type=given["SplitType"],
        batch_strategy=document.get("BatchStrategy", ""),
        max_payload_mb=document.get("MaxPayloadInMB"),
        max_concurrent=document.get("MaxConcurrentTransforms", 0),
        accept=output.get("Accept", ""),
        assemble_with=output["AssembleWith"],
        input_filter=processing.get("InputFilter") or "$",
        output_filter=processing.get("OutputFilter") or "$",
        join_source=processing.get("JoinSource") or "None",
        capture_uri=capture.get("DestinationS3Uri", ""),
        identify=bool(capture.get("GenerateInferenceId")),
    )
