"""Log events: put, get, filter."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sagesmith.aws.call import Call, operation
from sagesmith.services.logs._names import group_of, invalid_parameter
from sagesmith.store.logs import Logs

__all__ = ["LogEvents"]

_MOST_BYTES: Final = 1_048_576
_EVENT_OVERHEAD: Final = 26
_DAY_MS: Final = 86_400_000
_FUTURE_MS: Final = 2 * 3_600_000
_PAST_MS: Final = 14 * _DAY_MS


class LogEvents:
    """The operations on events."""

    service = "logs"

    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    @operation("PutLogEvents")
    def put_log_events(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Append events; those too far in the past or the future are told apart and left out."""
        group_name, stream = request["logGroupName"], request["logStreamName"]
        events = [(int(event["timestamp"]), str(event["message"])) for event in request["logEvents"]]
        _check_batch(events)
        group = self._logs.group(group_name, region=call.region)
        kept, rejected = _in_time(events, int(call.time * 1000), group.retention_days)
        self._logs.put(group_name, stream, kept, region=call.region, create=False)
        answer: dict[str, Any] = {"nextSequenceToken": f"{int(call.time * 1e6):056d}"}
        if rejected:
            answer["rejectedLogEventsInfo"] = rejected
        return answer

    @operation("GetLogEvents")
    def get_log_events(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return events of one stream, and tokens to go on in both directions."""
        page = self._logs.get(
            group_of(call, request), request["logStreamName"], region=call.region,
            start_ms=request.get("startTime"), end_ms=request.get("endTime"),
            limit=request.get("limit", 10_000), from_head=request.get("startFromHead", False),
            token=request.get("nextToken"),
        )  # fmt: skip
        return {
            "events": [
                {"timestamp": event.position.ms, "message": event.text, "ingestionTime": event.ingested_ms}
                for event in page.events
            ],
            "nextForwardToken": page.forward_token,
            "nextBackwardToken": page.backward_token,
        }

    @operation("FilterLogEvents")
    def filter_log_events(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the events of several streams that match a pattern, merged by time."""
        names, prefix = request.get("logStreamNames", ()), request.get("logStreamNamePrefix", "")
        if names and prefix:
            raise invalid_parameter("Only one of logStreamNames and logStreamNamePrefix may be given.")
        page = self._logs.filter(
            group_of(call, request), region=call.region, streams=names, prefix=prefix,
            start_ms=request.get("startTime"), end_ms=request.get("endTime"),
            pattern=request.get("filterPattern", ""), limit=request.get("limit", 10_000),
            token=request.get("nextToken"),
        )  # fmt: skip
        answer: dict[str, Any] = {
            "events": [
                {
                    "logStreamName": found.stream,
                    "timestamp": found.event.position.ms,
                    "message": found.event.text,
                    "ingestionTime": found.event.ingested_ms,
                    "eventId": found.id,
                }
                for found in page.events
            ],
            "searchedLogStreams": [],
        }
        if page.next_token is not None:
            answer["nextToken"] = page.next_token
        return answer


def _check_batch(events: Sequence[tuple[int, str]]) -> None:
    size = sum(len(text.encode("utf-8", "replace")) + _EVENT_OVERHEAD for _, text in events)
    if size > _MOST_BYTES:
        raise invalid_parameter(f"Upload too large: {size} bytes exceeds limit of {_MOST_BYTES}")
    times = [ms for ms, _ in events]
    if any(later < earlier for earlier, later in itertools.pairwise(times)):
        raise invalid_parameter("Log events in a single PutLogEvents request must be in chronological order.")
    if times and times[-1] - times[0] > _DAY_MS:
        raise invalid_parameter(
            "The batch of log events in a single PutLogEvents request cannot span more than 24 hours."
        )


def _in_time(
    events: Sequence[tuple[int, str]], now_ms: int, retention_days: int
) -> tuple[list[tuple[int, str]], dict[str, int]]:
    """Return the *events* that are neither too old nor too new, and what AWS tells about the others."""
    rejected: dict[str, int] = {}
    expired = sum(ms < now_ms - retention_days * _DAY_MS for ms, _ in events) if retention_days else 0
    too_old = sum(ms < now_ms - _PAST_MS for ms, _ in events)
    too_new = sum(ms > now_ms + _FUTURE_MS for ms, _ in events)
    if expired > too_old:
        rejected["expiredLogEventEndIndex"] = expired
    elif too_old:
        rejected["tooOldLogEventEndIndex"] = too_old
    if too_new:
        rejected["tooNewLogEventStartIndex"] = len(events) - too_new
    return list(events[max(expired, too_old) : len(events) - too_new]), rejected
