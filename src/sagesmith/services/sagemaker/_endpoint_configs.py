"""The operations of endpoint configurations, and what a configuration becomes when an endpoint is made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sagesmith.aws.call import Call, operation
from sagesmith.errors import AwsError, validation_error
from sagesmith.lifecycle.endpoint import Deployment, Variant, serverless_variant
from sagesmith.services.sagemaker._checks import check_s3_uri, check_unique, not_available, refuse
from sagesmith.services.sagemaker._component_variants import (
    check_component_variants,
    check_scaling,
    vacant_details,
)
from sagesmith.services.sagemaker._engine import Engine, is_page
from sagesmith.services.sagemaker._kinds import ENDPOINT_CONFIG, MODEL
from sagesmith.services.sagemaker._model_details import model_details, start_limits
from sagesmith.services.sagemaker._serverless_configs import (
    check_serverless,
    check_serverless_model,
    serverless_details,
    serverless_of,
)

__all__ = ["EndpointConfigHandlers", "new_deployment"]

_NOT_THERE_YET: Final = (
    "ExplainerConfig", "CrossRegionTrafficConfig",
)  # fmt: skip
_VARIANT_NOT_THERE_YET: Final = (
    "AcceleratorType", "CoreDumpConfig", "InstancePools",
    "CapacityReservationConfig", "AcceleratorPartitionLayouts", "EnableSSMAccess",
)  # fmt: skip
_ROUTING: Final = ("LEAST_OUTSTANDING_REQUESTS", "RANDOM")
MAX_INSTANCES: Final = 100


class EndpointConfigHandlers:
    """Endpoint configurations: which models an endpoint serves, on how many instances of which type.

    Args:
        check_instance_type: refuses an unknown instance type.
    """

    service = "sagemaker"

    def __init__(self, engine: Engine, *, check_instance_type: Callable[[str], object]) -> None:
        self._engine = engine
        self._check_instance_type = check_instance_type

    @operation("CreateEndpointConfig")
    def create_endpoint_config(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Check the variants and store the configuration."""
        self._engine.check_free(call, ENDPOINT_CONFIG, request["EndpointConfigName"])
        check_serverless(request)
        refuse(request, _NOT_THERE_YET)
        if request.get("DataCaptureConfig"):
            check_s3_uri(
                request["DataCaptureConfig"]["DestinationS3Uri"], "dataCaptureConfig.destinationS3Uri"
            )
        _check_async(request.get("AsyncInferenceConfig") or {}, len(request["ProductionVariants"]))
        variants, shadows = request["ProductionVariants"], request.get("ShadowProductionVariants") or []
        check_unique((v["VariantName"] for v in (*variants, *shadows)), "variant name", "productionVariants")
        check_component_variants(request, (*variants, *shadows))
        for variant in (*variants, *shadows):
            self._check_variant(call, variant)
        if shadows and (len(variants) > 1 or len(shadows) > 1):
            raise validation_error(
                "With ShadowProductionVariants there must be one production variant and one shadow variant, not "
                f"{len(variants)} and {len(shadows)}."
            )
        if sum(_weight(v) for v in variants) <= 0:
            raise validation_error(
                "At least one ProductionVariant must have an InitialVariantWeight above 0."
            )
        document = {
            "EnableNetworkIsolation": False,
            **request,
            "ProductionVariants": [{"InitialVariantWeight": 1.0, **variant} for variant in variants],
        }
        if shadows:
            document["ShadowProductionVariants"] = [{"InitialVariantWeight": 1.0, **v} for v in shadows]
        return {"EndpointConfigArn": self._engine.create(call, ENDPOINT_CONFIG, request, document).arn}

    @operation("DescribeEndpointConfig", inline=True)
    def describe_endpoint_config(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the configuration."""
        return self._engine.describe(call, ENDPOINT_CONFIG, request)

    @operation("ListEndpointConfigs", inline=is_page)
    def list_endpoint_configs(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a page of configurations."""
        return self._engine.list(call, ENDPOINT_CONFIG, request)

    @operation("DeleteEndpointConfig")
    def delete_endpoint_config(self, call: Call, request: Mapping[str, Any]) -> None:
        """Forget the configuration; endpoints that were made from it go on."""
        self._engine.delete(call, ENDPOINT_CONFIG, request)

    def _check_variant(self, call: Call, variant: Mapping[str, Any]) -> None:
        where = f"ProductionVariants.{variant['VariantName']}"
        refuse(variant, _VARIANT_NOT_THERE_YET, where)
        strategy = (variant.get("RoutingConfig") or {}).get("RoutingStrategy", _ROUTING[0])
        if strategy not in _ROUTING:
            raise not_available(f"{where}.RoutingConfig.RoutingStrategy {strategy}")
        if variant.get("ServerlessConfig"):
            if not variant.get("ModelName"):
                raise validation_error(f"{where}.ModelName must be given with ServerlessConfig.")
            check_serverless_model(self._engine.find(call, MODEL, variant["ModelName"]).document)
            return
        check_scaling(variant, where)
        for member in ("InstanceType", "InitialInstanceCount"):
            if not variant.get(member):
                raise validation_error(
                    f"{where}.{member} must be given, and be at least 1 if it is a number (or ServerlessConfig, for an "
                    "endpoint without instances)."
                )
        self._check_instance_type(variant["InstanceType"])
        if variant["InitialInstanceCount"] > MAX_INSTANCES:
            raise AwsError(
                "ResourceLimitExceeded",
                f"The account-level service limit '{variant['InstanceType']} for endpoint usage' is {MAX_INSTANCES} "
                f"Instances, with a request delta of {variant['InitialInstanceCount']} Instances.",
            )
        if variant.get("ModelName"):
            self._engine.find(call, MODEL, variant["ModelName"])


def _check_async(config: Mapping[str, Any], count: int) -> None:
    if not config:
        return
    output = config["OutputConfig"]
    if not output.get("S3OutputPath"):
        raise validation_error("AsyncInferenceConfig.OutputConfig.S3OutputPath must be given.")
    for member in ("S3OutputPath", "S3FailurePath"):
        if output.get(member):
            check_s3_uri(output[member], f"asyncInferenceConfig.outputConfig.{member[0].lower()}{member[1:]}")
    notification = output.get("NotificationConfig") or {}
    refuse(
        notification, ("SuccessTopic", "ErrorTopic"), "AsyncInferenceConfig.OutputConfig.NotificationConfig"
    )
    if count > 1:
        raise validation_error(
            "An endpoint with AsyncInferenceConfig must have exactly one ProductionVariant."
        )


def new_deployment(
    engine: Engine, call: Call, config_name: str, *, default_role_arn: str, now: float
) -> Deployment:
    """Return what an endpoint of that configuration has to bring up.

    Everything an instance needs is copied out of configuration and models, because clients delete both while the
    endpoint serves.

    Raises:
        AwsError: `ValidationException`: configuration or model does not exist, or the model cannot be deployed yet.
    """
    config = engine.find(call, ENDPOINT_CONFIG, config_name)
    variants = []
    shadows = config.document.get("ShadowProductionVariants") or []
    for given in (*config.document["ProductionVariants"], *shadows):
        serverless = serverless_of(given)
        if serverless is not None:
            model = engine.find(call, MODEL, given["ModelName"]).document
            check_serverless_model(model)
            details = _details(given, model, default_role_arn, now)
            variants.append(serverless_variant(given["VariantName"], _weight(given), serverless, details))
            continue
        if given.get("ModelName"):
            model = engine.find(call, MODEL, given["ModelName"]).document
            details = _details(given, model, default_role_arn, now)
        else:
            details = vacant_details(given, config.document, now)
        variants.append(
            Variant(
                name=given["VariantName"],
                weight=_weight(given),
                count=given["InitialInstanceCount"],
                details=details,
                shadow=given in shadows,
            )
        )
    capture = config.document.get("DataCaptureConfig") or {}
    asynchronous = config.document.get("AsyncInferenceConfig") or {}
    return Deployment(config.name, tuple(variants), capture=capture, asynchronous=asynchronous)


def _details(
    variant: Mapping[str, Any], model: Mapping[str, Any], default_role_arn: str, now: float
) -> dict[str, Any]:
    details = {
        **model_details(model, default_role_arn, several=True),
        "resolved": now,
        **start_limits(variant),
    }
    serverless = serverless_of(variant)
    details |= serverless_details(serverless) if serverless else {"instance_type": variant["InstanceType"]}
    routing = (variant.get("RoutingConfig") or {}).get("RoutingStrategy")
    if routing:
        details["routing"] = routing
    return details


def _weight(variant: Mapping[str, Any]) -> float:
    weight = variant.get("InitialVariantWeight")
    return 1.0 if weight is None else float(weight)
