"""Inference components: copies of models on the instances of one endpoint, through boto3."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError

from tests.e2e.flow import Flow, xgboost_image
from tests.e2e.script_mode import archive, sklearn_image
from tests.e2e.served import Served, wait_until
from tests.e2e.test_hosting import constant_model

HOST = "shelf"


def configure(flow: Flow, name: str, **more: Any) -> str:
    flow.sagemaker.create_endpoint_config(
        EndpointConfigName=name,
        ExecutionRoleArn=flow.served.role,
        ProductionVariants=[
            {"VariantName": "all", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large", **more}
        ],
    )
    return name


def host(flow: Flow, name: str, **more: Any) -> None:
    flow.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=configure(flow, name, **more))
    flow.wait_for_endpoint(name)


def models(flow: Flow) -> None:
    for value in (1.0, 2.0):
        flow.upload({f"m{value:g}.tar.gz": constant_model(value)})
        flow.sagemaker.create_model(
            ModelName=f"{flow.bucket}-{value:g}",
            ExecutionRoleArn=flow.served.role,
            PrimaryContainer={
                "Image": xgboost_image(), "ModelDataUrl": f"s3://{flow.bucket}/m{value:g}.tar.gz",
            },
        )  # fmt: skip


def specification(flow: Flow, value: float, *, cpus: float = 0.5, memory: int = 1024) -> dict[str, Any]:
    return {
        "ModelName": f"{flow.bucket}-{value:g}",
        "ComputeResourceRequirements": {
            "NumberOfCpuCoresRequired": cpus, "MinMemoryRequiredInMb": memory,
        },
    }  # fmt: skip


def create(flow: Flow, name: str, on: str, value: float, *, copies: int = 1, **needs: Any) -> dict[str, Any]:
    flow.sagemaker.create_inference_component(
        InferenceComponentName=name,
        EndpointName=on,
        VariantName="all",
        Specification=specification(flow, value, **needs),
        RuntimeConfig={"CopyCount": copies},
    )
    return settled(flow, name)


def describe(flow: Flow, name: str) -> dict[str, Any]:
    found: dict[str, Any] = flow.sagemaker.describe_inference_component(InferenceComponentName=name)
    return found


def settled(flow: Flow, name: str) -> dict[str, Any]:
    found: dict[str, Any] = wait_until(
        lambda: (
            found
            if (found := describe(flow, name))["InferenceComponentStatus"] in ("InService", "Failed")
            else None
        ),
        timeout_s=60,
        what=f"{name} is settled",
    )
    return found


def delete(flow: Flow, *names: str) -> None:
    for name in names:
        flow.sagemaker.delete_inference_component(InferenceComponentName=name)
    for name in names:
        wait_until(lambda name=name: gone(flow, name), timeout_s=40, what=f"{name} is gone")


def gone(flow: Flow, name: str) -> bool:
    try:
        describe(flow, name)
    except ClientError as error:
        return "Could not find" in str(error)
    return False


def invoke(flow: Flow, name: str, on: str = HOST) -> str:
    answer = flow.runtime.invoke_endpoint(
        EndpointName=on, InferenceComponentName=name, ContentType="text/csv", Body=b"1,2"
    )
    assert answer["InvokedProductionVariant"] == "all"
    return str(answer["Body"].read().decode())


def agents(served: Served, owner: str) -> list[int]:
    """The processes of the agents of an endpoint's instances, or of a component's copies."""
    status = json.loads(served.command("status", "--json").stdout)
    return [i["pid"] for i in status["fleet"]["instances"] if i["owner"].endswith(f":{owner}") and i["alive"]]


@pytest.fixture(scope="module")
def own() -> Iterator[Served]:
    """A server of this module's own, which its tests may kill, and which scales quickly."""
    server = Served(settings={"metrics_every_s": 1, "scaling_period_s": 1})
    try:
        yield server.up()
    finally:
        server.remove()


@pytest.fixture(scope="module")
def flow(own: Served) -> Flow:
    flow = Flow(own, "components")
    models(flow)
    return flow


@pytest.fixture(scope="module")
def shelf(flow: Flow) -> Iterator[str]:
    """An endpoint with one instance (2 vCPUs, 8 GiB) for components."""
    host(flow, HOST)
    yield HOST
    flow.sagemaker.delete_endpoint(EndpointName=HOST)


def test_components_come_are_invoked_updated_and_go(flow: Flow, shelf: str) -> None:
    with pytest.raises(ClientError, match="Inference Component Name header is required"):
        flow.runtime.invoke_endpoint(EndpointName=shelf, ContentType="text/csv", Body=b"1,2")
    first = create(flow, "one", shelf, 1.0, copies=2)
    assert first["InferenceComponentStatus"] == "InService"
    assert first["RuntimeConfig"] == {"DesiredCopyCount": 2, "CurrentCopyCount": 2}
    assert first["EndpointArn"].endswith(f":endpoint/{shelf}")
    assert first["Specification"] == specification(flow, 1.0)
    container = {"Image": xgboost_image(), "ArtifactUrl": "s3://components/m2.tar.gz"}
    flow.sagemaker.create_inference_component(
        InferenceComponentName="two",
        EndpointName=shelf,
        Specification={
            "Container": container,
            "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 512},
        },
        Tags=[{"Key": "team", "Value": "a"}],
    )
    second = settled(flow, "two")
    assert second["VariantName"] == "all"
    assert second["Specification"]["Container"]["DeployedImage"]["SpecifiedImage"] == xgboost_image()
    assert {invoke(flow, "one") for _ in range(4)} == {"1.0"}
    assert invoke(flow, "two") == "2.0"
    tags = flow.sagemaker.list_tags(ResourceArn=second["InferenceComponentArn"])["Tags"]
    assert tags == [{"Key": "team", "Value": "a"}]
    listed = flow.sagemaker.list_inference_components(
        EndpointNameEquals=shelf, VariantNameEquals="all", StatusEquals="InService", SortBy="Name",
        SortOrder="Ascending", NameContains="o",
    )["InferenceComponents"]  # fmt: skip
    assert [c["InferenceComponentName"] for c in listed] == ["one", "two"]
    with pytest.raises(ClientError, match="hosts the inference components"):
        flow.sagemaker.delete_endpoint(EndpointName=shelf)
    with pytest.raises(ClientError, match="Inference component three of"):
        invoke(flow, "three")
    # Another model, copy by copy, and no request is lost.
    answers: list[str] = []
    ending = threading.Event()

    def load() -> None:
        while not ending.is_set():
            answers.append(invoke(flow, "one"))

    thread = threading.Thread(target=load)
    thread.start()
    flow.sagemaker.update_inference_component(
        InferenceComponentName="one", Specification=specification(flow, 2.0)
    )
    updated = settled(flow, "one")
    ending.set()
    thread.join()
    assert "FailureReason" not in updated
    assert set(answers) == {"1.0", "2.0"}
    assert invoke(flow, "one") == "2.0"

    # More than fits: as many as do, and the reason; then none at all.
    def scale(count: int) -> dict[str, Any]:
        flow.sagemaker.update_inference_component_runtime_config(
            InferenceComponentName="one", DesiredRuntimeConfig={"CopyCount": count}
        )
        return settled(flow, "one")

    assert "not enough hardware resources" in scale(9)["FailureReason"]
    most = {"DesiredCopyCount": 9, "CurrentCopyCount": 4}  # the last once the update's last copy has left
    wait_until(lambda: describe(flow, "one")["RuntimeConfig"] == most, timeout_s=90, what="four copies")
    none = scale(0)
    assert none["RuntimeConfig"] == {"DesiredCopyCount": 0, "CurrentCopyCount": 0}
    assert "FailureReason" not in none
    with pytest.raises(ClientError, match="has no capacity to process this request"):
        invoke(flow, "one")
    failed = create(flow, "giant", shelf, 1.0, memory=100_000)
    assert failed["InferenceComponentStatus"] == "Failed"
    assert "CapacityError" in failed["FailureReason"]
    delete(flow, "one", "two", "giant")


WRITER = """
def model_fn(model_dir):
    return ["once ", "upon ", "a ", "time"]

def predict_fn(data, model):
    yield from model

def input_fn(body, content_type):
    return body

def output_fn(words, accept):
    return words
"""


def test_a_component_answers_in_parts(flow: Flow, shelf: str) -> None:
    flow.upload({"writer.tar.gz": archive({"code/inference.py": WRITER})})
    container = {"Image": sklearn_image(), "ArtifactUrl": "s3://components/writer.tar.gz"}
    needs = {"NumberOfCpuCoresRequired": 0.25, "MinMemoryRequiredInMb": 512}
    flow.sagemaker.create_inference_component(
        InferenceComponentName="writer",
        EndpointName=shelf,
        VariantName="all",
        Specification={"Container": container, "ComputeResourceRequirements": needs},
        RuntimeConfig={"CopyCount": 1},
    )
    assert settled(flow, "writer")["InferenceComponentStatus"] == "InService"
    answer = flow.runtime.invoke_endpoint_with_response_stream(
        EndpointName=shelf, InferenceComponentName="writer", ContentType="text/plain", Body=b"go"
    )
    assert answer["InvokedProductionVariant"] == "all"
    parts = [event["PayloadPart"]["Bytes"] for event in answer["Body"]]
    assert parts == [b"once ", b"upon ", b"a ", b"time"]
    delete(flow, "writer")


def test_what_dies_comes_back(own: Served, flow: Flow, shelf: str) -> None:
    create(flow, "frail", shelf, 1.0, copies=2)
    copies = agents(own, "inference-component/frail")
    (instance,) = agents(own, f"endpoint/{shelf}")
    assert len(copies) == 2

    def new_copies(but: list[int]) -> list[int]:
        """Return the copies once there are two that serve, none of them among those."""
        runtime = describe(flow, "frail")["RuntimeConfig"]
        found = agents(own, "inference-component/frail")
        return found if runtime["CurrentCopyCount"] == len(found) == 2 and not set(found) & set(but) else []

    # The server: copies go on, and are known again.
    own.kill()
    own.up()
    assert sorted(agents(own, "inference-component/frail")) == sorted(copies)
    assert {invoke(flow, "frail") for _ in range(4)} == {"1.0"}

    # A copy.
    psutil.Process(copies[0]).send_signal(signal.SIGKILL)
    copies = wait_until(lambda: new_copies(copies[:1]), timeout_s=60, what="the copy is replaced")
    assert {invoke(flow, "frail") for _ in range(4)} == {"1.0"}

    # The instance that both are on: they end with it, also while no server looks.
    own.kill()
    psutil.Process(instance).send_signal(signal.SIGKILL)
    own.up()
    copies = wait_until(lambda: new_copies(copies), timeout_s=60, what="the copies are on another instance")
    assert {invoke(flow, "frail") for _ in range(4)} == {"1.0"}
    assert agents(own, f"endpoint/{shelf}") != [instance]

    # A model server: its agent starts it again and says so in the component's log.
    for process in psutil.Process(copies[0]).children(recursive=True):
        process.kill()
    lines = wait_until(
        lambda: flow.log_lines("/aws/sagemaker/InferenceComponents/frail", "all/"),
        timeout_s=30,
        what="the log tells of it",
    )
    assert "The model server ended" in "\n".join(lines)
    delete(flow, "frail")
    assert agents(own, "inference-component/frail") == []


def test_copies_and_instances_are_scaled(own: Served, flow: Flow) -> None:
    """Each copy takes an instance: a second one comes with the second copy, and goes after it."""
    scaling = {"Status": "ENABLED", "MinInstanceCount": 1, "MaxInstanceCount": 2}
    host(flow, "elastic", ManagedInstanceScaling=scaling)
    autoscaling = flow.served.client("application-autoscaling")

    def instances() -> int:
        (variant,) = flow.sagemaker.describe_endpoint(EndpointName="elastic")["ProductionVariants"]
        assert variant["ManagedInstanceScaling"] == scaling
        return int(variant["CurrentInstanceCount"])

    made = create(flow, "grows", "elastic", 1.0, copies=1, memory=5000)
    assert made["RuntimeConfig"]["CurrentCopyCount"] == 1
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": "inference-component/grows",
        "ScalableDimension": "sagemaker:inference-component:DesiredCopyCount",
    }
    autoscaling.register_scalable_target(**target, MinCapacity=1, MaxCapacity=2)
    autoscaling.put_scaling_policy(
        **target,
        PolicyName="per-copy",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 60.0,
            "PredefinedMetricSpecification": {
                "PredefinedMetricType": "SageMakerInferenceComponentInvocationsPerCopy"
            },
        },
    )

    def two() -> bool:
        for _ in range(10):
            assert invoke(flow, "grows", "elastic") == "1.0"
        return bool(describe(flow, "grows")["RuntimeConfig"]["CurrentCopyCount"] == 2)

    wait_until(two, timeout_s=60, what="there are two copies")
    assert instances() == 2
    metrics = flow.served.client("cloudwatch").list_metrics(
        Dimensions=[{"Name": "InferenceComponentName", "Value": "grows"}]
    )["Metrics"]
    assert {"Invocations", "InvocationsPerCopy", "ModelLatency"} <= {m["MetricName"] for m in metrics}
    autoscaling.deregister_scalable_target(**target)
    wait_until(
        lambda: describe(flow, "grows")["InferenceComponentStatus"] == "InService",
        timeout_s=30,
        what="it is in service",
    )
    flow.sagemaker.update_inference_component_runtime_config(
        InferenceComponentName="grows", DesiredRuntimeConfig={"CopyCount": 1}
    )
    wait_until(lambda: instances() == 1, timeout_s=40, what="the empty instance goes")
    assert invoke(flow, "grows", "elastic") == "1.0"

    # The endpoint goes over to other instances, and the copy with it; no request is lost.
    before = agents(own, "inference-component/grows")
    flow.sagemaker.update_endpoint(
        EndpointName="elastic",
        EndpointConfigName=configure(flow, "elastic-2", InstanceType="ml.m5.xlarge"),
    )
    deadline = time.monotonic() + 60
    while set(agents(own, "inference-component/grows")) & set(before):
        assert invoke(flow, "grows", "elastic") == "1.0"
        assert time.monotonic() < deadline
    assert invoke(flow, "grows", "elastic") == "1.0"
    delete(flow, "grows")
    flow.sagemaker.delete_endpoint(EndpointName="elastic")
