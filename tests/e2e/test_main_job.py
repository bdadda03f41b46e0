"""Train, deploy, predict, delete: through boto3, against a real server, judged by the bare libraries."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import xgboost
from botocore.exceptions import ClientError
from sklearn.cluster import KMeans
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from tests.e2e.flow import KMEANS_IMAGE, Flow, csv_bytes, xgboost_image
from tests.e2e.served import Served, wait_until


@pytest.fixture(scope="module")
def flow(served: Served) -> Flow:
    return Flow(served, "main-job")


def test_xgboost_equals_the_bare_library(flow: Flow) -> None:
    features, labels = load_breast_cancer(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(features, labels, random_state=3, stratify=labels)
    flow.upload(
        {
            "cancer/train/part-0.csv": csv_bytes(train_y, train_x),
            "cancer/validation/v.csv": csv_bytes(test_y, test_x),
        }
    )
    parameters = {"objective": "binary:logistic", "num_round": 40, "max_depth": 4, "eta": 0.2, "seed": 5}
    job = flow.train(
        "cancer",
        image=xgboost_image(),
        hyperparameters={**parameters, "eval_metric": "logloss,auc"},
        channels={"train": "cancer/train/", "validation": "cancer/validation/"},
    )

    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert job["SecondaryStatus"] == "Completed"
    assert job["BillableTimeInSeconds"] >= 1
    assert job["TrainingTimeInSeconds"] >= 1
    passed = [step["Status"] for step in job["SecondaryStatusTransitions"]]
    assert passed[0] == "Starting"
    assert passed[-1] == "Completed"
    assert {"Downloading", "Training", "Uploading"} <= set(passed)
    assert all("StatusMessage" in step for step in job["SecondaryStatusTransitions"])
    metrics = {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]}
    assert metrics["validation:auc"] > 0.97

    bare = xgboost.train(
        {"objective": "binary:logistic", "max_depth": 4, "eta": 0.2, "seed": 5},
        xgboost.DMatrix(train_x.astype(np.float32), train_y),
        40,
    )
    ours = xgboost.Booster()
    ours.load_model(bytearray(flow.artifact(job)["xgboost-model"]))
    held_out = xgboost.DMatrix(test_x.astype(np.float32))
    assert roc_auc_score(test_y, ours.predict(held_out)) == pytest.approx(
        roc_auc_score(test_y, bare.predict(held_out)), abs=0.01
    )

    lines = flow.log_lines("/aws/sagemaker/TrainingJobs", "cancer/")
    assert any("validation-auc:" in line for line in lines)

    flow.deploy("cancer", image=xgboost_image(), model_data=job["ModelArtifacts"]["S3ModelArtifacts"])
    served_scores = flow.predict("cancer", test_x)[:, 0]
    np.testing.assert_allclose(served_scores, ours.predict(held_out), rtol=1e-5, atol=1e-7)
    flow.delete("cancer")
    with pytest.raises(ClientError, match="Could not find endpoint"):
        flow.sagemaker.describe_endpoint(EndpointName="cancer")
    with pytest.raises(ClientError, match="not found"):
        flow.predict("cancer", test_x[:1])


def test_kmeans_finds_what_scikit_learn_finds(flow: Flow) -> None:
    points = load_iris().data.astype(np.float32)
    flow.upload({"iris/points.csv": csv_bytes(points)})
    job = flow.train(
        "iris",
        image=KMEANS_IMAGE,
        hyperparameters={"k": 3, "feature_dim": 4, "epochs": 10, "mini_batch_size": 50},
        channels={"train": "iris/"},
        content_type="text/csv;label_size=0",
    )
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")

    flow.deploy("iris", image=KMEANS_IMAGE, model_data=job["ModelArtifacts"]["S3ModelArtifacts"])
    answer = flow.runtime.invoke_endpoint(
        EndpointName="iris",
        ContentType="application/json",
        Accept="application/json",
        Body=json.dumps({"instances": [{"features": row} for row in points.tolist()]}),
    )
    found = json.loads(answer["Body"].read())["predictions"]
    inertia = sum(one["distance_to_cluster"] ** 2 for one in found)
    best = KMeans(3, n_init=10, random_state=0).fit(points).inertia_
    assert inertia <= 1.1 * best
    assert {one["closest_cluster"] for one in found} == {0.0, 1.0, 2.0}
    as_csv = flow.predict("iris", points[:5], Accept="text/csv")
    assert as_csv[:, 0].tolist() == [one["closest_cluster"] for one in found[:5]]
    flow.delete("iris")


def test_two_instances_give_the_model_of_one(flow: Flow) -> None:
    features, labels = load_breast_cancer(return_X_y=True)
    halves = np.array_split(np.random.default_rng(0).permutation(len(labels)), 2)
    flow.upload({f"sharded/part-{i}.csv": csv_bytes(labels[h], features[h]) for i, h in enumerate(halves)})
    parameters = {"objective": "binary:logistic", "num_round": 20, "max_depth": 3, "tree_method": "hist"}
    jobs = {
        count: flow.train(
            f"sharded-{count}",
            image=xgboost_image(),
            hyperparameters=parameters,
            channels={"train": "sharded/"},
            instances=count,
            distribution="ShardedByS3Key",
        )
        for count in (1, 2)
    }
    assert [job["TrainingJobStatus"] for job in jobs.values()] == ["Completed", "Completed"], jobs
    scores = {}
    for count, job in jobs.items():
        model = xgboost.Booster()
        model.load_model(bytearray(flow.artifact(job)["xgboost-model"]))
        scores[count] = roc_auc_score(labels, model.predict(xgboost.DMatrix(features.astype(np.float32))))
    assert scores[2] == pytest.approx(scores[1], abs=0.01)
    streams = flow.served.client("logs").describe_log_streams(
        logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix="sharded-2/"
    )["logStreams"]
    assert [s["logStreamName"].split("/")[1].rsplit("-", 1)[0] for s in streams] == ["algo-1", "algo-2"]


def test_kmeans_on_two_instances(flow: Flow) -> None:
    points = load_digits().data.astype(np.float32)
    flow.upload({f"digits/part-{i}.csv": csv_bytes(half) for i, half in enumerate(np.array_split(points, 2))})
    inertia = {}
    for count in (1, 2):
        job = flow.train(
            f"digits-{count}",
            image=KMEANS_IMAGE,
            hyperparameters={"k": 10, "feature_dim": 64, "epochs": 5, "mini_batch_size": 500},
            channels={"train": "digits/"},
            content_type="text/csv;label_size=0",
            instances=count,
            distribution="ShardedByS3Key",
        )
        assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
        name = f"digits-{count}"
        flow.deploy(name, image=KMEANS_IMAGE, model_data=job["ModelArtifacts"]["S3ModelArtifacts"])
        inertia[count] = float((flow.predict(name, points, Accept="text/csv")[:, 1] ** 2).sum())
        flow.delete(name)
    best = KMeans(10, n_init=3, random_state=0).fit(points).inertia_
    assert inertia[1] <= 1.1 * best
    assert inertia[2] <= 1.1 * best


def test_wrong_hyperparameters_fail_the_job_with_a_sentence(flow: Flow) -> None:
    flow.upload({"wrong/x.csv": csv_bytes(np.ones((20, 3)))})
    job = flow.train(
        "wrong-parameters",
        image=xgboost_image(),
        hyperparameters={"objectiv": "binary:logistic", "num_round": 5, "eta": 7},
        channels={"train": "wrong/"},
    )
    assert job["TrainingJobStatus"] == "Failed"
    assert "objectiv" in job["FailureReason"]
    assert "objective" in job["FailureReason"]
    assert "eta" in job["FailureReason"]
    assert "Traceback" not in job["FailureReason"]


def test_missing_data_fails_the_job_with_a_sentence(flow: Flow) -> None:
    job = flow.train(
        "no-data",
        image=xgboost_image(),
        hyperparameters={"num_round": 5},
        channels={"train": "nothing-there/"},
    )
    assert job["TrainingJobStatus"] == "Failed"
    assert "ClientError" in job["FailureReason"]
    assert "nothing-there" in job["FailureReason"]


def _long_job(flow: Flow, name: str, **more: Any) -> None:
    rng = np.random.default_rng(1)
    flow.upload({f"{name}/x.csv": csv_bytes(rng.integers(0, 2, 20_000), rng.normal(size=(20_000, 10)))})
    flow.train(
        name,
        image=xgboost_image(),
        hyperparameters={
            "objective": "binary:logistic",
            "num_round": 100_000,
            "save_model_on_termination": "true",
        },
        channels={"train": f"{name}/"},
        wait=False,
        **more,
    )
    wait_until(
        lambda: (
            any("train-logloss" in line for line in flow.log_lines("/aws/sagemaker/TrainingJobs", f"{name}/"))
            if flow.describe(name)["SecondaryStatus"] == "Training"
            else flow.describe(name)["TrainingJobStatus"] != "InProgress"
        ),
        timeout_s=60,
        what="the job trains",
    )


def test_a_stopped_job_still_uploads_its_model(flow: Flow) -> None:
    _long_job(flow, "stopped")
    flow.sagemaker.stop_training_job(TrainingJobName="stopped")
    job = flow.wait_for_job("stopped")
    assert job["TrainingJobStatus"] == "Stopped", job.get("FailureReason")
    assert "Stopping" in [step["Status"] for step in job["SecondaryStatusTransitions"]]
    assert "xgboost-model" in flow.artifact(job)


def test_a_job_ends_at_its_time_limit(flow: Flow) -> None:
    _long_job(flow, "limited", StoppingCondition={"MaxRuntimeInSeconds": 20})
    job = flow.wait_for_job("limited")
    assert job["TrainingJobStatus"] == "Stopped", job.get("FailureReason")
    assert job["SecondaryStatus"] == "MaxRuntimeExceeded"
    assert "xgboost-model" in flow.artifact(job)


def test_manifest_and_network_isolation(flow: Flow) -> None:
    points = load_iris().data
    flow.upload(
        {
            "manifest/a.csv": csv_bytes(points[:70]),
            "manifest/b.csv": csv_bytes(points[70:]),
            "manifest/unused.csv": b"this,is,not,a,number\n",
            "manifest/list.json": json.dumps(
                [{"prefix": f"s3://{flow.bucket}/manifest/"}, "a.csv", "b.csv"]
            ).encode(),
        }
    )
    flow.sagemaker.create_training_job(
        TrainingJobName="manifest",
        RoleArn=flow.served.role,
        AlgorithmSpecification={"TrainingImage": KMEANS_IMAGE, "TrainingInputMode": "File"},
        HyperParameters={"k": "3", "feature_dim": "4"},
        InputDataConfig=[
            {
                "ChannelName": "train",
                "ContentType": "text/csv;label_size=0",
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "ManifestFile",
                        "S3Uri": f"s3://{flow.bucket}/manifest/list.json",
                        "S3DataDistributionType": "FullyReplicated",
                    }
                },
            }
        ],
        OutputDataConfig={"S3OutputPath": f"s3://{flow.bucket}/output"},
        ResourceConfig={"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 300},
        EnableNetworkIsolation=True,
        Tags=[{"Key": "team", "Value": "irises"}],
    )
    job = flow.wait_for_job("manifest")
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert job["EnableNetworkIsolation"] is True
    assert flow.sagemaker.list_tags(ResourceArn=job["TrainingJobArn"])["Tags"] == [
        {"Key": "team", "Value": "irises"}
    ]


def test_xgboost_reads_libsvm_and_parquet(flow: Flow) -> None:
    import pandas as pd

    features, labels = load_breast_cancer(return_X_y=True)
    libsvm = "\n".join(
        f"{label} " + " ".join(f"{i + 1}:{value!r}" for i, value in enumerate(row))
        for label, row in zip(labels.tolist(), features.tolist(), strict=True)
    )
    parquet = io.BytesIO()
    pd.DataFrame(np.column_stack([labels, features])).rename(columns=str).to_parquet(parquet)
    flow.upload({"svm/x.libsvm": libsvm.encode(), "parquet/x.parquet": parquet.getvalue()})
    for name, prefix, content_type in (
        ("libsvm", "svm/", "text/libsvm"),
        ("parquet", "parquet/", "application/x-parquet"),
    ):
        job = flow.train(
            f"reads-{name}",
            image=xgboost_image("1.5-1"),
            hyperparameters={"objective": "binary:logistic", "num_round": 5, "eval_metric": "auc"},
            channels={"train": prefix},
            content_type=content_type,
        )
        assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
        assert {m["MetricName"]: m["Value"] for m in job["FinalMetricDataList"]}["train:auc"] > 0.95


def test_the_names_are_used_once(flow: Flow) -> None:
    flow.upload({"once/x.csv": csv_bytes(np.ones((20, 3)))})
    arguments = {
        "image": KMEANS_IMAGE,
        "hyperparameters": {"k": 1, "feature_dim": 3},
        "channels": {"train": "once/"},
        "content_type": "text/csv;label_size=0",
    }
    flow.train("once", **arguments)  # type: ignore[arg-type]
    with pytest.raises(flow.sagemaker.exceptions.ResourceInUse, match="already exists"):
        flow.train("once", **arguments)  # type: ignore[arg-type]


def test_a_model_needs_its_data(flow: Flow) -> None:
    with pytest.raises(ClientError, match="Could not find model data"):
        flow.sagemaker.create_model(
            ModelName="no-data",
            ExecutionRoleArn=flow.served.role,
            PrimaryContainer={
                "Image": xgboost_image(),
                "ModelDataUrl": f"s3://{flow.bucket}/none/model.tar.gz",
            },
        )


def test_a_model_that_is_none_fails_its_endpoint_with_a_reason(flow: Flow) -> None:
    flow.upload({"broken/model.tar.gz": b"this is no archive"})
    flow.deploy(
        "broken", image=xgboost_image(), model_data=f"s3://{flow.bucket}/broken/model.tar.gz", wait=False
    )
    found = wait_until(
        lambda: (
            (d := flow.sagemaker.describe_endpoint(EndpointName="broken"))["EndpointStatus"] == "Failed" and d
        ),
        timeout_s=60,
        what="the endpoint has failed",
    )
    assert found["FailureReason"]
    assert "Traceback" not in found["FailureReason"]
    flow.delete("broken")


def test_bad_predict_requests_are_model_errors(flow: Flow) -> None:
    points = load_iris().data
    flow.upload({"bad/points.csv": csv_bytes(points)})
    job = flow.train(
        "bad-requests",
        image=KMEANS_IMAGE,
        hyperparameters={"k": 2, "feature_dim": 4},
        channels={"train": "bad/"},
        content_type="text/csv;label_size=0",
    )
    flow.deploy("bad-requests", image=KMEANS_IMAGE, model_data=job["ModelArtifacts"]["S3ModelArtifacts"])
    for body, content_type, original in ((b"1,2", "text/csv", 400), (b"1,2,3,4", "text/nonsense", 415)):
        with pytest.raises(ClientError) as caught:
            flow.runtime.invoke_endpoint(EndpointName="bad-requests", ContentType=content_type, Body=body)
        error: dict[str, Any] = dict(caught.value.response)
        assert error["Error"]["Code"] == "ModelError"
        assert error["ResponseMetadata"]["HTTPStatusCode"] == 424
        assert error["OriginalStatusCode"] == original
        assert error["OriginalMessage"]
    metrics = flow.served.client("cloudwatch")
    wait_until(
        lambda: (
            {
                m["MetricName"]
                for m in metrics.list_metrics(
                    Namespace="AWS/SageMaker", Dimensions=[{"Name": "EndpointName", "Value": "bad-requests"}]
                )["Metrics"]
            }
            >= {"Invocations", "Invocation4XXErrors", "ModelLatency", "OverheadLatency"}
        ),
        timeout_s=40,
        what="the variant's metrics are there",
    )
    flow.delete("bad-requests")
