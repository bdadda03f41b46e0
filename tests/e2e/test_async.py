"""Asynchronous inference through boto3: inputs and answers in S3, and a server that is killed meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from sklearn.datasets import load_iris

from tests.e2e.flow import KMEANS_IMAGE, Flow, csv_bytes
from tests.e2e.served import Served, wait_until
from tests.e2e.test_crash import insist, restart


@pytest.fixture(scope="module")
def flow() -> Iterator[Flow]:
    """A server that may be killed, with an asynchronous endpoint."""
    server = Served(settings={"warm_instances": 0, "metrics_every_s": 1})
    try:
        found = Flow(server.up(), "later")
        prepare(found)
        yield found
    finally:
        server.remove()


def prepare(flow: Flow) -> None:
    flow.upload({"iris/points.csv": csv_bytes(load_iris().data), "one.csv": csv_bytes(load_iris().data[:1])})
    job = flow.train(
        "later",
        image=KMEANS_IMAGE,
        hyperparameters={"k": 3, "feature_dim": 4},
        channels={"train": "iris/"},
        content_type="text/csv;label_size=0",
    )
    flow.sagemaker.create_model(
        ModelName="later",
        ExecutionRoleArn=flow.served.role,
        PrimaryContainer={"Image": KMEANS_IMAGE, "ModelDataUrl": job["ModelArtifacts"]["S3ModelArtifacts"]},
    )
    variant = {
        "VariantName": "blue", "ModelName": "later", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large",
    }  # fmt: skip
    flow.sagemaker.create_endpoint_config(
        EndpointConfigName="later",
        ProductionVariants=[variant],
        AsyncInferenceConfig={
            "OutputConfig": {"S3OutputPath": "s3://later/out", "S3FailurePath": "s3://later/failed"},
            "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 2},
        },
    )
    flow.sagemaker.create_endpoint(EndpointName="later", EndpointConfigName="later")
    flow.wait_for_endpoint("later")


def invoke(flow: Flow, **more: Any) -> dict[str, Any]:
    given = {"InputLocation": "s3://later/one.csv", "ContentType": "text/csv", "Accept": "text/csv", **more}
    found: dict[str, Any] = flow.runtime.invoke_endpoint_async(EndpointName="later", **given)
    return found


def wait_for(flow: Flow, uri: str) -> str:
    """Wait until there is an object at *uri*, and return it."""
    key = uri.removeprefix("s3://later/")
    wait_until(
        lambda: insist(lambda: flow.s3.list_objects_v2(Bucket="later", Prefix=key))["KeyCount"],
        timeout_s=60,
        what=uri,
    )
    answer = insist(lambda: flow.s3.get_object(Bucket="later", Key=key))
    body: bytes = answer["Body"].read()
    return body.decode()


def test_answers_and_failures(flow: Flow) -> None:
    answer = invoke(flow, InferenceId="mine")
    assert answer["InferenceId"] == "mine"
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
    cluster, _ = wait_for(flow, answer["OutputLocation"]).split(",")
    assert float(cluster) in (0, 1, 2)

    for change, words in (
        ({"InputLocation": "s3://later/absent.csv"}, "Unable to download the input"),
        ({"InputLocation": "s3://later/iris/points.csv", "ContentType": "image/png"}, "not supported"),
    ):
        assert words in wait_for(flow, invoke(flow, **change)["FailureLocation"])

    described = flow.sagemaker.describe_endpoint(EndpointName="later")["AsyncInferenceConfig"]
    assert described["OutputConfig"]["S3OutputPath"] == "s3://later/out"
    with pytest.raises(ClientError, match="Use InvokeEndpointAsync"):
        flow.predict("later", load_iris().data[:1])
    with pytest.raises(ClientError, match="not found"):
        flow.runtime.invoke_endpoint_async(EndpointName="absent", InputLocation="s3://later/one.csv")
    cloudwatch = flow.served.client("cloudwatch")
    wait_until(
        lambda: (
            {"ApproximateBacklogSize", "HasBacklogWithoutCapacity", "ApproximateBacklogSizePerInstance"}
            <= {m["MetricName"] for m in cloudwatch.list_metrics(Namespace="AWS/SageMaker")["Metrics"]}
        ),
        timeout_s=30,
        what="the backlog's metrics",
    )


def test_what_was_accepted_survives_the_server(flow: Flow) -> None:
    answers = [invoke(flow)["OutputLocation"] for _ in range(30)]
    restart(flow.served)
    for uri in answers:
        assert wait_for(flow, uri)
