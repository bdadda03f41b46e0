"""Production variants without a model: their instances are for the copies of inference components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sagesmith.errors import validation_error
from sagesmith.services.sagemaker._checks import not_available, refuse

__all__ = ["check_component_variants", "check_scaling", "vacant_details"]


def check_component_variants(request: Mapping[str, Any], variants: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the endpoint configuration is one for inference components: none of its *variants* has a model.

    Raises:
        AwsError: `ValidationException`, it makes no sense as such.
    """
    without = [variant["VariantName"] for variant in variants if not variant.get("ModelName")]
    if not without:
        return False
    if len(without) < len(variants):
        raise validation_error(
            f"ProductionVariants.{without[0]}.ModelName must be given, or no variant may have a ModelName: models come "
            "to an endpoint without as inference components."
        )
    if not request.get("ExecutionRoleArn"):
        raise validation_error(
            "ExecutionRoleArn must be given for an endpoint configuration whose variants have no ModelName."
        )
    refuse(
        request, ("AsyncInferenceConfig", "ShadowProductionVariants"), "An endpoint for inference components:"
    )
    return True


def check_scaling(variant: Mapping[str, Any], where: str) -> None:
    """Refuse `ManagedInstanceScaling` that makes no sense.

    Raises:
        AwsError: `ValidationException`.
    """
    scaling = variant.get("ManagedInstanceScaling")
    if not scaling:
        return
    where = f"{where}.ManagedInstanceScaling"
    if variant.get("ModelName"):
        raise not_available(f"{where} of a variant with a ModelName")
    if (scaling.get("ScaleInPolicy") or {}).get("Strategy") == "CONSOLIDATION":
        raise not_available(f"{where}.ScaleInPolicy.Strategy CONSOLIDATION")
    if scaling.get("Status", "DISABLED") != "ENABLED":
        return
    least, most = scaling.get("MinInstanceCount", 1), scaling.get("MaxInstanceCount")
    if most is None:
        raise validation_error(f"{where}.MaxInstanceCount must be given.")
    if least > most:
        raise validation_error(
            f"{where}.MinInstanceCount ({least}) must not be above MaxInstanceCount ({most})."
        )
    if not least <= variant.get("InitialInstanceCount", 1) <= most:
        raise validation_error(
            f"InitialInstanceCount ({variant['InitialInstanceCount']}) must be between {where}.MinInstanceCount "
            f"({least}) and MaxInstanceCount ({most})."
        )


def vacant_details(variant: Mapping[str, Any], config: Mapping[str, Any], now: float) -> dict[str, Any]:
    """Return what the start of a variant's instances needs, and the components that will be on them."""
    details: dict[str, Any] = {
        "vacant": True,
        "instance_type": variant["InstanceType"],
        "role_arn": config["ExecutionRoleArn"],
        "network_isolation": bool(config.get("EnableNetworkIsolation")),
        "resolved": now,
    }
    routing = (variant.get("RoutingConfig") or {}).get("RoutingStrategy")
    if routing:
        details["routing"] = routing
    if variant.get("ManagedInstanceScaling"):
        details["scaling"] = dict(variant["ManagedInstanceScaling"])
    return details
