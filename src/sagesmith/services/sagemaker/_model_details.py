"""What instances that serve a model must know of it: copied, because clients delete models while they are served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sagesmith.services.sagemaker._checks import not_available

__all__ = ["model_details"]


def model_details(model: Mapping[str, Any], default_role_arn: str) -> dict[str, Any]:
    """Return what the document of a model says of its container, its data and its role.

    Raises:
        AwsError: `ValidationException`: it has several containers, or several models.
    """
    container = _only_container(model)
    details: dict[str, Any] = {
        "model_name": model["ModelName"],
        "image": container["Image"],
        "environment": container.get("Environment") or {},
        "hostname": container.get("ContainerHostname") or "",
        "role_arn": model.get("ExecutionRoleArn") or default_role_arn,
        "network_isolation": bool(model.get("EnableNetworkIsolation")),
    }
    source = (container.get("ModelDataSource") or {}).get("S3DataSource")
    if source:
        details["model_data"] = source["S3Uri"]
        details["model_data_type"] = source["S3DataType"]
        details["model_data_compression"] = source["CompressionType"]
    elif container.get("ModelDataUrl"):
        details["model_data"] = container["ModelDataUrl"]
    return details


def _only_container(model: Mapping[str, Any]) -> Mapping[str, Any]:
    name = model["ModelName"]
    containers = model.get("Containers") or [model["PrimaryContainer"]]
    if len(containers) > 1:
        raise not_available(f"Deploying a model with several Containers ({name})")
    if containers[0].get("Mode") == "MultiModel":
        raise not_available(f"Deploying a model with Mode MultiModel ({name})")
    found: Mapping[str, Any] = containers[0]
    return found
