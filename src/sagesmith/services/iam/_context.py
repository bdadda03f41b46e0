"""Context keys: what conditions and policy variables may ask about a request.

Values are made when asked for. `constant` stays true while only keys were asked for that depend on the caller
alone; a decision made so may be remembered, since the next request of that caller on that resource has the
same answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from sagesmith.aws.call import Call
from sagesmith.store.principals import AccessKey

__all__ = ["Context", "caller_keys"]

Values: TypeAlias = tuple[str, ...] | None


def caller_keys(
    key: AccessKey, account: str, role_arn: str, tags: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """Return the context keys that depend on the caller alone. A role's principal ARN is the role's."""
    user = key.holder_kind == "user"
    values: dict[str, tuple[str, ...]] = {
        "aws:userid": (key.user_id,),
        "aws:principalarn": (key.caller_arn if user else role_arn,),
        "aws:principalaccount": (account,),
        "aws:principaltype": ("User" if user else "AssumedRole",),
    }
    if user:
        values["aws:username"] = (key.holder,)
    for name, value in {**tags, **key.session_tags}.items():
        values[f"aws:principaltag/{name.lower()}"] = (value,)
    return values


class Context:
    """The context of one request; call it with a key in lower case for the key's values, or None.

    Args:
        caller: what `caller_keys` returned.
        call: None where no request is at hand, only an action on a resource.
        request: the parsed input.
        extra: further keys, such as ``iam:passedtoservice``.
        resource_tags: returns the tags of the resource that is asked for.
    """

    __slots__ = ("_call", "_caller", "_extra", "_request", "_resource_tags", "constant")

    def __init__(
        self,
        caller: Mapping[str, tuple[str, ...]],
        call: Call | None = None,
        request: Mapping[str, Any] | None = None,
        extra: Mapping[str, tuple[str, ...]] | None = None,
        resource_tags: Callable[[], Mapping[str, str]] | None = None,
    ) -> None:
        self._caller = caller
        self._call = call
        self._request = request or {}
        self._extra = extra or {}
        self._resource_tags = resource_tags
        self.constant = True

    def __call__(self, key: str) -> Values:
        values = self._caller.get(key)
        if values is not None or key.startswith(("aws:userid", "aws:username", "aws:principal")):
            return values
        self.constant = False
        return self._extra.get(key) or self._value(key)

    def _value(self, key: str) -> Values:
        of_call = _OF_CALL.get(key)
        if of_call is not None:
            text = None if self._call is None else of_call(self._call)
            return (text,) if text else None
        of_request = _OF_REQUEST.get(key)
        if of_request is not None:
            return of_request(self._request)
        name, slash, tag = key.partition("/")
        if slash and name in ("aws:requesttag", "s3:requestobjecttag"):
            return _one({k.lower(): v for k, v in _request_tags(self._request).items()}.get(tag))
        if slash and name in ("aws:resourcetag", "sagemaker:resourcetag", "iam:resourcetag"):
            tags = self._resource_tags() if self._resource_tags else {}
            return _one({k.lower(): v for k, v in tags.items()}.get(tag))
        if key == "aws:tagkeys":
            return tuple(_request_tags(self._request)) or tuple(self._request.get("TagKeys") or ()) or None
        if key.startswith("s3:x-amz-") and self._call is not None:
            return _one(self._call.headers.get(key.removeprefix("s3:")))
        return None


def _one(value: str | None) -> Values:
    return None if value is None else (value,)


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _s3_signing(call: Call) -> tuple[str, str]:
    """Return how a request to S3 was signed: where, and with which version."""
    if call.operation == "PutObject" and call.method == "POST":
        return "POST", "AWS4-HMAC-SHA256" if "x-amz-algorithm" in call.headers else "AWS"
    if "authorization" in call.headers:
        return "REST-HEADER", "AWS4-HMAC-SHA256"
    return "REST-QUERY-STRING", "AWS" if "AWSAccessKeyId" in call.query else "AWS4-HMAC-SHA256"


_OF_CALL: Final[Mapping[str, Callable[[Call], str | None]]] = {
    "aws:requestedregion": lambda call: call.region,
    "aws:currenttime": lambda call: _date(call.time or time.time()),
    "aws:epochtime": lambda call: str(int(call.time or time.time())),
    "aws:sourceip": lambda call: call.source_ip,
    "aws:securetransport": lambda call: str(call.endpoint_url.startswith("https:")).lower(),
    "aws:useragent": lambda call: call.headers.get("user-agent"),
    "aws:referer": lambda call: call.headers.get("referer"),
    "s3:authtype": lambda call: _s3_signing(call)[0],
    "s3:signatureversion": lambda call: _s3_signing(call)[1],
}


def _request_tags(request: Mapping[str, Any]) -> Mapping[str, str]:
    tags = request.get("Tags") or request.get("tags") or {}
    if isinstance(tags, Mapping):
        return tags
    return {tag["Key"]: tag.get("Value", "") for tag in tags if isinstance(tag, Mapping) and "Key" in tag}


def _member(*path: str) -> Callable[[Mapping[str, Any]], Values]:
    """Return a function for the values at *path* of a request; lists on the way are walked through."""

    def values(request: Mapping[str, Any]) -> Values:
        return tuple(_found(request, path)) or None

    return values


def _found(value: Any, path: Sequence[str]) -> Iterable[str]:
    if isinstance(value, list):
        for item in value:
            yield from _found(item, path)
    elif path:
        if isinstance(value, Mapping) and path[0] in value:
            yield from _found(value[path[0]], path[1:])
    elif value is not None:
        yield str(value).lower() if isinstance(value, bool) else str(value)


def _either(*members: Callable[[Mapping[str, Any]], Values]) -> Callable[[Mapping[str, Any]], Values]:
    return lambda request: tuple(value for member in members for value in member(request) or ()) or None


_OF_REQUEST: Final[Mapping[str, Callable[[Mapping[str, Any]], Values]]] = {
    "s3:prefix": _member("Prefix"),
    "s3:delimiter": _member("Delimiter"),
    "s3:max-keys": _member("MaxKeys"),
    "s3:versionid": _member("VersionId"),
    "s3:locationconstraint": _member("CreateBucketConfiguration", "LocationConstraint"),
    "sagemaker:instancetypes": _either(
        _member("ResourceConfig", "InstanceType"),
        _member("ResourceConfig", "InstanceGroups", "InstanceType"),
        _member("ProductionVariants", "InstanceType"),
        _member("TransformResources", "InstanceType"),
        _member("ProcessingResources", "ClusterConfig", "InstanceType"),
        _member("TrainingJobDefinition", "ResourceConfig", "InstanceType"),
        _member("InstanceType"),
    ),
    "sagemaker:maxruntimeinseconds": _member("StoppingCondition", "MaxRuntimeInSeconds"),
    "sagemaker:networkisolation": _either(
        _member("EnableNetworkIsolation"), _member("NetworkConfig", "EnableNetworkIsolation")
    ),
    "sagemaker:intercontainertrafficencryption": _member("EnableInterContainerTrafficEncryption"),
    "sagemaker:outputkmskey": _either(
        _member("OutputDataConfig", "KmsKeyId"), _member("TransformOutput", "KmsKeyId")
    ),
    "sagemaker:volumekmskey": _either(
        _member("ResourceConfig", "VolumeKmsKeyId"),
        _member("KmsKeyId"),
        _member("TransformResources", "VolumeKmsKeyId"),
    ),
    "sagemaker:vpcsubnets": _either(
        _member("VpcConfig", "Subnets"), _member("NetworkConfig", "VpcConfig", "Subnets")
    ),
    "sagemaker:vpcsecuritygroupids": _either(
        _member("VpcConfig", "SecurityGroupIds"), _member("NetworkConfig", "VpcConfig", "SecurityGroupIds")
    ),
    "sagemaker:modelarn": _member("ModelName"),
    "sagemaker:targetmodel": _member("TargetModel"),
    "sagemaker:rootaccess": _member("RootAccess"),
    "sagemaker:directinternetaccess": _member("DirectInternetAccess"),
    "iam:policyarn": _member("PolicyArn"),
    "iam:permissionsboundary": _member("PermissionsBoundary"),
    "sts:externalid": _member("ExternalId"),
    "sts:rolesessionname": _member("RoleSessionName"),
    "logs:loggroupname": _member("logGroupName"),
}
