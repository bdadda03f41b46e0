"""A batch transform job that exists: what it is doing, its log, waiting for it, stopping it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sagesmith.sdk._errors import ApiError, JobFailed
from sagesmith.sdk._jobs import ENDED
from sagesmith.sdk._logs import TRANSFORM_JOBS, Line, LogReader
from sagesmith.sdk._progress import Progress, State, display
from sagesmith.sdk._session import Session, default_session
from sagesmith.sdk._waiting import until

__all__ = ["TransformJob"]


class TransformJob:
    """The transform job *name*. Nothing is asked before it is needed."""

    def __init__(self, name: str, *, session: Session | None = None) -> None:
        self.name = name
        self.session = session or default_session()

    def describe(self) -> dict[str, Any]:
        """Return AWS's description of the job.

        Raises:
            NotFound: there is no such job.
        """
        return self.session.call("sagemaker", "describe_transform_job", TransformJobName=self.name)

    @property
    def status(self) -> str:
        """``InProgress``, ``Completed``, ``Failed``, ``Stopping`` or ``Stopped``."""
        return str(self.describe()["TransformJobStatus"])

    def wait(self, *, progress: Progress | bool = "auto", timeout_s: float | None = None) -> dict[str, Any]:
        """Wait until the job has ended; return its description.

        Raises:
            JobFailed: it failed; the error has the reason and the last lines of the log.
        """
        with display(progress) as screen:

            def seen(found: dict[str, Any]) -> None:
                status = found["TransformJobStatus"]
                reason = found.get("FailureReason", "")
                screen.show(State(self.name, status, reason, failed=status == "Failed", done=status in ENDED))

            found = until(
                self.describe,
                lambda found: found["TransformJobStatus"] in ENDED,
                self.session,
                timeout_s=timeout_s,
                what=f"The transform job {self.name}",
                seen=seen,
            )
        if found["TransformJobStatus"] == "Failed":
            reason = str(found.get("FailureReason", "no reason is given"))
            raise JobFailed(
                f"The transform job {self.name} failed: {reason}", job_name=self.name, reason=reason,
                log=[line.text for line in self.logs()][-15:],
            )  # fmt: skip
        return found

    def logs(self, *, follow: bool = False) -> Iterator[Line]:
        """Yield the lines of the job's log; with *follow*, also those that come, until the job has ended."""
        reader = LogReader(self.session, TRANSFORM_JOBS, f"{self.name}/")
        if not follow:
            yield from reader.read()
            return
        yield from reader.follow(lambda: self.status in ENDED)

    def stop(self, *, wait: bool = True) -> None:
        """Stop the job; what it has written stays. Nothing happens if it has ended."""
        try:
            self.session.call("sagemaker", "stop_transform_job", TransformJobName=self.name)
        except ApiError:
            if self.status not in (*ENDED, "Stopping"):
                raise
        if wait:
            until(
                self.describe,
                lambda found: found["TransformJobStatus"] in ENDED,
                self.session,
                what=f"The transform job {self.name}",
            )

    def __repr__(self) -> str:
        return f"TransformJob({self.name!r})"
