"""A training job that exists: what it is doing, its log and metrics, waiting for it, stopping it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from sagesmith.sdk._chart import Chart
from sagesmith.sdk._errors import SdkError
from sagesmith.sdk._job import ENDED, Job
from sagesmith.sdk._logs import TRAINING_JOBS
from sagesmith.sdk._metrics import Metrics
from sagesmith.sdk._progress import Progress, State, display
from sagesmith.sdk._session import Session

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TrainingJob", "curves"]

_LOG_EVERY_S: Final = 0.3
_LOG_EVERY_S_AT_AWS: Final = 3.0


class TrainingJob(Job):
    """The training job *name*. Nothing is asked before it is needed; what a stopped one has made is its model."""

    _KIND = "Training"
    _LOG_GROUP = TRAINING_JOBS

    def __init__(self, name: str, *, session: Session | None = None) -> None:
        super().__init__(name, session=session)
        self._ended: dict[str, Any] | None = None

    def describe(self) -> dict[str, Any]:
        """Return AWS's description of the job.

        Raises:
            NotFound: there is no such job.
        """
        if self._ended is not None:
            return self._ended
        found = super().describe()
        if self._status_of(found) in ENDED:
            self._ended = found
        return found

    @property
    def model_data(self) -> str:
        """The S3 URI of the model.

        Raises:
            SdkError: the job has made none, or has not ended.
        """
        job = self.describe()
        found = job.get("ModelArtifacts", {}).get("S3ModelArtifacts")
        if not found or job["TrainingJobStatus"] not in ("Completed", "Stopped"):
            raise SdkError(f"The training job {self.name} is {job['TrainingJobStatus']} and has no model.")
        return str(found)

    def wait(
        self, *, progress: Progress | bool = "auto", logs: bool = False, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Wait until the job has ended; return its description.

        Args:
            progress: how to show what goes on.
            logs: print the lines of its log instead, as they come.
            timeout_s: at most so many seconds; the job goes on all the same.

        Raises:
            JobFailed: it failed; the error has the reason and the last lines of its log.
        """
        watch = _Watch(self, logs=logs)
        with display("off" if logs else progress) as screen:

            def seen(job: dict[str, Any]) -> None:
                screen.show(watch.look(job))

            job = self._until_ended(seen=seen, timeout_s=timeout_s)
        return self._succeeded(job)

    def metrics(self) -> pd.DataFrame:
        """Return every metric value so far as a DataFrame with the columns metric, step, value and time."""
        job = self.describe()
        metrics = Metrics.of(job)
        metrics.take(self._reader().read())
        return metrics.frame(job)

    def plot(self, *patterns: str) -> Chart:
        """Return the metrics as a chart; with *patterns* only those whose name contains one of them."""
        return curves({self.name: self.metrics()}, patterns, title=self.name)


class _Watch:
    """Makes states of descriptions, and looks into the log now and then."""

    def __init__(self, job: TrainingJob, *, logs: bool) -> None:
        self._job, self._print = job, logs
        self._reader = job._reader()
        self._metrics: Metrics | None = None
        self._every_s = _LOG_EVERY_S_AT_AWS if job.session.is_aws else _LOG_EVERY_S
        self._next = 0.0
        self._line = ""
        self._readable = True

    def look(self, job: dict[str, Any]) -> State:
        """Return what *job*'s description and the log tell."""
        status = job["TrainingJobStatus"]
        done = status in ENDED
        self._read(job, done)
        transitions = job.get("SecondaryStatusTransitions") or [{}]
        failed = status == "Failed"
        message = job.get("FailureReason", "") if failed else transitions[-1].get("StatusMessage", "")
        metrics = self._metrics.latest() if self._metrics is not None else {}
        final = {m["MetricName"]: float(m["Value"]) for m in job.get("FinalMetricDataList", ())}
        return State(
            title=self._job.name,
            stage=status if done else job.get("SecondaryStatus", status),
            message=message,
            line=self._line,
            metrics=metrics or final,
            failed=failed,
            done=done,
        )

    def _read(self, job: dict[str, Any], done: bool) -> None:
        now = time.monotonic()
        # At the end nobody waits for lines that nobody sees: only printing wants them all.
        if (
            not self._readable
            or (now < self._next and not (done and self._print))
            or (done and not self._print)
        ):
            return
        self._next = now + self._every_s
        if self._metrics is None:
            self._metrics = Metrics.of(job)
        try:
            lines = self._reader.read()
        except SdkError:  # the keys may not read logs; the job is waited for all the same
            self._readable = False
            return
        self._metrics.take(lines)
        for line in lines:
            if line.text.strip():
                self._line = line.text.strip()
            if self._print:
                print(line.text)


def curves(
    frames: Mapping[str, pd.DataFrame],
    patterns: tuple[str, ...] = (),
    *,
    title: str = "",
    wanted: Callable[[str], bool] | None = None,
) -> Chart:
    """Return the metrics of several jobs as one chart; a curve is named by its metric, and its job if several.

    Args:
        frames: what `TrainingJob.metrics` returned, by job.
        patterns: only metrics whose name contains one of them; all if there are none.
        title: what stands above.
        wanted: says of a metric's name whether it is drawn.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for job, frame in frames.items():
        for metric, part in frame.groupby("metric", sort=False):
            name = str(metric)
            if patterns and not any(pattern in name for pattern in patterns):
                continue
            if wanted is not None and not wanted(name):
                continue
            label = name if len(frames) == 1 else f"{job} {name}"
            found[label] = list(zip(part["step"].astype(float), part["value"].astype(float), strict=True))
    return Chart(found, title=title)
