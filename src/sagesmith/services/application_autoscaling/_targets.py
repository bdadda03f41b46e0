"""Scalable targets: what may be scaled, and within which limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sagesmith.aws.call import Call, operation
from sagesmith.services.application_autoscaling._common import (
    check_limits,
    invalid,
    listed,
    not_found,
    registered,
    target_of,
)
from sagesmith.store.alarms import Alarms
from sagesmith.store.resources import Resources
from sagesmith.store.scaling import POLICY, TARGET, Scaling, Target

__all__ = ["TargetHandlers"]


class TargetHandlers:
    """Scalable targets and their tags."""

    service = "application-autoscaling"

    def __init__(
        self,
        scaling: Scaling,
        alarms: Alarms,
        resources: Resources,
        *,
        exists: Callable[[Target], bool],
        limits: Callable[[Target], tuple[int, float]],
        notify: Callable[[Target, str], None],
    ) -> None:
        self._scaling = scaling
        self._alarms = alarms
        self._resources = resources
        self._exists = exists
        self._limits = limits
        self._notify = notify

    @operation("RegisterScalableTarget")
    def register_scalable_target(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Register a target or change its limits; what is beyond them is brought within."""
        target = target_of(call, request)
        if not self._exists(target):
            raise invalid(
                f"No scalable resource found for service namespace: {target.namespace}, resource ID: "
                f"{target.resource_id}, scalable dimension: {target.dimension}. {_advice(target)}"
            )
        found = self._scaling.target(target)
        before: Mapping[str, Any] = found.document if found is not None else {}
        settings = {
            member: request.get(member, before.get(member))
            for member in ("MinCapacity", "MaxCapacity", "RoleARN", "SuspendedState")
        }
        least, most = settings["MinCapacity"], settings["MaxCapacity"]
        if least is None or most is None:
            raise invalid("MinCapacity and MaxCapacity must be given when a scalable target is registered.")
        check_limits(settings, self._limits(target))
        if not settings["RoleARN"]:
            settings["RoleARN"] = _service_role(call)
        suspended = settings["SuspendedState"] or {}
        settings["SuspendedState"] = {
            member: suspended.get(member, False)
            for member in (
                "DynamicScalingInSuspended",
                "DynamicScalingOutSuspended",
                "ScheduledScalingSuspended",
            )
        }
        put = self._scaling.put_target(target, settings, tags=request.get("Tags"))
        self._notify(target, f"the limits of the scalable target were set to {least} and {most}")
        return {"ScalableTargetARN": put.document["ScalableTargetARN"]}

    @operation("DescribeScalableTargets")
    def describe_scalable_targets(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a page of targets."""
        found = self._scaling.list(TARGET, call.region)
        wanted = request.get("ResourceIds")
        if wanted:
            found = [target for target in found if target.document["ResourceId"] in wanted]
        return listed(call, request, found, "ScalableTargets")

    @operation("DeregisterScalableTarget")
    def deregister_scalable_target(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Forget a target, its policies with their alarms, and its scheduled actions."""
        target = target_of(call, request)
        registered(self._scaling, target)
        for policy in self._scaling.list(POLICY, call.region, target):
            names = [alarm["AlarmName"] for alarm in policy.document.get("Alarms", ())]
            self._alarms.delete(call.region, names)
        self._scaling.delete_target(target)
        return {}

    @operation("TagResource")
    def tag_resource(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Add tags to a target."""
        self._resources.tag(self._arn(request["ResourceARN"]), request["Tags"])
        return {}

    @operation("UntagResource")
    def untag_resource(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Remove tags from a target."""
        self._resources.untag(self._arn(request["ResourceARN"]), request["TagKeys"])
        return {}

    @operation("ListTagsForResource")
    def list_tags_for_resource(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a target's tags."""
        return {"Tags": self._resources.tags(self._arn(request["ResourceARN"]))}

    def _arn(self, arn: str) -> str:
        found = self._scaling.by_arn(arn)
        if found is None or found.kind != TARGET:
            raise not_found(f"There is no scalable target with the ARN {arn}.")
        return found.arn


def _advice(target: Target) -> str:
    if target.dimension.startswith("sagemaker:variant:"):
        return "Create the endpoint first; serverless variants have provisioned concurrency to scale, others instances."
    return "Create the inference component first."


def _service_role(call: Call) -> str:
    return (
        f"arn:{call.partition}:iam::{call.account}:role/aws-service-role/sagemaker.application-autoscaling."
        "amazonaws.com/AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
    )
