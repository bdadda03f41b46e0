"""The interface against AWS's answers, as its services give them: no server of ours is involved."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import botocore.session
import pandas as pd
import pytest
from botocore.response import StreamingBody
from botocore.stub import ANY, Stubber

from sagesmith.sdk import (
    CredentialsRefused,
    EndpointFailed,
    Estimator,
    JobFailed,
    NameInUse,
    NotFound,
    Predictor,
    ServerUnreachable,
    Session,
    TrainingJob,
)
from sagesmith.sdk._waiting import Pace

ROLE = "arn:aws:iam::111122223333:role/service-role/AmazonSageMaker-ExecutionRole-20240101T000001"
JOB_ARN = "arn:aws:sagemaker:eu-central-1:111122223333:training-job/churn"
WHEN = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)


LOADER = botocore.session.Session().get_component(
    "data_loader"
)  # one for all tests: it keeps the services' models


class Aws:
    """A session for AWS whose answers are given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_CA_BUNDLE", "SAGEMAKER_ROLE", "SAGESMITH_HOME"):
            monkeypatch.delenv(name, raising=False)
        core = botocore.session.Session()
        core.register_component("data_loader", LOADER)
        boto = boto3.Session("AKIDEXAMPLE", "secret", region_name="eu-central-1", botocore_session=core)
        self.session = Session(boto, bucket="models", role=ROLE)
        self.stubs: dict[str, Stubber] = {}

    def __getitem__(self, service: str) -> Stubber:
        if service not in self.stubs:
            self.stubs[service] = Stubber(self.session.client(service))
            self.stubs[service].activate()
        return self.stubs[service]


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    monkeypatch.setattr("sagesmith.sdk._waiting.time.sleep", lambda _: None)
    found = Aws(monkeypatch)
    yield found
    for stub in found.stubs.values():
        stub.assert_no_pending_responses()


def described(status: str, secondary: str, message: str, **more: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": "churn",
        "TrainingJobArn": JOB_ARN,
        "TrainingJobStatus": status,
        "SecondaryStatus": secondary,
        "AlgorithmSpecification": {
            "TrainingImage": "492215442770.dkr.ecr.eu-central-1.amazonaws.com/sagemaker-xgboost:1.7-1",
            "TrainingInputMode": "File",
            "MetricDefinitions": [
                {"Name": "train:auc", "Regex": ".*\\[[0-9]+\\].*#011train-auc:([-+]?[0-9]*\\.?[0-9]+(?:[eE][-+]?[0-9]+)?).*"}
            ],
        },
        "ModelArtifacts": {"S3ModelArtifacts": "s3://models/churn/output/model.tar.gz"},
        "StoppingCondition": {"MaxRuntimeInSeconds": 86400},
        "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
        "RoleArn": ROLE,
        "CreationTime": WHEN,
        "SecondaryStatusTransitions": [{"Status": secondary, "StartTime": WHEN, "StatusMessage": message}],
        **more,
    }  # fmt: skip


def test_a_whole_job_at_aws(aws: Aws, capsys: pytest.CaptureFixture[str]) -> None:
    s3, sagemaker, logs = aws["s3"], aws["sagemaker"], aws["logs"]
    s3.add_response("put_object", {}, {"Bucket": "models", "Key": ANY, "Body": ANY})
    s3.add_response("put_object", {}, {"Bucket": "models", "Key": ANY, "Body": ANY})
    sagemaker.add_response(
        "create_training_job",
        {"TrainingJobArn": JOB_ARN},
        {
            "TrainingJobName": ANY,
            "RoleArn": ROLE,
            "AlgorithmSpecification": {
                "TrainingImage": "492215442770.dkr.ecr.eu-central-1.amazonaws.com/sagemaker-xgboost:1.7-1",
                "TrainingInputMode": "File",
            },
            "HyperParameters": {"num_round": "100", "objective": "binary:logistic", "lambda": "2"},
            "InputDataConfig": [
                {
                    "ChannelName": "train",
                    "ContentType": "application/x-parquet",
                    "DataSource": {
                        "S3DataSource": {
                            "S3DataType": "S3Prefix",
                            "S3Uri": ANY,
                            "S3DataDistributionType": "FullyReplicated",
                        }
                    },
                }
            ],
            "OutputDataConfig": {"S3OutputPath": "s3://models", "KmsKeyId": "alias/mine"},
            "ResourceConfig": {"InstanceType": "ml.m5.2xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
            "StoppingCondition": {"MaxRuntimeInSeconds": 86400},
            "EnableManagedSpotTraining": True,
            "Tags": [{"Key": "team", "Value": "growth"}, {"Key": "sagesmith:columns", "Value": ANY}],
        },
    )
    events = [
        {"timestamp": 1714564800000 + i, "message": f"[{i}]#011train-auc:0.{70 + i}", "ingestionTime": 1}
        for i in range(3)
    ]

    def tell(lines: list[dict[str, Any]]) -> None:
        logs.add_response(
            "describe_log_streams", {"logStreams": [{"logStreamName": "churn/algo-1-1714564790"}]}
        )
        logs.add_response(
            "get_log_events",
            {"events": lines, "nextForwardToken": f"f/{len(lines)}", "nextBackwardToken": "b/0"},
        )
        if lines:
            logs.add_response(
                "get_log_events",
                {"events": [], "nextForwardToken": f"f/{len(lines)}", "nextBackwardToken": "b/0"},
            )

    starting = described("InProgress", "Starting", "Preparing the instances for training")
    sagemaker.add_response("describe_training_job", starting)
    logs.add_client_error(
        "describe_log_streams", "ResourceNotFoundException", "The specified log group does not exist.", 400
    )
    sagemaker.add_client_error("describe_training_job", "ThrottlingException", "Rate exceeded", 400)
    sagemaker.add_response(
        "describe_training_job", described("InProgress", "Training", "Training in progress.")
    )
    done = described("Completed", "Completed", "Training job completed")
    sagemaker.add_response("describe_training_job", done)
    frame = pd.DataFrame({"age": [31.0, 52.0], "spent": [1.5, 0.25], "churned": [0, 1]})
    estimator = Estimator(
        "xgboost", session=aws.session, objective="binary:logistic", lambda_=2, instance_type="ml.m5.2xlarge",
        tags={"team": "growth"},
        request={"EnableManagedSpotTraining": True, "OutputDataConfig": {"KmsKeyId": "alias/mine"}},
    ).fit(frame, target="churned", progress="lines")  # fmt: skip
    shown = capsys.readouterr().err
    assert "Starting: Preparing the instances for training" in shown
    assert "Completed" in shown
    tell(events)
    metrics = estimator.metrics()
    assert metrics["value"].tolist() == [0.70, 0.71, 0.72]
    assert metrics["step"].tolist() == [0, 1, 2]
    assert estimator.model_data == "s3://models/churn/output/model.tar.gz"


def test_a_failed_job_at_aws_says_why(aws: Aws) -> None:
    failed = described("Failed", "Failed", "Training job failed", FailureReason="ClientError: no bucket")
    aws["sagemaker"].add_response("describe_training_job", failed)
    aws["logs"].add_response("describe_log_streams", {"logStreams": []})
    with pytest.raises(JobFailed, match="ClientError: no bucket") as caught:
        TrainingJob("churn", session=aws.session).wait(progress=False)
    assert caught.value.reason == "ClientError: no bucket"


def test_an_endpoint_at_aws_answers(aws: Aws) -> None:
    sagemaker, runtime = aws["sagemaker"], aws["sagemaker-runtime"]
    arn = "arn:aws:sagemaker:eu-central-1:111122223333:endpoint/churn"
    endpoint = {
        "EndpointName": "churn", "EndpointArn": arn, "EndpointConfigName": "churn-config",
        "EndpointStatus": "InService", "CreationTime": WHEN, "LastModifiedTime": WHEN,
    }  # fmt: skip
    sagemaker.add_response("describe_endpoint", endpoint, {"EndpointName": "churn"})
    sagemaker.add_response(
        "list_tags", {"Tags": [{"Key": "sagesmith:columns", "Value": "s3://models/c.json"}]}
    )
    body = b'{"features": ["age", "spent"], "target": "churned"}'
    aws["s3"].add_response("get_object", {"Body": StreamingBody(io.BytesIO(body), len(body))})
    sagemaker.add_response("describe_endpoint_config", {
        "EndpointConfigName": "churn-config", "EndpointConfigArn": arn, "CreationTime": WHEN,
        "ProductionVariants": [{"VariantName": "AllTraffic", "ModelName": "churn-model"}],
    })  # fmt: skip
    sagemaker.add_response("describe_model", {
        "ModelName": "churn-model", "CreationTime": WHEN, "ModelArn": arn, "ExecutionRoleArn": ROLE,
        "PrimaryContainer": {"Image": "492215442770.dkr.ecr.eu-central-1.amazonaws.com/sagemaker-xgboost:1.7-1"},
    })  # fmt: skip
    answer = b"0.25\n0.75\n"
    runtime.add_response(
        "invoke_endpoint",
        {"Body": StreamingBody(io.BytesIO(answer), len(answer)), "ContentType": "text/csv; charset=utf-8"},
        {
            "EndpointName": "churn",
            "Body": b"31.0,1.5\n52.0,0.25",
            "ContentType": "text/csv",
            "Accept": "text/csv",
        },
    )
    frame = pd.DataFrame({"churned": [0, 1], "spent": [1.5, 0.25], "age": [31.0, 52.0]}, index=["x", "y"])
    found = Predictor("churn", session=aws.session).predict(frame)
    assert found.index.tolist() == ["x", "y"]
    assert found["prediction"].tolist() == [0.25, 0.75]


@pytest.mark.parametrize(
    ("code", "message", "status", "kind", "words"),
    [
        ("ExpiredTokenException", "The security token included in the request is expired", 403, CredentialsRefused, "expired"),
        ("UnrecognizedClientException", "The security token included in the request is invalid.", 403, CredentialsRefused, "not known"),
        ("InvalidSignatureException", "The request signature we calculated does not match", 403, CredentialsRefused, "secret"),
        ("AccessDeniedException", "User: x is not authorized to perform: sagemaker:DescribeEndpoint", 403, CredentialsRefused, "may not.*DescribeEndpoint"),
        ("ValidationException", 'Could not find endpoint "arn:...".', 400, NotFound, "Could not find"),
    ],
)  # fmt: skip
def test_refusals_of_aws_are_told_apart(
    aws: Aws, code: str, message: str, status: int, kind: type[Exception], words: str
) -> None:
    aws["sagemaker"].add_client_error("describe_endpoint", code, message, status)
    with pytest.raises(kind, match=words) as caught:
        Predictor("churn", session=aws.session).describe()
    assert type(caught.value.__cause__).__name__ == "ClientError"


def test_a_taken_name_and_a_model_that_fails(aws: Aws) -> None:
    message = (
        'Cannot create already existing endpoint "arn:aws:sagemaker:eu-central-1:111122223333:endpoint/x".'
    )
    aws["sagemaker"].add_client_error("create_endpoint", "ValidationException", message, 400)
    with pytest.raises(NameInUse, match="Take another"):
        aws.session.call("sagemaker", "create_endpoint", EndpointName="x", EndpointConfigName="x")
    aws["sagemaker-runtime"].add_client_error(
        "invoke_endpoint", "ModelError", "Received server error (500) from primary", 424,
        response_meta=None, modeled_fields={"OriginalMessage": "could not convert string to float: 'a'"},
    )  # fmt: skip
    with pytest.raises(EndpointFailed, match="could not convert"):
        Predictor("x", session=aws.session).invoke(b"a", content_type="text/csv")


def test_the_role_is_that_of_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    aws = Aws(monkeypatch)
    aws.session._role = None
    aws["sts"].add_response("get_caller_identity", {
        "Account": "111122223333", "UserId": "AROA:me",
        "Arn": "arn:aws:sts::111122223333:assumed-role/AmazonSageMaker-ExecutionRole-20240101T000001/SageMaker",
    })  # fmt: skip
    aws["iam"].add_response("get_role", {"Role": {
        "Path": "/service-role/", "RoleName": "AmazonSageMaker-ExecutionRole-20240101T000001",
        "RoleId": "AROAEXAMPLEEXAMPLE", "Arn": ROLE, "CreateDate": WHEN,
    }})  # fmt: skip
    assert aws.session.role == ROLE


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(ServerUnreachable, match="sagesmith up") as caught:
        Session(endpoint_url="https://127.0.0.1:9").identity()
    assert caught.value.__cause__ is not None


def test_aws_is_asked_politely_and_a_server_of_ones_own_often() -> None:
    near, far = Pace(polite=False), Pace(polite=True)
    for _ in range(100):
        near.looked(0.003)
        far.looked(0.08)
    assert near.pause_s <= 0.08
    assert 1 <= far.pause_s <= 5
    before = far.pause_s
    far.refused()
    assert far.pause_s == pytest.approx(2 * before)
