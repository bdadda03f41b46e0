"""What instances that serve a model must know of it: copied, because clients delete models while they are served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sagesmith.services.sagemaker._checks import not_available

__all__ = ["model_details", "start_limits"]


def model_details(
    model: Mapping[str, Any], default_role_arn: str, *, several: bool = False
) -> dict[str, Any]:
    """Return what the document of a model says of its containers, its data and its role.

    Of several containers each is in `containers`, and the first is also the model's own.

    Raises:
        AwsError: `ValidationException`: it has several containers although not *several*, or several models.
    """
    name = model["ModelName"]
    containers = model.get("Containers") or [model["PrimaryContainer"]]
    if len(containers) > 1 and not several:
        raise not_available(f"Transforming with a model with several Containers ({name})")
    many = any(container.get("Mode") == "MultiModel" for container in containers)
    if many and (len(containers) > 1 or not several):
        what = "Deploying several Containers" if several else "Transforming with a model"
        raise not_available(f"{what} with Mode MultiModel ({name})")
    details: dict[str, Any] = {
        "model_name": name,
        **_container(containers[0]),
        "role_arn": model.get("ExecutionRoleArn") or default_role_arn,
        "network_isolation": bool(model.get("EnableNetworkIsolation")),
    }
    if many:
        details["multi_model"] = True
        setting = (containers[0].get("MultiModelConfig") or {}).get("ModelCacheSetting")
        details["model_cache"] = setting != "Disabled"
    if len(containers) > 1:
        details["containers"] = [
            {
                "model_data": "",
                **_container(container),
                "hostname": container.get("ContainerHostname") or f"container-{n}",
            }
            for n, container in enumerate(containers, start=1)
        ]
        details["direct"] = (model.get("InferenceExecutionConfig") or {}).get("Mode") == "Direct"
    return details


def _container(container: Mapping[str, Any]) -> dict[str, Any]:
    details: dict[str, Any] = {
        "image": container["Image"],
        "environment": container.get("Environment") or {},
        "hostname": container.get("ContainerHostname") or "",
    }
    source = (container.get("ModelDataSource") or {}).get("S3DataSource")
    if source:
        details["model_data"] = source["S3Uri"]
        details["model_data_type"] = source["S3DataType"]
        details["model_data_compression"] = source["CompressionType"]
    elif container.get("ModelDataUrl"):
        details["model_data"] = container["ModelDataUrl"]
        details["model_data_type"], details["model_data_compression"] = "S3Object", "Gzip"
    return details


def start_limits(given: Mapping[str, Any]) -> dict[str, float]:
    """Return how long the model's data may take to come, and then its container to answer, in seconds.

    *given* is a production variant, or the start parameters of an inference component.
    """
    return {
        "download_timeout_s": float(given.get("ModelDataDownloadTimeoutInSeconds") or 3600),
        "startup_timeout_s": float(given.get("ContainerStartupHealthCheckTimeoutInSeconds") or 240),
    }
