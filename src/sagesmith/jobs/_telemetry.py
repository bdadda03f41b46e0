"""What instances of jobs say about themselves goes to the logs and the metrics.

Lines are stored before their message is acknowledged. One that was stored but not acknowledged when the server
died comes again after its restart; lines are therefore compared with the end of their stream until something new
comes. Values of metrics come in such numbers that they are gathered for a moment; should the server die then, the
last values are found again in the lines that they came from.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from sagesmith.errors import AwsError
from sagesmith.instance import spec
from sagesmith.instance._metrics import MetricScanner
from sagesmith.store.logs import Logs
from sagesmith.store.metrics import Datum, Metrics
from sagesmith.store.threads import in_thread

__all__ = ["Telemetry", "log_stream"]

_log = logging.getLogger(__name__)

GATHERED_S: Final = 0.5
COMPARED: Final = 2_000
"""How many of a stream's last lines are looked through for a repeated message."""
SCANNED: Final = 10_000
"""How many of a stream's last lines are looked through for the last values of metrics."""


class _Run(Protocol):
    """What telemetry needs of a job's state."""

    @property
    def epoch_ms(self) -> int: ...
    @property
    def hosts(self) -> Sequence[object]: ...


def log_stream(name: str, run: _Run, number: int) -> str:
    """Return the log stream of host *number* (from 1); a job that starts again goes on in it."""
    return f"{name}/algo-{number}-{run.epoch_ms // 1000}"


class Telemetry:
    """Logs and metrics of the jobs of one kind. On the event loop; the database in threads.

    Args:
        group: the log group, which is also the namespace of the metrics.
    """

    def __init__(self, logs: Logs, metrics: Metrics, group: str) -> None:
        self.group = group
        self._logs = logs
        self._metrics = metrics
        self._last: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
        self._doubtful: set[str] = set()
        self._gathered: dict[str, list[Datum]] = {}
        self._flushing: asyncio.Task[None] | None = None

    # ---- logs ----

    def expect_repeats(self, instance_id: str) -> None:
        """The instance's next lines may have come before."""
        self._doubtful.add(instance_id)

    async def log(
        self, region: str, name: str, run: _Run, number: int, instance_id: str, message: spec.Log
    ) -> None:
        """Append lines of host *number* (from 1) to its stream; they are stored when this returns."""
        stream = log_stream(name, run, number)
        if message.part:
            stream += f"/{message.part}"
        await in_thread(self._put_lines, region, stream, instance_id, message.lines)

    def _put_lines(
        self, region: str, stream: str, instance_id: str, lines: Sequence[tuple[int, str]]
    ) -> None:
        if instance_id in self._doubtful:
            if self._is_there(region, stream, lines):
                return
            self._doubtful.discard(instance_id)
        self._logs.put(self.group, stream, lines, region=region)

    def _is_there(self, region: str, stream: str, lines: Sequence[tuple[int, str]]) -> bool:
        """Whether *lines* are the last in the stream, or followed only by lines of other messages."""
        there = self._lines(region, stream, COMPARED)
        wanted = sorted(lines)
        count = len(wanted)
        return wanted in (sorted(there[at : at + count]) for at in range(len(there) - count + 1))

    def _lines(self, region: str, stream: str, limit: int) -> list[tuple[int, str]]:
        try:
            page = self._logs.get(self.group, stream, region=region, limit=limit)
        except AwsError:  # no such stream yet
            return []
        return [(event.position.ms, event.text) for event in page.events]

    # ---- metrics ----

    def metric(self, region: str, name: str, message: spec.MetricValue) -> None:
        """Take a value that a metric definition found in the log."""
        self._last.setdefault((region, name), {})[message.name] = (message.time, message.value)
        dimensions = {"TrainingJobName": name}
        self._gather(region, [Datum(message.name, dimensions, message.time, message.value)])

    def utilization(self, region: str, name: str, number: int, message: spec.Utilization) -> None:
        """Take what host *number* used of its instance."""
        dimensions = {"Host": f"{name}/algo-{number}"}
        values = {
            "CPUUtilization": message.cpu,
            "MemoryUtilization": message.memory,
            "DiskUtilization": message.disk,
        }
        data = [Datum(metric, dimensions, message.time, value, "Percent") for metric, value in values.items()]
        self._gather(region, data)

    def final_metrics(self, region: str, name: str) -> list[dict[str, Any]]:
        """Return `FinalMetricDataList`: the last value of each metric of the job so far."""
        last = self._last.get((region, name), {})
        return [
            {"MetricName": metric, "Value": value, "Timestamp": time}
            for metric, (time, value) in sorted(last.items())
        ]

    async def recall(
        self, region: str, name: str, run: _Run, definitions: Iterable[Mapping[str, str]]
    ) -> None:
        """After a restart: find the last values of the metrics in the lines that are stored."""
        pairs = [(definition["Name"], definition["Regex"]) for definition in definitions]
        if not pairs:
            return
        found = await in_thread(self._scan, region, name, run, MetricScanner(pairs))
        self._last[region, name] = {**found, **self._last.get((region, name), {})}

    def _scan(
        self, region: str, name: str, run: _Run, scanner: MetricScanner
    ) -> dict[str, tuple[float, float]]:
        found: dict[str, tuple[float, float]] = {}
        for number in range(1, len(run.hosts) + 1):
            for ms, text in self._lines(region, log_stream(name, run, number), SCANNED):
                for value in scanner.scan(text, ms / 1000):
                    if value.name not in found or found[value.name][0] <= value.time:
                        found[value.name] = (value.time, value.value)
        return found

    def forget(self, region: str, name: str) -> None:
        """The job has ended: nothing more will come."""
        self._last.pop((region, name), None)

    def _gather(self, region: str, data: Iterable[Datum]) -> None:
        self._gathered.setdefault(region, []).extend(data)
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_task(self._flush_later())

    async def _flush_later(self) -> None:
        await asyncio.sleep(GATHERED_S)
        self._flushing = None
        await self.flush()

    async def flush(self) -> None:
        """Store the gathered values now."""
        gathered, self._gathered = self._gathered, {}
        for region, data in gathered.items():
            try:
                await in_thread(self._metrics.put, self.group, data, region=region)
            except Exception:  # a job must not fail for its metrics
                _log.exception("%d values of jobs' metrics could not be stored", len(data))

    async def close(self) -> None:
        """Store what is gathered, and end."""
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.gather(self._flushing, return_exceptions=True)
        await self.flush()
