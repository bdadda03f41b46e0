"""Which action on which resource a request is: the bridge between operations and policies.

SageMaker's operations are their own actions, and their resource follows from the request by rule: the member
named after what the operation is about. S3's actions have names of their own, so those are a table. Written
after AWS's "Service Authorization Reference".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeAlias

from sagesmith.arns import Arn, partition_of

__all__ = ["SAGEMAKER_FAMILY", "Check", "Place", "bucket_of_arn", "buckets_of", "checks", "roles_passed"]

Check: TypeAlias = tuple[str, str]
"""An action and a resource ARN (or ``*``) that must be allowed."""

Document: TypeAlias = Mapping[str, Any]

SAGEMAKER_FAMILY: Final = frozenset(
    (
        "sagemaker",
        "sagemaker-runtime",
        "sagemaker-featurestore-runtime",
        "sagemaker-metrics",
        "sagemaker-a2i-runtime",
        "sagemaker-edge",
    )
)
"""Services whose actions are called ``sagemaker:...``."""

_PREFIXES: Final = {"application-autoscaling": "application-autoscaling", "resourcegroupstaggingapi": "tag"}


class Place:
    """Where a request happens: makes ARNs of its region and account.

    `declared` returns the ARN of the user, role or group of that name, whose path the name does not tell.
    """

    __slots__ = ("account", "caller_arn", "declared", "partition", "region")

    def __init__(
        self, region: str, account: str, caller_arn: str, declared: Callable[[str, str], str | None]
    ) -> None:
        self.region = region
        self.account = account
        self.caller_arn = caller_arn
        self.declared = declared
        self.partition = partition_of(region)

    def arn(self, service: str, resource: str) -> str:
        """Return the ARN of *resource*; S3's and IAM's carry no region."""
        region = "" if service in ("s3", "iam") else self.region
        account = "" if service == "s3" else self.account
        return str(Arn(service, region, account, resource, self.partition))


def checks(service: str, operation: str, request: Document, place: Place) -> Sequence[Check]:
    """Return what must be allowed for *operation* of *service*, apart from the roles it passes on."""
    if service in SAGEMAKER_FAMILY:
        return list(_sagemaker(operation, request, place))
    if service == "s3":
        return list(_s3(operation, request, place))
    if service == "logs":
        return [(f"logs:{operation}", _log_resource(request, place))]
    if service == "iam":
        return [(f"iam:{operation}", _iam_resource(operation, request, place))]
    if service == "ecr":
        return [(f"ecr:{operation}", _ecr_resource(request, place))]
    return [(f"{_PREFIXES.get(service, service)}:{operation}", "*")]


# SageMaker

_VERB: Final = re.compile(
    r"(?:Create|Describe|Delete|Update|Stop|Start|Get|Put|Import|Retry|Attach|Detach|Register|Deregister)(.+?)(?:V2)?"
)
_WORDS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_KINDS: Final = {
    "AutoMLJob": "automl-job",
    "Trial": "experiment-trial",
    "TrialComponent": "experiment-trial-component",
    "EdgeDeploymentPlan": "edge-deployment",
    "TrackingServer": "mlflow-tracking-server",
    "MlflowTrackingServer": "mlflow-tracking-server",
}
_FALLBACK: Final = (
    "ResourceArn",
    "EndpointName",
    "PipelineExecutionArn",
    "PipelineName",
    "ModelPackageGroupName",
    "FeatureGroupName",
    "InferenceComponentName",
    "ClusterName",
    "ClusterArn",
    "ImageName",
    "NotebookInstanceName",
    "DeviceFleetName",
    "EdgeDeploymentPlanName",
    "TrackingServerName",
    "TrainingPlanArn",
    "HyperParameterTuningJobName",
    "HubName",
    "WorkteamArn",
    "ResourceIdentifier",
    "Arn",
)
"""Members that name the resource of operations whose own name does not say it."""

_STUDIO: Final = {
    "UserProfile": ("DomainId", "UserProfileName"),
    "Space": ("DomainId", "SpaceName"),
    "App": ("DomainId", "UserProfileName", "AppType", "AppName"),
}
_LISTS_OF: Final = frozenset(
    ("ListTags", "ListPipelineExecutions", "ListTrainingJobsForHyperParameterTuningJob")
)
_CREATED_WITH: Final = {
    "CreateEndpoint": ("EndpointConfigName",),
    "UpdateEndpoint": ("EndpointConfigName",),
    "CreateInferenceComponent": ("EndpointName",),
    "InvokeEndpoint": ("InferenceComponentName",),
    "InvokeEndpointWithResponseStream": ("InferenceComponentName",),
}
"""Further members that name resources on which the action must be allowed."""


def _sagemaker(operation: str, request: Document, place: Place) -> Iterator[Check]:
    resource = _sagemaker_resource(operation, request, place)
    action = f"sagemaker:{operation}"
    yield action, resource
    for member in _CREATED_WITH.get(operation, ()):
        if member in request:
            yield action, _named(member, request[member], place)
    if operation.startswith("Create") and request.get("Tags"):
        yield "sagemaker:AddTags", resource


def _sagemaker_resource(operation: str, request: Document, place: Place) -> str:
    if operation.startswith(("List", "Search", "Query", "Batch")) and operation not in _LISTS_OF:
        return "*"
    subject = _subject(operation)
    if subject in _STUDIO:
        parts = [str(request.get(member) or "*") for member in _STUDIO[subject]]
        return place.arn("sagemaker", "/".join((kebab(subject), *parts)))
    for member in (f"{subject}Name", f"{subject}Arn", f"{subject}Id"):
        if isinstance(request.get(member), str):
            return _named(member, request[member], place)
    for member in ("JobDefinitionName", "JobName", "Name"):
        if subject and isinstance(request.get(member), str):
            return _named(f"{subject}Name", request[member], place)
    for member in _FALLBACK:
        if isinstance(request.get(member), str):
            return _named(member, request[member], place)
    return "*"


@cache
def _subject(operation: str) -> str:
    match = _VERB.fullmatch(operation)
    return match[1] if match else ""


def _named(member: str, value: str, place: Place) -> str:
    """Return the ARN that *value* of the request's *member* names; it may be one already."""
    if value.startswith("arn:"):
        return value
    return place.arn("sagemaker", f"{kebab(re.sub('(Name|Arn|Id)$', '', member))}/{value}")


@cache
def kebab(subject: str) -> str:
    """Return how ARNs spell *subject*: ``TrainingJob`` is ``training-job``."""
    return _KINDS.get(subject) or _WORDS.sub("-", subject).lower()


# Roles that a request hands to SageMaker

_ROLE_MEMBERS: Final = (
    ("RoleArn",),
    ("ExecutionRoleArn",),
    ("TrainingJobDefinition", "RoleArn"),
    ("TrainingJobDefinitions", "RoleArn"),
    ("MonitoringScheduleConfig", "MonitoringJobDefinition", "RoleArn"),
    ("DefaultUserSettings", "ExecutionRole"),
    ("DefaultSpaceSettings", "ExecutionRole"),
    ("UserSettings", "ExecutionRole"),
)


def roles_passed(request: Document) -> list[str]:
    """Return the ARNs of the roles that a request to SageMaker, to make or change something, hands over."""
    found: list[str] = []
    for path in _ROLE_MEMBERS:
        if path[0] in request:
            found.extend(role for role in _at(request, path) if role not in found)
    return found


def _at(value: Any, path: Sequence[str]) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _at(item, path)
    elif not path:
        if isinstance(value, str):
            yield value
    elif isinstance(value, Mapping) and path[0] in value:
        yield from _at(value[path[0]], path[1:])


# S3

_ON_SERVICE: Final = {
    "ListBuckets": "s3:ListAllMyBuckets",
    "ListDirectoryBuckets": "s3:ListAllMyDirectoryBuckets",
}
_ON_OBJECT: Final[Mapping[str, tuple[str, ...]]] = {
    "GetObject": ("s3:GetObject",),
    "HeadObject": ("s3:GetObject",),
    "GetObjectAttributes": ("s3:GetObject", "s3:GetObjectAttributes"),
    "GetObjectTorrent": ("s3:GetObject",),
    "SelectObjectContent": ("s3:GetObject",),
    "PutObject": ("s3:PutObject",),
    "CopyObject": ("s3:PutObject",),
    "CreateMultipartUpload": ("s3:PutObject",),
    "UploadPart": ("s3:PutObject",),
    "UploadPartCopy": ("s3:PutObject",),
    "CompleteMultipartUpload": ("s3:PutObject",),
    "RenameObject": ("s3:PutObject",),
    "AbortMultipartUpload": ("s3:AbortMultipartUpload",),
    "ListParts": ("s3:ListMultipartUploadParts",),
    "DeleteObject": ("s3:DeleteObject",),
    "RestoreObject": ("s3:RestoreObject",),
    "GetObjectLegalHold": ("s3:GetObjectLegalHold",),
    "PutObjectLegalHold": ("s3:PutObjectLegalHold",),
    "GetObjectRetention": ("s3:GetObjectRetention",),
    "PutObjectRetention": ("s3:PutObjectRetention",),
    "GetObjectAcl": ("s3:GetObjectAcl",),
    "PutObjectAcl": ("s3:PutObjectAcl",),
    "GetObjectTagging": ("s3:GetObjectTagging",),
    "PutObjectTagging": ("s3:PutObjectTagging",),
    "DeleteObjectTagging": ("s3:DeleteObjectTagging",),
}
_VERSIONED: Final = {
    action: action.replace("Object", "ObjectVersion", 1)
    for action in (
        "s3:GetObject",
        "s3:DeleteObject",
        "s3:GetObjectAcl",
        "s3:PutObjectAcl",
        "s3:GetObjectTagging",
        "s3:PutObjectTagging",
        "s3:DeleteObjectTagging",
        "s3:GetObjectAttributes",
    )
}
_ON_BUCKET: Final = {
    "ListObjects": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "HeadBucket": "s3:ListBucket",
    "ListObjectVersions": "s3:ListBucketVersions",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "DeleteBucketTagging": "s3:PutBucketTagging",
    "DeleteBucketCors": "s3:PutBucketCORS",
    "GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "PutBucketEncryption": "s3:PutEncryptionConfiguration",
    "DeleteBucketEncryption": "s3:PutEncryptionConfiguration",
    "GetBucketLifecycle": "s3:GetLifecycleConfiguration",
    "GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "PutBucketLifecycle": "s3:PutLifecycleConfiguration",
    "PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
    "DeleteBucketLifecycle": "s3:PutLifecycleConfiguration",
    "GetBucketNotificationConfiguration": "s3:GetBucketNotification",
    "PutBucketNotificationConfiguration": "s3:PutBucketNotification",
    "GetBucketReplication": "s3:GetReplicationConfiguration",
    "PutBucketReplication": "s3:PutReplicationConfiguration",
    "DeleteBucketReplication": "s3:PutReplicationConfiguration",
    "GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
    "DeletePublicAccessBlock": "s3:PutBucketPublicAccessBlock",
    "GetBucketAccelerateConfiguration": "s3:GetAccelerateConfiguration",
    "PutBucketAccelerateConfiguration": "s3:PutAccelerateConfiguration",
    "GetObjectLockConfiguration": "s3:GetBucketObjectLockConfiguration",
    "PutObjectLockConfiguration": "s3:PutBucketObjectLockConfiguration",
    "DeleteBucketWebsite": "s3:DeleteBucketWebsite",
}


def _s3(operation: str, request: Document, place: Place) -> Iterator[Check]:
    bucket = str(request.get("Bucket", ""))
    if operation in _ON_SERVICE:
        yield _ON_SERVICE[operation], "*"
    elif operation == "DeleteObjects":
        for item in (request.get("Delete") or {}).get("Objects") or ():
            action = "s3:DeleteObjectVersion" if item.get("VersionId") else "s3:DeleteObject"
            yield action, place.arn("s3", f"{bucket}/{item.get('Key', '')}")
    elif operation in _ON_OBJECT:
        resource = place.arn("s3", f"{bucket}/{request.get('Key', '')}")
        for action in _ON_OBJECT[operation]:
            yield (_VERSIONED.get(action, action) if request.get("VersionId") else action), resource
        yield from _beside(request, resource, place)
    else:
        yield _ON_BUCKET.get(operation, f"s3:{operation}"), place.arn("s3", bucket)


def buckets_of(request: Document) -> Iterator[str]:
    """Yield the buckets that a request to S3 names: its own, and the one it copies from."""
    bucket, source = request.get("Bucket"), request.get("CopySource")
    if isinstance(bucket, str):
        yield bucket
    if isinstance(source, str):
        yield source.removeprefix("/").partition("/")[0]


def bucket_of_arn(resource: str) -> str:
    """Return the bucket that the ARN of a bucket or of an object names."""
    return resource.partition(":::")[2].partition("/")[0]


def _beside(request: Document, resource: str, place: Place) -> Iterator[Check]:
    """Yield what a request on an object asks for besides: its source, its tags, its access list."""
    source = request.get("CopySource")
    if isinstance(source, str):
        path, _, version = source.removeprefix("/").partition("?versionId=")
        yield "s3:GetObjectVersion" if version else "s3:GetObject", place.arn("s3", path)
    if request.get("Tagging") and isinstance(request["Tagging"], str):
        yield "s3:PutObjectTagging", resource
    if request.get("ACL"):
        yield "s3:PutObjectAcl", resource


# Logs and IAM


def _log_resource(request: Document, place: Place) -> str:
    arn = request.get("resourceArn") or request.get("logGroupIdentifier")
    if isinstance(arn, str) and arn.startswith("arn:"):
        return arn
    group = request.get("logGroupName") or arn or ""
    return place.arn("logs", f"log-group:{group}:log-stream:{request.get('logStreamName') or ''}")


def _ecr_resource(request: Document, place: Place) -> str:
    name = request.get("repositoryName")
    if isinstance(name, str):
        return place.arn("ecr", f"repository/{name}")
    arn = request.get("resourceArn")
    return arn if isinstance(arn, str) else "*"


_IAM_MEMBERS: Final = (
    ("RoleName", "role"),
    ("GroupName", "group"),
    ("UserName", "user"),
    ("PolicyName", "policy"),
    ("InstanceProfileName", "instance-profile"),
)
_ON_CALLER: Final = frozenset(
    ("GetUser", "ListAccessKeys", "CreateAccessKey", "UpdateAccessKey", "DeleteAccessKey", "ChangePassword")
)
"""Operations that are about the caller itself when the request names no user."""


def _iam_resource(operation: str, request: Document, place: Place) -> str:
    if operation in ("ListUsers", "ListRoles", "ListGroups", "ListPolicies", "SimulateCustomPolicy"):
        return "*"
    if operation == "SimulatePrincipalPolicy":
        return str(request.get("PolicySourceArn", "*"))
    path = str(request.get("Path") or "/")[1:] if operation.startswith("Create") else ""
    for member, kind in _IAM_MEMBERS:
        name = request.get(member)
        if isinstance(name, str) and name:
            return place.declared(kind, name) or place.arn("iam", f"{kind}/{path}{name}")
    if isinstance(request.get("PolicyArn"), str):
        return str(request["PolicyArn"])
    return place.caller_arn if operation in _ON_CALLER else "*"
