"""What training jobs and transform jobs have in common: describing one, its log, waiting for its end, stopping it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Final

from sagesmith.sdk._errors import ApiError, JobFailed, SdkError
from sagesmith.sdk._logs import Line, LogReader
from sagesmith.sdk._session import Session, default_session
from sagesmith.sdk._waiting import until

__all__ = ["ENDED", "Job"]

ENDED: Final = frozenset({"Completed", "Failed", "Stopped"})
_LAST_LINES: Final = 15


class Job:
    """The job *name* of one kind. Nothing is asked before it is needed."""

    _KIND: ClassVar[str]
    """Such as ``Training``."""
    _LOG_GROUP: ClassVar[str]

    def __init__(self, name: str, *, session: Session | None = None) -> None:
        self.name = name
        self.session = session or default_session()

    def describe(self) -> dict[str, Any]:
        """Return AWS's description of the job.

        Raises:
            NotFound: there is no such job.
        """
        return self._call("describe")

    @property
    def status(self) -> str:
        """``InProgress``, ``Completed``, ``Failed``, ``Stopping`` or ``Stopped``."""
        return self._status_of(self.describe())

    def logs(self, *, follow: bool = False) -> Iterator[Line]:
        """Yield the lines of the job's log; with *follow*, also those that come, until the job has ended."""
        reader = self._reader()
        if not follow:
            yield from reader.read()
            return
        yield from reader.follow(lambda: self.status in ENDED)

    def stop(self, *, wait: bool = True) -> None:
        """Stop the job; what it has made so far is kept. Nothing happens if it has ended."""
        try:
            self._call("stop")
        except ApiError:
            if self.status not in (*ENDED, "Stopping"):
                raise
        if wait:
            self._until_ended()

    def _call(self, verb: str) -> dict[str, Any]:
        operation = f"{verb}_{self._KIND.lower()}_job"
        return self.session.call("sagemaker", operation, **{f"{self._KIND}JobName": self.name})

    def _status_of(self, described: Mapping[str, Any]) -> str:
        return str(described[f"{self._KIND}JobStatus"])

    def _reader(self) -> LogReader:
        return LogReader(self.session, self._LOG_GROUP, f"{self.name}/")

    def _until_ended(
        self, *, seen: Callable[[dict[str, Any]], None] | None = None, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Wait for the end, showing every description to *seen*; return the last."""
        return until(
            self.describe,
            lambda described: self._status_of(described) in ENDED,
            self.session,
            timeout_s=timeout_s,
            what=f"The {self._KIND.lower()} job {self.name}",
            seen=seen,
        )

    def _succeeded(self, described: dict[str, Any]) -> dict[str, Any]:
        """Return what describes a job that has ended.

        Raises:
            JobFailed: it failed; the error has the reason and the last lines of its log.
        """
        if self._status_of(described) != "Failed":
            return described
        reason = str(described.get("FailureReason", "")) or "no reason is given"
        try:
            last = [line.text for line in self._reader().read()][-_LAST_LINES:]
        except SdkError:  # the keys may not read logs
            last = []
        sentence = f"The {self._KIND.lower()} job {self.name} failed: {reason}"
        raise JobFailed(sentence, job_name=self.name, reason=reason, log=last)

    def __repr__(self) -> str:
        return f"{self._KIND}Job({self.name!r})"
