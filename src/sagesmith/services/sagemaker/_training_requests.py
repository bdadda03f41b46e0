"""CreateTrainingJob's request: what is refused before the job exists, and the document that Describe starts from."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from sagesmith.errors import AwsError, validation_error
from sagesmith.images import Image
from sagesmith.lifecycle.records import training_document
from sagesmith.lifecycle.training import plan
from sagesmith.services.sagemaker._checks import check_s3_uri, check_unique, not_available, refuse

__all__ = ["check_training_request", "new_training_document"]

MAX_INSTANCES: Final = 100
DEFAULT_MAX_RUNTIME_S: Final = 86_400
_NOT_THERE_YET: Final = (
    "ServerlessJobConfig", "MlflowConfig", "ModelPackageConfig", "SessionChainingConfig", "TensorBoardOutputConfig",
)  # fmt: skip
_INPUT_MODES: Final = ("File", "FastFile", "Pipe")
_RULES: Final[Mapping[str, str]] = {
    "DebugRuleConfigurations": "DebugRuleEvaluationStatuses",
    "ProfilerRuleConfigurations": "ProfilerRuleEvaluationStatuses",
}


def check_training_request(
    request: Mapping[str, Any],
    *,
    resolve: Callable[[str], Image],
    check_instance_type: Callable[[str], object],
    check_role: Callable[[str], None],
) -> Image:
    """Refuse what cannot work, in AWS's words, and return the image that will run.

    Raises:
        AwsError: `ValidationException` or `ResourceLimitExceeded`.
    """
    refuse(request, _NOT_THERE_YET)
    image = _check_algorithm(request.get("AlgorithmSpecification") or {}, resolve)
    _check_resources(request.get("ResourceConfig") or {}, check_instance_type)
    _check_channels(request)
    output = request["OutputDataConfig"]
    check_s3_uri(output["S3OutputPath"], "outputDataConfig.s3OutputPath")
    if request.get("CheckpointConfig"):
        check_s3_uri(request["CheckpointConfig"]["S3Uri"], "checkpointConfig.s3Uri")
    _check_limits(request)
    check_role(request["RoleArn"])
    return image


def _check_algorithm(algorithm: Mapping[str, Any], resolve: Callable[[str], Image]) -> Image:
    uri, name = algorithm.get("TrainingImage"), algorithm.get("AlgorithmName")
    if bool(uri) == bool(name):
        raise validation_error(
            "Exactly one of AlgorithmSpecification.TrainingImage and AlgorithmSpecification.AlgorithmName "
            f"must be given, not {'both' if uri else 'neither'}."
        )
    if not uri:
        raise validation_error(
            f'Could not find algorithm "{name}". Name a built-in algorithm by its TrainingImage instead.'
        )
    return resolve(uri)


def _check_resources(config: Mapping[str, Any], check_instance_type: Callable[[str], object]) -> None:
    refuse(config, ("InstanceGroups", "TrainingPlanArn", "InstancePreferences"), "ResourceConfig")
    instance_type, count = config.get("InstanceType"), config.get("InstanceCount")
    if not instance_type or count is None:
        raise validation_error("ResourceConfig must have InstanceType and InstanceCount.")
    if count < 1:
        raise validation_error(f"ResourceConfig.InstanceCount must be at least 1, not {count}.")
    check_instance_type(instance_type)
    if count > MAX_INSTANCES:
        raise AwsError(
            "ResourceLimitExceeded",
            f"The account-level service limit '{instance_type} for training job usage' is {MAX_INSTANCES} "
            f"Instances, with a request delta of {count} Instances.",
        )


def _check_channels(request: Mapping[str, Any]) -> None:
    channels = request.get("InputDataConfig") or ()
    check_unique((c["ChannelName"] for c in channels), "channel name", "inputDataConfig")
    default_mode = (request.get("AlgorithmSpecification") or {}).get("TrainingInputMode", "File")
    if default_mode not in _INPUT_MODES:
        raise not_available(f"AlgorithmSpecification.TrainingInputMode {default_mode}")
    for number, channel in enumerate(channels, 1):
        where = f"inputDataConfig.{number}.member"
        source = channel["DataSource"]
        refuse(source, ("FileSystemDataSource", "DatasetSource"), f"InputDataConfig.{number}.DataSource")
        s3 = source.get("S3DataSource")
        if not s3:
            raise validation_error(f"Channel {channel['ChannelName']} has no DataSource.S3DataSource.")
        mode = channel.get("InputMode") or default_mode
        if mode not in _INPUT_MODES:
            raise not_available(f"InputDataConfig.{number}.InputMode {mode}")
        piped_manifest = s3["S3DataType"] == "AugmentedManifestFile" and mode == "Pipe"
        if piped_manifest and not s3.get("AttributeNames"):
            raise validation_error(
                f"Channel {channel['ChannelName']} is an AugmentedManifestFile: AttributeNames must name what to "
                "stream of each line."
            )
        if not piped_manifest and s3["S3DataType"] not in ("S3Prefix", "ManifestFile"):
            raise not_available(
                f"InputDataConfig.{number}.DataSource.S3DataSource.S3DataType {s3['S3DataType']}"
            )
        refuse(
            s3,
            ("InstanceGroupNames", "ModelAccessConfig", "HubAccessConfig"),
            f"InputDataConfig.{number}.DataSource.S3DataSource",
        )
        if channel.get("RecordWrapperType") == "RecordIO" and mode != "Pipe":
            raise not_available(f"InputDataConfig.{number}.RecordWrapperType RecordIO")
        check_s3_uri(s3["S3Uri"], f"{where}.dataSource.s3DataSource.s3Uri")


def _check_limits(request: Mapping[str, Any]) -> None:
    condition = request.get("StoppingCondition") or {}
    runtime, wait = (
        condition.get("MaxRuntimeInSeconds", DEFAULT_MAX_RUNTIME_S),
        condition.get("MaxWaitTimeInSeconds"),
    )
    if request.get("EnableManagedSpotTraining"):
        if wait is None or wait < runtime:
            raise validation_error(
                "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds"
            )
    elif wait is not None:
        raise validation_error(
            "MaxWaitTimeInSeconds can only be given for jobs with EnableManagedSpotTraining. Leave it out."
        )


def new_training_document(request: Mapping[str, Any], image: Image, arn: str, now: float) -> dict[str, Any]:
    """Return the document of a new job: the request with the defaults that Describe shows, and its first state."""
    name = request["TrainingJobName"]
    output = {"KmsKeyId": "", "CompressionType": "GZIP", **request["OutputDataConfig"]}
    path = f"{output['S3OutputPath'].rstrip('/')}/{name}/output"
    artifact = f"{path}/model/" if output["CompressionType"] == "NONE" else f"{path}/model.tar.gz"
    condition = {"MaxRuntimeInSeconds": DEFAULT_MAX_RUNTIME_S, **(request.get("StoppingCondition") or {})}
    document: dict[str, Any] = {
        "EnableNetworkIsolation": False,
        "EnableInterContainerTrafficEncryption": False,
        "EnableManagedSpotTraining": False,
        **{member: value for member, value in request.items() if member != "Tags"},
        "TrainingJobArn": arn,
        "AlgorithmSpecification": _algorithm(request["AlgorithmSpecification"], image),
        "OutputDataConfig": output,
        "StoppingCondition": condition,
        "ModelArtifacts": {"S3ModelArtifacts": artifact},
        "ProfilingStatus": "Disabled",
    }
    if "InputDataConfig" in request:
        document["InputDataConfig"] = [_channel(channel) for channel in request["InputDataConfig"]]
    for asked, answered in _RULES.items():
        if request.get(asked):
            document[answered] = [
                {
                    "RuleConfigurationName": rule["RuleConfigurationName"],
                    "RuleEvaluationStatus": "Error",
                    "StatusDetails": "Sagesmith does not evaluate debugger and profiler rules yet.",
                    "LastModifiedTime": now,
                }
                for rule in request[asked]
            ]
    run = plan(
        f"i-{secrets.token_hex(6)}",
        instance_count=request["ResourceConfig"]["InstanceCount"],
        created=now,
        max_runtime_s=condition["MaxRuntimeInSeconds"],
        max_wait_s=condition.get("MaxWaitTimeInSeconds"),
        retries=(request.get("RetryStrategy") or {}).get("MaximumRetryAttempts", 0),
    )
    return training_document(document, run)


def _algorithm(algorithm: Mapping[str, Any], image: Image) -> dict[str, Any]:
    given = list(algorithm.get("MetricDefinitions") or ())
    names = {definition["Name"] for definition in given}
    definitions = given + [
        {"Name": n, "Regex": regex} for n, regex in image.metric_definitions if n not in names
    ]
    result = {
        **algorithm,
        "EnableSageMakerMetricsTimeSeries": algorithm.get(
            "EnableSageMakerMetricsTimeSeries", bool(definitions)
        ),
    }
    if definitions:
        result["MetricDefinitions"] = definitions
    return result


def _channel(channel: Mapping[str, Any]) -> dict[str, Any]:
    s3 = {"S3DataDistributionType": "FullyReplicated", **channel["DataSource"]["S3DataSource"]}
    return {
        "CompressionType": "None",
        "RecordWrapperType": "None",
        **channel,
        "DataSource": {**channel["DataSource"], "S3DataSource": s3},
    }
