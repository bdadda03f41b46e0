"""Alarms against the tables of the CloudWatch User Guide, "How alarm state is evaluated when data is missing"."""

from __future__ import annotations

import pytest

from sagesmith.lifecycle.alarm import AlarmState, Rule, evaluate

OK, ALARM, INSUFFICIENT = AlarmState.OK, AlarmState.ALARM, AlarmState.INSUFFICIENT_DATA
RETAIN = None


def values(picture: str) -> list[float | None]:
    """``0`` is a good datapoint, ``X`` one above the threshold, ``-`` none."""
    return [{"0": 0.0, "X": 2.0, "-": None}[sign] for sign in picture.split()]


@pytest.mark.parametrize(
    ("picture", "missing", "ignore", "breaching", "not_breaching"),
    [
        ("0 - X - X", OK, OK, OK, OK),
        ("0 - - - -", OK, OK, OK, OK),
        ("- - - - -", INSUFFICIENT, RETAIN, ALARM, OK),
        ("0 X X - X", ALARM, ALARM, ALARM, ALARM),
        ("- - X - -", ALARM, RETAIN, ALARM, OK),
    ],
)
@pytest.mark.parametrize("present", [OK, ALARM, INSUFFICIENT])
def test_three_of_three(
    picture: str, missing: AlarmState, ignore: AlarmState | None, breaching: AlarmState,
    not_breaching: AlarmState, present: AlarmState,
) -> None:  # fmt: skip
    expected = {
        "missing": missing, "ignore": ignore or present, "breaching": breaching, "notBreaching": not_breaching,
    }  # fmt: skip
    for treatment, state in expected.items():
        rule = Rule("GreaterThanThreshold", 1.0, 3, 3, treatment)
        assert evaluate(values(picture), rule, present).state is state, treatment


@pytest.mark.parametrize(
    ("picture", "missing", "ignore", "breaching", "not_breaching"),
    [
        ("0 - X - X", ALARM, ALARM, ALARM, ALARM),
        ("0 0 X 0 X", ALARM, ALARM, ALARM, ALARM),
        ("0 - X - -", OK, OK, ALARM, OK),
        ("- - - - 0", OK, OK, ALARM, OK),
        ("- - - X -", ALARM, RETAIN, ALARM, OK),
    ],
)
def test_two_of_three(
    picture: str, missing: AlarmState, ignore: AlarmState | None, breaching: AlarmState, not_breaching: AlarmState
) -> None:  # fmt: skip
    expected = {
        "missing": missing, "ignore": ignore or OK, "breaching": breaching, "notBreaching": not_breaching,
    }  # fmt: skip
    for treatment, state in expected.items():
        rule = Rule("GreaterThanThreshold", 1.0, 3, 2, treatment)
        assert evaluate(values(picture), rule, OK).state is state, treatment


@pytest.mark.parametrize(
    ("comparison", "value", "state"),
    [
        ("GreaterThanThreshold", 5.0, OK),
        ("GreaterThanOrEqualToThreshold", 5.0, ALARM),
        ("LessThanThreshold", 5.0, OK),
        ("LessThanOrEqualToThreshold", 5.0, ALARM),
        ("LessThanThreshold", 4.9, ALARM),
    ],
)
def test_comparisons(comparison: str, value: float, state: AlarmState) -> None:
    assert evaluate([None, None, value], Rule(comparison, 5.0, 1, 1), OK).state is state


def test_the_reason_says_what_was_seen() -> None:
    verdict = evaluate(values("- - 0 X X"), Rule("GreaterThanThreshold", 1.0, 3, 2), OK)
    assert verdict.values == (2.0, 2.0, 0.0)
    assert verdict.reason == (
        "Threshold Crossed: 2 out of the last 3 datapoints [2.0, 2.0, 0.0] were greater than the threshold (1.0) "
        "(minimum 2 datapoints for OK -> ALARM transition)."
    )
