"""The operations of metric alarms; whether their thresholds are crossed is found out by the driver of alarms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from sagesmith.aws.call import Call, operation
from sagesmith.errors import AwsError
from sagesmith.lifecycle.alarm import COMPARISONS, MISSING
from sagesmith.services.cloudwatch._periods import (
    check_period,
    check_statistic,
    dimensions_of,
    invalid_combination,
    invalid_value,
)
from sagesmith.store.alarms import ACTION_FAILED, ACTION_SUCCEEDED, Alarms
from sagesmith.store.queries import ListQuery, decode_token, encode_token, fingerprint
from sagesmith.store.resources import Event, Missing, Resource, Resources

__all__ = ["AlarmHandlers"]

_NOT_THERE_YET: Final = (
    "Metrics", "ThresholdMetricId", "EvaluationWindow", "WarmUpConfiguration", "EvaluationCriteria",
    "EvaluationInterval", "ActionConfiguration",
)  # fmt: skip
_LONGEST_S: Final = 86_400
_LONGEST_SHORT_S: Final = 10_800
_DEFAULTS: Final[Mapping[str, Any]] = {
    "ActionsEnabled": True,
    "OKActions": [],
    "AlarmActions": [],
    "InsufficientDataActions": [],
    "Dimensions": [],
}
_TYPES: Final = {"created": "ConfigurationUpdate", "document": "ConfigurationUpdate",
                 "deleted": "ConfigurationUpdate", "status": "StateUpdate"}  # fmt: skip


class AlarmHandlers:
    """Metric alarms."""

    service = "cloudwatch"

    def __init__(self, alarms: Alarms, resources: Resources) -> None:
        self._alarms = alarms
        self._resources = resources

    @operation("PutMetricAlarm")
    def put_metric_alarm(self, call: Call, request: Mapping[str, Any]) -> None:
        """Make an alarm, or change one; its metric need not have data yet."""
        _check(request)
        tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags", ())}
        settings = {member: value for member, value in request.items() if member != "Tags"}
        self._alarms.put(call.region, request["AlarmName"], {**_DEFAULTS, **settings}, tags=tags or None)

    @operation("DescribeAlarms")
    def describe_alarms(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return alarms by name, by the beginning of the name, by state or by action, in order of their names."""
        for member in ("ChildrenOfAlarmName", "ParentsOfAlarmName"):
            if request.get(member):
                raise invalid_value(f"{member} is for composite alarms, which Sagesmith does not have yet.")
        names, prefix = request.get("AlarmNames"), request.get("AlarmNamePrefix", "")
        if names and prefix:
            raise invalid_combination("AlarmNames and AlarmNamePrefix cannot be given together.")
        answer: dict[str, Any] = {"MetricAlarms": [], "CompositeAlarms": []}
        if "MetricAlarm" not in (request.get("AlarmTypes") or ["MetricAlarm"]):
            return answer
        if names:
            page = [found for name in names if (found := self._alarms.get(call.region, name)) is not None]
        else:
            page = self._all(call.region)
        wanted_state, action = request.get("StateValue"), request.get("ActionPrefix", "")
        matching = [
            alarm
            for alarm in page
            if alarm.name.startswith(prefix)
            and wanted_state in (None, alarm.status)
            and (not action or any(a.startswith(action) for a in _actions(alarm)))
        ]
        asked = fingerprint("alarms", call.region, names, prefix, wanted_state, action)
        start = _start(request.get("NextToken"), asked)
        room = request.get("MaxRecords", 50)
        answer["MetricAlarms"] = [_shown(alarm) for alarm in matching[start : start + room]]
        if start + room < len(matching):
            answer["NextToken"] = encode_token([start + room], asked)
        return answer

    @operation("DescribeAlarmsForMetric")
    def describe_alarms_for_metric(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the alarms on one metric."""
        dimensions = dimensions_of(request.get("Dimensions", ()))
        equal = {
            member: request[member]
            for member in ("Namespace", "MetricName", "Statistic", "ExtendedStatistic", "Period", "Unit")
            if member in request
        }
        found = [
            _shown(alarm)
            for alarm in self._all(call.region)
            if dimensions_of(alarm.document.get("Dimensions", ())) == dimensions
            and all(alarm.document.get(member) == value for member, value in equal.items())
        ]
        return {"MetricAlarms": found}

    @operation("DeleteAlarms")
    def delete_alarms(self, call: Call, request: Mapping[str, Any]) -> None:
        """Remove alarms, all of them or none."""
        for name in request["AlarmNames"]:
            self._existing(call, name)
        self._alarms.delete(call.region, request["AlarmNames"])

    @operation("SetAlarmState")
    def set_alarm_state(self, call: Call, request: Mapping[str, Any]) -> None:
        """Put an alarm into a state, until its metric is looked at again."""
        data = request.get("StateReasonData", "")
        if data:
            try:
                json.loads(data)
            except ValueError:
                raise AwsError("InvalidFormat", "StateReasonData must be JSON.") from None
        name = request["AlarmName"]
        try:
            self._alarms.set_state(call.region, name, request["StateValue"], request["StateReason"], data)
        except Missing:
            raise _not_found(name) from None

    @operation("EnableAlarmActions")
    def enable_alarm_actions(self, call: Call, request: Mapping[str, Any]) -> None:
        """Let alarms perform their actions."""
        self._alarms.enable_actions(call.region, request["AlarmNames"], True)

    @operation("DisableAlarmActions")
    def disable_alarm_actions(self, call: Call, request: Mapping[str, Any]) -> None:
        """Let alarms perform no actions."""
        self._alarms.enable_actions(call.region, request["AlarmNames"], False)

    @operation("DescribeAlarmHistory")
    def describe_alarm_history(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what happened to one alarm or to all: configurations, states, actions; also of deleted ones."""
        name = request.get("AlarmName")
        names = [name] if name else [alarm.name for alarm in self._all(call.region)]
        items = [
            (event.time, one, item)
            for one in names
            for event in self._resources.events(
                self._alarms.arn(call.region, one), since=request.get("StartDate", 0.0)
            )
            if (item := _history_item(one, event)) is not None
        ]
        wanted, until = request.get("HistoryItemType"), request.get("EndDate", float("inf"))
        found = [
            item for time, _, item in items if time <= until and wanted in (None, item["HistoryItemType"])
        ]
        descending = request.get("ScanBy", "TimestampDescending") == "TimestampDescending"
        found.sort(key=lambda item: item["Timestamp"])  # stable: of equal times in the order they happened
        if descending:
            found.reverse()
        asked = fingerprint("alarm history", call.region, name, wanted, request.get("StartDate"), descending)
        start = _start(request.get("NextToken"), asked)
        room = request.get("MaxRecords", 100)
        answer: dict[str, Any] = {"AlarmHistoryItems": found[start : start + room]}
        if start + room < len(found):
            answer["NextToken"] = encode_token([start + room], asked)
        return answer

    @operation("TagResource")
    def tag_resource(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Add tags to an alarm."""
        tags = {tag["Key"]: tag["Value"] for tag in request["Tags"]}
        self._resources.tag(self._tagged(call, request["ResourceARN"]), tags)
        return {}

    @operation("UntagResource")
    def untag_resource(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Remove tags from an alarm."""
        self._resources.untag(self._tagged(call, request["ResourceARN"]), request["TagKeys"])
        return {}

    @operation("ListTagsForResource")
    def list_tags_for_resource(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return an alarm's tags."""
        tags = self._resources.tags(self._tagged(call, request["ResourceARN"]))
        return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}

    def _all(self, region: str) -> list[Resource]:
        found: list[Resource] = []
        token: str | None = None
        while True:
            page = self._alarms.list(region, ListQuery(sort_by="name", limit=500, token=token))
            found += page.items
            token = page.next_token
            if token is None:
                return found

    def _existing(self, call: Call, name: str) -> Resource:
        alarm = self._alarms.get(call.region, name)
        if alarm is None:
            raise _not_found(name)
        return alarm

    def _tagged(self, call: Call, arn: str) -> str:
        return self._existing(call, arn.partition(":alarm:")[2]).arn


def _check(request: Mapping[str, Any]) -> None:
    for member in _NOT_THERE_YET:
        if request.get(member):
            raise invalid_value(
                f"{member} is not supported by Sagesmith yet: alarms watch one metric against a fixed threshold. "
                "Give Namespace, MetricName, Statistic, Period and Threshold."
            )
    for member in ("Namespace", "MetricName", "Period", "EvaluationPeriods", "Threshold"):
        if member not in request:
            raise AwsError("ValidationError", f"The parameter {member} is required for an alarm on a metric.")
    if bool(request.get("Statistic")) == bool(request.get("ExtendedStatistic")):
        raise AwsError("ValidationError", "Exactly one of Statistic and ExtendedStatistic must be given.")
    check_statistic(request.get("Statistic") or request["ExtendedStatistic"])
    period, periods = request["Period"], request["EvaluationPeriods"]
    check_period(period)
    longest = _LONGEST_S if period >= 60 else _LONGEST_SHORT_S
    if period * periods > longest:
        raise AwsError(
            "ValidationError",
            f"Period times EvaluationPeriods must be at most {longest} s, not {period * periods}.",
        )
    to_alarm = request.get("DatapointsToAlarm")
    if to_alarm is not None and to_alarm > periods:
        raise AwsError(
            "ValidationError",
            f"DatapointsToAlarm ({to_alarm}) must not exceed EvaluationPeriods ({periods}).",
        )
    if request["ComparisonOperator"] not in COMPARISONS:
        raise invalid_value(
            f"ComparisonOperator {request['ComparisonOperator']} is for anomaly detection, which Sagesmith does not "
            f"have yet. Use one of {', '.join(COMPARISONS)}."
        )
    if request.get("TreatMissingData", MISSING[0]) not in MISSING:
        raise AwsError("ValidationError", f"TreatMissingData must be one of {', '.join(MISSING)}.")
    if request.get("EvaluateLowSampleCountPercentile", "evaluate") != "evaluate":
        raise invalid_value("EvaluateLowSampleCountPercentile ignore is not supported by Sagesmith yet.")
    dimensions_of(request.get("Dimensions", ()))


def _shown(alarm: Resource) -> dict[str, Any]:
    return {member: value for member, value in alarm.document.items() if not member.startswith("$")}


def _actions(alarm: Resource) -> list[str]:
    document = alarm.document
    return [
        action
        for member in ("OKActions", "AlarmActions", "InsufficientDataActions")
        for action in document.get(member) or ()
    ]


def _history_item(name: str, event: Event) -> dict[str, Any] | None:
    kind = _TYPES.get(event.what)
    if kind is None:
        return None
    summary = event.why
    data: dict[str, Any] = {"version": "1.0", "summary": event.why}
    if event.what == "status":
        summary = f"Alarm updated from {event.before} to {event.after}"
        data = {
            "version": "1.0",
            "oldState": {"stateValue": event.before},
            "newState": {"stateValue": event.after, "stateReason": event.why},
        }
    elif event.why.startswith((ACTION_SUCCEEDED, ACTION_FAILED)):
        kind = "Action"
    return {
        "AlarmName": name,
        "AlarmType": "MetricAlarm",
        "Timestamp": event.time,
        "HistoryItemType": kind,
        "HistorySummary": summary[:255],
        "HistoryData": json.dumps(data)[:4095],
    }


def _start(token: str | None, asked: str) -> int:
    if not token:
        return 0
    try:
        (start,) = decode_token(token, asked, 1)
        if isinstance(start, int) and start >= 0:
            return start
    except AwsError:
        pass
    raise AwsError("InvalidNextToken", "The NextToken is not one that a request like this one returned.")


def _not_found(name: str) -> AwsError:
    return AwsError("ResourceNotFound", f"There is no alarm of the name {name!r}.", status=404)
