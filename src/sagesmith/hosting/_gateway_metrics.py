"""What the gateway counts for each production variant, in the form in which CloudWatch takes it.

One number per request would be too much to keep and to store. Latencies go into a histogram of logarithmic
buckets (at most 3 % wide on either side), which CloudWatch's `Values` and `Counts` carry, so that percentiles
stay computable; everything else is a counter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["Histogram", "VariantCounters"]

_MANTISSA_BITS = 5
_FINE = 1 << (_MANTISSA_BITS - 1)
_BUCKETS = _FINE * 32
_MOST_VALUES = 150  # PutMetricData takes no more distinct values in one datum


class Histogram:
    """Counts whole numbers from 0 up to 2**34 in buckets that grow with the number."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS

    def add(self, number: int) -> None:
        """Count *number*; what is negative counts as 0, what is too large in the last bucket."""
        if number < 2 * _FINE:
            self._counts[number if number > 0 else 0] += 1
            return
        shift = number.bit_length() - _MANTISSA_BITS
        bucket = shift * _FINE + (number >> shift)
        self._counts[bucket if bucket < _BUCKETS else _BUCKETS - 1] += 1

    def values(self) -> Iterator[tuple[float, int]]:
        """Yield (middle of the bucket, count) of each bucket in use, in rising order."""
        for bucket, count in enumerate(self._counts):
            if count:
                if bucket < 2 * _FINE:
                    yield float(bucket), count
                else:
                    shift, mantissa = bucket // _FINE - 1, bucket % _FINE + _FINE
                    yield (mantissa + 0.5) * (1 << shift), count


class VariantCounters:
    """What happened at one variant since the last flush."""

    __slots__ = ("client_errors", "failures", "invocations", "model_latency", "overhead", "server_errors")

    def __init__(self) -> None:
        self.invocations = 0
        self.client_errors = 0
        self.server_errors = 0
        self.failures = 0
        self.model_latency = Histogram()
        self.overhead = Histogram()

    def data(self, endpoint: str, variant: str, instances: int, time: float) -> list[dict[str, Any]]:
        """Return the metric data of namespace ``AWS/SageMaker``; empty if nothing was invoked.

        AWS sends one value for each invocation (1 or 0 for errors, 1/instances for the share of an instance);
        `Values` with `Counts` say the same. `failures` are invocations that got no answer at all.
        """
        total = self.invocations
        if not total:
            return []
        bad = self.client_errors + self.server_errors + self.failures
        dimensions = [
            {"Name": "EndpointName", "Value": endpoint},
            {"Name": "VariantName", "Value": variant},
        ]

        def datum(name: str, unit: str, values: list[tuple[float, int]]) -> dict[str, Any]:
            return {
                "MetricName": name,
                "Dimensions": dimensions,
                "Timestamp": time,
                "Unit": unit,
                "Values": [value for value, _ in values],
                "Counts": [float(count) for _, count in values],
            }

        def share(count: int) -> list[tuple[float, int]]:
            return [pair for pair in ((0.0, total - count), (1.0, count)) if pair[1]]

        data = [
            datum("Invocations", "None", [(1.0, total)]),
            datum("InvocationsPerInstance", "None", [(1.0 / max(1, instances), total)]),
            datum("Invocation4XXErrors", "None", share(self.client_errors)),
            datum("Invocation5XXErrors", "None", share(self.server_errors)),
            datum("InvocationModelErrors", "None", share(bad)),
        ]
        for name, histogram in (("ModelLatency", self.model_latency), ("OverheadLatency", self.overhead)):
            values = list(histogram.values())
            data += [
                datum(name, "Microseconds", values[at : at + _MOST_VALUES])
                for at in range(0, len(values), _MOST_VALUES)
            ]
        return data
