"""What a policy's document wants when one of its alarms calls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sagesmith.lifecycle.scaling import Cooldown, Step, StepPolicy, TargetPolicy
from sagesmith.store.alarms import Raised
from sagesmith.store.scaling import NOTES

__all__ = ["cooldown_of", "is_low_alarm", "notes_of", "wanted_by"]


def wanted_by(policy: Mapping[str, Any], raised: Raised, current: int, at: float) -> int | None:
    """Return the capacity that *policy* wants instead of *current*, None if it wants no other."""
    last = cooldown_of(policy)
    alarm = raised.alarm.document
    threshold = float(alarm["Threshold"])
    tracking = policy.get("TargetTrackingScalingPolicyConfiguration")
    if tracking is None:
        step = policy["StepScalingPolicyConfiguration"]
        distance = (
            _aggregate(step.get("MetricAggregationType", "Average"), raised.values, threshold) - threshold
        )
        return step_policy(step).wanted(distance, current, last=last, at=at)
    out = not is_low_alarm(raised.alarm.name)
    # The high alarm's threshold is the target in the metric's own period.
    target = threshold if out else threshold / policy[NOTES]["low_part"]
    tracked = TargetPolicy(
        target,
        float(tracking.get("ScaleOutCooldown", 300)),
        float(tracking.get("ScaleInCooldown", 300)),
        not tracking.get("DisableScaleIn", False),
    )
    return tracked.wanted(raised.values, current, out=out, last=last, at=at)


def step_policy(step: Mapping[str, Any]) -> StepPolicy:
    """Return the step policy of a `StepScalingPolicyConfiguration`."""
    steps = tuple(
        Step(
            one["ScalingAdjustment"],
            float(one.get("MetricIntervalLowerBound", -math.inf)),
            float(one.get("MetricIntervalUpperBound", math.inf)),
        )
        for one in step["StepAdjustments"]
    )
    return StepPolicy(
        step["AdjustmentType"],
        steps,
        float(step.get("Cooldown", 300)),
        int(step.get("MinAdjustmentMagnitude", 1)),
    )


def is_low_alarm(name: str) -> bool:
    """Whether a target tracking policy's alarm is the one below the target."""
    return "-AlarmLow-" in name


def cooldown_of(policy: Mapping[str, Any]) -> Cooldown:
    """Return what the policy did last."""
    return Cooldown(**(policy.get(NOTES) or {}).get("cooldown", {}))


def notes_of(policy: Mapping[str, Any], last: Cooldown) -> dict[str, Any]:
    """Return the policy's notes with what it did last; times that never were are left out."""
    values = {"out_at": last.out_at, "in_at": last.in_at, "base": last.base}
    kept = {name: value for name, value in values.items() if math.isfinite(value)}
    return {**(policy.get(NOTES) or {}), "cooldown": kept}


def _aggregate(kind: str, values: Sequence[float], default: float) -> float:
    if not values:
        return default
    if kind == "Minimum":
        return min(values)
    return max(values) if kind == "Maximum" else math.fsum(values) / len(values)
