"""What `Logs` does, on both databases."""

from __future__ import annotations

import random

import pytest

from sagesmith.errors import AwsError
from sagesmith.store.database import Database
from sagesmith.store.log_batches import SPAN_MS
from sagesmith.store.logs import LogPage, Logs
from tests.conftest import FakeClock

GROUP, STREAM, REGION = "/aws/sagemaker/TrainingJobs", "job-1/algo-1-1", "us-east-1"
T0 = 1_700_000_000_000


@pytest.fixture
def logs(database: Database, clock: FakeClock) -> Logs:
    return Logs(database, clock)


def put(logs: Logs, *events: tuple[int, str], stream: str = STREAM) -> None:
    logs.put(GROUP, stream, [(T0 + ms, text) for ms, text in events], region=REGION)


def texts(page: LogPage) -> list[str]:
    return [event.text for event in page.events]


def test_events_come_in_the_order_of_time_and_arrival(logs: Logs) -> None:
    put(logs, (5, "e"), (1, "b"), (5, "f"))
    put(logs, (1, "c"), (0, "a"), (5, "g"), (3, "d"))
    page = logs.get(GROUP, STREAM, region=REGION, from_head=True)
    assert texts(page) == list("abcdefg")
    assert texts(logs.get(GROUP, STREAM, region=REGION)) == list("abcdefg")
    assert texts(logs.get(GROUP, STREAM, region=REGION, limit=2)) == ["f", "g"]


def test_a_reader_that_follows_sees_each_event_once(logs: Logs) -> None:
    put(logs, (0, "a"))
    page = logs.get(GROUP, STREAM, region=REGION, from_head=True)
    seen = texts(page)
    for number in range(5):
        again = logs.get(GROUP, STREAM, region=REGION, token=page.forward_token)
        assert (again.events, again.forward_token) == ([], page.forward_token)
        put(logs, (0, f"{number}x"), (number, f"{number}y"))
        page = logs.get(GROUP, STREAM, region=REGION, token=page.forward_token)
        seen += texts(page)
    assert seen == [
        "a",
        "0x",
        "0y",
        "1x",
        "1y",
        "2y",
        "3y",
        "4y",
    ]  # what comes late with an old time is not new


def test_tokens_lead_through_everything_both_ways(logs: Logs) -> None:
    rng = random.Random(1)
    expected: list[tuple[int, int, str]] = []
    for number in range(40):
        start = rng.randrange(20) * SPAN_MS // 3
        events = sorted(start + rng.randrange(3 * SPAN_MS) for _ in range(rng.randrange(1, 12)))
        lines = [(ms, f"{number}-{place}") for place, ms in enumerate(events)]
        put(logs, *lines)
        expected += [(ms, len(expected) + place, text) for place, (ms, text) in enumerate(lines)]
    wanted = [text for _, _, text in sorted(expected)]
    for limit in (1, 7, 1000):
        found: list[str] = []
        page = logs.get(GROUP, STREAM, region=REGION, from_head=True, limit=limit)
        while page.events:
            found += texts(page)
            page = logs.get(GROUP, STREAM, region=REGION, limit=limit, token=page.forward_token)
        assert found == wanted
        found = []
        page = logs.get(GROUP, STREAM, region=REGION, limit=limit)
        while page.events:
            found = texts(page) + found
            page = logs.get(GROUP, STREAM, region=REGION, limit=limit, token=page.backward_token)
        assert found == wanted
    every = logs.filter(GROUP, region=REGION)
    assert [item.event.text for item in every.events] == wanted


def test_times_bound_a_page(logs: Logs) -> None:
    put(logs, *((ms, str(ms)) for ms in range(10)))
    for from_head in (True, False):
        page = logs.get(GROUP, STREAM, region=REGION, start_ms=T0 + 3, end_ms=T0 + 6, from_head=from_head)
        assert texts(page) == ["3", "4", "5"]
    found = logs.filter(GROUP, region=REGION, start_ms=T0 + 3, end_ms=T0 + 6)
    assert [item.event.text for item in found.events] == ["3", "4", "5", "6"]


def test_an_empty_stream_can_be_followed(logs: Logs) -> None:
    logs.create_group(GROUP, region=REGION)
    logs.create_stream(GROUP, STREAM, region=REGION)
    for from_head in (True, False):
        page = logs.get(GROUP, STREAM, region=REGION, from_head=from_head)
        assert page.events == []
    put(logs, (0, "a"))
    assert texts(logs.get(GROUP, STREAM, region=REGION, token=page.forward_token)) == ["a"]


@pytest.mark.parametrize("token", ["x", "f/1/s", "b/" + "1" * 56, "f/" + "x" * 56 + "/s"])
def test_a_token_of_nobody_is_refused(logs: Logs, token: str) -> None:
    put(logs, (0, "a"))
    with pytest.raises(AwsError, match="nextToken is invalid"):
        logs.get(GROUP, STREAM, region=REGION, token=token)
    with pytest.raises(AwsError, match="nextToken is invalid"):
        logs.filter(GROUP, region=REGION, token=token)


def test_streams_merge_through_a_filter(logs: Logs) -> None:
    for ms in range(30):
        put(logs, (ms, f"{'ERROR' if ms % 3 == 0 else 'fine'} {ms}"), stream=f"job-{ms % 2}/algo-{ms % 4}")
    found: list[str] = []
    token = None
    while True:
        page = logs.filter(GROUP, region=REGION, prefix="job-1/", pattern="ERROR", limit=2, token=token)
        found += [f"{item.stream} {item.event.text}" for item in page.events]
        token = page.next_token
        if token is None:
            break
    assert found == [f"job-1/algo-{ms % 4} ERROR {ms}" for ms in range(30) if ms % 2 and ms % 3 == 0]
    some = logs.filter(GROUP, region=REGION, streams=["job-0/algo-0", "job-1/algo-3"])
    assert [item.event.position.ms - T0 for item in some.events] == [
        ms for ms in range(30) if ms % 4 in (0, 3)
    ]
    assert len({item.id for item in some.events}) == len(some.events)
    with pytest.raises(AwsError, match="log stream does not exist"):
        logs.filter(GROUP, region=REGION, streams=["nowhere"])


def test_streams_are_listed(logs: Logs, clock: FakeClock) -> None:
    for number in range(7):
        put(logs, (100 - number, "x" * 10), stream=f"s{number}")
    put(logs, (500, "y"), stream="other")
    assert [s.name for s in logs.streams(GROUP, region=REGION, prefix="s").items] == [
        f"s{n}" for n in range(7)
    ]
    page = logs.streams(GROUP, region=REGION, order_by="LastEventTime", descending=True, limit=4)
    assert [s.name for s in page.items] == ["other", "s0", "s1", "s2"]
    rest = logs.streams(
        GROUP, region=REGION, order_by="LastEventTime", descending=True, limit=4, token=page.next_token
    )
    assert [s.name for s in rest.items] == ["s3", "s4", "s5", "s6"]
    assert rest.next_token is None
    stream = page.items[0]
    assert (stream.first_ms, stream.last_ms, stream.bytes) == (T0 + 500, T0 + 500, 27)
    assert stream.ingested == clock.now
    assert logs.group(GROUP, region=REGION).bytes == 7 * 36 + 27


def test_groups(logs: Logs) -> None:
    for name in ("/aws/b", "/aws/a", "/other", "/aws_x"):
        logs.create_group(name, region=REGION)
    with pytest.raises(AwsError, match="The specified log group already exists"):
        logs.create_group("/aws/a", region=REGION)
    logs.create_group("/aws/a", region="eu-west-1")
    assert [g.name for g in logs.groups(region=REGION, prefix="/aws/").items] == ["/aws/a", "/aws/b"]
    assert [g.name for g in logs.groups(region=REGION, contains="AWS").items] == [
        "/aws/a",
        "/aws/b",
        "/aws_x",
    ]
    page = logs.groups(region=REGION, limit=3)
    assert [g.name for g in logs.groups(region=REGION, limit=3, token=page.next_token).items] == ["/other"]


def test_what_is_deleted_is_gone(logs: Logs) -> None:
    put(logs, (0, "a"))
    put(logs, (0, "b"), stream="s2")
    logs.delete_stream(GROUP, STREAM, region=REGION)
    with pytest.raises(AwsError, match="The specified log stream does not exist"):
        logs.get(GROUP, STREAM, region=REGION)
    assert [item.event.text for item in logs.filter(GROUP, region=REGION).events] == ["b"]
    logs.delete_group(GROUP, region=REGION)
    with pytest.raises(AwsError, match="The specified log group does not exist"):
        logs.put(GROUP, "s2", [(T0, "x")], region=REGION, create=False)
    put(logs, (0, "new"), stream="s2")
    assert texts(logs.get(GROUP, "s2", region=REGION)) == ["new"]


def test_retention_removes_what_is_too_old(logs: Logs, clock: FakeClock) -> None:
    put(logs, (0, "old"))
    logs.put(GROUP, STREAM, [(T0 + 3 * 86_400_000, "new")], region=REGION)
    clock.advance(3 * 86_400)
    assert logs.expire() == 0
    logs.set_retention(GROUP, 1, region=REGION)
    assert logs.expire() == 1
    assert texts(logs.get(GROUP, STREAM, region=REGION)) == ["new"]


def test_any_text_can_be_logged(logs: Logs) -> None:
    put(logs, (0, "tab\tnul\x00 \u00e9\U0001f600"), (1, "lone \ud800"), (2, ""))
    assert texts(logs.get(GROUP, STREAM, region=REGION)) == ["tab\tnul\x00 \u00e9\U0001f600", "lone ?", ""]
