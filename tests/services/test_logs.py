"""CloudWatch Logs, as boto3, the CLI and the SDKs use it."""

from __future__ import annotations

import time

import pytest

from sagesmith.errors import AwsError
from sagesmith.services.logs import handlers
from sagesmith.store.database import Database
from sagesmith.store.logs import Logs
from sagesmith.store.resources import Resources
from tests.aws.conftest import Running
from tests.conftest import FakeClock
from tests.services.direct import Direct

GROUP = "/aws/sagemaker/TrainingJobs"
ARN = f"arn:aws:logs:us-east-1:123456789012:log-group:{GROUP}"
T0 = 1_700_000_000_000


@pytest.fixture
def store(sqlite_database: Database, clock: FakeClock) -> Logs:
    return Logs(sqlite_database, clock)


@pytest.fixture
def logs(store: Logs, sqlite_database: Database, clock: FakeClock) -> Direct:
    return Direct(*handlers(store, Resources(sqlite_database, clock)), clock=clock)


def make(logs: Direct, *streams: str) -> None:
    logs("CreateLogGroup", logGroupName=GROUP)
    for stream in streams:
        logs("CreateLogStream", logGroupName=GROUP, logStreamName=stream)


def put(logs: Direct, stream: str, *events: tuple[int, str]) -> None:
    logs(
        "PutLogEvents", logGroupName=GROUP, logStreamName=stream,
        logEvents=[{"timestamp": T0 + ms, "message": text} for ms, text in events],
    )  # fmt: skip


def test_events_put_are_events_got(logs: Direct) -> None:
    make(logs, "s")
    put(logs, "s", (0, "a"), (1, "b"))
    page = logs("GetLogEvents", logGroupName=GROUP, logStreamName="s", startFromHead=True)
    assert [(e["timestamp"], e["message"], e["ingestionTime"]) for e in page["events"]] == [
        (T0, "a", T0),
        (T0 + 1, "b", T0),
    ]
    again = logs(
        "GetLogEvents", logGroupIdentifier=ARN + ":*", logStreamName="s", nextToken=page["nextForwardToken"]
    )
    assert again["events"] == []
    assert again["nextForwardToken"] == page["nextForwardToken"]


def test_groups_are_described(logs: Direct) -> None:
    make(logs, "s")
    logs("CreateLogGroup", logGroupName="other", tags={"a": "b"})
    put(logs, "s", (0, "abcd"))
    logs("PutRetentionPolicy", logGroupName=GROUP, retentionInDays=7)
    (group,) = logs("DescribeLogGroups", logGroupNamePrefix="/aws/")["logGroups"]
    assert group["logGroupName"] == GROUP
    assert group["arn"] == ARN + ":*"
    assert (group["retentionInDays"], group["storedBytes"], group["creationTime"]) == (7, 30, T0)
    logs("DeleteRetentionPolicy", logGroupName=GROUP)
    first = logs("DescribeLogGroups", limit=1)
    second = logs("DescribeLogGroups", limit=1, nextToken=first["nextToken"])
    assert "retentionInDays" not in first["logGroups"][0]
    assert second["logGroups"][0]["logGroupName"] == "other"
    assert "nextToken" not in second
    found = logs("DescribeLogGroups", logGroupIdentifiers=[ARN, "none"])["logGroups"]
    assert [group["logGroupName"] for group in found] == [GROUP]
    assert logs("ListLogGroups", logGroupNamePattern="OTH")["logGroups"][0]["logGroupName"] == "other"


def test_streams_have_no_token_when_all_fit(logs: Direct) -> None:
    names = [f"job-1/algo-{number}" for number in range(1, 51)]
    make(logs, *names, "other")
    put(logs, names[3], (5, "x"))
    page = logs("DescribeLogStreams", logGroupName=GROUP, logStreamNamePrefix="job-1/", limit=50)
    assert sorted(stream["logStreamName"] for stream in page["logStreams"]) == sorted(names)
    assert "nextToken" not in page
    latest = logs("DescribeLogStreams", logGroupName=GROUP, orderBy="LastEventTime", descending=True, limit=1)
    (stream,) = latest["logStreams"]
    assert stream["logStreamName"] == names[3]
    assert (stream["firstEventTimestamp"], stream["lastEventTimestamp"]) == (T0 + 5, T0 + 5)
    assert stream["arn"] == f"{ARN}:log-stream:{names[3]}"
    with pytest.raises(AwsError, match="Cannot order by LastEventTime"):
        logs("DescribeLogStreams", logGroupName=GROUP, orderBy="LastEventTime", logStreamNamePrefix="j")


def test_following_with_filter_as_the_cli_does(logs: Direct, clock: FakeClock) -> None:
    make(logs, "a", "b")
    put(logs, "a", (0, "one"))
    seen: dict[str, str] = {}
    request = {"logGroupName": GROUP, "interleaved": True, "startTime": T0}
    for number in range(4):
        while True:
            page = logs("FilterLogEvents", **request)
            for event in page["events"]:
                seen.setdefault(event["eventId"], event["message"])
                request["startTime"] = event["timestamp"]
            if "nextToken" not in page:
                request.pop("nextToken", None)
                break
            request["nextToken"] = page["nextToken"]
        put(logs, "ab"[number % 2], (number, f"more {number}"))
        clock.advance(1)
    assert list(seen.values()) == ["one", "more 0", "more 1", "more 2"]


def test_a_pattern_filters(logs: Direct) -> None:
    make(logs, "a", "b")
    put(logs, "a", (0, '{"level": "ERROR"}'), (1, '{"level": "INFO"}'))
    put(logs, "b", (0, "ERROR plain"))

    def messages(**request: object) -> list[str]:
        return [e["message"] for e in logs("FilterLogEvents", logGroupName=GROUP, **request)["events"]]

    assert messages(filterPattern="ERROR") == ['{"level": "ERROR"}', "ERROR plain"]
    assert messages(filterPattern='{ $.level = "ERROR" }') == ['{"level": "ERROR"}']
    assert messages(logStreamNamePrefix="b") == ["ERROR plain"]
    with pytest.raises(AwsError, match="Only one of"):
        messages(logStreamNamePrefix="b", logStreamNames=["b"])


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([(1, "a"), (0, "b")], "must be in chronological order"),
        ([(0, "a"), (86_400_001, "b")], "cannot span more than 24 hours"),
        (
            [(0, "x" * 600_000), (0, "x" * 600_000)],
            "Upload too large: 1200052 bytes exceeds limit of 1048576",
        ),
    ],
)
def test_a_batch_has_limits(logs: Direct, events: list[tuple[int, str]], message: str) -> None:
    make(logs, "s")
    with pytest.raises(AwsError, match=message) as caught:
        put(logs, "s", *events)
    assert caught.value.code == "InvalidParameterException"


def test_events_out_of_time_are_left_out_and_told(logs: Direct) -> None:
    make(logs, "s")
    hour, day = 3_600_000, 86_400_000

    def rejected(*times: int) -> object:
        answer = logs(
            "PutLogEvents", logGroupName=GROUP, logStreamName="s",
            logEvents=[{"timestamp": T0 + ms, "message": str(ms)} for ms in times],
        )  # fmt: skip
        return answer.get("rejectedLogEventsInfo")

    assert rejected(0, hour) is None
    assert rejected(0, 3 * hour, 4 * hour) == {"tooNewLogEventStartIndex": 1}
    assert rejected(-14 * day - 1, -14 * day) == {"tooOldLogEventEndIndex": 1}
    logs("PutRetentionPolicy", logGroupName=GROUP, retentionInDays=1)
    assert rejected(-day - 2, -day - 1, -day) == {"expiredLogEventEndIndex": 2}
    page = logs("GetLogEvents", logGroupName=GROUP, logStreamName="s", startFromHead=True)
    assert [event["timestamp"] - T0 for event in page["events"]] == [-14 * day, -day, 0, 0, hour]


@pytest.mark.parametrize(
    ("operation", "request_", "code", "message"),
    [
        ("CreateLogGroup", {"logGroupName": GROUP}, "ResourceAlreadyExistsException", "log group already exists"),
        ("CreateLogStream", {"logGroupName": GROUP, "logStreamName": "s"}, "ResourceAlreadyExistsException", "log stream already exists"),
        ("CreateLogStream", {"logGroupName": "no", "logStreamName": "s"}, "ResourceNotFoundException", "log group does not exist"),
        ("DescribeLogStreams", {"logGroupName": "no"}, "ResourceNotFoundException", "log group does not exist"),
        ("DescribeLogStreams", {}, "InvalidParameterException", "Exactly one of"),
        ("DescribeLogStreams", {"logGroupIdentifier": "arn:aws:logs:x"}, "InvalidParameterException", "not the ARN"),
        ("GetLogEvents", {"logGroupName": GROUP, "logStreamName": "no"}, "ResourceNotFoundException", "log stream does not exist"),
        ("DeleteLogGroup", {"logGroupName": "no"}, "ResourceNotFoundException", "log group does not exist"),
        ("PutRetentionPolicy", {"logGroupName": GROUP, "retentionInDays": 2}, "InvalidParameterException", "retentionInDays is 2"),
        ("TagResource", {"resourceArn": ARN + "x", "tags": {"a": "b"}}, "ResourceNotFoundException", "log group does not exist"),
    ],
)  # fmt: skip
def test_faults(logs: Direct, operation: str, request_: dict[str, str], code: str, message: str) -> None:
    make(logs, "s")
    with pytest.raises(AwsError, match=message) as caught:
        logs(operation, **request_)
    assert caught.value.code == code


def test_tags_of_groups(logs: Direct) -> None:
    logs("CreateLogGroup", logGroupName=GROUP, tags={"a": "1"})
    logs("TagResource", resourceArn=ARN + ":*", tags={"b": "2"})
    logs("TagLogGroup", logGroupName=GROUP, tags={"c": "3"})
    assert logs("ListTagsForResource", resourceArn=ARN)["tags"] == {"a": "1", "b": "2", "c": "3"}
    logs("UntagResource", resourceArn=ARN, tagKeys=["a"])
    logs("UntagLogGroup", logGroupName=GROUP, tags=["b"])
    assert logs("ListTagsLogGroup", logGroupName=GROUP)["tags"] == {"c": "3"}
    with pytest.raises(AwsError, match="50 tags"):
        logs("TagResource", resourceArn=ARN, tags={str(number): "" for number in range(50)})
    logs("DeleteLogGroup", logGroupName=GROUP)
    logs("CreateLogGroup", logGroupName=GROUP)
    assert logs("ListTagsForResource", resourceArn=ARN)["tags"] == {}


def test_boto3_over_the_wire(sqlite_database: Database) -> None:
    server = Running(handlers(Logs(sqlite_database), Resources(sqlite_database)))
    try:
        client = server.client("logs")
        client.create_log_group(logGroupName=GROUP, tags={"a": "b"})
        with pytest.raises(client.exceptions.ResourceAlreadyExistsException):
            client.create_log_group(logGroupName=GROUP)
        client.create_log_stream(logGroupName=GROUP, logStreamName="s")
        now = int(time.time() * 1000)
        events = [{"timestamp": now + number, "message": f"line {number} \u00e9\t"} for number in range(120)]
        client.put_log_events(logGroupName=GROUP, logStreamName="s", logEvents=events)
        pages = client.get_paginator("filter_log_events").paginate(
            logGroupName=GROUP, interleaved=True, PaginationConfig={"PageSize": 50}
        )
        assert [event["message"] for page in pages for event in page["events"]] == [
            e["message"] for e in events
        ]
        page = client.get_log_events(logGroupName=GROUP, logStreamName="s", limit=10)
        assert [event["timestamp"] for event in page["events"]] == [
            now + number for number in range(110, 120)
        ]
        with pytest.raises(client.exceptions.ResourceNotFoundException, match="log stream does not exist"):
            client.get_log_events(logGroupName=GROUP, logStreamName="none")
        assert client.list_tags_for_resource(resourceArn=ARN)["tags"] == {"a": "b"}
    finally:
        server.close()
