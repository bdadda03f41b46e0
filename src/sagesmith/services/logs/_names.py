"""Which group a request means: by name, or by ARN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sagesmith.arns import Arn
from sagesmith.aws.call import Call
from sagesmith.errors import AwsError

__all__ = ["group_arn", "group_of", "group_of_arn", "invalid_parameter"]

_KIND: Final = "log-group:"


def group_arn(call: Call, group: str) -> str:
    """Return the ARN of *group*, without the ``:*`` that stands for its streams."""
    return call.arn(_KIND + group)


def group_of(call: Call, request: Mapping[str, Any]) -> str:
    """Return the name of the group that `logGroupName` or `logGroupIdentifier` (a name or an ARN) means.

    Raises:
        AwsError: `InvalidParameterException`, there is none of the two, or both.
    """
    name, identifier = request.get("logGroupName"), request.get("logGroupIdentifier")
    if (name is None) == (identifier is None):
        raise invalid_parameter("Exactly one of logGroupName and logGroupIdentifier must be given.")
    if name is not None:
        return str(name)
    return group_of_arn(call, identifier) if str(identifier).startswith("arn:") else str(identifier)


def group_of_arn(call: Call, text: Any) -> str:
    """Return the name of the group that an ARN, with or without ``:*``, means.

    Raises:
        AwsError: `InvalidParameterException`, it is not the ARN of a group of this account and region.
    """
    parts = str(text).split(":", 5)
    arn = Arn.parse(str(text)) if len(parts) == 6 and parts[0] == "arn" else None
    if (
        arn is None
        or not arn.resource.startswith(_KIND)
        or (arn.service, arn.region, arn.account) != ("logs", call.region, call.account)
    ):
        raise invalid_parameter(
            f"'{text}' is not the ARN of a log group of account {call.account} in {call.region}."
        )
    return arn.resource.removeprefix(_KIND).removesuffix(":*")


def invalid_parameter(message: str) -> AwsError:
    """Return the fault of a request that makes no sense."""
    return AwsError("InvalidParameterException", message)
