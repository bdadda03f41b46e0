"""What an endpoint's instance is told at its start, from the details that its variant was deployed with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sagesmith.fleet.api import InstanceShape
from sagesmith.images import Image, code_uri
from sagesmith.instance.model_container import model_container, model_image
from sagesmith.instance.spec import (
    ContainerSpec,
    Credentials,
    InstanceSpec,
    ServedContainer,
    ServerAddress,
    ServingTask,
)

__all__ = ["instance_spec", "log_group"]


def log_group(endpoint: str) -> str:
    """Return the log group of an endpoint's containers."""
    return f"/aws/sagemaker/Endpoints/{endpoint}"


def instance_spec(
    details: Mapping[str, Any],
    instance_id: str,
    *,
    endpoint: str,
    endpoint_arn: str,
    variant: str,
    region: str,
    account_id: str,
    resolve: Callable[[str], Image],
    shape: InstanceShape,
    server: ServerAddress,
    role: Credentials,
    answer_s: float,
) -> InstanceSpec:
    """Return the specification of one instance of *variant*, whose model may take *answer_s* for an answer.

    Raises:
        AwsError: nothing is known of an image any more.
    """
    several: Sequence[Mapping[str, Any]] = details.get("containers") or ()
    if details.get("vacant"):
        containers: tuple[ServedContainer, ...] = (ServedContainer("", ContainerSpec("process", "", ())),)
    else:
        containers = tuple(_container({**details, **each}, resolve, region) for each in several or ({},))
    first = containers[0]
    return InstanceSpec(
        instance_id=instance_id,
        owner_arn=endpoint_arn,
        instance_type=details["instance_type"],
        region=region,
        account_id=account_id,
        server=server,
        agent_token="",  # the fleet makes one
        role=role,
        container=first.container,
        task=ServingTask(
            endpoint_name=endpoint,
            variant_name=variant,
            model_data=first.model_data,
            model_data_type=first.model_data_type,
            model_data_compression=first.model_data_compression,
            startup_timeout_s=details.get("startup_timeout_s", 240.0),
            download_timeout_s=details.get("download_timeout_s", 3600.0),
            invocation_timeout_s=answer_s,
            workers=1 if details.get("serverless") else shape.vcpus,  # it gets one request at a time
            code_uri=first.code_uri,
            containers=containers if several else (),
            direct=bool(details.get("direct")),
            many=bool(details.get("multi_model")),
            cached=details.get("model_cache", True),
            vacant=bool(details.get("vacant")),
            limited=bool(details.get("serverless")),
        ),
        log_group=log_group(endpoint),
        log_stream=f"{variant}/{instance_id}",
        vcpus=shape.vcpus,
        memory_bytes=shape.memory_bytes,
        gpus=shape.gpus,
    )


def _container(details: Mapping[str, Any], resolve: Callable[[str], Image], region: str) -> ServedContainer:
    image = model_image(details, resolve(details["image"]))
    return ServedContainer(
        details.get("hostname", ""),
        model_container(details, image, region),
        model_data=details.get("model_data", ""),
        model_data_type=details.get("model_data_type", "S3Object"),
        model_data_compression=details.get("model_data_compression", "Gzip"),
        code_uri=code_uri(details.get("environment", {})) if image.kind == "framework" else "",
    )
