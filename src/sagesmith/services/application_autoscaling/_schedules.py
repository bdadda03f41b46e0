"""Scheduled actions: new limits at a time, or again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sagesmith.aws.call import Call, operation
from sagesmith.lifecycle.schedule import Schedule, ScheduleError
from sagesmith.services.application_autoscaling._common import (
    check_limits,
    invalid,
    listed,
    not_found,
    registered,
    target_of,
)
from sagesmith.store.scaling import ACTION, Scaling, Target

__all__ = ["ScheduleHandlers"]

_SETTINGS = ("Schedule", "Timezone", "StartTime", "EndTime", "ScalableTargetAction")


class ScheduleHandlers:
    """Scheduled actions."""

    service = "application-autoscaling"

    def __init__(self, scaling: Scaling, *, limits: Callable[[Target], tuple[int, float]]) -> None:
        self._scaling = scaling
        self._limits = limits

    @operation("PutScheduledAction")
    def put_scheduled_action(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make a scheduled action, or change one."""
        target = target_of(call, request)
        registered(self._scaling, target)
        name = request["ScheduledActionName"]
        before = self._scaling.get(ACTION, target, name)
        known: Mapping[str, Any] = before.document if before is not None else {}
        settings = {
            member: request.get(member, known.get(member))
            for member in _SETTINGS
            if request.get(member, known.get(member)) is not None
        }
        if "Schedule" not in settings:
            raise invalid("Schedule must be given for a new scheduled action.")
        try:
            Schedule.parse(settings["Schedule"], settings.get("Timezone", ""))
        except ScheduleError as error:
            raise invalid(str(error)) from None
        limits = settings.get("ScalableTargetAction") or {}
        if limits.get("MinCapacity") is None and limits.get("MaxCapacity") is None:
            raise invalid("ScalableTargetAction must have MinCapacity, MaxCapacity or both.")
        check_limits(limits, self._limits(target))
        self._scaling.put_action(target, name, settings)
        return {}

    @operation("DescribeScheduledActions")
    def describe_scheduled_actions(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a page of scheduled actions."""
        found = self._scaling.list(ACTION, call.region)
        wanted = request.get("ScheduledActionNames")
        if wanted:
            found = [action for action in found if action.document["ScheduledActionName"] in wanted]
        return listed(call, request, found, "ScheduledActions")

    @operation("DeleteScheduledAction")
    def delete_scheduled_action(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Remove a scheduled action."""
        target = target_of(call, request)
        name = request["ScheduledActionName"]
        if self._scaling.get(ACTION, target, name) is None:
            raise not_found(
                f"No scheduled action found for service namespace: {target.namespace}, resource ID: "
                f"{target.resource_id}, scalable dimension: {target.dimension}, scheduled action name: {name}."
            )
        self._scaling.delete(ACTION, target, name)
        return {}
