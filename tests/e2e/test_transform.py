"""Batch transform through boto3: a model trained here, objects in S3, outputs beside them."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError, WaiterError
from sklearn.datasets import load_breast_cancer

from tests.e2e.flow import Flow, csv_bytes, xgboost_image
from tests.e2e.served import Served, wait_until
from tests.e2e.test_crash import agents, insist, restart

FEATURES, LABELS = load_breast_cancer(return_X_y=True)
BUCKET = "transform"


def train_model(flow: Flow, name: str) -> None:
    """Make a model of that name: XGBoost, which says whether a tumour is benign."""
    flow.upload({"train/data.csv": csv_bytes(LABELS, FEATURES)})
    job = flow.train(
        name,
        image=xgboost_image(),
        hyperparameters={"objective": "binary:logistic", "num_round": 5, "max_depth": 3},
        channels={"train": "train/"},
    )
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    flow.sagemaker.create_model(
        ModelName=name,
        ExecutionRoleArn=flow.served.role,
        PrimaryContainer={
            "Image": xgboost_image(),
            "ModelDataUrl": job["ModelArtifacts"]["S3ModelArtifacts"],
        },
    )


@pytest.fixture(scope="module")
def flow(served: Served) -> Flow:
    found = Flow(served, BUCKET)
    train_model(found, "tumours")
    return found


@pytest.fixture(scope="module")
def scores(flow: Flow) -> list[str]:
    """What the model says of every row."""
    flow.upload({"all/rows.csv": csv_bytes(FEATURES)})
    assert transform(flow, "all", "all/", SplitType="Line", AssembleWith="Line")["FailureReason"] == ""
    return output(flow, "all", "rows.csv").split()


def request(flow: Flow, name: str, source: str, **more: Any) -> dict[str, Any]:
    """A request for a job; members of TransformInput and TransformOutput may be given flat."""
    inside: dict[str, dict[str, Any]] = {
        "TransformInput": {
            "ContentType": "text/csv",
            "DataSource": {
                "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{flow.bucket}/{source}"}
            },
        },
        "TransformOutput": {"S3OutputPath": f"s3://{flow.bucket}/out/{name}", "Accept": "text/csv"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    }
    places = {
        "TransformInput": ("ContentType", "SplitType", "CompressionType", "DataSource"),
        "TransformOutput": ("Accept", "AssembleWith", "S3OutputPath"),
        "TransformResources": ("InstanceType", "InstanceCount"),
    }
    for outer, members in places.items():
        inside[outer].update({member: more.pop(member) for member in members if member in more})
    return {"TransformJobName": name, "ModelName": "tumours", **inside, **more}


def transform(flow: Flow, name: str, source: str, **more: Any) -> dict[str, Any]:
    """Run a job to its end and describe it."""
    flow.sagemaker.create_transform_job(**request(flow, name, source, **more))
    return wait(flow, name)


def wait(flow: Flow, name: str) -> dict[str, Any]:
    try:
        flow.sagemaker.get_waiter("transform_job_completed_or_stopped").wait(
            TransformJobName=name, WaiterConfig={"Delay": 0.2, "MaxAttempts": 900}
        )
    except WaiterError as error:
        assert "encountered a terminal failure state" in str(error), error  # noqa: PT017
    found: dict[str, Any] = flow.sagemaker.describe_transform_job(TransformJobName=name)
    found.setdefault("FailureReason", "")
    return found


def output(flow: Flow, job: str, name: str) -> str:
    body: bytes = flow.s3.get_object(Bucket=flow.bucket, Key=f"out/{job}/{name}.out")["Body"].read()
    return body.decode()


def output_keys(flow: Flow, job: str) -> set[str]:
    pages = flow.s3.get_paginator("list_objects_v2").paginate(Bucket=flow.bucket, Prefix=f"out/{job}/")
    return {o["Key"].removeprefix(f"out/{job}/") for page in pages for o in page.get("Contents", [])}


def test_200_files_on_two_instances_with_filters_and_join(flow: Flow, scores: list[str]) -> None:
    parts = np.array_split(np.arange(len(FEATURES)), 200)
    flow.upload(
        {
            f"many/{i % 7}/part-{i:03d}.csv": b"".join(
                b"patient-%d,%s" % (row, csv_bytes(FEATURES[row : row + 1])) for row in part
            )
            for i, part in enumerate(parts)
        }
    )
    job = transform(
        flow, "many", "many/", InstanceCount=2, SplitType="Line", AssembleWith="Line",
        DataProcessing={"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"},
        Environment={"SAGEMAKER_INFERENCE_OUTPUT": "probability"},
        DataCaptureConfig={"DestinationS3Uri": f"s3://{BUCKET}/captured", "GenerateInferenceId": True},
        Tags=[{"Key": "team", "Value": "a"}],
    )  # fmt: skip
    assert job["TransformJobStatus"] == "Completed", job["FailureReason"]
    assert output_keys(flow, "many") == {f"{i % 7}/part-{i:03d}.csv.out" for i in range(200)}
    for i in (0, 99, 199):
        rows = [line.split(",") for line in output(flow, "many", f"{i % 7}/part-{i:03d}.csv").split()]
        assert [row[0] for row in rows] == [f"patient-{row}" for row in parts[i]]
        found = np.array([float(row[1]) for row in rows])
        np.testing.assert_allclose(found, [float(scores[row]) for row in parts[i]], rtol=1e-5)
        assert all(len(row[2]) == 36 and row[3].endswith("Z") for row in rows)

    assert job["DataProcessing"]["JoinSource"] == "Input"
    assert job["TransformEndTime"] >= job["TransformStartTime"] >= job["CreationTime"]
    assert job["TransformInput"]["CompressionType"] == "None"
    tags = flow.sagemaker.list_tags(ResourceArn=job["TransformJobArn"])["Tags"]
    assert tags == [{"Key": "team", "Value": "a"}]
    logs = flow.served.client("logs").describe_log_streams(
        logGroupName="/aws/sagemaker/TransformJobs", logStreamNamePrefix="many/"
    )
    names = [s["logStreamName"] for s in logs["logStreams"] if s["logStreamName"].endswith("/data-log")]
    assert sorted(name.split("/")[1].rsplit("-", 1)[0] for name in names) == ["algo-1", "algo-2"]
    [line, *_] = flow.log_lines("/aws/sagemaker/TransformJobs", names[0])
    assert line.endswith("MaxPayloadInMB=6, BatchStrategy=MULTI_RECORD")
    captured = flow.s3.list_objects_v2(Bucket=BUCKET, Prefix="captured/")["Contents"]
    assert [o["Key"].split("/")[1] for o in captured] == ["input"] * 2 + ["output"] * 2
    metrics = flow.served.client("cloudwatch").list_metrics(Namespace="/aws/sagemaker/TransformJobs")
    assert {"CPUUtilization", "MemoryUtilization"} <= {m["MetricName"] for m in metrics["Metrics"]}


def test_lists(flow: Flow, scores: list[str]) -> None:
    listed = flow.sagemaker.list_transform_jobs(
        NameContains="al", StatusEquals="Completed", SortBy="Name", SortOrder="Ascending", MaxResults=1
    )
    [summary] = listed["TransformJobSummaries"]
    assert summary["TransformJobName"] == "all"
    assert summary["TransformEndTime"]
    assert flow.sagemaker.list_transform_jobs(StatusEquals="Stopping")["TransformJobSummaries"] == []


def test_manifest_and_single_records(flow: Flow, scores: list[str]) -> None:
    manifest = [{"prefix": f"s3://{BUCKET}/single/"}, "a.csv", "sub/b.csv"]
    flow.upload(
        {
            "single/a.csv": csv_bytes(FEATURES[:3]),
            "single/sub/b.csv": csv_bytes(FEATURES[3:5]),
            "single/not-this.csv": b"x",
            "manifest.json": json.dumps(manifest).encode(),
        }
    )
    source = {"S3DataSource": {"S3DataType": "ManifestFile", "S3Uri": f"s3://{BUCKET}/manifest.json"}}
    job = transform(
        flow, "single", "", DataSource=source, SplitType="Line", AssembleWith="Line", BatchStrategy="SingleRecord",
        MaxConcurrentTransforms=3, MaxPayloadInMB=1,
    )  # fmt: skip
    assert job["TransformJobStatus"] == "Completed", job["FailureReason"]
    assert output_keys(flow, "single") == {"a.csv.out", "sub/b.csv.out"}
    assert output(flow, "single", "a.csv").split() == scores[:3]


def test_rows_the_model_refuses(flow: Flow) -> None:
    flow.upload({"refused/good.csv": csv_bytes(FEATURES[:2]), "refused/short.csv": b"1,2\n"})
    job = transform(flow, "refused", "refused/")
    assert job["TransformJobStatus"] == "Failed"
    assert job["FailureReason"].startswith(
        "ClientError: See job logs for more information. 1 of 2 objects failed"
    )
    assert f"s3://{BUCKET}/refused/short.csv" in job["FailureReason"]
    assert "30 features" in job["FailureReason"]
    assert output_keys(flow, "refused") == {"good.csv.out"}


def test_stop(flow: Flow) -> None:
    flow.sagemaker.create_transform_job(**request(flow, "stopped", "all/", InstanceType="ml.m5.large"))
    flow.sagemaker.stop_transform_job(TransformJobName="stopped")
    job = wait(flow, "stopped")
    assert job["TransformJobStatus"] in ("Stopped", "Completed")
    with pytest.raises(ClientError, match=f"the transform job is in status {job['TransformJobStatus']}"):
        flow.sagemaker.stop_transform_job(TransformJobName="stopped")


def test_no_objects(flow: Flow) -> None:
    job = transform(flow, "nothing", "there/is/nothing/")
    assert job["TransformJobStatus"] == "Failed"
    assert job["FailureReason"].startswith(
        f'ClientError: Data download failed: No S3 objects found under S3 URL "s3://{BUCKET}/there/is/nothing/"'
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ModelName": "absent"}, 'Could not find model "arn:aws:sagemaker:us-east-1:'),
        ({"MaxPayloadInMB": 101}, "MaxPayloadInMB cannot be greater than 100 MB"),
        (
            {"MaxConcurrentTransforms": 20},
            r"MaxConcurrentTransforms \* MaxPayloadInMB cannot be greater than 100",
        ),
        ({"DataProcessing": {"InputFilter": "$["}}, "dataProcessing.inputFilter.*is not a valid JSONPath"),
        ({"DataProcessing": {"OutputFilter": "$..a"}}, "dataProcessing.outputFilter.*not supported"),
        ({"DataProcessing": {"JoinSource": "Input"}, "ContentType": "image/png"}, "not image/png"),
        ({"DataProcessing": {"JoinSource": "Input"}, "SplitType": "RecordIO"}, "not RecordIO"),
        ({"InstanceType": "ml.none.large"}, "instanceType"),
        ({"S3OutputPath": "https://x/y"}, "must look like s3://bucket/prefix"),
        ({"SplitType": "Word"}, "Member must satisfy enum value set"),
    ],
)
def test_what_is_refused_at_once(flow: Flow, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ClientError, match=words) as error:
        flow.sagemaker.create_transform_job(**request(flow, "refuse", "all/", **change))
    assert error.value.response["Error"]["Code"] == "ValidationException"


def test_names(flow: Flow, scores: list[str]) -> None:
    with pytest.raises(flow.sagemaker.exceptions.ResourceInUse, match="already exists"):
        flow.sagemaker.create_transform_job(**request(flow, "all", "all/"))
    for call in (flow.sagemaker.describe_transform_job, flow.sagemaker.stop_transform_job):
        with pytest.raises(ClientError, match="Could not find requested job with name: absent"):
            call(TransformJobName="absent")


@pytest.fixture
def fragile() -> Iterator[Served]:
    """A server that may be killed."""
    server = Served(settings={"warm_instances": 0})
    try:
        yield server.up()
    finally:
        server.remove()


def test_a_job_survives_its_server_and_its_instance(fragile: Served) -> None:
    """Every output is written once, though the server is killed again and again, and one instance too."""
    flow = Flow(fragile, BUCKET)
    train_model(flow, "tumours")
    count = 70
    flow.upload({f"in/{i:03d}.csv": csv_bytes(FEATURES[i : i + 2]) for i in range(count)})
    flow.sagemaker.create_transform_job(
        **request(flow, "survivor", "in/", MaxConcurrentTransforms=1, InstanceCount=1)
    )

    seen: dict[str, Any] = {}

    def written() -> int:
        """Look at the outputs; one that was there before is the same as then."""
        found = insist(lambda: flow.s3.list_objects_v2(Bucket=BUCKET, Prefix="out/")).get("Contents", [])
        now = {o["Key"]: (o["LastModified"], o["ETag"]) for o in found}
        assert seen.items() <= now.items(), "an output was written twice"
        seen.update(now)
        return len(now)

    moments = random.Random(3)
    for number in range(3):
        wait_until(lambda wanted=5 + 15 * number: written() >= wanted, timeout_s=60, what="outputs")
        time.sleep(moments.uniform(0, 0.1))
        if number == 1:
            [agent] = agents(fragile, "survivor")
            agent.kill()
        restart(fragile)
    job = insist(lambda: wait(flow, "survivor"))
    assert job["TransformJobStatus"] == "Completed", job["FailureReason"]
    assert written() == count
    assert sorted(seen) == [f"out/survivor/{i:03d}.csv.out" for i in range(count)]
    assert output(flow, "survivor", "069.csv").count("\n") == 2
