"""Endpoints under steady load: weights, instances that come and go and are killed, and updates of every kind."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import tarfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import xgboost
from botocore.exceptions import ClientError

from tests.e2e.flow import Flow, xgboost_image
from tests.e2e.load import Load
from tests.e2e.script_mode import archive, sklearn_image
from tests.e2e.served import Served, wait_until

ROW = b"1,2"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """A server that counts every second, and scales with periods of a second."""
    server = Served(settings={"metrics_every_s": 1, "scaling_period_s": 1})
    try:
        yield server.up()
    finally:
        server.remove()


@pytest.fixture(scope="module")
def flow(served: Served) -> Flow:
    """A bucket with the artifacts of constant models: `one` and `two` say so, `narrow` takes one column only."""
    flow = Flow(served, "hosting")
    flow.upload(
        {
            "one.tar.gz": constant_model(1.0),
            "two.tar.gz": constant_model(2.0),
            "narrow.tar.gz": constant_model(3.0, columns=1),
        }
    )
    for name in ("one", "two", "narrow"):
        container = {"Image": xgboost_image(), "ModelDataUrl": f"s3://hosting/{name}.tar.gz"}
        flow.sagemaker.create_model(ModelName=name, ExecutionRoleArn=served.role, PrimaryContainer=container)
    return flow


def constant_model(value: float, *, columns: int = 2) -> bytes:
    """Return the artifact of a model that predicts *value* for every row."""
    rows = np.arange(4.0 * columns).reshape(4, columns)
    data = xgboost.DMatrix(rows, label=np.full(4, value))
    booster = xgboost.train({"base_score": value, "max_depth": 1}, data, num_boost_round=1)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("xgboost-model")
        content = bytes(booster.save_raw("json"))
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def variant(model: str, *, name: str = "AllTraffic", count: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "VariantName": name, "ModelName": model, "InitialInstanceCount": count, "InstanceType": "ml.m5.large", **more,
    }  # fmt: skip


def configure(flow: Flow, name: str, *variants: Mapping[str, Any]) -> str:
    flow.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=list(variants))
    return name


def deploy(flow: Flow, name: str, *variants: Mapping[str, Any]) -> str:
    configure(flow, name, *variants)
    flow.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    flow.wait_for_endpoint(name)
    return name


def describe(flow: Flow, endpoint: str) -> dict[str, Any]:
    found: dict[str, Any] = flow.sagemaker.describe_endpoint(EndpointName=endpoint)
    return found


def until_status(flow: Flow, endpoint: str, status: str, *, timeout_s: float = 120) -> dict[str, Any]:
    wait_until(
        lambda: describe(flow, endpoint)["EndpointStatus"] == status, timeout_s=timeout_s, what=f"{endpoint} {status}"
    )  # fmt: skip
    return describe(flow, endpoint)


def instances(served: Served, endpoint: str) -> list[int]:
    """Return the processes of an endpoint's instances."""
    running = served.command("status", "--json").stdout
    return [
        instance["pid"]
        for instance in json.loads(running)["fleet"]["instances"]
        if instance["owner"].endswith(f"/{endpoint}") and instance["alive"] and instance["pid"]
    ]


def counted(flow: Flow, endpoint: str, variant: str, metric: str) -> int:
    """Return the sum of a metric of the last minutes."""
    points = flow.served.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SageMaker", MetricName=metric, Period=60, Statistics=["Sum"],
        Dimensions=[{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": variant}],
        StartTime=time.time() - 600, EndTime=time.time() + 60,
    )["Datapoints"]  # fmt: skip
    return sum(int(point["Sum"]) for point in points)


def gone(flow: Flow, endpoint: str) -> None:
    flow.sagemaker.delete_endpoint(EndpointName=endpoint)


def test_weights_are_kept_and_changed(flow: Flow) -> None:
    endpoint = deploy(
        flow,
        "weights",
        variant("one", name="big", InitialVariantWeight=9.0, RoutingConfig={"RoutingStrategy": "RANDOM"}),
        variant("two", name="small", InitialVariantWeight=1.0),
    )
    served = flow.served
    with Load(served, endpoint, ROW, connections=10, pause_s=0.0) as load:
        load.answers(1000)
    assert set(load.statuses) == {200}
    assert load.bodies["2.0"] / load.bodies.total() == pytest.approx(0.1, abs=0.005)
    aimed = flow.runtime.invoke_endpoint(
        EndpointName=endpoint, ContentType="text/csv", Body=ROW, TargetVariant="small"
    )
    assert (aimed["InvokedProductionVariant"], aimed["Body"].read()) == ("small", b"2.0")
    with Load(served, endpoint, ROW) as load:
        flow.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName=endpoint,
            DesiredWeightsAndCapacities=[
                {"VariantName": "big", "DesiredWeight": 0.0},
                {"VariantName": "small", "DesiredInstanceCount": 2},
            ],
        )
        until_status(flow, endpoint, "InService")
        assert len(instances(served, endpoint)) == 3
        load.forget_bodies()
        load.answers(200)
        assert set(load.bodies) == {"2.0"}
    assert set(load.statuses) == {200}, load.failures[:3]
    with pytest.raises(ClientError, match="must keep a weight above 0"):
        flow.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName=endpoint,
            DesiredWeightsAndCapacities=[{"VariantName": "small", "DesiredWeight": 0.0}],
        )
    gone(flow, endpoint)


def test_an_instance_may_be_killed(flow: Flow) -> None:
    """What was in flight on it is lost, at most one request for each connection; nothing else is."""
    endpoint = deploy(flow, "killed", variant("one", count=3))
    with Load(flow.served, endpoint, ROW) as load:
        load.answers(200)
        os.kill(instances(flow.served, endpoint)[0], signal.SIGKILL)
        wait_until(
            lambda: describe(flow, endpoint)["ProductionVariants"][0]["CurrentInstanceCount"] < 3,
            timeout_s=30, what="the loss to be noticed",
        )  # fmt: skip
        load.answers(500)
        wait_until(
            lambda: describe(flow, endpoint)["ProductionVariants"][0]["CurrentInstanceCount"] == 3,
            timeout_s=60, what="a successor",
        )  # fmt: skip
        load.answers(200)
    lost = load.statuses.total() - load.statuses[200]
    assert lost <= 50, load.statuses
    assert set(load.statuses) <= {200, 424}, load.failures[:3]
    assert all("connection to the container was lost" in text for text in load.failures), load.failures[:3]
    wait_until(
        lambda: counted(flow, endpoint, "AllTraffic", "Invocations") == load.statuses.total(),
        timeout_s=20, what="all to be counted",
    )  # fmt: skip
    assert counted(flow, endpoint, "AllTraffic", "InvocationModelErrors") == lost
    gone(flow, endpoint)


def test_scaling_in_loses_nothing(flow: Flow) -> None:
    endpoint = deploy(flow, "shrinks", variant("one", count=3))
    with Load(flow.served, endpoint, ROW, pause_s=0.01) as load:
        flow.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName=endpoint,
            DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": 1}],
        )
        until_status(flow, endpoint, "InService")
        wait_until(
            lambda: len(instances(flow.served, endpoint)) == 1, timeout_s=60, what="two instances gone"
        )
        load.answers(500)
    assert set(load.statuses) == {200}, load.failures[:3]
    gone(flow, endpoint)


def blue_green(kind: str, **routing: Any) -> dict[str, Any]:
    return {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {"Type": kind, "WaitIntervalInSeconds": 1, **routing},
        }
    }


UPDATES = {
    "plain": None,
    "all-at-once": blue_green("ALL_AT_ONCE"),
    "canary": blue_green("CANARY", CanarySize={"Type": "CAPACITY_PERCENT", "Value": 50}),
    "linear": {
        **blue_green("LINEAR", LinearStepSize={"Type": "CAPACITY_PERCENT", "Value": 25}),
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "on-nothing"}]},
    },
    "rolling": {
        "RollingUpdatePolicy": {
            "MaximumBatchSize": {"Type": "INSTANCE_COUNT", "Value": 1},
            "WaitIntervalInSeconds": 1,
        }
    },
}


def test_updates_lose_nothing(flow: Flow) -> None:
    """One endpoint goes through every kind of update under load; each ends with the other model alone.

    An alarm that watches one, on a metric that nobody writes, does not know anything and takes nothing back.
    """
    cloudwatch = flow.served.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName="on-nothing", Namespace="AWS/SageMaker", MetricName="NoSuchMetric", Statistic="Sum", Period=1,
        EvaluationPeriods=1, Threshold=0, ComparisonOperator="GreaterThanThreshold",
    )  # fmt: skip
    configure(flow, "to-1", variant("one", count=2))
    configure(flow, "to-2", variant("two", count=2))
    endpoint = deploy(flow, "updated", variant("one", count=2))
    expected = {0: "1.0", 1: "2.0"}
    with Load(flow.served, endpoint, ROW) as load:
        for number, (kind, policy) in enumerate(UPDATES.items(), start=1):
            target = number % 2
            flow.sagemaker.update_endpoint(
                EndpointName=endpoint,
                EndpointConfigName="to-2" if target else "to-1",
                **({"DeploymentConfig": policy} if policy else {}),
            )
            assert describe(flow, endpoint)["EndpointStatus"] == "Updating"
            endpoint_now = until_status(flow, endpoint, "InService")
            assert endpoint_now["EndpointConfigName"] == ("to-2" if target else "to-1"), kind
            load.forget_bodies()
            load.answers(100)
            assert set(load.bodies) == {expected[target]}, kind
    assert set(load.statuses) == {200}, load.failures[:3]
    assert "LastDeploymentConfig" in describe(flow, endpoint)
    (alarm,) = cloudwatch.describe_alarms(AlarmNames=["on-nothing"])["MetricAlarms"]
    assert alarm["StateValue"] == "INSUFFICIENT_DATA"
    cloudwatch.delete_alarms(AlarmNames=["on-nothing"])
    gone(flow, endpoint)


def test_an_alarm_takes_a_canary_back(flow: Flow) -> None:
    """The new model refuses what is sent; only the canary's share is lost, and the old model serves on."""
    endpoint = deploy(flow, "canary", variant("one", count=2))
    configure(flow, "canary-bad", variant("narrow", count=2))
    cloudwatch = flow.served.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName="canary-errors", Namespace="AWS/SageMaker", MetricName="Invocation4XXErrors",
        Dimensions=[
            {"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": "AllTraffic"},
        ],
        Statistic="Sum", Period=1, EvaluationPeriods=1, Threshold=5, ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="notBreaching",
    )  # fmt: skip
    with pytest.raises(ClientError, match='Could not find the CloudWatch alarm "nowhere"'):
        flow.sagemaker.update_endpoint(
            EndpointName=endpoint, EndpointConfigName="canary-bad",
            DeploymentConfig={"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "nowhere"}]},
                              **blue_green("ALL_AT_ONCE")},
        )  # fmt: skip
    with Load(flow.served, endpoint, ROW) as load:
        flow.sagemaker.update_endpoint(
            EndpointName=endpoint,
            EndpointConfigName="canary-bad",
            DeploymentConfig={
                "BlueGreenUpdatePolicy": {
                    "TrafficRoutingConfiguration": {
                        "Type": "CANARY",
                        "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 25},
                        "WaitIntervalInSeconds": 60,
                    },
                    "TerminationWaitInSeconds": 60,
                },
                "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "canary-errors"}]},
            },
        )
        wait_until(lambda: load.statuses[424] > 5, timeout_s=60, what="the canary's errors")
        began = time.monotonic()
        wait_until(
            lambda: describe(flow, endpoint)["EndpointStatus"] != "Updating",
            timeout_s=50,
            what="the way back",
        )
        assert time.monotonic() - began < 50, "long before the canary's time was over"
        found = until_status(flow, endpoint, "InService")
        assert found["EndpointConfigName"] == "canary"
        assert "alarm canary-errors is in state ALARM" in found["FailureReason"]
        load.answers(50)
        errors = load.statuses[424]
        load.answers(300)
        assert load.statuses[424] == errors, "nothing goes to the new model any more"
    assert set(load.statuses) == {200, 424}
    history = cloudwatch.describe_alarm_history(AlarmName="canary-errors", HistoryItemType="StateUpdate")
    summaries = [item["HistorySummary"] for item in history["AlarmHistoryItems"]]
    assert any(re.search("to ALARM", summary) for summary in summaries)
    cloudwatch.delete_alarms(AlarmNames=["canary-errors"])
    gone(flow, endpoint)


def test_bad_input(flow: Flow) -> None:
    endpoint = deploy(flow, "strict", variant("one"))
    invoke = flow.runtime.invoke_endpoint

    def refused(**more: Any) -> tuple[str, int, str]:
        with pytest.raises(ClientError) as caught:
            invoke(**{"EndpointName": endpoint, "ContentType": "text/csv", "Body": ROW, **more})
        answer = caught.value.response
        return (
            answer["Error"]["Code"],
            answer["ResponseMetadata"]["HTTPStatusCode"],
            answer["Error"]["Message"],
        )

    code, status, words = refused(TargetVariant="nobody")
    assert (code, status) == ("ValidationError", 400)
    assert "nobody does not exist" in words
    code, status, words = refused(Body=b"x" * (6 * 1024 * 1024 + 1))
    assert (code, status) == ("ValidationError", 413)
    code, status, words = refused(ContentType="image/png")
    assert (code, status) == ("ModelError", 424)
    assert "image/png" in words
    assert invoke(EndpointName=endpoint, ContentType="text/csv", Body=b"")["Body"].read() == b""
    code, status, words = refused(EndpointName="nowhere")
    assert (code, status) == ("ValidationError", 400)
    with pytest.raises(ClientError, match="CanarySize must be given"):
        flow.sagemaker.update_endpoint(
            EndpointName=endpoint, EndpointConfigName="strict", DeploymentConfig=blue_green("CANARY")
        )
    with pytest.raises(ClientError, match="steps of 3 instances"):
        flow.sagemaker.update_endpoint(
            EndpointName=endpoint, EndpointConfigName="strict",
            DeploymentConfig=blue_green("CANARY", CanarySize={"Type": "INSTANCE_COUNT", "Value": 3}),
        )  # fmt: skip
    with pytest.raises(ClientError, match="Weight above 0"):
        configure(flow, "nothing", variant("one", InitialVariantWeight=0.0))
    gone(flow, endpoint)


def test_target_tracking_scales_out_and_in(flow: Flow) -> None:
    """Load brings a second instance, which really starts; without load one really ends; nothing is lost."""
    endpoint = deploy(flow, "tracked", variant("one"))
    scaling = flow.served.client("application-autoscaling")
    named = {
        "ServiceNamespace": "sagemaker", "ResourceId": f"endpoint/{endpoint}/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }  # fmt: skip
    scaling.register_scalable_target(**named, MinCapacity=1, MaxCapacity=2)
    scaling.put_scaling_policy(
        **named,
        PolicyName="per-instance",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 1200.0,
            "PredefinedMetricSpecification": {
                "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"
            },
            "ScaleOutCooldown": 1,
            "ScaleInCooldown": 1,
        },
    )

    def counts() -> tuple[int, int]:
        found = describe(flow, endpoint)["ProductionVariants"][0]
        return found["CurrentInstanceCount"], len(instances(flow.served, endpoint))

    with Load(flow.served, endpoint, ROW) as load:
        wait_until(lambda: counts() == (2, 2), timeout_s=60, what="a second instance")
        load.answers(200)
    wait_until(lambda: counts() == (1, 1), timeout_s=90, what="one instance again")
    assert set(load.statuses) == {200}, load.failures[:3]
    activities = scaling.describe_scaling_activities(**named)["ScalingActivities"]
    assert [a["Description"][-2:-1] for a in activities][-2:] == ["1", "2"], "the first is the last"
    assert "AlarmHigh" in activities[-1]["Cause"]
    wait_until(
        lambda: {a["StatusCode"] for a in scaling.describe_scaling_activities(**named)["ScalingActivities"]}
        == {"Successful"},
        timeout_s=30, what="both to be fulfilled",
    )  # fmt: skip
    scaling.deregister_scalable_target(**named)
    gone(flow, endpoint)


def test_steps_and_schedules_scale(flow: Flow) -> None:
    """A metric of one's own adds an instance through an alarm; a scheduled action takes it away."""
    endpoint = deploy(flow, "stepped", variant("one"))
    scaling, cloudwatch = flow.served.client("application-autoscaling"), flow.served.client("cloudwatch")
    named = {
        "ServiceNamespace": "sagemaker", "ResourceId": f"endpoint/{endpoint}/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }  # fmt: skip
    scaling.register_scalable_target(**named, MinCapacity=1, MaxCapacity=3)
    policy = scaling.put_scaling_policy(
        **named,
        PolicyName="steps",
        PolicyType="StepScaling",
        StepScalingPolicyConfiguration={
            "AdjustmentType": "ChangeInCapacity",
            "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}],
            "Cooldown": 300,
        },
    )
    cloudwatch.put_metric_alarm(
        AlarmName="queue", Namespace="Mine", MetricName="Waiting", Statistic="Maximum", Period=1, EvaluationPeriods=1,
        Threshold=5, ComparisonOperator="GreaterThanThreshold", AlarmActions=[policy["PolicyARN"]],
    )  # fmt: skip

    def scaled_out() -> bool:  # what waits is told again and again, as a real source would
        cloudwatch.put_metric_data(Namespace="Mine", MetricData=[{"MetricName": "Waiting", "Value": 9}])
        return len(instances(flow.served, endpoint)) == 2

    wait_until(scaled_out, timeout_s=60, what="a second instance")
    until_status(flow, endpoint, "InService")
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 2))
    scaling.put_scheduled_action(
        **named, ScheduledActionName="night", Schedule=f"at({moment})",
        ScalableTargetAction={"MinCapacity": 1, "MaxCapacity": 1},
    )  # fmt: skip
    wait_until(lambda: len(instances(flow.served, endpoint)) == 1, timeout_s=60, what="one instance again")
    causes = [a["Cause"] for a in scaling.describe_scaling_activities(**named)["ScalingActivities"]]
    assert causes == [
        "scheduled action name night was triggered",
        "monitor alarm queue in state ALARM triggered policy steps",
    ]
    nowhere = {**named, "ResourceId": "endpoint/nowhere/variant/AllTraffic"}
    with pytest.raises(ClientError, match="Create the endpoint first"):
        scaling.register_scalable_target(**nowhere, MinCapacity=1, MaxCapacity=2)
    with pytest.raises(ClientError, match="Call RegisterScalableTarget first"):
        scaling.put_scaling_policy(
            **nowhere, PolicyName="steps", PolicyType="StepScaling",
            StepScalingPolicyConfiguration={
                "AdjustmentType": "ChangeInCapacity",
                "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}],
            },
        )  # fmt: skip
    scaling.deregister_scalable_target(**named)
    gone(flow, endpoint)


def test_a_shadow_sees_what_the_variant_gets(flow: Flow) -> None:
    flow.sagemaker.create_endpoint_config(
        EndpointConfigName="shadowed",
        ProductionVariants=[variant("one", name="real")],
        ShadowProductionVariants=[variant("narrow", name="shadow")],
    )
    flow.sagemaker.create_endpoint(EndpointName="shadowed", EndpointConfigName="shadowed")
    flow.wait_for_endpoint("shadowed")
    found = describe(flow, "shadowed")
    assert [v["VariantName"] for v in found["ProductionVariants"]] == ["real"]
    assert [v["VariantName"] for v in found["ShadowProductionVariants"]] == ["shadow"]
    for _ in range(10):
        answer = flow.runtime.invoke_endpoint(EndpointName="shadowed", ContentType="text/csv", Body=ROW)
        assert answer["Body"].read() == b"1.0"
    wait_until(
        lambda: counted(flow, "shadowed", "shadow", "Invocation4XXErrors") == 10,
        timeout_s=20, what="ten refusals nobody saw",
    )  # fmt: skip
    flow.sagemaker.create_endpoint_config(
        EndpointConfigName="shadowed-2",
        ProductionVariants=[variant("two", name="real")],
        ShadowProductionVariants=[variant("one", name="shadow")],
    )
    policy = blue_green("CANARY", CanarySize={"Type": "CAPACITY_PERCENT", "Value": 50})
    with Load(flow.served, "shadowed", ROW, connections=4) as load:
        flow.sagemaker.update_endpoint(
            EndpointName="shadowed", EndpointConfigName="shadowed-2", DeploymentConfig=policy
        )
        found = until_status(flow, "shadowed", "InService")
        load.forget_bodies()
        load.answers(20)
    assert (set(load.statuses), set(load.bodies)) == ({200}, {"2.0"}), load.failures[:3]
    assert [v["VariantName"] for v in found["ShadowProductionVariants"]] == ["shadow"]
    with pytest.raises(ClientError, match="one production variant and one shadow"):
        flow.sagemaker.create_endpoint_config(
            EndpointConfigName="two-shadows", ProductionVariants=[variant("one"), variant("two", name="b")],
            ShadowProductionVariants=[variant("narrow", name="shadow")],
        )  # fmt: skip
    gone(flow, "shadowed")


CRASHER = """
import os

def model_fn(model_dir):
    return {"asked": 0}

def transform_fn(model, body, content_type, accept):
    model["asked"] += 1
    if model["asked"] == 100:
        os._exit(1)
    return "fine", "text/csv"
"""


def test_a_model_that_crashes_every_hundred_requests(flow: Flow) -> None:
    """Behind three instances only what was in flight at a crash is lost: at most one request a connection."""
    flow.upload({"crasher.tar.gz": archive({"code/inference.py": CRASHER})})
    container = {"Image": sklearn_image(), "ModelDataUrl": "s3://hosting/crasher.tar.gz"}
    flow.sagemaker.create_model(
        ModelName="crasher", ExecutionRoleArn=flow.served.role, PrimaryContainer=container
    )
    endpoint = deploy(flow, "crashes", variant("crasher", count=3))
    with Load(flow.served, endpoint, ROW, connections=5, pause_s=0.05) as load:
        load.answers(700)
    lines = flow.log_lines("/aws/sagemaker/Endpoints/crashes", "AllTraffic/")
    crashes = sum("The model server ended (exit code 1)" in line for line in lines)
    lost = load.statuses.total() - load.statuses[200]
    assert crashes >= 3, "each crashed"
    assert 3 <= lost <= 5 * (crashes + 3), (load.statuses, crashes)
    assert set(load.statuses) == {200, 424}, load.failures[:3]
    gone(flow, endpoint)


SLOW = """
import time

def model_fn(model_dir):
    return None

def transform_fn(model, body, content_type, accept):
    time.sleep(2)
    return "slow but sure", "text/csv"
"""


def test_down_lets_invocations_end() -> None:
    """What is in flight when the server is told to end is answered; what comes later is told so."""
    served = Served()
    try:
        flow = Flow(served.up(), "ending")
        flow.upload({"slow.tar.gz": archive({"code/inference.py": SLOW})})
        flow.deploy("slow", image=sklearn_image(), model_data="s3://ending/slow.tar.gz")
        with ThreadPoolExecutor(2) as pool:
            answers = [
                pool.submit(
                    flow.runtime.invoke_endpoint, EndpointName="slow", ContentType="text/csv", Body=ROW
                )
                for _ in range(2)
            ]
            time.sleep(0.7)
            assert not any(answer.done() for answer in answers)
            served.down()
            assert [answer.result(30)["Body"].read() for answer in answers] == [b"slow but sure"] * 2
    finally:
        served.remove()


def test_an_asynchronous_endpoint_goes_to_zero_and_back(flow: Flow) -> None:
    """Without instances requests wait, and the alarm on that brings one."""
    flow.sagemaker.create_endpoint_config(
        EndpointConfigName="sleeper",
        ProductionVariants=[variant("one")],
        AsyncInferenceConfig={"OutputConfig": {"S3OutputPath": "s3://hosting/answers"}},
    )
    flow.sagemaker.create_endpoint(EndpointName="sleeper", EndpointConfigName="sleeper")
    flow.wait_for_endpoint("sleeper")
    scaling, cloudwatch = flow.served.client("application-autoscaling"), flow.served.client("cloudwatch")
    named = {
        "ServiceNamespace": "sagemaker", "ResourceId": "endpoint/sleeper/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }  # fmt: skip
    scaling.register_scalable_target(**named, MinCapacity=0, MaxCapacity=0)
    wait_until(lambda: not instances(flow.served, "sleeper"), timeout_s=60, what="no instance")
    until_status(flow, "sleeper", "InService")
    scaling.register_scalable_target(**named, MinCapacity=0, MaxCapacity=2)
    policy = scaling.put_scaling_policy(
        **named,
        PolicyName="wake",
        PolicyType="StepScaling",
        StepScalingPolicyConfiguration={
            "AdjustmentType": "ChangeInCapacity",
            "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}],
        },
    )
    cloudwatch.put_metric_alarm(
        AlarmName="nobody-there", Namespace="AWS/SageMaker", MetricName="HasBacklogWithoutCapacity",
        Dimensions=[{"Name": "EndpointName", "Value": "sleeper"}], Statistic="Maximum", Period=1, EvaluationPeriods=1,
        Threshold=1, ComparisonOperator="GreaterThanOrEqualToThreshold", AlarmActions=[policy["PolicyARN"]],
    )  # fmt: skip
    flow.upload({"question.csv": ROW})
    asked = flow.runtime.invoke_endpoint_async(
        EndpointName="sleeper", ContentType="text/csv", InputLocation="s3://hosting/question.csv"
    )
    key = asked["OutputLocation"].removeprefix("s3://hosting/")
    wait_until(
        lambda: flow.s3.list_objects_v2(Bucket="hosting", Prefix=key)["KeyCount"] == 1,
        timeout_s=60, what="the answer",
    )  # fmt: skip
    assert flow.s3.get_object(Bucket="hosting", Key=key)["Body"].read() == b"1.0"
    assert len(instances(flow.served, "sleeper")) == 1
    scaling.deregister_scalable_target(**named)
    cloudwatch.delete_alarms(AlarmNames=["nobody-there"])
    gone(flow, "sleeper")
