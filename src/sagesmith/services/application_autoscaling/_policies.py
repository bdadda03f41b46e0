"""Scaling policies. A target tracking policy gets two alarms of its own, one above and one below its target."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from sagesmith.aws.call import Call, operation
from sagesmith.services.application_autoscaling._common import (
    invalid,
    listed,
    not_found,
    registered,
    target_of,
)
from sagesmith.store.alarms import Alarms
from sagesmith.store.resources import Resource
from sagesmith.store.scaling import NOTES, POLICY, Scaling, Target

__all__ = ["PolicyHandlers"]

_PREDEFINED: Final = {
    "sagemaker:variant:DesiredInstanceCount": (
        "SageMakerVariantInvocationsPerInstance", "InvocationsPerInstance", "Sum", ("EndpointName", "VariantName"),
    ),
    "sagemaker:variant:DesiredProvisionedConcurrency": (
        "SageMakerVariantProvisionedConcurrencyUtilization", "ServerlessProvisionedConcurrencyUtilization", "Average",
        ("EndpointName", "VariantName"),
    ),
    "sagemaker:inference-component:DesiredCopyCount": (
        "SageMakerInferenceComponentInvocationsPerCopy", "InvocationsPerCopy", "Sum", ("InferenceComponentName",),
    ),
}  # fmt: skip
"""By dimension the predefined metric that tracks it; the metric that it is, its statistic, and its dimensions."""

_LOW_PART: Final = 0.9
"""The alarm below the target rings at that part of it, so that the two never call in turn."""
_HIGH_PERIODS: Final = 3
_LOW_PERIODS: Final = 15
_ADJUSTMENTS: Final = ("ChangeInCapacity", "PercentChangeInCapacity", "ExactCapacity")


class PolicyHandlers:
    """Scaling policies."""

    service = "application-autoscaling"

    def __init__(self, scaling: Scaling, alarms: Alarms, *, period_s: int) -> None:
        self._scaling = scaling
        self._alarms = alarms
        self._period_s = period_s

    @operation("PutScalingPolicy")
    def put_scaling_policy(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make a policy or change one, and the alarms that call it."""
        target = target_of(call, request)
        registered(self._scaling, target)
        name = request["PolicyName"]
        before = self._scaling.get(POLICY, target, name)
        kind = request.get("PolicyType") or (before.document["PolicyType"] if before else "StepScaling")
        settings: dict[str, Any] = {"PolicyType": kind}
        alarms: list[tuple[str, dict[str, Any]]] = []
        if kind == "TargetTrackingScaling":
            tracking = request.get("TargetTrackingScalingPolicyConfiguration")
            if not tracking:
                raise invalid("TargetTrackingScalingPolicyConfiguration must be given for this policy type.")
            settings["TargetTrackingScalingPolicyConfiguration"] = tracking
            settings[NOTES] = {"low_part": _LOW_PART}
            alarms = self._tracking_alarms(target, tracking)
        elif kind == "StepScaling":
            step = request.get("StepScalingPolicyConfiguration")
            if not step:
                raise invalid("StepScalingPolicyConfiguration must be given for this policy type.")
            _check_steps(step)
            settings["StepScalingPolicyConfiguration"] = step
        else:
            raise invalid(
                f"Policies of type {kind} are not supported by Sagesmith yet. Use TargetTrackingScaling or StepScaling."
            )
        settings["Alarms"] = [
            {"AlarmName": alarm, "AlarmARN": self._alarms.arn(call.region, alarm)} for alarm, _ in alarms
        ]
        put = self._scaling.put_policy(target, name, settings)
        if before is not None:
            self._delete_alarms(call, before)
        arn = put.document["PolicyARN"]
        for alarm, members in alarms:
            described = f"DO NOT EDIT OR DELETE. For TargetTrackingScaling policy {arn}."
            self._alarms.put(
                call.region, alarm, {**members, "AlarmActions": [arn], "AlarmDescription": described}
            )
        return {"PolicyARN": arn, "Alarms": settings["Alarms"]}

    @operation("DescribeScalingPolicies")
    def describe_scaling_policies(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a page of policies, each with the alarms that call it."""
        found = self._scaling.list(POLICY, call.region)
        wanted = request.get("PolicyNames")
        if wanted:
            found = [policy for policy in found if policy.document["PolicyName"] in wanted]
        return listed(call, request, found, "ScalingPolicies")

    @operation("DeleteScalingPolicy")
    def delete_scaling_policy(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Remove a policy and the alarms that were made for it."""
        target = target_of(call, request)
        found = self._scaling.get(POLICY, target, request["PolicyName"])
        if found is None:
            raise not_found(
                f"No scaling policy found for service namespace: {target.namespace}, resource ID: {target.resource_id}, "
                f"scalable dimension: {target.dimension}, policy name: {request['PolicyName']}."
            )
        self._scaling.delete(POLICY, target, request["PolicyName"])
        self._delete_alarms(call, found)
        return {}

    def _delete_alarms(self, call: Call, policy: Resource) -> None:
        names = [alarm["AlarmName"] for alarm in policy.document.get("Alarms", ())]
        self._alarms.delete(call.region, names)

    def _tracking_alarms(
        self, target: Target, tracking: Mapping[str, Any]
    ) -> list[tuple[str, dict[str, Any]]]:
        if tracking["TargetValue"] <= 0:
            raise invalid(f"TargetValue must be above 0, not {tracking['TargetValue']}.")
        metric, threshold = self._metric(target, tracking)
        common = {
            **metric, "Period": self._period_s, "ActionsEnabled": True, "OKActions": [],
            "InsufficientDataActions": [],
        }  # fmt: skip
        is_own = "PredefinedMetricSpecification" in tracking
        ends = (
            ("High", "GreaterThanThreshold", threshold, _HIGH_PERIODS, "notBreaching"),
            # An endpoint that nobody invokes has no data, and needs no more than its least capacity.
            ("Low", "LessThanThreshold", threshold * _LOW_PART, _LOW_PERIODS, "breaching"),
        )
        return [
            (
                f"TargetTracking-{target.resource_id}-Alarm{end}-{uuid.uuid4()}",
                {
                    **common, "ComparisonOperator": comparison, "Threshold": value, "EvaluationPeriods": periods,
                    "TreatMissingData": missing if is_own else "missing",
                },
            )
            for end, comparison, value, periods, missing in ends
        ]  # fmt: skip

    def _metric(self, target: Target, tracking: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        """Return the metric's members, and the target in the metric's own terms."""
        predefined = tracking.get("PredefinedMetricSpecification")
        custom = tracking.get("CustomizedMetricSpecification")
        if bool(predefined) == bool(custom):
            raise invalid(
                "Exactly one of PredefinedMetricSpecification and CustomizedMetricSpecification must be given."
            )
        value = float(tracking["TargetValue"])
        if predefined:
            kind = predefined["PredefinedMetricType"]
            known, metric, statistic, names = _PREDEFINED[target.dimension]
            if kind != known:
                raise invalid(
                    f"The predefined metric {kind} is not available for this scalable dimension in Sagesmith. "
                    f"Use {known} or a CustomizedMetricSpecification."
                )
            values = target.resource_id.split("/")[1::2]
            dimensions = [{"Name": name, "Value": each} for name, each in zip(names, values, strict=True)]
            members = {
                "Namespace": "AWS/SageMaker", "MetricName": metric, "Statistic": statistic, "Dimensions": dimensions,
            }  # fmt: skip
            # What is counted has a target per minute.
            return members, value * self._period_s / 60 if statistic == "Sum" else value
        if custom is None or custom.get("Metrics"):
            raise invalid(
                "Metric math in CustomizedMetricSpecification.Metrics is not supported by Sagesmith yet."
            )
        for member in ("MetricName", "Namespace", "Statistic"):
            if not custom.get(member):
                raise invalid(f"CustomizedMetricSpecification.{member} must be given.")
        members = {member: custom[member] for member in ("Namespace", "MetricName", "Statistic")}
        members["Dimensions"] = custom.get("Dimensions") or []
        if custom.get("Unit"):
            members["Unit"] = custom["Unit"]
        return members, value


def _check_steps(step: Mapping[str, Any]) -> None:
    kind = step.get("AdjustmentType")
    if kind not in _ADJUSTMENTS:
        raise invalid(
            f"StepScalingPolicyConfiguration.AdjustmentType must be one of {', '.join(_ADJUSTMENTS)}."
        )
    steps: Sequence[Mapping[str, Any]] = step.get("StepAdjustments") or ()
    if not steps:
        raise invalid("At least one StepAdjustment must be specified.")
    if step.get("MinAdjustmentMagnitude") and kind != "PercentChangeInCapacity":
        raise invalid("MinAdjustmentMagnitude is for the adjustment type PercentChangeInCapacity.")
    bounds = sorted(
        (
            one.get("MetricIntervalLowerBound", -math.inf),
            one.get("MetricIntervalUpperBound", math.inf),
        )
        for one in steps
    )
    for lower, upper in bounds:
        if lower >= upper:
            raise invalid(
                f"The lower bound {lower} of a step adjustment must be below its upper bound {upper}."
            )
    for (_, upper), (lower, _) in pairwise(bounds):
        if upper != lower:
            raise invalid(
                f"There is a gap or an overlap between the step adjustments that end at {upper} and begin at {lower}."
            )
