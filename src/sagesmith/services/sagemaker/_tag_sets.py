"""Tags as SageMaker takes them: lists of Key and Value, at most 50 on a resource, each key once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sagesmith.errors import AwsError, validation_error

__all__ = ["MAX_TAGS", "check_count", "tag_list", "tag_set"]

MAX_TAGS: Final = 50


def tag_set(tags: Iterable[Mapping[str, Any]] | None) -> dict[str, str]:
    """Return *tags* by key.

    Raises:
        AwsError: a key comes twice, is one of AWS's own, or there are too many.
    """
    result: dict[str, str] = {}
    for tag in tags or ():
        key = tag["Key"]
        if key in result:
            raise validation_error(f"The tag key '{key}' is given twice. Give each key once.")
        if key.lower().startswith("aws:"):
            raise validation_error(
                f"The tag key '{key}' begins with 'aws:', which is reserved. Choose another."
            )
        result[key] = tag["Value"]
    check_count(len(result))
    return result


def check_count(count: int) -> None:
    """Refuse more tags than a resource may have.

    Raises:
        AwsError: `ResourceLimitExceeded`.
    """
    if count > MAX_TAGS:
        raise AwsError(
            "ResourceLimitExceeded",
            f"A resource can have at most {MAX_TAGS} tags, and this would have {count}.",
        )


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return *tags* as SageMaker answers them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]
