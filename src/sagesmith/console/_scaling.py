"""How an endpoint scales: the limits and policies of its variants, and what was scaled when and why."""

from __future__ import annotations

from typing import Any, Final

from sagesmith.console._pages import Context, fragment
from sagesmith.sdk import SdkError

__all__ = ["scaling"]

_SERVICE: Final = {"ServiceNamespace": "sagemaker"}
_SERVERLESS: Final = "sagemaker:variant:DesiredProvisionedConcurrency"
_SHOWN: Final = 50


def scaling(context: Context, endpoint: str, variants: list[str]) -> str:
    """Return as a piece of HTML what Application Auto Scaling says of the variants, the newest activity first."""
    targets: list[dict[str, Any]] = []
    activities: list[dict[str, Any]] = []
    trouble = ""
    ids = {f"endpoint/{endpoint}/variant/{variant}": variant for variant in variants}
    try:
        found = (
            _call(context, "describe_scalable_targets", "ScalableTargets", ResourceIds=list(ids))
            if ids
            else []
        )
        for target in found:
            resource = target["ResourceId"]
            policies = _call(context, "describe_scaling_policies", "ScalingPolicies", ResourceId=resource)
            noun = "provisioned containers" if target["ScalableDimension"] == _SERVERLESS else "instances"
            told = {"variant": ids[resource], "noun": noun, "policies": [_told(each) for each in policies]}
            targets.append(target | told)
        for resource, variant in ids.items():
            past = _call(context, "describe_scaling_activities", "ScalingActivities", ResourceId=resource)
            activities += [activity | {"variant": variant} for activity in past]
    except SdkError as error:
        trouble = str(error)
    activities.sort(key=lambda activity: activity["StartTime"], reverse=True)
    return fragment("endpoint_scaling.html", targets=targets, activities=activities[:_SHOWN], trouble=trouble)


def _call(context: Context, operation: str, key: str, **request: Any) -> list[dict[str, Any]]:
    """Return the first page: 50 items, of activities the newest."""
    found: list[dict[str, Any]] = context.call("application-autoscaling", operation, **_SERVICE, **request)[
        key
    ]
    return found


def _told(policy: dict[str, Any]) -> str:
    """Return a policy in words."""
    name = policy["PolicyName"]
    tracked = policy.get("TargetTrackingScalingPolicyConfiguration")
    if tracked is None:
        return f"{name}: in steps"
    metric = tracked.get("PredefinedMetricSpecification", {}).get("PredefinedMetricType") or tracked.get(
        "CustomizedMetricSpecification", {}
    ).get("MetricName", "a metric")
    return f"{name}: keeps {metric} at {tracked['TargetValue']:g}"
