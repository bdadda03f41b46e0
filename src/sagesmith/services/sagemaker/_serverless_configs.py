"""`ServerlessConfig` of a production variant: what it may be combined with, and its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sagesmith.errors import AwsError, validation_error
from sagesmith.lifecycle.endpoint import Serverless, Variant

__all__ = [
    "check_serverless",
    "check_serverless_model",
    "check_update",
    "serverless_details",
    "serverless_of",
]

_VARIANT: Final = (
    "InstanceType", "InitialInstanceCount", "AcceleratorType", "VolumeSizeInGB", "ManagedInstanceScaling",
    "InferenceAmiVersion", "RoutingConfig", "InstancePools", "CapacityReservationConfig", "CoreDumpConfig",
)  # fmt: skip
_CONFIG: Final[Mapping[str, str]] = {
    "AsyncInferenceConfig": "asynchronous inference",
    "ShadowProductionVariants": "shadow variants",
    "ExplainerConfig": "explainers",
    "VpcConfig": "VPC configuration",
    "EnableNetworkIsolation": "network isolation",
}
_STEP_MB: Final = 1024


def check_serverless(request: Mapping[str, Any]) -> None:
    """Refuse what an endpoint configuration with a serverless variant cannot have.

    Raises:
        AwsError: `ValidationException`, saying which member and why.
    """
    variants = (*request["ProductionVariants"], *(request.get("ShadowProductionVariants") or ()))
    serverless = [variant for variant in variants if variant.get("ServerlessConfig")]
    if not serverless:
        return
    for member, name in _CONFIG.items():
        if request.get(member):
            raise _unsupported(name, f"leave {member} out")
    if (request.get("DataCaptureConfig") or {}).get("EnableCapture", bool(request.get("DataCaptureConfig"))):
        raise _unsupported("data capture", "leave DataCaptureConfig out")
    if len(variants) > 1:
        raise _unsupported("multiple production variants", "give one ProductionVariant")
    _check_variant(serverless[0])


def check_serverless_model(model: Mapping[str, Any]) -> None:
    """Refuse a model that a serverless endpoint cannot serve.

    Raises:
        AwsError: `ValidationException`, saying why.
    """
    name, containers = model["ModelName"], model.get("Containers") or [model["PrimaryContainer"]]
    if len(containers) > 1:
        raise _unsupported("inference pipelines", f"give a model with one container, which {name} is not")
    if containers[0].get("Mode") == "MultiModel":
        raise _unsupported("multi-model containers", f"give a model of Mode SingleModel, which {name} is not")
    if model.get("VpcConfig"):
        raise _unsupported("VPC configuration", f"give a model without VpcConfig, which {name} has")
    if model.get("EnableNetworkIsolation"):
        raise _unsupported(
            "network isolation", f"give a model without EnableNetworkIsolation, which {name} has"
        )


def serverless_of(variant: Mapping[str, Any]) -> Serverless | None:
    """Return the serverless configuration of a variant that was checked, None if it has instances."""
    config = variant.get("ServerlessConfig")
    if not config:
        return None
    return Serverless(
        config["MemorySizeInMB"], config["MaxConcurrency"], config.get("ProvisionedConcurrency") or 0
    )


def serverless_details(serverless: Serverless) -> dict[str, Any]:
    """Return what the start of a container must know instead of an instance type."""
    return {"instance_type": f"serverless.{serverless.memory_mb}MB", "serverless": True}


def check_update(wanted: Mapping[str, Any], variant: Variant) -> tuple[int | None, int | None]:
    """Return the new maximum and provisioned concurrency of *variant* (None: as it is), as *wanted* asks.

    Raises:
        AwsError: `ValidationException`, it is not serverless or that makes no sense; or, the other way round, it is
            serverless and *wanted* asks for instances.
    """
    config, serverless = wanted.get("ServerlessUpdateConfig"), variant.serverless
    if serverless is None:
        if config:
            raise validation_error(
                f"ServerlessUpdateConfig is for serverless variants, which {variant.name} is not: give DesiredInstanceCount."
            )
        return None, None
    if wanted.get("DesiredInstanceCount") is not None:
        raise validation_error(
            f"DesiredInstanceCount is not supported for serverless variant {variant.name}, whose containers come and "
            "go with the requests: give ServerlessUpdateConfig."
        )
    most, provisioned = (config or {}).get("MaxConcurrency"), (config or {}).get("ProvisionedConcurrency")
    _check_numbers(variant.name, most or serverless.max_concurrency, provisioned or serverless.provisioned)
    return most, provisioned


def _check_variant(variant: Mapping[str, Any]) -> None:
    name, config = variant["VariantName"], variant["ServerlessConfig"]
    given = [member for member in _VARIANT if variant.get(member)]
    if given:
        raise validation_error(
            f"Production variant {name} cannot have both ServerlessConfig and {', '.join(given)}: "
            "serverless endpoints have no instances (nor GPUs). Leave one of them out."
        )
    if config["MemorySizeInMB"] % _STEP_MB:
        raise validation_error(
            f"ServerlessConfig.MemorySizeInMB of variant {name} must be 1024, 2048, 3072, 4096, 5120 or 6144, not "
            f"{config['MemorySizeInMB']}."
        )
    _check_numbers(name, config["MaxConcurrency"], config.get("ProvisionedConcurrency") or 0)


def _check_numbers(name: str, most: int, provisioned: int) -> None:
    if provisioned > most:
        raise validation_error(
            f"ProvisionedConcurrency ({provisioned}) of variant {name} must be less than or equal to "
            f"MaxConcurrency ({most})."
        )


def _unsupported(what: str, remedy: str) -> AwsError:
    return validation_error(f"Serverless endpoints do not support {what}: {remedy}.")
