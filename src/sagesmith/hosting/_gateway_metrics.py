"""What the gateway counts for each production variant, in the form in which CloudWatch takes it.

One number per request would be too much to keep and to store. Latencies go into a histogram of logarithmic
buckets (at most 3 % wide on either side), whose values and counts CloudWatch takes, so that percentiles stay
computable; everything else is a counter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from mypy_extensions import mypyc_attr

from sagesmith.store.metrics import Datum

__all__ = ["Histogram", "VariantCounters"]

_MANTISSA_BITS = 5
_FINE = 1 << (_MANTISSA_BITS - 1)
_BUCKETS = _FINE * 32


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


@mypyc_attr(allow_interpreted_subclasses=True)
class VariantCounters:
    """What happened at one variant since the last flush."""

    __slots__ = (
        "client_errors", "failures", "invocations", "model_latency", "more", "overhead", "server_errors",
    )  # fmt: skip

    def __init__(self) -> None:
        self.invocations = 0
        self.client_errors = 0
        self.server_errors = 0
        self.failures = 0
        self.model_latency = Histogram()
        self.overhead = Histogram()
        self.more: dict[tuple[str, str], Counter[float]] = {}

    def note(self, name: str, unit: str, value: float) -> None:
        """Count a *value* of a metric that only some variants have."""
        self.more.setdefault((name, unit), Counter())[value] += 1

    def data(self, endpoint: str, variant: str, instances: int, time: float) -> list[Datum]:
        """Return the metric data of namespace ``AWS/SageMaker``; empty if nothing was counted.

        AWS sends one value for each invocation (1 or 0 for errors, 1/instances for the share of an instance);
        values with counts say the same. `failures` are invocations that got no answer at all.
        """
        total = self.invocations
        dimensions = {"EndpointName": endpoint, "VariantName": variant}

        def datum(name: str, unit: str, pairs: Iterable[tuple[float, int]]) -> Datum:
            values, counts = zip(*(pair for pair in pairs if pair[1]), strict=True)
            return Datum(name, dimensions, time, unit=unit, values=values, counts=counts)

        def errors(name: str, count: int) -> Datum:
            return datum(name, "None", ((0.0, total - count), (1.0, count)))

        more = [datum(name, unit, values.items()) for (name, unit), values in self.more.items()]
        if not total:
            return more
        data = [
            datum("Invocations", "None", [(1.0, total)]),
            datum("InvocationsPerInstance", "None", [(1.0 / max(1, instances), total)]),
            errors("Invocation4XXErrors", self.client_errors),
            errors("Invocation5XXErrors", self.server_errors),
            errors("InvocationModelErrors", self.client_errors + self.server_errors + self.failures),
        ]
        if total > self.failures:
            data.append(datum("ModelLatency", "Microseconds", self.model_latency.values()))
            data.append(datum("OverheadLatency", "Microseconds", self.overhead.values()))
        return data + more
