"""SageMaker's operations on a database, held to botocore's model; nothing runs behind them here."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sagesmith.errors import AwsError
from sagesmith.fleet.instance_types import describe
from sagesmith.services import sagemaker
from sagesmith.services.sagemaker._kinds import RECORD_ONLY, ResourceKind
from sagesmith.store.database import Database
from sagesmith.store.resources import Resources
from tests.jobs.bench import IMAGE, ROLE, a_training_job
from tests.services.direct import Direct, service_model

OBJECTS = {("bucket", "model.tar.gz"), ("bucket", "prefix/")}


@pytest.fixture
def notified() -> list[str]:
    return []


@pytest.fixture
def call(tmp_path: Path, notified: list[str]) -> Iterator[Direct]:
    database = Database(f"sqlite:///{tmp_path / 'sagemaker.db'}")
    database.migrate()
    seconds = itertools.count(1_000_000.0)
    clock: Callable[[], float] = lambda: next(seconds)  # noqa: E731
    yield Direct(
        *sagemaker.handlers(
            resources=Resources(database, clock, summarize=sagemaker.summaries()),
            notify_job=notified.append,
            notify_endpoint=notified.append,
            check_instance_type=describe,
            has_object=lambda bucket, key: (bucket, key) in OBJECTS,
            default_role_arn=ROLE,
            clock=clock,
        ),
        clock=clock,
    )
    database.close()


def fails(call: Direct, operation: str, **request: Any) -> AwsError:
    with pytest.raises(AwsError) as caught:
        call(operation, **request)
    return caught.value


# ---- training jobs ----


def test_describe_gives_back_the_request_with_defaults(call: Direct, notified: list[str]) -> None:
    request = a_training_job("Job-1", 2, Tags=[{"Key": "team", "Value": "x"}], Environment={"A": "1"})
    arn = call("CreateTrainingJob", **request)["TrainingJobArn"]
    assert arn == "arn:aws:sagemaker:us-east-1:123456789012:training-job/Job-1"
    assert notified == [arn]
    job = call("DescribeTrainingJob", TrainingJobName="Job-1")
    assert job["TrainingJobStatus"] == "InProgress"
    assert job["SecondaryStatus"] == "Starting"
    assert job["SecondaryStatusTransitions"][0]["StatusMessage"] == "Starting the training job"
    assert job["ModelArtifacts"] == {"S3ModelArtifacts": "s3://bucket/output/Job-1/output/model.tar.gz"}
    assert job["EnableManagedSpotTraining"] is False
    assert job["HyperParameters"] == request["HyperParameters"]
    assert job["Environment"] == {"A": "1"}
    assert (
        job["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3DataDistributionType"] == "FullyReplicated"
    )
    assert "validation:auc" in {d["Name"] for d in job["AlgorithmSpecification"]["MetricDefinitions"]}
    assert "Tags" not in job
    assert call("ListTags", ResourceArn=arn.upper().replace("ARN:AWS", "arn:aws"))["Tags"] == request["Tags"]


def test_a_job_name_is_used_once(call: Direct) -> None:
    call("CreateTrainingJob", **a_training_job("twice"))
    for name in ("twice", "TWICE"):
        error = fails(call, "CreateTrainingJob", **a_training_job(name))
        assert error.code == "ResourceInUse"
        assert "a training job with this name already exists (arn:aws:sagemaker" in error.message
    assert fails(call, "DescribeTrainingJob", TrainingJobName="never").code == "ValidationException"


def channel(name: str = "train", uri: str = "s3://bucket/x", **more: Any) -> dict[str, Any]:
    return {
        "ChannelName": name,
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}},
        **more,
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"InputDataConfig": [channel("a"), channel("a")]}, "Duplicate channel name 'a'"),
        ({"InputDataConfig": [channel(uri="s3://UPPER/x")]}, "'s3://UPPER/x'"),
        ({"InputDataConfig": [channel(uri="file:///etc/passwd")]}, "s3://bucket/prefix"),
        ({"InputDataConfig": [channel(RecordWrapperType="RecordIO")]}, "RecordWrapperType RecordIO"),
        ({"OutputDataConfig": {"S3OutputPath": "bucket"}}, "outputDataConfig.s3OutputPath"),
        ({"AlgorithmSpecification": {"TrainingInputMode": "File"}}, "not neither"),
        (
            {"AlgorithmSpecification": {"TrainingInputMode": "File", "AlgorithmName": "mine"}},
            "Could not find algorithm",
        ),
        (
            {"AlgorithmSpecification": {"TrainingInputMode": "File", "TrainingImage": "a b"}},
            'ECR image "a b" is invalid',
        ),
        ({"ResourceConfig": {"InstanceType": "ml.m5.nano", "InstanceCount": 1}}, "ml.m5.nano"),
        ({"ResourceConfig": {"VolumeSizeInGB": 1}}, "InstanceType and InstanceCount"),
        ({"ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 5000}}, "service limit"),
        ({"EnableManagedSpotTraining": True}, "Invalid MaxWaitTimeInSeconds"),
        ({"StoppingCondition": {"MaxWaitTimeInSeconds": 5}}, "EnableManagedSpotTraining"),
        ({"MlflowConfig": {"MlflowResourceArn": "arn:x"}}, "MlflowConfig is not supported"),
        ({"Tags": [{"Key": "a", "Value": ""}, {"Key": "a", "Value": ""}]}, "'a' is given twice"),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    call: Direct, notified: list[str], change: dict[str, Any], words: str
) -> None:
    error = fails(call, "CreateTrainingJob", **{**a_training_job(), **change})
    assert error.code in ("ValidationException", "ResourceLimitExceeded")
    assert words in error.message
    assert notified == []
    assert call("ListTrainingJobs")["TrainingJobSummaries"] == []


def test_stopping_and_deleting_a_job(call: Direct, notified: list[str]) -> None:
    call("CreateTrainingJob", **a_training_job())
    assert fails(call, "DeleteTrainingJob", TrainingJobName="job").code == "ResourceInUse"
    call("StopTrainingJob", TrainingJobName="job")
    assert len(notified) == 2
    job = call("DescribeTrainingJob", TrainingJobName="job")
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert "is in status Stopped" in fails(call, "StopTrainingJob", TrainingJobName="job").message
    call("DeleteTrainingJob", TrainingJobName="job")
    assert fails(call, "DeleteTrainingJob", TrainingJobName="job").code == "ResourceNotFound"
    call("CreateTrainingJob", **a_training_job())


def test_updating_a_job(call: Direct) -> None:
    call("CreateTrainingJob", **a_training_job())
    call("UpdateTrainingJob", TrainingJobName="job", ProfilerConfig={"DisableProfiler": True})
    assert call("DescribeTrainingJob", TrainingJobName="job")["ProfilerConfig"] == {"DisableProfiler": True}
    error = fails(
        call, "UpdateTrainingJob", TrainingJobName="job", ResourceConfig={"KeepAlivePeriodInSeconds": 5}
    )
    assert "warm pool" in error.message


def test_rules_that_nobody_evaluates_say_so(call: Direct) -> None:
    rules = [{"RuleConfigurationName": "r", "RuleEvaluatorImage": "i"}]
    call("CreateTrainingJob", **a_training_job(ProfilerRuleConfigurations=rules))
    [status] = call("DescribeTrainingJob", TrainingJobName="job")["ProfilerRuleEvaluationStatuses"]
    assert status["RuleEvaluationStatus"] == "Error"
    assert "does not evaluate" in status["StatusDetails"]


# ---- lists ----


def test_lists_have_the_defaults_of_their_documentation(call: Direct) -> None:
    for name in ("b", "a", "c"):
        call("CreateTrainingJob", **a_training_job(name))
        call("CreateModel", ModelName=name, PrimaryContainer={"Image": IMAGE})
    jobs = [s["TrainingJobName"] for s in call("ListTrainingJobs")["TrainingJobSummaries"]]
    models = [s["ModelName"] for s in call("ListModels")["Models"]]
    assert (jobs, models) == (["b", "a", "c"], ["c", "a", "b"])
    assert set(call("ListModels")["Models"][0]) == {"ModelName", "ModelArn", "CreationTime"}


def test_filters_orders_and_pages(call: Direct) -> None:
    for number in range(25):
        call("CreateTrainingJob", **a_training_job(f"job-{number:02}"))
    call("StopTrainingJob", TrainingJobName="job-07")

    def names(**request: Any) -> list[str]:
        found = call("ListTrainingJobs", **request)["TrainingJobSummaries"]
        return [summary["TrainingJobName"] for summary in found]

    assert len(names()) == 10
    assert names(NameContains="B-1", SortBy="Name", SortOrder="Descending") == [
        f"job-{n}" for n in range(19, 9, -1)
    ]
    assert names(StatusEquals="Stopped") == ["job-07"]
    assert names(WarmPoolStatusEquals="Available") == []
    created = call("DescribeTrainingJob", TrainingJobName="job-05")["CreationTime"]
    assert names(CreationTimeBefore=created, SortBy="Name")[-1] == "job-05"
    assert names(
        LastModifiedTimeAfter=call("DescribeTrainingJob", TrainingJobName="job-24")["CreationTime"] + 1
    ) == ["job-07"]
    seen: list[str] = []
    token: dict[str, str] = {}
    while True:
        page = call("ListTrainingJobs", SortBy="Name", MaxResults=7, **token)
        seen += [summary["TrainingJobName"] for summary in page["TrainingJobSummaries"]]
        if "NextToken" not in page:
            break
        token = {"NextToken": page["NextToken"]}
    assert seen == [f"job-{n:02}" for n in range(25)]
    assert fails(call, "ListTrainingJobs", NextToken="nonsense").code == "ValidationException"


# ---- models, configurations, endpoints ----


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({}, "not neither"),
        ({"PrimaryContainer": {"Image": "UPPER/case"}}, "is invalid"),
        ({"PrimaryContainer": {"Environment": {}}}, "must have an Image"),
        (
            {"PrimaryContainer": {"Image": IMAGE, "ModelDataUrl": "s3://bucket/none"}},
            "Could not find model data at s3://bucket/none",
        ),
        ({"PrimaryContainer": {"Image": IMAGE, "ModelDataUrl": "none"}}, 'Invalid model data URI "none"'),
        ({"PrimaryContainer": {"ModelPackageName": "p"}}, "Could not find model package"),
    ],
)
def test_models_check_what_they_need(call: Direct, request_: dict[str, Any], words: str) -> None:
    error = fails(call, "CreateModel", ModelName="m", ExecutionRoleArn=ROLE, **request_)
    assert error.code == "ValidationException"
    assert words in error.message


def a_variant(**more: Any) -> dict[str, Any]:
    return {
        "VariantName": "v",
        "ModelName": "m",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
        **more,
    }


def test_the_life_of_model_configuration_and_endpoint(call: Direct, notified: list[str]) -> None:
    source = {
        "S3DataSource": {"S3Uri": "s3://bucket/prefix", "S3DataType": "S3Prefix", "CompressionType": "None"}
    }
    call(
        "CreateModel",
        ModelName="m",
        ExecutionRoleArn=ROLE,
        PrimaryContainer={"Image": IMAGE, "ModelDataSource": source},
    )
    error = fails(call, "CreateModel", ModelName="m", PrimaryContainer={"Image": IMAGE})
    assert error.message == (
        'Cannot create already existing model "arn:aws:sagemaker:us-east-1:123456789012:model/m".'
    )
    assert call("DescribeModel", ModelName="m")["PrimaryContainer"]["ModelDataSource"] == source
    call("CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=[a_variant()])
    assert (
        call("DescribeEndpointConfig", EndpointConfigName="c")["ProductionVariants"][0][
            "InitialVariantWeight"
        ]
        == 1
    )
    arn = call("CreateEndpoint", EndpointName="e", EndpointConfigName="c")["EndpointArn"]
    assert notified == [arn]
    endpoint = call("DescribeEndpoint", EndpointName="e")
    assert (endpoint["EndpointStatus"], endpoint["EndpointConfigName"]) == ("Creating", "c")
    assert call("ListEndpoints", StatusEquals="Creating")["Endpoints"][0]["EndpointName"] == "e"
    assert (
        "Cannot create already existing endpoint"
        in fails(call, "CreateEndpoint", EndpointName="e", EndpointConfigName="c").message
    )
    for operation, name in (("DeleteEndpointConfig", "EndpointConfigName"), ("DeleteModel", "ModelName")):
        call(operation, **{name: operation.removeprefix("Delete")[0].lower() if name == "ModelName" else "c"})
    call("DeleteEndpoint", EndpointName="e")
    assert call("DescribeEndpoint", EndpointName="e")["EndpointStatus"] == "Deleting"
    for operation, member in (
        ("DescribeModel", "ModelName"),
        ("DeleteModel", "ModelName"),
        ("DescribeEndpointConfig", "EndpointConfigName"),
        ("DescribeEndpoint", "EndpointName"),
        ("DeleteEndpoint", "EndpointName"),
    ):
        error = fails(call, operation, **{member: "gone"})
        assert error.code == "ValidationException"
        assert error.message.startswith("Could not find ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ModelName": "none"}, "Could not find model"),
        ({"InstanceType": "ml.none.large"}, "ml.none.large"),
        ({"InitialInstanceCount": 101}, "service limit"),
        ({"InitialVariantWeight": 0.0}, "above 0"),
        ({"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}}, "cannot have both"),
        ({"ManagedInstanceScaling": {"Status": "ENABLED"}}, "ManagedInstanceScaling"),
        ({"RoutingConfig": {"RoutingStrategy": "KV_AWARE"}}, "KV_AWARE"),
    ],
)
def test_what_cannot_be_deployed_is_refused_by_name(call: Direct, change: dict[str, Any], words: str) -> None:
    call("CreateModel", ModelName="m", PrimaryContainer={"Image": IMAGE})
    variants = [a_variant(**change)]
    assert (
        words
        in fails(call, "CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=variants).message
    )


SERVERLESS = {"MemorySizeInMB": 2048, "MaxConcurrency": 2}


@pytest.mark.parametrize(
    ("serverless", "more", "words"),
    [
        ({"MemorySizeInMB": 1536}, {}, "must be 1024, 2048"),
        ({"ProvisionedConcurrency": 3}, {}, "less than or equal to MaxConcurrency (2)"),
        ({}, {"AsyncInferenceConfig": {"OutputConfig": {}}}, "asynchronous inference"),
        ({}, {"VpcConfig": {"SecurityGroupIds": ["s"], "Subnets": ["s"]}}, "VPC"),
        ({}, {"EnableNetworkIsolation": True}, "network isolation"),
        ({}, {"ShadowProductionVariants": [a_variant(VariantName="w")]}, "shadow variants"),
        ({}, {"model": {"EnableNetworkIsolation": True}}, "network isolation"),
        ({}, {"model": {"Containers": [{"Image": IMAGE}] * 2}}, "inference pipelines"),
        (
            {},
            {
                "model": {
                    "PrimaryContainer": {
                        "Image": IMAGE,
                        "Mode": "MultiModel",
                        "ModelDataUrl": "s3://bucket/p/",
                    }
                }
            },
            "multi-model",
        ),
        (
            {},
            {
                "DataCaptureConfig": {
                    "InitialSamplingPercentage": 1,
                    "DestinationS3Uri": "s3://bucket/c",
                    "CaptureOptions": [{"CaptureMode": "Input"}],
                }
            },
            "data capture",
        ),
    ],
)
def test_what_serverless_endpoints_cannot_have_is_refused(
    call: Direct, serverless: dict[str, Any], more: dict[str, Any], words: str
) -> None:
    more = dict(more)
    model = {"PrimaryContainer": {"Image": IMAGE}, **more.pop("model", {})}
    if "Containers" in model:
        del model["PrimaryContainer"]
    call("CreateModel", ModelName="m", ExecutionRoleArn=ROLE, **model)
    variant = {"VariantName": "v", "ModelName": "m", "ServerlessConfig": {**SERVERLESS, **serverless}}
    error = fails(call, "CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=[variant], **more)
    assert (error.code, words in error.message) == ("ValidationException", True), error.message


def test_serverless_endpoints_are_described_by_their_concurrency(call: Direct) -> None:
    call("CreateModel", ModelName="m", PrimaryContainer={"Image": IMAGE})
    variant = {"VariantName": "v", "ModelName": "m", "ServerlessConfig": SERVERLESS}
    call("CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=[variant])
    call("CreateEndpoint", EndpointName="e", EndpointConfigName="c")
    (described,) = call("DescribeEndpoint", EndpointName="e")["ProductionVariants"]
    assert described["CurrentServerlessConfig"] == described["DesiredServerlessConfig"] == SERVERLESS
    assert "CurrentInstanceCount" not in described


def test_configurations_refuse_what_is_not_there_yet(call: Direct) -> None:
    call("CreateModel", ModelName="m", PrimaryContainer={"Image": IMAGE})
    topic = {"SuccessTopic": "arn:aws:sns:us-east-1:123456789012:done"}
    asynchronous = {"OutputConfig": {"S3OutputPath": "s3://bucket/x", "NotificationConfig": topic}}
    request: dict[str, Any] = {"EndpointConfigName": "c", "ProductionVariants": [a_variant()]}
    error = fails(call, "CreateEndpointConfig", **request, AsyncInferenceConfig=asynchronous)
    assert error.message.startswith(
        "AsyncInferenceConfig.OutputConfig.NotificationConfig.SuccessTopic is not supported"
    )
    error = fails(call, "CreateEndpointConfig", **request, AsyncInferenceConfig={"OutputConfig": {}})
    assert "S3OutputPath must be given" in error.message
    assert (
        "Duplicate variant name"
        in fails(
            call,
            "CreateEndpointConfig",
            EndpointConfigName="c",
            ProductionVariants=[a_variant(), a_variant()],
        ).message
    )


def test_several_models_in_several_containers_are_stored_but_not_deployed(call: Direct) -> None:
    containers = [{"Image": IMAGE, "Mode": "MultiModel", "ModelDataUrl": "s3://bucket/p/"}, {"Image": IMAGE}]
    call("CreateModel", ModelName="m", Containers=containers)
    call("CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=[a_variant()])
    error = fails(call, "CreateEndpoint", EndpointName="e", EndpointConfigName="c")
    assert "MultiModel" in error.message


# ---- tags ----


def test_tags(call: Direct) -> None:
    arn = call("CreateModel", ModelName="m", PrimaryContainer={"Image": IMAGE})["ModelArn"]
    call("AddTags", ResourceArn=arn, Tags=[{"Key": f"k{n:02}", "Value": str(n)} for n in range(50)])
    call("AddTags", ResourceArn=arn, Tags=[{"Key": "k07", "Value": "new"}])
    assert (
        fails(call, "AddTags", ResourceArn=arn, Tags=[{"Key": "x", "Value": ""}]).code
        == "ResourceLimitExceeded"
    )
    call("DeleteTags", ResourceArn=arn, TagKeys=["k01", "never"])
    page = call("ListTags", ResourceArn=arn)
    assert len(page["Tags"]) == 49
    assert {"Key": "k07", "Value": "new"} in page["Tags"]
    assert "NextToken" not in page
    call("DeleteModel", ModelName="m")
    assert fails(call, "ListTags", ResourceArn=arn).code == "ValidationException"


# ---- families that are only stored ----


EXAMPLES: dict[str, dict[str, Any]] = {
    "CodeRepository": {"GitConfig": {"RepositoryUrl": "https://example.com/r", "Branch": "main"}},
    "NotebookInstanceLifecycleConfig": {"OnStart": [{"Content": "eA=="}]},
    "ModelPackageGroup": {"ModelPackageGroupDescription": "d"},
    "StudioLifecycleConfig": {
        "StudioLifecycleConfigContent": "eA==",
        "StudioLifecycleConfigAppType": "JupyterLab",
    },
    "AppImageConfig": {"KernelGatewayImageConfig": {"KernelSpecs": [{"Name": "python3"}]}},
    "Experiment": {"DisplayName": "shown"},
    "Context": {
        "Source": {"SourceUri": "s3://b/x"},
        "ContextType": "Test",
        "Properties": {"a": "1", "b": "2"},
    },
    "Action": {"Source": {"SourceUri": "s3://b/x"}, "ActionType": "Test", "Status": "InProgress"},
}


@pytest.mark.parametrize("kind", RECORD_ONLY, ids=lambda kind: kind.noun)
def test_what_is_only_stored_comes_back(call: Direct, kind: ResourceKind) -> None:
    example = EXAMPLES[kind.noun]
    name = {kind.name_member: "one"}
    arn = call(f"Create{kind.noun}", **name, **example, Tags=[{"Key": "a", "Value": "b"}])[kind.arn_member]
    described = call(f"Describe{kind.noun}", **name)
    assert {member: described[member] for member in example} == example
    assert described[kind.arn_member] == arn
    assert fails(call, f"Create{kind.noun}", **name, **example).code in (
        "ValidationException",
        "ResourceInUse",
    )
    listed = call(kind.list_operation)
    [[summary]] = [value for key, value in listed.items() if key != "NextToken"]
    assert summary[kind.name_member] == "one"
    assert len(call("ListTags", ResourceArn=arn)["Tags"]) == 1
    operations = service_model("sagemaker").operation_names
    assert kind.updatable == (f"Update{kind.noun}" in operations)
    call(f"Delete{kind.noun}", **name)
    error = fails(call, f"Describe{kind.noun}", **name)
    assert error.code in ("ValidationException", "ResourceNotFound")


def test_updates_replace_members_and_remove_keys(call: Direct) -> None:
    call("CreateContext", ContextName="c", **EXAMPLES["Context"])
    call("UpdateContext", ContextName="c", Description="new", PropertiesToRemove=["a"])
    context = call("DescribeContext", ContextName="c")
    assert (context["Description"], context["Properties"]) == ("new", {"b": "2"})
    assert call("DescribeContext", ContextName=context["ContextArn"]) == context
    assert call("ListContexts", SourceUri="s3://other")["ContextSummaries"] == []
    assert len(call("ListContexts", SourceUri="s3://b/x", ContextType="Test")["ContextSummaries"]) == 1
    call("CreateCodeRepository", CodeRepositoryName="r", **EXAMPLES["CodeRepository"])
    secret = "arn:aws:secretsmanager:us-east-1:123456789012:secret:s"
    call("UpdateCodeRepository", CodeRepositoryName="r", GitConfig={"SecretArn": secret})
    git = call("DescribeCodeRepository", CodeRepositoryName="r")["GitConfig"]
    assert git == {"RepositoryUrl": "https://example.com/r", "Branch": "main", "SecretArn": secret}
