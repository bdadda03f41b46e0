"""Alarms: their operations, and their evaluation on metrics that really were put."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from sagesmith.alarms import AlarmWatch
from sagesmith.errors import AwsError
from sagesmith.services.cloudwatch import handlers
from sagesmith.store.alarms import Alarms, Raised
from sagesmith.store.database import Database
from sagesmith.store.metrics import Metrics
from sagesmith.store.resources import Resources
from tests.conftest import FakeClock
from tests.services.direct import ACCOUNT, Direct

T0 = 1_700_000_040.0
SCALE = "arn:aws:autoscaling:us-east-1:123456789012:scalingPolicy:1:resource/sagemaker/e:policyName/p"


class World:
    """CloudWatch with a clock that tests move."""

    def __init__(self, database: Database, clock: FakeClock) -> None:
        clock.now = T0
        self.clock = clock
        self.metrics = Metrics(database, clock)
        resources = Resources(database, clock)
        self.alarms = Alarms(resources, ACCOUNT, clock)
        self.cloudwatch = Direct(*handlers(self.metrics, self.alarms, resources), clock=clock)
        self.acted: list[tuple[str, str, tuple[float, ...]]] = []
        self.watch = AlarmWatch(self.alarms, self.metrics, self.act, clock=clock, lag_s=0.0)

    async def act(self, raised: Raised, action: str) -> None:
        if action != SCALE:
            raise LookupError("nobody performs this")
        self.acted.append((raised.alarm.name, raised.state, tuple(raised.values)))

    def alarm(self, name: str = "high", **more: Any) -> None:
        self.cloudwatch("PutMetricAlarm", **an_alarm(name, **more))

    def describe(self, name: str = "high") -> Mapping[str, Any]:
        (alarm,) = self.cloudwatch("DescribeAlarms", AlarmNames=[name])["MetricAlarms"]
        found: Mapping[str, Any] = alarm
        return found

    async def minute(self, value: float | None) -> str:
        """Let a minute pass in which the metric had *value*; return the alarm's state after it."""
        if value is not None:
            self.cloudwatch("PutMetricData", Namespace="N", MetricData=[{"MetricName": "m", "Value": value}])
        self.clock.now += 60
        await self.watch.look()
        return str(self.describe()["StateValue"])


def an_alarm(name: str = "high", **more: Any) -> dict[str, Any]:
    given = {
        "AlarmName": name, "Namespace": "N", "MetricName": "m", "Statistic": "Average", "Period": 60,
        "EvaluationPeriods": 2, "Threshold": 10.0, "ComparisonOperator": "GreaterThanThreshold", **more,
    }  # fmt: skip
    return {member: value for member, value in given.items() if value is not None}


@pytest.fixture
def world(sqlite_database: Database, clock: FakeClock) -> World:
    return World(sqlite_database, clock)


async def test_an_alarm_follows_its_metric(world: World) -> None:
    world.alarm(AlarmActions=[SCALE])
    assert world.describe()["StateValue"] == "INSUFFICIENT_DATA"
    states = [await world.minute(value) for value in (5, 20, 30, 30, 5)]
    assert states == ["OK", "OK", "ALARM", "ALARM", "OK"]
    assert "(10.0)" in world.describe()["StateReason"]
    assert world.acted == [("high", "ALARM", (30.0, 20.0)), ("high", "ALARM", (30.0, 30.0))], "in each period"
    history = world.cloudwatch("DescribeAlarmHistory", AlarmName="high", ScanBy="TimestampAscending")
    items = [(item["HistoryItemType"], item["HistorySummary"]) for item in history["AlarmHistoryItems"]]
    assert items == [
        ("ConfigurationUpdate", 'Alarm "high" created'),
        ("StateUpdate", "Alarm updated from INSUFFICIENT_DATA to OK"),
        ("StateUpdate", "Alarm updated from OK to ALARM"),
        ("Action", f"Successfully executed action {SCALE}"),
        ("StateUpdate", "Alarm updated from ALARM to OK"),
    ]
    data = json.loads(history["AlarmHistoryItems"][2]["HistoryData"])
    assert data["newState"]["stateValue"] == "ALARM"


async def test_a_metric_that_is_not_there(world: World) -> None:
    world.alarm(MetricName="nothing")
    assert await world.minute(None) == "INSUFFICIENT_DATA"
    world.alarm(MetricName="nothing", TreatMissingData="breaching")
    assert await world.minute(None) == "ALARM"
    world.alarm(MetricName="nothing", TreatMissingData="notBreaching")
    assert await world.minute(None) == "OK"


async def test_one_of_two_datapoints_and_dimensions(world: World) -> None:
    world.alarm(DatapointsToAlarm=1, Dimensions=[{"Name": "d", "Value": "1"}])
    assert await world.minute(50) == "INSUFFICIENT_DATA", "another series"
    world.alarm(DatapointsToAlarm=1)
    assert await world.minute(5) == "ALARM", "of the two periods one breaches"


async def test_a_state_that_is_set_lasts_until_the_next_period(world: World) -> None:
    world.alarm(AlarmActions=[SCALE, "arn:aws:sns:us-east-1:123456789012:topic"])
    assert await world.minute(5) == "OK"
    world.cloudwatch("SetAlarmState", AlarmName="high", StateValue="ALARM", StateReason="a drill")
    assert world.describe()["StateReason"] == "a drill"
    await world.watch.look()
    assert world.acted == [("high", "ALARM", ())]
    history = world.cloudwatch("DescribeAlarmHistory", AlarmName="high", HistoryItemType="Action")
    assert any(
        "Failed to execute action arn:aws:sns" in i["HistorySummary"] for i in history["AlarmHistoryItems"]
    )
    assert await world.minute(5) == "OK"
    assert world.alarms.raised("us-east-1", ["high", "none"], T0) == ["high"]
    assert world.alarms.raised("us-east-1", ["high"], world.clock.now) == []


async def test_actions_that_are_off_are_not_performed(world: World) -> None:
    world.alarm(AlarmActions=[SCALE], EvaluationPeriods=1)
    world.cloudwatch("DisableAlarmActions", AlarmNames=["high"])
    assert await world.minute(50) == "ALARM"
    assert world.acted == []
    world.cloudwatch("EnableAlarmActions", AlarmNames=["high"])
    await world.minute(50)
    assert len(world.acted) == 1


def test_describe_pages_and_filters(world: World) -> None:
    for number in range(5):
        world.alarm(f"a{number}", AlarmActions=[SCALE] if number == 3 else [])
    world.alarm("b")
    first = world.cloudwatch("DescribeAlarms", AlarmNamePrefix="a", MaxRecords=3)
    second = world.cloudwatch(
        "DescribeAlarms", AlarmNamePrefix="a", MaxRecords=3, NextToken=first["NextToken"]
    )
    names = [alarm["AlarmName"] for page in (first, second) for alarm in page["MetricAlarms"]]
    assert names == ["a0", "a1", "a2", "a3", "a4"]
    assert "NextToken" not in second
    found = world.cloudwatch("DescribeAlarms", ActionPrefix="arn:aws:autoscaling")["MetricAlarms"]
    assert [alarm["AlarmName"] for alarm in found] == ["a3"]
    on_metric = world.cloudwatch("DescribeAlarmsForMetric", Namespace="N", MetricName="m")["MetricAlarms"]
    assert len(on_metric) == 6
    with pytest.raises(AwsError, match="InvalidNextToken"):
        world.cloudwatch("DescribeAlarms", NextToken="x")


def test_a_deleted_alarm_keeps_its_history(world: World) -> None:
    world.alarm()
    with pytest.raises(AwsError, match="no alarm of the name 'other'"):
        world.cloudwatch("DeleteAlarms", AlarmNames=["high", "other"])
    world.cloudwatch("DeleteAlarms", AlarmNames=["high"])
    assert world.cloudwatch("DescribeAlarms")["MetricAlarms"] == []
    history = world.cloudwatch("DescribeAlarmHistory", AlarmName="high")["AlarmHistoryItems"]
    assert [item["HistorySummary"] for item in history] == ['Alarm "high" deleted', 'Alarm "high" created']


def test_tags(world: World) -> None:
    world.alarm(Tags=[{"Key": "team", "Value": "one"}])
    arn = world.describe()["AlarmArn"]
    world.cloudwatch("TagResource", ResourceARN=arn, Tags=[{"Key": "more", "Value": "2"}])
    world.cloudwatch("UntagResource", ResourceARN=arn, TagKeys=["team"])
    tags = world.cloudwatch("ListTagsForResource", ResourceARN=arn)["Tags"]
    assert tags == [{"Key": "more", "Value": "2"}]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"Statistic": None}, "Statistic and ExtendedStatistic"),
        ({"ExtendedStatistic": "p99"}, "Exactly one"),
        ({"Threshold": None}, "Threshold is required"),
        ({"Period": 7}, "Period is 7"),
        ({"Period": 3600, "EvaluationPeriods": 25}, "at most 86400 s"),
        ({"DatapointsToAlarm": 3}, "must not exceed"),
        ({"TreatMissingData": "no"}, "TreatMissingData"),
        ({"ComparisonOperator": "GreaterThanUpperThreshold"}, "anomaly detection"),
        ({"Metrics": [{"Id": "a", "Expression": "b"}]}, "Metrics is not supported"),
    ],
)
def test_what_makes_no_sense_is_refused(world: World, change: dict[str, Any], words: str) -> None:
    with pytest.raises(AwsError, match=words):
        world.cloudwatch("PutMetricAlarm", **an_alarm(**change))


def test_setting_the_state_of_nothing(world: World) -> None:
    with pytest.raises(AwsError, match="ResourceNotFound"):
        world.cloudwatch("SetAlarmState", AlarmName="x", StateValue="OK", StateReason="r")
    world.alarm()
    with pytest.raises(AwsError, match="InvalidFormat"):
        world.cloudwatch(
            "SetAlarmState", AlarmName="high", StateValue="OK", StateReason="r", StateReasonData="{"
        )
