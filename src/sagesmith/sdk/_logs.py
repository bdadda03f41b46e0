"""Log lines of jobs and endpoints, from CloudWatch Logs, once or as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sagesmith.sdk._errors import NotFound

if TYPE_CHECKING:
    from sagesmith.sdk._session import Session

__all__ = ["ENDPOINTS", "TRAINING_JOBS", "TRANSFORM_JOBS", "Line", "LogReader"]

TRAINING_JOBS = "/aws/sagemaker/TrainingJobs"
TRANSFORM_JOBS = "/aws/sagemaker/TransformJobs"
ENDPOINTS = "/aws/sagemaker/Endpoints"


@dataclass(frozen=True, slots=True)
class Line:
    """One line: seconds since 1970, the stream (one for each instance) and the text."""

    time: float
    stream: str
    text: str


class LogReader:
    """Reads what was added since it last read.

    Args:
        session: where the logs are.
        group: the log group.
        prefix: what the names of the streams begin with, such as ``my-job/``; empty for all.
        last: begin with so many lines of each stream; with the first if None.
    """

    def __init__(self, session: Session, group: str, prefix: str, *, last: int | None = None) -> None:
        self._session, self._group, self._prefix, self._last = session, group, prefix, last
        self._tokens: dict[str, str] = {}

    def read(self) -> list[Line]:
        """Return the lines that came since the last call, of all streams, by time."""
        found: list[Line] = []
        for stream in self._streams():
            found += self._read_stream(stream)
        found.sort(key=lambda line: line.time)
        return found

    def follow(self, ended: Callable[[], bool]) -> Iterator[Line]:
        """Yield lines as they come until *ended* says that there will be no more, and then the rest."""
        pause_s = 2.0 if self._session.is_aws else 0.1
        while True:
            last = ended()
            yield from self.read()
            if last:
                return
            time.sleep(pause_s)

    def _streams(self) -> list[str]:
        prefixed = {"logStreamNamePrefix": self._prefix} if self._prefix else {}
        try:
            return [
                stream["logStreamName"]
                for stream in self._session.pages(
                    "logs",
                    "describe_log_streams",
                    "logStreams",
                    logGroupName=self._group,
                    **prefixed,
                )
            ]
        except NotFound:
            return []

    def _read_stream(self, stream: str) -> list[Line]:
        lines: list[Line] = []
        while True:
            token = self._tokens.get(stream)
            more: dict[str, Any] = {"startFromHead": True}
            if token:
                more["nextToken"] = token
            elif self._last is not None:
                more = {"startFromHead": False, "limit": self._last}
            try:
                answer = self._session.call(
                    "logs", "get_log_events", logGroupName=self._group, logStreamName=stream, **more
                )
            except NotFound:
                return lines
            lines += [
                Line(event["timestamp"] / 1000, stream.removeprefix(self._prefix), event["message"])
                for event in answer["events"]
            ]
            self._tokens[stream] = answer["nextForwardToken"]
            if answer["nextForwardToken"] == token or not answer["events"]:
                return lines
