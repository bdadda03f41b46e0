"""Inference pipelines: several containers in one model, in turn and by name, in plain boto3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.e2e.flow import Flow, xgboost_image
from tests.e2e.script_mode import archive, sklearn_image
from tests.e2e.served import Served
from tests.e2e.test_hosting import constant_model

DOUBLE = """
import json
import numpy as np

def model_fn(model_dir):
    return 2.0

def input_fn(body, content_type):
    return np.array([[float(part) for part in line.split(",")] for line in body.strip().splitlines()])

def predict_fn(data, factor):
    print("rows", len(data), flush=True)
    return data * factor

def output_fn(prediction, accept):
    assert accept == "text/csv", accept
    return "\\n".join(",".join(map(str, row)) for row in prediction), accept
"""


@pytest.fixture(scope="module")
def flow(served: Served) -> Flow:
    flow = Flow(served, "pipelines")
    flow.upload(
        {
            "double.tar.gz": archive({"code/inference.py": DOUBLE}),
            "xgboost.tar.gz": constant_model(5.0, columns=2),
        }
    )
    return flow


def containers(*hostnames: str) -> Sequence[dict[str, Any]]:
    scripted = {
        "Image": sklearn_image(),
        "ModelDataUrl": "s3://pipelines/double.tar.gz",
        "Environment": {"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv"},
    }
    boosted = {"Image": xgboost_image(), "ModelDataUrl": "s3://pipelines/xgboost.tar.gz"}
    found: list[dict[str, Any]] = [scripted, boosted]
    for container, hostname in zip(found, hostnames, strict=False):
        container["ContainerHostname"] = hostname
    return found


def deploy(flow: Flow, name: str, **model: Any) -> None:
    flow.sagemaker.create_model(ModelName=name, ExecutionRoleArn=flow.served.role, **model)
    flow.sagemaker.create_endpoint_config(
        EndpointConfigName=name,
        ProductionVariants=[
            {
                "VariantName": "AllTraffic", "ModelName": name, "InitialInstanceCount": 1,
                "InstanceType": "ml.m5.large",
            }
        ],
    )  # fmt: skip
    flow.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    flow.wait_for_endpoint(name)


def invoke(flow: Flow, name: str, body: str, **more: Any) -> str:
    answer = flow.runtime.invoke_endpoint(EndpointName=name, ContentType="text/csv", Body=body, **more)
    return str(answer["Body"].read().decode())


def test_containers_in_turn_and_by_name(flow: Flow) -> None:
    deploy(flow, "in-turn", Containers=list(containers()))
    deploy(
        flow, "by-name", Containers=list(containers("doubler", "booster")),
        InferenceExecutionConfig={"Mode": "Direct"},
    )  # fmt: skip
    assert invoke(flow, "in-turn", "1,2\n3,4") == "5.0\n5.0"
    described = flow.sagemaker.describe_endpoint(EndpointName="in-turn")["ProductionVariants"][0]
    images = [image["SpecifiedImage"] for image in described["DeployedImages"]]
    assert images == [sklearn_image(), xgboost_image()]
    lines = flow.log_lines("/aws/sagemaker/Endpoints/in-turn", "AllTraffic/")
    assert "rows 2" in lines
    streams = flow.served.client("logs").describe_log_streams(logGroupName="/aws/sagemaker/Endpoints/in-turn")
    assert any(stream["logStreamName"].endswith("/container-1") for stream in streams["logStreams"])

    with pytest.raises(ClientError, match=r"(?s)ModelError.*(columns|features)"):
        invoke(flow, "in-turn", "1,2,3")

    assert invoke(flow, "by-name", "1,2", TargetContainerHostname="doubler") == "2.0,4.0"
    assert invoke(flow, "by-name", "1,2", TargetContainerHostname="booster") == "5.0"
    for more, words in (
        ({}, "must name one"),
        ({"TargetContainerHostname": "nobody"}, "nobody is none of its containers"),
    ):
        with pytest.raises(ClientError, match=words):
            invoke(flow, "by-name", "1,2", **more)
    with pytest.raises(ClientError, match="TargetContainerHostname cannot be used"):
        invoke(flow, "in-turn", "1,2", TargetContainerHostname="container-1")
    for name in ("in-turn", "by-name"):
        flow.delete(name)


def test_what_makes_no_pipeline(flow: Flow) -> None:
    with pytest.raises(ClientError, match="needs a ContainerHostname"):
        flow.sagemaker.create_model(
            ModelName="nameless", ExecutionRoleArn=flow.served.role, Containers=list(containers()),
            InferenceExecutionConfig={"Mode": "Direct"},
        )  # fmt: skip
    with pytest.raises(ClientError, match="container hostname"):
        flow.sagemaker.create_model(
            ModelName="twins", ExecutionRoleArn=flow.served.role, Containers=list(containers("a", "a"))
        )
