"""When a metric alarm is in which state: the last periods of its metric in, a verdict out.

More periods are looked at than the alarm evaluates. If enough of them have data, the latest with data decide, and
what is missing means nothing; only if too few have, missing ones count as the alarm says.

Source: Amazon CloudWatch User Guide, "Configuring how CloudWatch alarms treat missing data".
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["COMPARISONS", "LOOKED_AT_MORE", "MISSING", "AlarmState", "Rule", "Verdict", "evaluate"]

LOOKED_AT_MORE: Final = 2
"""So many periods more than `Rule.periods` are looked at."""

MISSING: Final = ("missing", "ignore", "breaching", "notBreaching")

COMPARISONS: Final[Mapping[str, tuple[Callable[[float, float], bool], str]]] = {
    "GreaterThanOrEqualToThreshold": (operator.ge, "greater than or equal to"),
    "GreaterThanThreshold": (operator.gt, "greater than"),
    "LessThanThreshold": (operator.lt, "less than"),
    "LessThanOrEqualToThreshold": (operator.le, "less than or equal to"),
}
"""By the comparison's name, what it does and how it reads."""


class AlarmState(StrEnum):
    """`StateValue`."""

    OK = "OK"
    ALARM = "ALARM"
    INSUFFICIENT_DATA = "INSUFFICIENT_DATA"


@dataclass(frozen=True, slots=True)
class Rule:
    """What makes an alarm: `to_alarm` of `periods` periods that compare so with `threshold`."""

    comparison: str
    threshold: float
    periods: int
    to_alarm: int
    missing: str = "missing"

    def breaches(self, value: float) -> bool:
        """Whether *value* is on the wrong side of the threshold."""
        return COMPARISONS[self.comparison][0](value, self.threshold)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state, why, and the values that decided, the latest first."""

    state: AlarmState
    reason: str
    values: tuple[float, ...] = ()


def evaluate(values: Sequence[float | None], rule: Rule, present: AlarmState) -> Verdict:
    """Return the verdict on *values*, one for each of the last periods, the oldest first (None: no data).

    Args:
        values: of `Rule.periods` + `LOOKED_AT_MORE` periods.
        present: the alarm's state now, which `ignore` keeps where data is missing.
    """
    found = [value for value in values if value is not None][-rule.periods :]
    breaching = [rule.breaches(value) for value in found]
    state = _state(breaching, rule, present)
    return Verdict(state, _reason(state, found, breaching, rule), tuple(reversed(found)))


def _state(breaching: Sequence[bool], rule: Rule, present: AlarmState) -> AlarmState:
    bad, absent = sum(breaching), rule.periods - len(breaching)
    if bad >= rule.to_alarm:
        return AlarmState.ALARM
    if not absent:
        return AlarmState.OK
    match rule.missing:
        case "breaching":
            return AlarmState.ALARM if bad + absent >= rule.to_alarm else AlarmState.OK
        case "notBreaching":
            return AlarmState.OK
        case "ignore":
            return AlarmState.OK if bad < len(breaching) else present
        case _:
            if not breaching:
                return AlarmState.INSUFFICIENT_DATA
            return AlarmState.OK if bad < len(breaching) else AlarmState.ALARM


def _reason(state: AlarmState, found: Sequence[float], breaching: Sequence[bool], rule: Rule) -> str:
    count = f"{len(found)} datapoint{'' if len(found) == 1 else 's'}"
    if not found:
        missing = "no datapoints were received"
        if state is AlarmState.INSUFFICIENT_DATA:
            return f"Insufficient Data: {missing} for {rule.periods} periods."
        meaning = {
            "breaching": "were treated as [Breaching]",
            "notBreaching": "were treated as [NonBreaching]",
            "ignore": "were ignored",
        }
        return (
            f"Threshold Crossed: {missing} for {rule.periods} period{'' if rule.periods == 1 else 's'} and "
            f"{rule.periods} missing datapoints {meaning.get(rule.missing, 'were missing')}."
        )
    number = sum(breaching) if state is AlarmState.ALARM else len(breaching) - sum(breaching)
    words = COMPARISONS[rule.comparison][1]
    negation = "" if state is AlarmState.ALARM else "not "
    shown = ", ".join(str(float(value)) for value in reversed(found))
    return (
        f"Threshold Crossed: {number} out of the last {count} [{shown}] {'was' if number == 1 else 'were'} "
        f"{negation}{words} the threshold ({float(rule.threshold)}) "
        f"(minimum {rule.to_alarm} datapoint{'' if rule.to_alarm == 1 else 's'} for OK -> ALARM transition)."
    )
