"""What is kept of many values: how many, their sum, least and greatest, and a sketch for percentiles.

The sketch counts values in buckets whose borders grow by 2 %, so that a percentile is within 1 % of the truth,
and two sketches merge by addition. The least and greatest value bound it, which makes the percentiles of equal
values exact.

Source: Masson, Rim and Lee, "DDSketch", VLDB 2019, section 2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

__all__ = ["STATISTICS", "Summary", "is_statistic", "summary_of"]

STATISTICS: Final = ("SampleCount", "Average", "Sum", "Minimum", "Maximum")

_GROWTH: Final = math.log(1.02)
_OFFSET: Final = 50_000
"""Bucket numbers of doubles lie within 36,000 of zero; the offset leaves the sign to the value's sign."""

_PERCENTILE: Final = re.compile(r"p(\d{1,3}(?:\.\d{1,10})?)")


def is_statistic(name: str) -> bool:
    """Return whether `Summary.value` knows *name*: one of `STATISTICS`, or a percentile like ``p99.9``."""
    if name in STATISTICS:
        return True
    found = _PERCENTILE.fullmatch(name)
    return found is not None and float(found[1]) <= 100


@dataclass(slots=True)
class Summary:
    """A summary of values. `sketch` is bucket to count; empty if only statistics were given."""

    count: float
    sum: float
    minimum: float
    maximum: float
    sketch: dict[int, float] = field(default_factory=dict)

    def add(self, other: Summary) -> None:
        """Take in the values of *other*."""
        self.count += other.count
        self.sum += other.sum
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        for bucket, count in other.sketch.items():
            self.sketch[bucket] = self.sketch.get(bucket, 0.0) + count

    def value(self, statistic: str) -> float | None:
        """Return a statistic that `is_statistic` accepts; None for a percentile of what has no sketch."""
        match statistic:
            case "SampleCount":
                return self.count
            case "Average":
                return self.sum / self.count
            case "Sum":
                return self.sum
            case "Minimum":
                return self.minimum
            case "Maximum":
                return self.maximum
            case _:
                return self._percentile(float(statistic[1:]))

    def _percentile(self, percent: float) -> float | None:
        if not self.sketch:
            return self.minimum if self.minimum == self.maximum else None
        wanted = percent / 100 * sum(self.sketch.values())
        if percent in (0, 100):
            return self.maximum if percent else self.minimum
        seen = 0.0
        middle = self.maximum
        for bucket in sorted(self.sketch):
            seen += self.sketch[bucket]
            if seen >= wanted:
                middle = _middle_of(bucket)
                break
        return min(max(middle, self.minimum), self.maximum)

    def sketch_text(self) -> str:
        """Return the sketch as text; "" if it follows from the rest (a single value, or none is known)."""
        if not self.sketch or self.count == 1:
            return ""
        return orjson.dumps(sorted(self.sketch.items())).decode()

    @classmethod
    def read(cls, count: float, total: float, minimum: float, maximum: float, sketch: str) -> Summary:
        """Return the summary of stored columns."""
        if sketch:
            return cls(count, total, minimum, maximum, dict(orjson.loads(sketch)))
        if minimum == maximum:
            return cls(count, total, minimum, maximum, {_bucket_of(minimum): count})
        return cls(count, total, minimum, maximum)


def summary_of(values: Mapping[float, float] | Iterable[tuple[float, float]]) -> Summary:
    """Return the summary of (value, how often) pairs, of which there is at least one."""
    pairs = list(values.items() if isinstance(values, Mapping) else values)
    sketch: dict[int, float] = {}
    for value, count in pairs:
        bucket = _bucket_of(value)
        sketch[bucket] = sketch.get(bucket, 0.0) + count
    return Summary(
        count=sum(count for _, count in pairs),
        sum=sum(value * count for value, count in pairs),
        minimum=min(value for value, _ in pairs),
        maximum=max(value for value, _ in pairs),
        sketch=sketch,
    )


def _bucket_of(value: float) -> int:
    if value == 0:
        return 0
    bucket = math.ceil(math.log(abs(value)) / _GROWTH) + _OFFSET
    return bucket if value > 0 else -bucket


def _middle_of(bucket: int) -> float:
    if bucket == 0:
        return 0.0
    border = math.exp((abs(bucket) - _OFFSET) * _GROWTH)
    middle = 2 * border / (math.exp(_GROWTH) + 1)
    return middle if bucket > 0 else -middle
