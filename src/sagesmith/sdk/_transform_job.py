"""A batch transform job that exists: what it is doing, its log, waiting for it, stopping it."""

from __future__ import annotations

from typing import Any

from sagesmith.sdk._job import ENDED, Job
from sagesmith.sdk._logs import TRANSFORM_JOBS
from sagesmith.sdk._progress import Progress, State, display

__all__ = ["TransformJob"]


class TransformJob(Job):
    """The transform job *name*. Nothing is asked before it is needed; what a stopped one has written stays."""

    _KIND = "Transform"
    _LOG_GROUP = TRANSFORM_JOBS

    def wait(self, *, progress: Progress | bool = "auto", timeout_s: float | None = None) -> dict[str, Any]:
        """Wait until the job has ended; return its description.

        Raises:
            JobFailed: it failed; the error has the reason and the last lines of the log.
        """
        with display(progress) as screen:

            def seen(found: dict[str, Any]) -> None:
                status = self._status_of(found)
                reason = found.get("FailureReason", "")
                screen.show(State(self.name, status, reason, failed=status == "Failed", done=status in ENDED))

            found = self._until_ended(seen=seen, timeout_s=timeout_s)
        return self._succeeded(found)
