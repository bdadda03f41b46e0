"""Log groups: create, delete, describe, and how long they keep events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sagesmith.aws.call import Call, operation
from sagesmith.services.logs._names import group_arn, group_of_arn, invalid_parameter
from sagesmith.store.logs import LogGroup, Logs
from sagesmith.store.resources import Resources

__all__ = ["LogGroups"]

_RETENTION_DAYS: Final = (
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
)  # fmt: skip
_MOST_IDENTIFIERS: Final = 50


class LogGroups:
    """The operations on groups."""

    service = "logs"

    def __init__(self, logs: Logs, resources: Resources) -> None:
        self._logs = logs
        self._resources = resources

    @operation("CreateLogGroup")
    def create_log_group(self, call: Call, request: Mapping[str, Any]) -> None:
        """Make a group, with its tags."""
        name = request["logGroupName"]
        self._logs.create_group(name, region=call.region)
        if request.get("tags"):
            self._resources.tag(group_arn(call, name), request["tags"])

    @operation("DeleteLogGroup")
    def delete_log_group(self, call: Call, request: Mapping[str, Any]) -> None:
        """Remove a group, its streams and its tags."""
        name = request["logGroupName"]
        self._logs.delete_group(name, region=call.region)
        arn = group_arn(call, name)
        self._resources.untag(arn, self._resources.tags(arn))

    @operation("DescribeLogGroups")
    def describe_log_groups(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """List groups by the beginning of their names, a part of them, or by identifiers."""
        prefix, part = request.get("logGroupNamePrefix", ""), request.get("logGroupNamePattern", "")
        if prefix and part:
            raise invalid_parameter(
                "LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters."
            )
        identifiers = request.get("logGroupIdentifiers")
        if identifiers:
            return {"logGroups": self._identified(call, identifiers)}
        page = self._logs.groups(
            region=call.region, prefix=prefix, contains=part, limit=request.get("limit", 50),
            token=request.get("nextToken"),
        )  # fmt: skip
        return _answer("logGroups", [_described(call, group) for group in page.items], page.next_token)

    @operation("ListLogGroups")
    def list_log_groups(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """List groups in short."""
        page = self._logs.groups(
            region=call.region, contains=request.get("logGroupNamePattern", ""), limit=request.get("limit", 50),
            token=request.get("nextToken"),
        )  # fmt: skip
        items = [
            {
                "logGroupName": group.name,
                "logGroupArn": group_arn(call, group.name),
                "logGroupClass": "STANDARD",
            }
            for group in page.items
        ]
        return _answer("logGroups", items, page.next_token)

    @operation("PutRetentionPolicy")
    def put_retention_policy(self, call: Call, request: Mapping[str, Any]) -> None:
        """Keep a group's events for some days only."""
        days = request["retentionInDays"]
        if days not in _RETENTION_DAYS:
            raise invalid_parameter(
                f"retentionInDays is {days}, but must be one of {', '.join(map(str, _RETENTION_DAYS))}."
            )
        self._logs.set_retention(request["logGroupName"], days, region=call.region)

    @operation("DeleteRetentionPolicy")
    def delete_retention_policy(self, call: Call, request: Mapping[str, Any]) -> None:
        """Keep a group's events for ever."""
        self._logs.set_retention(request["logGroupName"], 0, region=call.region)

    def _identified(self, call: Call, identifiers: list[str]) -> list[dict[str, Any]]:
        if len(identifiers) > _MOST_IDENTIFIERS:
            raise invalid_parameter(f"logGroupIdentifiers may hold at most {_MOST_IDENTIFIERS} items.")
        names = [group_of_arn(call, item) if item.startswith("arn:") else item for item in identifiers]
        groups = (self._logs.groups(region=call.region, prefix=name, limit=1).items for name in names)
        return [
            _described(call, group)
            for name, found in zip(names, groups, strict=True)
            for group in found
            if group.name == name
        ]


def _described(call: Call, group: LogGroup) -> dict[str, Any]:
    arn = group_arn(call, group.name)
    described = {
        "logGroupName": group.name,
        "creationTime": int(group.created * 1000),
        "metricFilterCount": 0,
        "arn": f"{arn}:*",
        "logGroupArn": arn,
        "logGroupClass": "STANDARD",
        "storedBytes": group.bytes,
    }
    if group.retention_days:
        described["retentionInDays"] = group.retention_days
    return described


def _answer(member: str, items: list[dict[str, Any]], next_token: str | None) -> dict[str, Any]:
    return {member: items} if next_token is None else {member: items, "nextToken": next_token}
