"""Serverless endpoints: containers come with the requests, go when they are idle, and nothing is lost on the way."""

from __future__ import annotations

import gc
import json
import os
import signal
import ssl
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.e2e.flow import Flow, xgboost_image
from tests.e2e.load import Load
from tests.e2e.script_mode import SLEEPER, archive, sklearn_image
from tests.e2e.served import Served, wait_until
from tests.e2e.test_hosting import constant_model

ROW = b"1,2"
HUNGRY = """
import time

def model_fn(model_dir):
    return None

def transform_fn(model, body, content_type, accept):
    taken = b"x" * (int(body) << 20)
    if len(taken) > 1 << 30:
        time.sleep(60)
    return "%d MB" % (len(taken) >> 20), "text/csv"
"""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """A server whose idle containers end after a second, and that scales with periods of a second."""
    server = Served(settings={"metrics_every_s": 1, "serverless_idle_s": 1, "scaling_period_s": 1})
    try:
        yield server.up()
    finally:
        server.remove()
        gc.collect()  # the sockets to the server that was killed, while the warnings of that are ignored


@pytest.fixture(scope="module")
def flow(served: Served) -> Flow:
    """Models: `one` and `two` say so, `slow` sleeps as long as it is told."""
    flow = Flow(served, "serverless")
    flow.upload({
        "one.tar.gz": constant_model(1.0), "two.tar.gz": constant_model(2.0),
        "slow.tar.gz": archive({"code/inference.py": SLEEPER}),
    })  # fmt: skip
    for name, image in (("one", xgboost_image()), ("two", xgboost_image()), ("slow", sklearn_image())):
        container = {"Image": image, "ModelDataUrl": f"s3://serverless/{name}.tar.gz"}
        flow.sagemaker.create_model(ModelName=name, ExecutionRoleArn=served.role, PrimaryContainer=container)
    return flow


def configure(flow: Flow, name: str, model: str, **more: Any) -> str:
    config = {"MemorySizeInMB": 1024, "MaxConcurrency": 2, **more}
    flow.sagemaker.create_endpoint_config(
        EndpointConfigName=name,
        ProductionVariants=[{"VariantName": "AllTraffic", "ModelName": model, "ServerlessConfig": config}],
    )
    return name


def deploy(flow: Flow, name: str, model: str, **more: Any) -> str:
    flow.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=configure(flow, name, model, **more))
    flow.wait_for_endpoint(name)
    return name


def update(flow: Flow, endpoint: str, config: str) -> None:
    flow.sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=config)
    flow.wait_for_endpoint(endpoint)


def invoke(flow: Flow, endpoint: str, body: bytes = ROW) -> bytes:
    answer = flow.runtime.invoke_endpoint(EndpointName=endpoint, ContentType="text/csv", Body=body)
    found: bytes = answer["Body"].read()
    return found


def containers(served: Served, endpoint: str) -> list[int]:
    """Return the processes of an endpoint's containers, as `sagesmith status` asks for them."""
    headers = {"Authorization": f"Bearer {served.server_file['token']}"}
    request = urllib.request.Request(f"{served.url}/_sagesmith/status", headers=headers)
    context = ssl.create_default_context(cafile=served.ca_file)
    with urllib.request.urlopen(request, context=context) as answer:
        running = json.load(answer)["fleet"]["instances"]
    return [i["pid"] for i in running if i["owner"].endswith(f"/{endpoint}") and i["alive"] and i["pid"]]


def until_containers(flow: Flow, endpoint: str, count: int) -> list[int]:
    wait_until(
        lambda: len(containers(flow.served, endpoint)) == count, timeout_s=60, what=f"{count} containers of {endpoint}"
    )  # fmt: skip
    return containers(flow.served, endpoint)


def metric(flow: Flow, endpoint: str, name: str, statistic: str) -> float:
    now = time.time()
    found = flow.served.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SageMaker", MetricName=name, StartTime=now - 600, EndTime=now + 60, Period=3600,
        Statistics=[statistic],
        Dimensions=[
            {"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": "AllTraffic"},
        ],
    )["Datapoints"]  # fmt: skip
    return sum(float(point[statistic]) for point in found)


def test_containers_come_with_the_requests_and_go(flow: Flow) -> None:
    """Also after the server was killed, and after its container was."""
    endpoint, served = deploy(flow, "sleeper", "one"), flow.served
    variant = flow.sagemaker.describe_endpoint(EndpointName=endpoint)["ProductionVariants"][0]
    assert variant["CurrentServerlessConfig"] == {"MemorySizeInMB": 1024, "MaxConcurrency": 2}
    assert "CurrentInstanceCount" not in variant
    until_containers(flow, endpoint, 0)
    assert invoke(flow, endpoint) == b"1.0"
    wait_until(
        lambda: metric(flow, endpoint, "ModelSetupTime", "Maximum"), timeout_s=10, what="the cold start's time"
    )  # fmt: skip
    wait_until(  # the container's start may have been written before the answer was counted
        lambda: metric(flow, endpoint, "Invocations", "Sum"), timeout_s=10, what="the invocation"
    )
    assert metric(flow, endpoint, "Invocations", "Sum") == 1
    with Load(served, endpoint, ROW, connections=1) as load:
        (killed,) = until_containers(flow, endpoint, 1)
        os.kill(killed, signal.SIGKILL)
        wait_until(
            lambda: killed not in (found := containers(served, endpoint)) and len(found) == 1,
            timeout_s=60,
            what="a successor",
        )
        load.answers(20)
    assert set(load.statuses) <= {200, 424}, load.failures[:3]
    assert load.statuses[424] <= 1, "what was in flight is lost, no more"
    served.kill()
    served.up()
    assert invoke(flow, endpoint) == b"1.0"
    until_containers(flow, endpoint, 0)
    flow.sagemaker.delete_endpoint(EndpointName=endpoint)


def test_what_is_beyond_the_maximum_concurrency_is_refused(flow: Flow) -> None:
    """Each container has one request at a time; what comes on top waits for none."""
    endpoint = deploy(flow, "busy", "slow")
    with ThreadPoolExecutor(2) as pool:
        running: list[Future[bytes]] = [pool.submit(invoke, flow, endpoint, b"2") for _ in range(2)]
        until_containers(flow, endpoint, 2)
        with pytest.raises(ClientError, match="MaxConcurrency") as caught:
            invoke(flow, endpoint, b"0")
        assert [answer.result(60) for answer in running] == [b"awake"] * 2
    assert caught.value.response["Error"]["Code"] == "ThrottlingException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
    flow.sagemaker.delete_endpoint(EndpointName=endpoint)


def test_provisioned_concurrency_scales_with_its_use(flow: Flow) -> None:
    """Use above the target brings a container that stays; a lower limit has it end when it is idle."""
    endpoint, served = (
        deploy(flow, "provisioned", "slow", MaxConcurrency=3, ProvisionedConcurrency=1),
        flow.served,
    )
    scaling = served.client("application-autoscaling")
    named = {
        "ServiceNamespace": "sagemaker", "ResourceId": f"endpoint/{endpoint}/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredProvisionedConcurrency",
    }  # fmt: skip
    with pytest.raises(ClientError, match="at most 3, which is the serverless variant's MaxConcurrency"):
        scaling.register_scalable_target(**named, MinCapacity=1, MaxCapacity=4)
    with pytest.raises(ClientError, match="serverless variants have provisioned concurrency to scale"):
        scaling.register_scalable_target(
            **{**named, "ScalableDimension": "sagemaker:variant:DesiredInstanceCount"}, MinCapacity=1, MaxCapacity=2
        )  # fmt: skip
    scaling.register_scalable_target(**named, MinCapacity=1, MaxCapacity=2)
    predefined = {"PredefinedMetricType": "SageMakerVariantProvisionedConcurrencyUtilization"}
    scaling.put_scaling_policy(
        **named,
        PolicyName="use",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 0.5, "PredefinedMetricSpecification": predefined, "ScaleOutCooldown": 0,
        },
    )  # fmt: skip

    def provisioned() -> int:
        variant = flow.sagemaker.describe_endpoint(EndpointName=endpoint)["ProductionVariants"][0]
        found: int = variant["CurrentServerlessConfig"]["ProvisionedConcurrency"]
        return found

    with Load(served, endpoint, b"0.1", connections=1, pause_s=0.0) as load:
        wait_until(lambda: provisioned() == 2, timeout_s=60, what="another container")
    assert set(load.statuses) == {200}, load.failures[:3]
    assert 0.5 < metric(flow, endpoint, "ServerlessProvisionedConcurrencyUtilization", "Maximum") <= 1
    until_containers(flow, endpoint, 2)

    def activities() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = scaling.describe_scaling_activities(**named)["ScalingActivities"]
        return found

    wait_until(
        lambda: activities()[0]["StatusCode"] != "InProgress", timeout_s=20, what="the end of the activity"
    )
    scaling.register_scalable_target(**named, MinCapacity=1, MaxCapacity=1)
    until_containers(flow, endpoint, 1)
    assert provisioned() == 1
    (second, first) = activities()
    assert (first["Description"], first["StatusCode"]) == (
        "Setting desired provisioned concurrency to 2.",
        "Successful",
    )
    assert "AlarmHigh" in first["Cause"]
    assert second["Description"] == "Setting desired provisioned concurrency to 1."
    scaling.deregister_scalable_target(**named)
    flow.sagemaker.delete_endpoint(EndpointName=endpoint)


def test_a_container_that_takes_more_than_its_memory_is_ended(flow: Flow) -> None:
    """The request is lost with it; the next one has a container of its own."""
    flow.upload({"hungry.tar.gz": archive({"code/inference.py": HUNGRY})})
    container = {"Image": sklearn_image(), "ModelDataUrl": "s3://serverless/hungry.tar.gz"}
    flow.sagemaker.create_model(
        ModelName="hungry", ExecutionRoleArn=flow.served.role, PrimaryContainer=container
    )
    endpoint = deploy(flow, "hungry", "hungry")
    with pytest.raises(ClientError, match="connection to the container was lost") as caught:
        invoke(flow, endpoint, b"1100")
    assert caught.value.response["Error"]["Code"] == "ModelError"
    assert invoke(flow, endpoint, b"10") == b"10 MB"
    lines = flow.log_lines(f"/aws/sagemaker/Endpoints/{endpoint}", "AllTraffic/")
    assert any("and may take 1024 MB: give it more" in line for line in lines), lines
    flow.sagemaker.delete_endpoint(EndpointName=endpoint)


def test_updates_lose_nothing(flow: Flow) -> None:
    """From one memory and concurrency to another, to instances, and back."""
    endpoint, served = deploy(flow, "changes", "one", MaxConcurrency=4), flow.served
    configure(flow, "larger", "two", MemorySizeInMB=2048, MaxConcurrency=4, ProvisionedConcurrency=1)
    flow.sagemaker.create_endpoint_config(
        EndpointConfigName="instances",
        ProductionVariants=[
            {"VariantName": "AllTraffic", "ModelName": "one", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        ],
    )  # fmt: skip
    with Load(served, endpoint, ROW, connections=4, pause_s=0.01) as load:
        for config in ("larger", "instances", "larger"):
            update(flow, endpoint, config)
            load.answers(100)
        flow.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName=endpoint,
            DesiredWeightsAndCapacities=[
                {"VariantName": "AllTraffic", "ServerlessUpdateConfig": {"MaxConcurrency": 6, "ProvisionedConcurrency": 2}}
            ],
        )  # fmt: skip
        flow.wait_for_endpoint(endpoint)
        load.answers(100)
    assert set(load.statuses) == {200}, (load.failures[:3], served.log())
    assert set(load.bodies) == {"1.0", "2.0"}
    variant = flow.sagemaker.describe_endpoint(EndpointName=endpoint)["ProductionVariants"][0]
    wanted = {"MemorySizeInMB": 2048, "MaxConcurrency": 6, "ProvisionedConcurrency": 2}
    assert variant["CurrentServerlessConfig"] == variant["DesiredServerlessConfig"] == wanted
    until_containers(flow, endpoint, 2)
    flow.sagemaker.delete_endpoint(EndpointName=endpoint)
