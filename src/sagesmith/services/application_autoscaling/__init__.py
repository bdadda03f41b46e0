"""Application Auto Scaling: what is scaled, by which policies and schedules, and what came of it."""

from __future__ import annotations

from collections.abc import Callable

from sagesmith.services.application_autoscaling._activities import ActivityHandlers
from sagesmith.services.application_autoscaling._policies import PolicyHandlers
from sagesmith.services.application_autoscaling._schedules import ScheduleHandlers
from sagesmith.services.application_autoscaling._targets import TargetHandlers
from sagesmith.store.alarms import Alarms
from sagesmith.store.resources import Resources
from sagesmith.store.scaling import Scaling, Target

__all__ = ["handlers"]


def handlers(
    scaling: Scaling,
    alarms: Alarms,
    resources: Resources,
    *,
    exists: Callable[[Target], bool],
    limits: Callable[[Target], tuple[int, float]],
    notify: Callable[[Target, str], None],
    period_s: int = 60,
) -> list[object]:
    """Return the handlers of every operation that has behaviour.

    Args:
        exists: whether there is what the target would scale.
        limits: the least and the most capacity that it may have.
        notify: tells the driver that a target's limits were changed, and why; thread-safe.
        period_s: the period of the alarms that target tracking policies make, in seconds.
    """
    return [
        TargetHandlers(scaling, alarms, resources, exists=exists, limits=limits, notify=notify),
        PolicyHandlers(scaling, alarms, period_s=period_s),
        ScheduleHandlers(scaling, limits=limits),
        ActivityHandlers(scaling),
    ]
