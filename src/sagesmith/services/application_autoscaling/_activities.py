"""Scaling activities: what was scaled, why, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sagesmith.aws.call import Call, operation
from sagesmith.services.application_autoscaling._common import listed
from sagesmith.store.scaling import ACTIVITY, Scaling

__all__ = ["ActivityHandlers"]


class ActivityHandlers:
    """Scaling activities."""

    service = "application-autoscaling"

    def __init__(self, scaling: Scaling) -> None:
        self._scaling = scaling

    @operation("DescribeScalingActivities")
    def describe_scaling_activities(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a page of activities, the latest first. What was not scaled is not kept."""
        return listed(call, request, self._scaling.list(ACTIVITY, call.region), "ScalingActivities")
