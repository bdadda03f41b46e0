"""Looking at metrics for alarms.

A period counts when it is over and its data had time to arrive. Each alarm is then evaluated once, whatever the
state that a client may have set meanwhile; as long as a state has actions that other parts of the server take, they
are told again with every evaluation, since what they did may not have been enough.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

from sagesmith.clock import Clock, system_clock
from sagesmith.lifecycle.alarm import LOOKED_AT_MORE, AlarmState, Rule, Verdict, evaluate
from sagesmith.store.alarms import ACTION_FAILED, ACTION_SUCCEEDED, Alarms, Raised
from sagesmith.store.metrics import Metrics
from sagesmith.store.resources import Missing, Resource
from sagesmith.store.threads import in_thread

__all__ = ["Act", "AlarmWatch", "rule_of"]

Act: TypeAlias = Callable[[Raised, str], Awaitable[None]]
"""Performs one action, by its ARN, of an alarm. What it raises is written into the alarm's history."""

_ACTIONS: Final = {
    "ALARM": "AlarmActions",
    "OK": "OKActions",
    "INSUFFICIENT_DATA": "InsufficientDataActions",
}
_log = logging.getLogger(__name__)


class AlarmWatch:
    """Evaluates every alarm at the end of its periods. On the event loop; the database in threads.

    Args:
        act: performs actions.
        lag_s: how long data of a period may take to arrive.
        tick_s: how often it is looked whether a period is over.
    """

    def __init__(
        self,
        alarms: Alarms,
        metrics: Metrics,
        act: Act,
        *,
        clock: Clock = system_clock,
        lag_s: float = 11.0,
        tick_s: float = 0.5,
    ) -> None:
        self._alarms = alarms
        self._metrics = metrics
        self._act = act
        self._clock = clock
        self._lag_s = lag_s
        self._tick_s = tick_s
        self._known: dict[str, Resource] = {}
        self._evaluated: dict[str, tuple[float, float]] = {}
        self._told: dict[str, tuple[str, float]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._run(), name="alarms")

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def look(self) -> None:
        """Evaluate every alarm of which a period is over since the last look."""
        found = await in_thread(self._alarms.all)
        known = self._known
        # One that has not changed since the last look keeps its document, which need not be decoded again.
        self._known = {
            alarm.arn: known[alarm.arn]
            if alarm.arn in known and known[alarm.arn].version == alarm.version
            else alarm
            for alarm in found
        }
        self._evaluated = {arn: seen for arn, seen in self._evaluated.items() if arn in self._known}
        self._told = {arn: seen for arn, seen in self._told.items() if arn in self._known}
        for alarm in self._known.values():
            try:
                await self._look_at(alarm)
            except Missing:
                pass  # deleted meanwhile
            except Exception:
                _log.exception("alarm %s could not be evaluated; it is tried again", alarm.arn)

    async def _look_at(self, alarm: Resource) -> None:
        period = int(alarm.document["Period"])
        end = math.floor((self._clock() - self._lag_s) / period) * period
        configured = alarm.document["AlarmConfigurationUpdatedTimestamp"]
        if self._evaluated.get(alarm.arn) != (end, configured):
            verdict = await in_thread(self._evaluate, alarm, end)
            self._evaluated[alarm.arn] = (end, configured)
        elif self._told.get(alarm.arn, ("", 0.0))[0] == alarm.status:
            return
        else:  # a client has set the state
            verdict = Verdict(AlarmState(alarm.status), "", ())
        await self._tell(alarm, verdict)

    def _evaluate(self, alarm: Resource, end: float) -> Verdict:
        verdict = evaluate(
            self._values(alarm.document, end), rule_of(alarm.document), AlarmState(alarm.status)
        )
        if verdict.state != alarm.status:
            data = _reason_data(alarm.document, verdict, end)
            self._alarms.set_state(
                alarm.region, alarm.name, verdict.state, verdict.reason, data, version=alarm.version
            )
        return verdict

    def _values(self, document: Mapping[str, Any], end: float) -> list[float | None]:
        period = int(document["Period"])
        count = int(document["EvaluationPeriods"]) + LOOKED_AT_MORE
        start = end - count * period
        dimensions = {item["Name"]: item["Value"] for item in document.get("Dimensions", ())}
        alarm_region = document["AlarmArn"].split(":")[3]
        points = self._metrics.statistics(
            document["Namespace"], document["MetricName"], dimensions, region=alarm_region,
            start=start, end=end, period=period, unit=document.get("Unit", ""),
        )  # fmt: skip
        statistic = document.get("Statistic") or document["ExtendedStatistic"]
        found = {point.time: point.summary.value(statistic) for point in points}
        return [found.get(start + number * period) for number in range(count)]

    async def _tell(self, alarm: Resource, verdict: Verdict) -> None:
        """Perform the actions of the state; those of a state that lasts again with each evaluation."""
        document, state = alarm.document, verdict.state.value
        before = self._told.get(alarm.arn)
        self._told[alarm.arn] = (state, self._clock())
        actions = document.get(_ACTIONS[state]) or ()
        is_new = before is None or before[0] != state
        if not actions or not document.get("ActionsEnabled", True) or (before is None and state != "ALARM"):
            return
        raised = Raised(alarm, state, actions, verdict.values)
        for action in actions:
            try:
                await self._act(raised, action)
            except Exception as error:
                if is_new:
                    await in_thread(
                        self._alarms.note, alarm.region, alarm.name, f"{ACTION_FAILED}{action}. {error}"
                    )
            else:
                if is_new:
                    await in_thread(
                        self._alarms.note, alarm.region, alarm.name, f"{ACTION_SUCCEEDED}{action}"
                    )

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            try:
                await self.look()
            except Exception:
                _log.exception("looking at alarms failed; it is tried again")


def rule_of(document: Mapping[str, Any]) -> Rule:
    """Return the rule that an alarm's document is."""
    periods = int(document["EvaluationPeriods"])
    return Rule(
        document["ComparisonOperator"],
        float(document["Threshold"]),
        periods,
        int(document.get("DatapointsToAlarm") or periods),
        document.get("TreatMissingData") or "missing",
    )


def _reason_data(document: Mapping[str, Any], verdict: Verdict, end: float) -> str:
    return json.dumps(
        {
            "version": "1.0",
            "queryDate": end,
            "period": document["Period"],
            "recentDatapoints": list(reversed(verdict.values)),
            "threshold": document["Threshold"],
            **({"statistic": document["Statistic"]} if document.get("Statistic") else {}),
        }
    )
