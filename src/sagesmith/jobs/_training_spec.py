"""From a training job's document to what its instances are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sagesmith.fleet.api import InstanceShape
from sagesmith.images import Image, code_uri, for_training
from sagesmith.instance.spec import (
    ChannelSpec,
    ContainerSpec,
    Credentials,
    InstanceSpec,
    ServerAddress,
    TrainingTask,
)
from sagesmith.jobs._telemetry import log_stream
from sagesmith.lifecycle.training import TrainingRun

__all__ = ["LOG_GROUP", "instance_spec"]

LOG_GROUP: Final = "/aws/sagemaker/TrainingJobs"


def instance_spec(
    document: Mapping[str, Any],
    run: TrainingRun,
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
    name, arn = document["TrainingJobName"], document["TrainingJobArn"]
    image = for_training(
        image,
        document.get("HyperParameters") or {},
        [channel["ChannelName"] for channel in document.get("InputDataConfig") or ()],
    )
    number = 1 + next(i for i, h in enumerate(run.hosts) if h.instance_id == instance_id)
    return InstanceSpec(
        instance_id=instance_id,
        owner_arn=arn,
        instance_type=document["ResourceConfig"]["InstanceType"],
        region=region,
        account_id=account_id,
        server=server,
        agent_token="",  # the fleet makes one
        role=role,
        container=_container(document, image, region),
        task=_task(document, image),
        log_group=LOG_GROUP,
        log_stream=log_stream(name, run, number),
        host=f"algo-{number}",
        hosts=tuple(f"algo-{n}" for n in range(1, len(run.hosts) + 1)),
        vcpus=shape.vcpus,
        memory_bytes=shape.memory_bytes,
        gpus=shape.gpus,
    )


def _container(document: Mapping[str, Any], image: Image, region: str) -> ContainerSpec:
    algorithm = document["AlgorithmSpecification"]
    entrypoint = tuple(algorithm.get("ContainerEntrypoint") or ())
    arguments = tuple(algorithm.get("ContainerArguments") or ())
    is_process = image.runtime == "process"
    if is_process:
        own = (*entrypoint, *arguments)
        if (
            entrypoint and image.kind == "framework"
        ):  # such as the start scripts of SDK 3, which install packages
            own = (*image.train_command[:-1], "run", *own)
        command = own if entrypoint else (*image.train_command, *arguments)
    else:
        command = arguments if entrypoint or arguments else ("train",)
    return ContainerSpec(
        runtime=image.runtime,
        image=image.uri,
        command=command,
        entrypoint=() if is_process else entrypoint,
        environment={
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "TRAINING_JOB_NAME": document["TrainingJobName"],
            "TRAINING_JOB_ARN": document["TrainingJobArn"],
            **(document.get("Environment") or {}),
            **image.environment,
        },
        network=not document.get("EnableNetworkIsolation", False),
        warm="" if entrypoint or arguments else image.warm,
        python=image.python if image.kind == "framework" else None,
    )


def _task(document: Mapping[str, Any], image: Image) -> TrainingTask:
    name = document["TrainingJobName"]
    algorithm, output = document["AlgorithmSpecification"], document["OutputDataConfig"]
    checkpoints = document.get("CheckpointConfig") or {}
    definitions = algorithm.get("MetricDefinitions") or ()
    return TrainingTask(
        job_name=name,
        job_arn=document["TrainingJobArn"],
        hyperparameters=document.get("HyperParameters") or {},
        channels=tuple(_channel(c, algorithm) for c in document.get("InputDataConfig") or ()),
        output_uri=f"{output['S3OutputPath'].rstrip('/')}/{name}/output",
        compression=output.get("CompressionType") or "GZIP",
        checkpoint_uri=checkpoints.get("S3Uri", ""),
        checkpoint_path=checkpoints.get("LocalPath") or "/opt/ml/checkpoints",
        metric_definitions=tuple((d["Name"], d["Regex"]) for d in definitions),
        code_uri=code_uri(document.get("HyperParameters") or {}) if image.kind == "framework" else "",
    )


def _channel(channel: Mapping[str, Any], algorithm: Mapping[str, Any]) -> ChannelSpec:
    source = channel["DataSource"]["S3DataSource"]
    return ChannelSpec(
        name=channel["ChannelName"],
        s3_uri=source["S3Uri"],
        s3_data_type=source["S3DataType"],
        distribution=source.get("S3DataDistributionType") or "FullyReplicated",
        input_mode=channel.get("InputMode") or algorithm["TrainingInputMode"],
        content_type=channel.get("ContentType") or "",
        compression=channel.get("CompressionType") or "None",
        record_wrapper=channel.get("RecordWrapperType") or "None",
        attribute_names=tuple(source.get("AttributeNames") or ()),
        shuffle_seed=(channel.get("ShuffleConfig") or {}).get("Seed"),
    )
