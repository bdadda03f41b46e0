"""What instances of jobs say about themselves goes to the logs and the metrics.

A message that was stored but not acknowledged when the server died comes again after its restart. Lines of logs
are therefore compared with the end of their stream until something new comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sagesmith.errors import AwsError
from sagesmith.instance import spec
from sagesmith.jobs._training_spec import LOG_GROUP, log_stream
from sagesmith.lifecycle.training import TrainingRun

if TYPE_CHECKING:
    from sagesmith.store.logs import Logs
    from sagesmith.store.metrics import Metrics

__all__ = ["Telemetry"]

NAMESPACE: Final = LOG_GROUP
COMPARED: Final = 2000
"""How many of a stream's last lines are looked through for a repeated message."""


class Telemetry:
    """Writes logs and metrics of training jobs. The coroutines return once it is stored."""

    def __init__(self, logs: Logs, metrics: Metrics) -> None:
        self._logs = logs
        self._metrics = metrics
        self._last: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
        self._doubtful: set[str] = set()

    def expect_repeats(self, instance_id: str) -> None:
        """The instance's next messages may have come before."""
        self._doubtful.add(instance_id)

    async def log(
        self, region: str, name: str, run: TrainingRun, number: int, instance_id: str, message: spec.Log
    ) -> None:
        """Append lines of host *number* (from 1) to its stream."""
        stream = log_stream(name, run, number)
        await asyncio.to_thread(self._put_lines, region, stream, instance_id, message.lines)

    async def metric(self, region: str, name: str, message: spec.MetricValue) -> None:
        """Store a value that a metric definition found in the log."""
        datum = _datum(message.name, message.value, message.time, "TrainingJobName", name, "None")
        await asyncio.to_thread(self._metrics.put, NAMESPACE, [datum], region=region)
        self._last.setdefault((region, name), {})[message.name] = (message.time, message.value)

    async def utilization(self, region: str, name: str, number: int, message: spec.Utilization) -> None:
        """Store what host *number* used of its instance."""
        values = {
            "CPUUtilization": message.cpu,
            "MemoryUtilization": message.memory,
            "DiskUtilization": message.disk,
        }
        data = [
            _datum(metric, value, message.time, "Host", f"{name}/algo-{number}", "Percent")
            for metric, value in values.items()
        ]
        await asyncio.to_thread(self._metrics.put, NAMESPACE, data, region=region)

    def final_metrics(self, region: str, name: str) -> list[dict[str, Any]]:
        """Return `FinalMetricDataList`: the last value of each metric of the job so far."""
        last = self._last.get((region, name), {})
        return [
            {"MetricName": metric, "Value": value, "Timestamp": time}
            for metric, (time, value) in sorted(last.items())
        ]

    def forget(self, region: str, name: str) -> None:
        """The job has ended: nothing more will come."""
        self._last.pop((region, name), None)

    def _put_lines(
        self, region: str, stream: str, instance_id: str, lines: Sequence[tuple[int, str]]
    ) -> None:
        if instance_id in self._doubtful:
            if self._is_there(region, stream, lines):
                return
            self._doubtful.discard(instance_id)
        self._logs.put(LOG_GROUP, stream, lines, region=region)

    def _is_there(self, region: str, stream: str, lines: Sequence[tuple[int, str]]) -> bool:
        """Whether *lines* are the last in the stream, or followed only by some of the same messages."""
        try:
            page = self._logs.get(LOG_GROUP, stream, region=region, limit=COMPARED)
        except AwsError:  # no such stream yet
            return False
        there = [(event.time_ms, event.text) for event in page.events]
        wanted = sorted((ms, text) for ms, text in lines)
        return wanted in (sorted(there[at : at + len(lines)]) for at in range(len(there) - len(lines) + 1))


def _datum(
    name: str, value: float, time: float, dimension: str, dimension_value: str, unit: str
) -> Mapping[str, Any]:
    return {
        "MetricName": name,
        "Value": value,
        "Timestamp": time,
        "Unit": unit,
        "Dimensions": [{"Name": dimension, "Value": dimension_value}],
    }
