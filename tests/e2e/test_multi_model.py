"""Multi-model endpoints: more models than fit, loaded on demand, the least recently used leaving first."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError

from tests.e2e.flow import Flow, xgboost_image
from tests.e2e.served import Served, wait_until
from tests.e2e.test_hosting import constant_model

MODELS = 4


@pytest.fixture(scope="module")
def flow(served: Served) -> Flow:
    flow = Flow(served, "multi-model")
    flow.upload({f"models/m{n}.tar.gz": constant_model(float(n)) for n in range(MODELS)})
    flow.upload({"models/broken.tar.gz": b"not an archive"})
    return flow


def model_servers(flow: Flow, endpoint: str) -> int:
    """How many model servers the endpoint's instances have."""
    status = json.loads(flow.served.command("status", "--json").stdout)
    pids = [
        i["pid"] for i in status["fleet"]["instances"] if i["owner"].endswith(f"/{endpoint}") and i["alive"]
    ]
    found = 0
    for pid in pids:
        for process in psutil.Process(pid).children(recursive=True):
            try:
                command = process.cmdline()
                found += "serve" in command[-1:] and "bwrap" not in command[0]
            except psutil.Error:
                continue
    return found


def test_more_models_than_fit(flow: Flow) -> None:
    """Memory for two models: all four answer, and never more than two are there."""
    endpoint = "many"
    flow.sagemaker.create_model(
        ModelName=endpoint,
        ExecutionRoleArn=flow.served.role,
        PrimaryContainer={
            "Image": xgboost_image(),
            "ModelDataUrl": "s3://multi-model/models/",
            "Mode": "MultiModel",
            "Environment": {"SAGESMITH_MULTI_MODEL_MEMORY_MB": "700"},
        },
    )
    flow.sagemaker.create_endpoint_config(
        EndpointConfigName=endpoint,
        ProductionVariants=[
            {
                "VariantName": "AllTraffic", "ModelName": endpoint, "InitialInstanceCount": 1,
                "InstanceType": "ml.m5.large",
            }
        ],
    )  # fmt: skip
    flow.sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=endpoint)
    flow.wait_for_endpoint(endpoint)

    def invoke(model: str, **more: Any) -> str:
        answer = flow.runtime.invoke_endpoint(
            EndpointName=endpoint, ContentType="text/csv", Body=b"1,2", TargetModel=model, **more
        )
        return str(answer["Body"].read().decode())

    most = 0
    for turn in (0, 1, 0, 2, 3, 0):
        assert invoke(f"m{turn}.tar.gz") == f"{float(turn)}"
        most = max(most, model_servers(flow, endpoint))
    assert 1 <= most < MODELS, "some had to leave"
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(invoke, ["m0.tar.gz"] * 20))
    assert answers == ["0.0"] * 20

    for model, code, words in (
        (
            "absent.tar.gz",
            "ValidationError",
            r"Failed to download model data \(bucket: multi-model, key: models/absent",
        ),
        ("../secret", "ValidationError", "no path below"),
        ("broken.tar.gz", "ModelError", r"valid tar\.gz"),
    ):
        with pytest.raises(ClientError, match=words) as caught:
            invoke(model)
        assert caught.value.response["Error"]["Code"] == code
    with pytest.raises(ClientError, match="TargetModel must name one"):
        flow.runtime.invoke_endpoint(EndpointName=endpoint, ContentType="text/csv", Body=b"1,2")
    assert invoke("m1.tar.gz") == "1.0", "bad names harm nobody"

    flow.upload({"models/new.tar.gz": constant_model(9.0)})
    assert invoke("new.tar.gz") == "9.0", "a model that came later"
    flow.delete(endpoint)
    wait_until(lambda: model_servers(flow, endpoint) == 0, timeout_s=20, what="no model server left")
