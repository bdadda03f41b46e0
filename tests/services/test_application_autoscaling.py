"""Application Auto Scaling on a capacity that tests hold in their hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from sagesmith.alarms import AlarmWatch
from sagesmith.errors import AwsError
from sagesmith.scaling import Scaler
from sagesmith.services import application_autoscaling, cloudwatch
from sagesmith.store.alarms import Alarms
from sagesmith.store.database import Database
from sagesmith.store.metrics import Metrics
from sagesmith.store.resources import Resources
from sagesmith.store.scaling import Scaling
from tests.conftest import FakeClock
from tests.services.direct import ACCOUNT, Direct

T0 = 1_700_000_040.0
DIMENSION = "sagemaker:variant:DesiredInstanceCount"
VARIANT = {
    "ServiceNamespace": "sagemaker", "ResourceId": "endpoint/e/variant/v", "ScalableDimension": DIMENSION,
}  # fmt: skip


class FakeCapacity:
    """One variant that has what it is asked for at once, unless it is `busy`."""

    def __init__(self) -> None:
        self.count: int | None = 1
        self.busy = False
        self.limits = (1, 10)
        self.fault: AwsError | None = None

    def read(self, region: str, resource_id: str) -> tuple[int, bool] | None:
        if self.count is None or resource_id != VARIANT["ResourceId"]:
            return None
        return self.count, not self.busy

    def change(self, region: str, resource_id: str, count: int) -> None:
        if self.fault is not None:
            raise self.fault
        self.count = count


class World:
    def __init__(self, database: Database, clock: FakeClock) -> None:
        clock.now = T0
        self.clock = clock
        self.capacity = FakeCapacity()
        resources = Resources(database, clock)
        metrics, alarms = Metrics(database, clock), Alarms(resources, ACCOUNT, clock)
        scaling = Scaling(resources, ACCOUNT, clock)
        self.scaler = Scaler(scaling, alarms, {("sagemaker", DIMENSION): self.capacity}, clock=clock)
        self.watch = AlarmWatch(alarms, metrics, self.scaler.act, clock=clock, lag_s=0.0)
        self.cloudwatch = Direct(*cloudwatch.handlers(metrics, alarms, resources), clock=clock)
        self.autoscaling = Direct(
            *application_autoscaling.handlers(
                scaling, alarms, resources,
                exists=lambda target: self.capacity.read(target.region, target.resource_id) is not None,
                limits=lambda target: self.capacity.limits,
                notify=self.scaler.notify,
            ),
            clock=clock,
        )  # fmt: skip

    def register(self, least: int = 1, most: int = 10, **more: Any) -> None:
        self.autoscaling("RegisterScalableTarget", **VARIANT, MinCapacity=least, MaxCapacity=most, **more)

    def track(self, name: str = "p", **more: Any) -> Mapping[str, Any]:
        configuration = {
            "TargetValue": 100.0,
            "PredefinedMetricSpecification": {
                "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"
            },
            "ScaleInCooldown": 0,
            "ScaleOutCooldown": 0,
            **more,
        }
        return self.autoscaling(
            "PutScalingPolicy", **VARIANT, PolicyName=name, PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration=configuration,
        )  # fmt: skip

    async def minutes(self, count: int, value: float | None = None) -> None:
        """Let minutes pass, in each of which an instance got *value* invocations."""
        dimensions = [{"Name": "EndpointName", "Value": "e"}, {"Name": "VariantName", "Value": "v"}]
        for _ in range(count):
            if value is not None:
                datum = {"MetricName": "InvocationsPerInstance", "Dimensions": dimensions, "Value": value}
                self.cloudwatch("PutMetricData", Namespace="AWS/SageMaker", MetricData=[datum])
            self.clock.now += 60
            await self.watch.look()

    def activities(self) -> list[dict[str, Any]]:
        answer = self.autoscaling("DescribeScalingActivities", ServiceNamespace="sagemaker")
        found: list[dict[str, Any]] = answer["ScalingActivities"]
        return found

    async def settled(self) -> list[dict[str, Any]]:
        """Return the activities once none is in progress."""
        async with asyncio.timeout(10):
            while any(activity["StatusCode"] == "InProgress" for activity in self.activities()):
                await asyncio.sleep(0.01)
        return self.activities()


@pytest.fixture
async def world(sqlite_database: Database, clock: FakeClock) -> AsyncIterator[World]:
    world = World(sqlite_database, clock)
    await world.scaler.start()
    yield world
    await world.scaler.close()


async def test_provisioned_concurrency_is_tracked_by_its_utilization(world: World) -> None:
    target = {**VARIANT, "ScalableDimension": "sagemaker:variant:DesiredProvisionedConcurrency"}
    world.autoscaling("RegisterScalableTarget", **target, MinCapacity=1, MaxCapacity=5)
    kind = "SageMakerVariantProvisionedConcurrencyUtilization"
    tracking = {"TargetValue": 0.5, "PredefinedMetricSpecification": {"PredefinedMetricType": kind}}
    policy = {
        **target, "PolicyName": "p", "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": tracking,
    }  # fmt: skip
    put = world.autoscaling("PutScalingPolicy", **policy)
    names = [alarm["AlarmName"] for alarm in put["Alarms"]]
    high, low = world.cloudwatch("DescribeAlarms", AlarmNames=names)["MetricAlarms"]
    assert (high["MetricName"], high["Statistic"]) == (
        "ServerlessProvisionedConcurrencyUtilization",
        "Average",
    )
    assert (high["Threshold"], low["Threshold"]) == (0.5, 0.45)
    other = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    tracking["PredefinedMetricSpecification"] = other
    with pytest.raises(AwsError, match=f"Use {kind}"):
        world.autoscaling("PutScalingPolicy", **policy)


async def test_target_tracking_out_and_in(world: World) -> None:
    world.register(most=4)
    put = world.track()
    names = [alarm["AlarmName"] for alarm in put["Alarms"]]
    assert names[0].startswith("TargetTracking-endpoint/e/variant/v-AlarmHigh-")
    high, low = world.cloudwatch("DescribeAlarms", AlarmNames=names)["MetricAlarms"]
    assert (high["Threshold"], low["Threshold"]) == (100.0, 90.0)
    assert high["AlarmActions"] == [put["PolicyARN"]]
    await world.minutes(2, 250)
    assert world.capacity.count == 1, "three datapoints are needed"
    await world.minutes(1, 250)
    assert world.capacity.count == 3
    await world.minutes(3, 400)
    assert world.capacity.count == 4, "the most there may be"
    (second, first) = await world.settled()
    assert first["Description"] == "Setting desired instance count to 3."
    assert first["Cause"] == f"monitor alarm {names[0]} in state ALARM triggered policy p"
    assert (first["StatusCode"], second["StatusCode"]) == ("Overridden", "Successful") or first[
        "StatusCode"
    ] == "Successful"
    await world.minutes(14, 10)
    assert world.capacity.count == 4, "fifteen datapoints are needed"
    await world.minutes(1, 10)
    assert world.capacity.count == 1


async def test_no_invocations_at_all_scale_in_to_the_least(world: World) -> None:
    world.capacity.count = 5
    world.register(least=2)
    world.track()
    await world.minutes(20)
    assert world.capacity.count == 2


async def test_what_may_be_empty_scales_to_nothing_and_back(world: World) -> None:
    world.capacity.limits = (0, 10)
    world.register(least=0)
    world.track()
    await world.minutes(20)
    assert world.capacity.count == 0
    await world.minutes(3, 500)
    assert world.capacity.count == 1


async def test_while_an_endpoint_changes_it_is_left_alone(world: World) -> None:
    world.register()
    world.track()
    world.capacity.busy = True
    await world.minutes(5, 500)
    assert world.capacity.count == 1
    world.capacity.busy = False
    await world.minutes(1, 500)
    assert world.capacity.count == 5


async def test_suspended_scaling(world: World) -> None:
    world.register(SuspendedState={"DynamicScalingOutSuspended": True})
    world.track()
    await world.minutes(5, 500)
    assert world.capacity.count == 1
    world.autoscaling(
        "RegisterScalableTarget", **VARIANT, SuspendedState={"DynamicScalingOutSuspended": False}
    )
    await world.minutes(1, 500)
    assert world.capacity.count == 5


async def test_two_policies_scale_in_only_together(world: World) -> None:
    world.capacity.count = 4
    world.register()
    world.track()
    custom = {"MetricName": "m", "Namespace": "N", "Statistic": "Average"}
    world.autoscaling(
        "PutScalingPolicy", **VARIANT, PolicyName="custom", PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 5.0, "CustomizedMetricSpecification": custom, "ScaleInCooldown": 0,
        },
    )  # fmt: skip
    for _ in range(20):
        world.cloudwatch("PutMetricData", Namespace="N", MetricData=[{"MetricName": "m", "Value": 5.0}])
        await world.minutes(1)
    assert world.capacity.count == 4, "the other one is content"
    for _ in range(20):
        world.cloudwatch("PutMetricData", Namespace="N", MetricData=[{"MetricName": "m", "Value": 1.0}])
        await world.minutes(1)
    assert world.capacity.count == 1


async def test_step_scaling_by_an_alarm_of_ones_own(world: World) -> None:
    world.register()
    policy = world.autoscaling(
        "PutScalingPolicy", **VARIANT, PolicyName="steps", PolicyType="StepScaling",
        StepScalingPolicyConfiguration={
            "AdjustmentType": "ChangeInCapacity", "Cooldown": 60,
            "StepAdjustments": [
                {"MetricIntervalLowerBound": 0, "MetricIntervalUpperBound": 10, "ScalingAdjustment": 1},
                {"MetricIntervalLowerBound": 10, "ScalingAdjustment": 4},
            ],
        },
    )  # fmt: skip
    assert policy["Alarms"] == []
    world.cloudwatch(
        "PutMetricAlarm", AlarmName="queue", Namespace="N", MetricName="m", Statistic="Average", Period=60,
        EvaluationPeriods=1, Threshold=5, ComparisonOperator="GreaterThanThreshold", AlarmActions=[policy["PolicyARN"]],
    )  # fmt: skip
    for value, count in ((7.0, 2), (20.0, 6)):
        world.cloudwatch("PutMetricData", Namespace="N", MetricData=[{"MetricName": "m", "Value": value}])
        await world.minutes(1)
        assert world.capacity.count == count
    history = world.cloudwatch("DescribeAlarmHistory", AlarmName="queue", HistoryItemType="Action")
    assert policy["PolicyARN"] in history["AlarmHistoryItems"][0]["HistorySummary"]


async def test_a_scheduled_action_sets_limits_and_capacity(world: World) -> None:
    world.register()
    world.autoscaling(
        "PutScheduledAction", **VARIANT, ScheduledActionName="noon", Schedule="rate(1 hour)",
        StartTime=T0 + 3600, ScalableTargetAction={"MinCapacity": 3, "MaxCapacity": 5},
    )  # fmt: skip
    await world.scaler.look()
    assert world.capacity.count == 1
    world.clock.now = T0 + 3601
    await world.scaler.look()
    assert world.capacity.count == 3
    (target,) = world.autoscaling("DescribeScalableTargets", ServiceNamespace="sagemaker")["ScalableTargets"]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (3, 5)
    (activity,) = await world.settled()
    assert activity["Cause"] == "scheduled action name noon was triggered"
    world.register(1, 10)
    world.clock.now += 1000
    await world.scaler.look()
    world.clock.now += 3600
    await world.scaler.look()
    (target,) = world.autoscaling("DescribeScalableTargets", ServiceNamespace="sagemaker")["ScalableTargets"]
    assert target["MinCapacity"] == 3, "an hour later again"


async def test_new_limits_apply_at_once(world: World) -> None:
    world.register(least=2, most=3)
    async with asyncio.timeout(10):
        while world.capacity.count != 2:
            await asyncio.sleep(0.01)
    (activity,) = await world.settled()
    assert activity["StatusCode"] == "Successful"
    assert "limits" in activity["Cause"]


async def test_what_cannot_be_scaled_fails_with_its_reason(world: World) -> None:
    world.register()
    world.track()
    world.capacity.fault = AwsError("ValidationException", "no room")
    await world.minutes(4, 500)
    assert {a["StatusCode"] for a in world.activities()} == {"Failed"}
    assert "no room" in world.activities()[0]["StatusMessage"]
    world.capacity.count = None
    await world.minutes(2, 500)
    assert len(world.activities()) == 2, "an endpoint that is gone is no more asked for"


async def test_deleting(world: World) -> None:
    world.register()
    first = world.track()
    again = world.track(TargetValue=50.0)
    assert again["PolicyARN"] == first["PolicyARN"]
    assert len(world.cloudwatch("DescribeAlarms")["MetricAlarms"]) == 2, "the old ones are gone"
    (policy,) = world.autoscaling("DescribeScalingPolicies", ServiceNamespace="sagemaker")["ScalingPolicies"]
    assert policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 50.0
    assert [a["AlarmName"] for a in policy["Alarms"]] == [a["AlarmName"] for a in again["Alarms"]]
    world.autoscaling("DeleteScalingPolicy", **VARIANT, PolicyName="p")
    assert world.cloudwatch("DescribeAlarms")["MetricAlarms"] == []
    world.track()
    world.autoscaling(
        "PutScheduledAction", **VARIANT, ScheduledActionName="a", Schedule="rate(1 day)",
        ScalableTargetAction={"MinCapacity": 1},
    )  # fmt: skip
    world.autoscaling("DeregisterScalableTarget", **VARIANT)
    for operation, member in (
        ("DescribeScalingPolicies", "ScalingPolicies"),
        ("DescribeScheduledActions", "ScheduledActions"),
        ("DescribeScalableTargets", "ScalableTargets"),
    ):
        assert world.autoscaling(operation, ServiceNamespace="sagemaker")[member] == []
    assert world.cloudwatch("DescribeAlarms")["MetricAlarms"] == []


async def test_pages_and_tags(world: World) -> None:
    world.register(Tags={"team": "one"})
    for name in ("a", "b", "c"):
        world.track(name)
    first = world.autoscaling("DescribeScalingPolicies", ServiceNamespace="sagemaker", MaxResults=2)
    second = world.autoscaling(
        "DescribeScalingPolicies", ServiceNamespace="sagemaker", MaxResults=2, NextToken=first["NextToken"]
    )
    names = [p["PolicyName"] for page in (first, second) for p in page["ScalingPolicies"]]
    assert names == ["a", "b", "c"]
    (target,) = world.autoscaling("DescribeScalableTargets", ServiceNamespace="sagemaker")["ScalableTargets"]
    arn = target["ScalableTargetARN"]
    world.autoscaling("TagResource", ResourceARN=arn, Tags={"more": "2"})
    world.autoscaling("UntagResource", ResourceARN=arn, TagKeys=["team"])
    assert world.autoscaling("ListTagsForResource", ResourceARN=arn)["Tags"] == {"more": "2"}


@pytest.mark.parametrize(
    ("operation", "request_", "code", "words"),
    [
        ("PutScalingPolicy", {"PolicyName": "p"}, "ObjectNotFoundException", "No scalable target registered"),
        ("DeleteScalingPolicy", {"PolicyName": "p"}, "ObjectNotFoundException", "No scaling policy found"),
        ("DeregisterScalableTarget", {}, "ObjectNotFoundException", "No scalable target registered"),
        ("RegisterScalableTarget", {}, "ValidationException", "must be given"),
        ("RegisterScalableTarget", {"MinCapacity": 3, "MaxCapacity": 2}, "ValidationException", "cannot be less"),
        ("RegisterScalableTarget", {"MinCapacity": 0, "MaxCapacity": 2}, "ValidationException", "at least 1"),
        ("RegisterScalableTarget", {"MinCapacity": 1, "MaxCapacity": 11}, "ValidationException", "at most 10"),
        (
            "RegisterScalableTarget",
            {"ResourceId": "endpoint/none/variant/v", "MinCapacity": 1, "MaxCapacity": 2},
            "ValidationException", "Create the endpoint first",
        ),
        ("RegisterScalableTarget", {"ResourceId": "table/t"}, "ValidationException", "must look like"),
        (
            "RegisterScalableTarget",
            {"ServiceNamespace": "ecs", "ScalableDimension": "ecs:service:DesiredCount"},
            "ValidationException", "only",
        ),
    ],
)  # fmt: skip
async def test_bad_requests(
    world: World, operation: str, request_: dict[str, Any], code: str, words: str
) -> None:
    with pytest.raises(AwsError, match=words) as caught:
        world.autoscaling(operation, **{**VARIANT, **request_})
    assert caught.value.code == code


async def test_bad_policies(world: World) -> None:
    world.register()
    with pytest.raises(AwsError, match="Exactly one of PredefinedMetricSpecification"):
        world.track(CustomizedMetricSpecification={"MetricName": "m"})
    with pytest.raises(AwsError, match="above 0"):
        world.track(TargetValue=0.0)
    for steps, words in (
        ([], "At least one"),
        (
            [{"MetricIntervalLowerBound": 5, "MetricIntervalUpperBound": 5, "ScalingAdjustment": 1}],
            "must be below",
        ),
        (
            [
                {"MetricIntervalLowerBound": 0, "MetricIntervalUpperBound": 5, "ScalingAdjustment": 1},
                {"MetricIntervalLowerBound": 6, "ScalingAdjustment": 1},
            ],
            "gap",
        ),
    ):
        with pytest.raises(AwsError, match=words):
            world.autoscaling(
                "PutScalingPolicy", **VARIANT, PolicyName="p", PolicyType="StepScaling",
                StepScalingPolicyConfiguration={"AdjustmentType": "ExactCapacity", "StepAdjustments": steps},
            )  # fmt: skip
    with pytest.raises(AwsError, match="rate"):
        world.autoscaling(
            "PutScheduledAction", **VARIANT, ScheduledActionName="a", Schedule="rate(x)",
            ScalableTargetAction={"MinCapacity": 1},
        )  # fmt: skip
