"""Log streams: create, delete, describe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sagesmith.aws.call import Call, operation
from sagesmith.services.logs._names import group_arn, group_of, invalid_parameter
from sagesmith.store.logs import Logs, LogStream

__all__ = ["LogStreams"]


class LogStreams:
    """The operations on streams."""

    service = "logs"

    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    @operation("CreateLogStream")
    def create_log_stream(self, call: Call, request: Mapping[str, Any]) -> None:
        """Make an empty stream."""
        self._logs.create_stream(request["logGroupName"], request["logStreamName"], region=call.region)

    @operation("DeleteLogStream")
    def delete_log_stream(self, call: Call, request: Mapping[str, Any]) -> None:
        """Remove a stream with its events."""
        self._logs.delete_stream(request["logGroupName"], request["logStreamName"], region=call.region)

    @operation("DescribeLogStreams")
    def describe_log_streams(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """List streams by the beginning of their names, ordered by name or latest event.

        `nextToken` is there only if more streams follow: the SageMaker SDK asks again for ever otherwise.
        """
        group = group_of(call, request)
        prefix = request.get("logStreamNamePrefix", "")
        order = request.get("orderBy", "LogStreamName")
        if prefix and order == "LastEventTime":
            raise invalid_parameter("Cannot order by LastEventTime with a logStreamNamePrefix.")
        page = self._logs.streams(
            group, region=call.region, prefix=prefix, order_by=order,
            descending=request.get("descending", False), limit=request.get("limit", 50),
            token=request.get("nextToken"),
        )  # fmt: skip
        streams = [_described(call, group, stream) for stream in page.items]
        if page.next_token is None:
            return {"logStreams": streams}
        return {"logStreams": streams, "nextToken": page.next_token}


def _described(call: Call, group: str, stream: LogStream) -> dict[str, Any]:
    described: dict[str, Any] = {
        "logStreamName": stream.name,
        "creationTime": int(stream.created * 1000),
        "arn": f"{group_arn(call, group)}:log-stream:{stream.name}",
        "storedBytes": 0,  # as AWS has answered since 2019
    }
    if stream.ingested:
        described["firstEventTimestamp"] = stream.first_ms
        described["lastEventTimestamp"] = stream.last_ms
        described["lastIngestionTime"] = int(stream.ingested * 1000)
        described["uploadSequenceToken"] = f"{int(stream.ingested * 1e6):056d}"
    return described
