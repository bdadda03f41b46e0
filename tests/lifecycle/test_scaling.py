"""What scaling policies want, and when schedules come."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from sagesmith.lifecycle.scaling import Cooldown, Step, StepPolicy, TargetPolicy, within
from sagesmith.lifecycle.schedule import Schedule, ScheduleError

FRESH = Cooldown()


@pytest.mark.parametrize(
    ("value", "current", "wanted"),
    [(250.0, 2, 5), (101.0, 2, 3), (100.5, 10, 11), (300.0, 1, 3), (99.0, 1, 2)],
)
def test_capacity_grows_in_proportion(value: float, current: int, wanted: int) -> None:
    assert TargetPolicy(100.0).wanted([value], current, out=True, last=FRESH, at=0.0) == wanted


def test_capacity_shrinks_to_what_the_highest_load_needs() -> None:
    policy = TargetPolicy(100.0)
    assert policy.wanted([10.0, 45.0, 20.0], 4, out=False, last=FRESH, at=0.0) == 2
    assert policy.wanted([], 4, out=False, last=FRESH, at=0.0) == 0, "its limits keep the least"
    assert policy.wanted([89.0], 4, out=False, last=FRESH, at=0.0) is None
    assert TargetPolicy(100.0, scales_in=False).wanted([1.0], 4, out=False, last=FRESH, at=0.0) is None


def test_cooldowns_of_target_tracking() -> None:
    policy = TargetPolicy(100.0, out_cooldown_s=60, in_cooldown_s=120)
    last = FRESH.after(2, 4, 1000.0)
    assert policy.wanted([150.0], 4, out=True, last=last, at=1030.0) is None, "2 x 1.5 are there already"
    assert policy.wanted([300.0], 4, out=True, last=last, at=1030.0) == 6, "but the load grew"
    assert policy.wanted([150.0], 4, out=True, last=last, at=1061.0) == 6
    assert policy.wanted([10.0], 4, out=False, last=last, at=1100.0) is None
    assert policy.wanted([10.0], 4, out=False, last=last, at=1121.0) == 1
    shrunk = last.after(4, 3, 2000.0)
    assert policy.wanted([10.0], 3, out=False, last=shrunk, at=2100.0) is None
    assert policy.wanted([150.0], 3, out=True, last=shrunk, at=2001.0) == 5, "out does not wait for in"


def test_steps_by_distance() -> None:
    policy = StepPolicy("ChangeInCapacity", (Step(1, 0, 10), Step(3, 10), Step(-1, upper=0)), cooldown_s=60)
    wanted = [policy.wanted(d, 5, last=FRESH, at=0.0) for d in (0.0, 9.9, 10.0, 500.0, -0.1)]
    assert wanted == [6, 6, 8, 8, 4]
    last = FRESH.after(5, 6, 100.0)
    assert policy.wanted(5.0, 6, last=last, at=130.0) is None
    assert policy.wanted(50.0, 6, last=last, at=130.0) == 8, "the larger step counts what was added"
    assert policy.wanted(-5.0, 6, last=last, at=130.0) is None
    assert policy.wanted(-5.0, 6, last=last, at=161.0) == 5


def test_bounds_below_zero_belong_to_the_step_nearer_to_zero() -> None:
    policy = StepPolicy("ExactCapacity", (Step(1, upper=-10), Step(2, -10, 0), Step(3, 0)))
    wanted = [policy.wanted(d, 9, last=FRESH, at=0.0) for d in (-11.0, -10.0, -5.0, 0.0)]
    assert wanted == [1, 1, 2, 3]
    assert StepPolicy("ExactCapacity", (Step(1, 5),)).wanted(1.0, 9, last=FRESH, at=0.0) is None


@pytest.mark.parametrize(
    ("current", "percent", "at_least", "wanted"),
    [(10, 25, 1, 12), (4, 10, 1, 5), (4, 10, 2, 6), (10, -66, 1, 4), (3, -10, 1, 2), (10, 0, 1, None)],
)
def test_percentages_round_as_aws_rounds(
    current: int, percent: int, at_least: int, wanted: int | None
) -> None:
    policy = StepPolicy("PercentChangeInCapacity", (Step(percent),), at_least=at_least)
    assert policy.wanted(0.0, current, last=FRESH, at=0.0) == wanted


def test_limits() -> None:
    assert [within(n, 2, 5) for n in (0, 2, 4, 9)] == [2, 2, 4, 5]


def moment(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "zone", "after", "due"),
    [
        ("at(2026-12-24T18:00:00)", "", "2026-11-23 10:00", "2026-12-24 18:00"),
        ("at(2026-12-24T18:00:00)", "Europe/Berlin", "2026-11-23 10:00", "2026-12-24 17:00"),
        ("rate(5 minutes)", "", "2026-01-01 00:07", "2026-01-01 00:10"),
        ("rate(1 day)", "", "2026-01-03 01:00", "2026-01-04 00:00"),
        ("cron(0 9 * * ? *)", "", "2026-11-23 10:00", "2026-11-24 09:00"),
        ("cron(0/15 * * * ? *)", "", "2026-11-23 10:01", "2026-11-23 10:15"),
        ("cron(30 8 ? * MON-FRI *)", "", "2026-11-21 00:00", "2026-11-23 08:30"),
        ("cron(0 0 1,15 * ? *)", "", "2026-11-02 00:00", "2026-11-15 00:00"),
        ("cron(0 12 29 2 ? *)", "", "2026-03-01 00:00", "2028-02-29 12:00"),
        ("cron(0 6 * JAN ? 2027)", "America/New_York", "2026-11-02 00:00", "2027-01-01 11:00"),
    ],
)
def test_schedules(text: str, zone: str, after: str, due: str) -> None:
    found = Schedule.parse(text, zone).next(moment(after), moment("2026-01-01 00:00"))
    assert found is not None
    assert found == moment(due)


def test_schedules_end() -> None:
    assert Schedule.parse("at(2020-01-01T00:00:00)").next(moment("2026-01-01 00:00"), 0.0) is None
    assert Schedule.parse("cron(0 0 1 1 ? 2025)").next(moment("2026-01-01 00:00"), 0.0) is None


@pytest.mark.parametrize(
    ("text", "zone", "words"),
    [
        ("tomorrow", "", "must look like"),
        ("at(tomorrow)", "", "takes a time"),
        ("rate(0 minutes)", "", "a number of minutes"),
        ("cron(0 9 * *)", "", "takes minutes"),
        ("cron(0 25 * * ? *)", "", "no hours from 0 to 23"),
        ("cron(0 9 L * ? *)", "", "not supported"),
        ("cron(0 9 1 * MON *)", "", "one must be"),
        ("rate(1 day)", "Mars/Olympus", "time zone"),
    ],
)
def test_what_is_no_schedule(text: str, zone: str, words: str) -> None:
    with pytest.raises(ScheduleError, match=words):
        Schedule.parse(text, zone)
