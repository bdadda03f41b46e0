"""Tags of log groups, by ARN and in the older way by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sagesmith.aws.call import Call, operation
from sagesmith.errors import AwsError
from sagesmith.services.logs._names import group_arn, group_of_arn
from sagesmith.store.logs import Logs
from sagesmith.store.resources import Resources

__all__ = ["LogTags"]

_MOST_TAGS: Final = 50


class LogTags:
    """The operations on the tags of groups."""

    service = "logs"

    def __init__(self, logs: Logs, resources: Resources) -> None:
        self._logs = logs
        self._resources = resources

    @operation("TagResource")
    def tag_resource(self, call: Call, request: Mapping[str, Any]) -> None:
        """Add tags to the group with an ARN."""
        self._tag(call, group_of_arn(call, request["resourceArn"]), request["tags"])

    @operation("UntagResource")
    def untag_resource(self, call: Call, request: Mapping[str, Any]) -> None:
        """Remove tags from the group with an ARN."""
        group = group_of_arn(call, request["resourceArn"])
        self._resources.untag(self._existing(call, group), request["tagKeys"])

    @operation("ListTagsForResource")
    def list_tags_for_resource(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the tags of the group with an ARN."""
        group = group_of_arn(call, request["resourceArn"])
        return {"tags": self._resources.tags(self._existing(call, group))}

    @operation("TagLogGroup")
    def tag_log_group(self, call: Call, request: Mapping[str, Any]) -> None:
        """Add tags to a group."""
        self._tag(call, request["logGroupName"], request["tags"])

    @operation("UntagLogGroup")
    def untag_log_group(self, call: Call, request: Mapping[str, Any]) -> None:
        """Remove tags from a group."""
        self._resources.untag(self._existing(call, request["logGroupName"]), request["tags"])

    @operation("ListTagsLogGroup")
    def list_tags_log_group(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the tags of a group."""
        return {"tags": self._resources.tags(self._existing(call, request["logGroupName"]))}

    def _existing(self, call: Call, group: str) -> str:
        """Return the ARN of a group that exists."""
        self._logs.group(group, region=call.region)
        return group_arn(call, group)

    def _tag(self, call: Call, group: str, tags: Mapping[str, str]) -> None:
        arn = self._existing(call, group)
        if len({*self._resources.tags(arn), *tags}) > _MOST_TAGS:
            raise AwsError(
                "TooManyTagsException", f"A log group can have {_MOST_TAGS} tags; {group} would have more."
            )
        self._resources.tag(arn, tags)
