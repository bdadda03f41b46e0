"""Data capture of an endpoint: what was asked and answered is in S3, until an update says otherwise."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError
from sklearn.datasets import load_iris

from tests.e2e.flow import KMEANS_IMAGE, Flow, csv_bytes
from tests.e2e.served import Served, wait_until


@pytest.fixture(scope="module")
def flow(served: Served) -> Flow:
    found = Flow(served, "captures")
    found.upload({"iris/points.csv": csv_bytes(load_iris().data)})
    job = found.train(
        "captured",
        image=KMEANS_IMAGE,
        hyperparameters={"k": 3, "feature_dim": 4},
        channels={"train": "iris/"},
        content_type="text/csv;label_size=0",
    )
    found.sagemaker.create_model(
        ModelName="captured",
        ExecutionRoleArn=served.role,
        PrimaryContainer={
            "Image": KMEANS_IMAGE,
            "ModelDataUrl": job["ModelArtifacts"]["S3ModelArtifacts"],
        },
    )
    return found


def create_config(flow: Flow, name: str, **capture: Any) -> None:
    flow.sagemaker.create_endpoint_config(
        EndpointConfigName=name,
        ProductionVariants=[
            {
                "VariantName": "blue",
                "ModelName": "captured",
                "InitialInstanceCount": 1,
                "InstanceType": "ml.m5.large",
            }
        ],
        DataCaptureConfig={
            "EnableCapture": True,
            "InitialSamplingPercentage": 100,
            "DestinationS3Uri": "s3://captures/data",
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            "CaptureContentTypeHeader": {
                "CsvContentTypes": ["text/csv"],
                "JsonContentTypes": ["application/json"],
            },
            **capture,
        },
    )


def lines(flow: Flow) -> list[dict[str, Any]]:
    listed = flow.s3.list_objects_v2(Bucket="captures", Prefix="data/captured/blue/").get("Contents", [])
    bodies = [flow.s3.get_object(Bucket="captures", Key=o["Key"])["Body"].read() for o in listed]
    return [json.loads(line) for body in bodies for line in body.splitlines()]


def test_an_endpoint_captures_until_it_is_told_not_to(flow: Flow) -> None:
    create_config(flow, "on")
    flow.sagemaker.create_endpoint(EndpointName="captured", EndpointConfigName="on")
    flow.wait_for_endpoint("captured")
    summary = flow.sagemaker.describe_endpoint(EndpointName="captured")["DataCaptureConfig"]
    assert (summary["CaptureStatus"], summary["CurrentSamplingPercentage"]) == ("Started", 100)
    rows = load_iris().data[:3]
    for row in rows:
        flow.runtime.invoke_endpoint(
            EndpointName="captured",
            ContentType="text/csv",
            Accept="application/json",
            Body=csv_bytes(row[None, :]),
            InferenceId="id-1",
            CustomAttributes="who=me",
        )
    with pytest.raises(ClientError):
        flow.runtime.invoke_endpoint(EndpointName="captured", ContentType="image/png", Body=b"x")

    wait_until(lambda: len(lines(flow)) >= 3, timeout_s=60, what="captured lines")
    found = lines(flow)
    assert len(found) == 3
    for row, line in zip(rows, found, strict=True):
        asked, answered = line["captureData"]["endpointInput"], line["captureData"]["endpointOutput"]
        assert (asked["encoding"], answered["encoding"]) == ("CSV", "JSON")
        np.testing.assert_array_equal([float(cell) for cell in asked["data"].split(",")], row)
        assert "closest_cluster" in json.loads(answered["data"])["predictions"][0]
        assert line["eventMetadata"]["inferenceId"] == "id-1"
        assert line["eventMetadata"]["customAttributes"] == ["who=me"]

    create_config(flow, "off", EnableCapture=False)
    flow.sagemaker.update_endpoint(EndpointName="captured", EndpointConfigName="off")
    flow.wait_for_endpoint("captured")
    summary = flow.sagemaker.describe_endpoint(EndpointName="captured")["DataCaptureConfig"]
    assert (summary["EnableCapture"], summary["CaptureStatus"]) == (False, "Stopped")
    flow.predict("captured", rows, Accept="text/csv")
    flow.sagemaker.delete_endpoint(EndpointName="captured")
    assert len(lines(flow)) == 3


def test_a_destination_must_be_in_s3(flow: Flow) -> None:
    with pytest.raises(ClientError, match="dataCaptureConfig"):
        create_config(flow, "nowhere", DestinationS3Uri="https://bucket/data")
