"""What an endpoint's instance is told at its start, from the details that its variant was deployed with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sagesmith.fleet.api import InstanceShape
from sagesmith.images import Image, code_uri, for_serving
from sagesmith.instance.spec import ContainerSpec, Credentials, InstanceSpec, ServerAddress, ServingTask

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
    image: Image,
    shape: InstanceShape,
    server: ServerAddress,
    role: Credentials,
) -> InstanceSpec:
    """Return the specification of one instance of *variant*."""
    environment = details.get("environment", {})
    image = for_serving(image, environment)
    is_process, is_framework = image.runtime == "process", image.kind == "framework"
    return InstanceSpec(
        instance_id=instance_id,
        owner_arn=endpoint_arn,
        instance_type=details["instance_type"],
        region=region,
        account_id=account_id,
        server=server,
        agent_token="",  # the fleet makes one
        role=role,
        container=ContainerSpec(
            runtime=image.runtime,
            image=image.uri,
            command=image.serve_command if is_process else ("serve",),
            environment={
                "AWS_REGION": region,
                "AWS_DEFAULT_REGION": region,
                "SAGEMAKER_REGION": region,
                **environment,
                **image.environment,
            },
            network=not details.get("network_isolation", False),
            warm=image.warm,
            hostname=details.get("hostname", ""),
            python=image.python if is_framework else None,
        ),
        task=ServingTask(
            endpoint_name=endpoint,
            variant_name=variant,
            model_data=details.get("model_data", ""),
            model_data_type=details.get("model_data_type", "S3Object"),
            model_data_compression=details.get("model_data_compression", "Gzip"),
            startup_timeout_s=details.get("startup_timeout_s", 240.0),
            workers=shape.vcpus,
            code_uri=code_uri(environment) if is_framework else "",
        ),
        log_group=log_group(endpoint),
        log_stream=f"{variant}/{instance_id}",
        vcpus=shape.vcpus,
        memory_bytes=shape.memory_bytes,
        gpus=shape.gpus,
    )
