"""Periods, statistics and dimensions of requests, checked as CloudWatch checks them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sagesmith.errors import AwsError
from sagesmith.store.metric_summaries import is_statistic

__all__ = [
    "begin_of",
    "check_period",
    "check_statistic",
    "dimensions_of",
    "invalid_combination",
    "invalid_value",
]

_SHORT_PERIODS: Final = (1, 5, 10, 20, 30)


def invalid_value(message: str) -> AwsError:
    """Return the fault of a parameter that makes no sense."""
    return AwsError("InvalidParameterValueException", message)


def invalid_combination(message: str) -> AwsError:
    """Return the fault of parameters that do not go together."""
    return AwsError("InvalidParameterCombinationException", message)


def check_period(period: int) -> None:
    """Raise the fault of a *period* that is neither 1, 5, 10, 20, 30 nor a multiple of 60 seconds."""
    if period not in _SHORT_PERIODS and period % 60:
        raise invalid_value(
            f"The parameter Period is {period}, but must be 1, 5, 10, 20, 30 or a multiple of 60."
        )


def check_statistic(name: str) -> None:
    """Raise the fault of a statistic that is not known."""
    if not is_statistic(name):
        raise invalid_value(
            f"The statistic {name!r} is not supported. Use SampleCount, Average, Sum, Minimum, Maximum, "
            "or a percentile between p0 and p100."
        )


def begin_of(start: float, period: int) -> float:
    """Return when the first period begins: *start*, rounded down to a whole minute or shorter period."""
    unit = min(period, 60)
    return float(start // unit * unit)


def dimensions_of(items: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the dimensions of a request as a mapping."""
    dimensions: dict[str, str] = {}
    for item in items:
        if item["Name"] in dimensions:
            raise invalid_value(f"The dimension {item['Name']!r} is there twice.")
        dimensions[item["Name"]] = item["Value"]
    return dimensions
