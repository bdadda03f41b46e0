"""Metrics of a training job: every value that its log tells, as SageMaker finds them, by regular expression.

CloudWatch keeps one value a minute, and a job tells only the last. The log has all; the expressions are in the job's
own description, also those that SageMaker adds for built-in algorithms.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from sagesmith.sdk._logs import Line

__all__ = ["Metrics"]


@dataclass(slots=True)
class Metrics:
    """Finds metrics in lines. `values` has (metric, step, value, time) in the order they came; steps begin at 0."""

    patterns: Sequence[tuple[str, re.Pattern[str]]]
    values: list[tuple[str, int, float, float]] = field(default_factory=list)
    _steps: dict[tuple[str, str], int] = field(default_factory=dict)

    @classmethod
    def of(cls, job: Mapping[str, Any]) -> Metrics:
        """Return what finds the metrics of the job that *job* describes."""
        definitions = job.get("AlgorithmSpecification", {}).get("MetricDefinitions", ())
        patterns = []
        for definition in definitions:
            try:
                patterns.append((str(definition["Name"]), re.compile(definition["Regex"])))
            except re.error:  # an expression that Python's engine does not know finds nothing here
                continue
        return cls(patterns)

    def take(self, lines: Iterable[Line]) -> None:
        """Look through *lines*."""
        for line in lines:
            text = line.text.replace("\t", "#011")
            for name, pattern in self.patterns:
                match = pattern.search(text)
                if match is None or not match.groups():
                    continue
                try:
                    value = float(match[1])
                except (TypeError, ValueError):
                    continue
                step = self._steps.get((name, line.stream), 0)
                self._steps[name, line.stream] = step + 1
                self.values.append((name, step, value, line.time))

    def latest(self) -> dict[str, float]:
        """Return the last value of each metric."""
        return {name: value for name, _, value, _ in self.values}

    def frame(self, job: Mapping[str, Any]) -> pd.DataFrame:
        """Return the values as a DataFrame: metric, step, value, time; the job's final ones if the log tells none."""
        import pandas as pd

        rows = list(self.values) or [
            (final["MetricName"], 0, float(final["Value"]), final["Timestamp"].timestamp())
            for final in job.get("FinalMetricDataList", ())
        ]
        frame = pd.DataFrame(rows, columns=["metric", "step", "value", "time"])
        frame["time"] = pd.to_datetime(frame["time"], unit="s", utc=True)
        return frame
