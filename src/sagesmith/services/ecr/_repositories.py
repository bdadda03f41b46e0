"""Repositories, their tags, and the token that opens the registry."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from sagesmith.aws.call import Call, operation
from sagesmith.clock import Clock
from sagesmith.errors import AwsError
from sagesmith.registry_token import USER, make_password
from sagesmith.services.ecr._names import (
    arn_of,
    registry_host,
    repository_not_found,
    repository_uri,
    required,
)
from sagesmith.store.identities import Identities
from sagesmith.store.registry import KIND, Registry
from sagesmith.store.resources import AlreadyExists, ListQuery, Resource, Resources

__all__ = ["Repositories"]

_TOKEN_S: Final = 12 * 3600.0
_SHOWN: Final = (
    "imageTagMutability", "imageTagMutabilityExclusionFilters", "imageScanningConfiguration",
    "encryptionConfiguration",
)  # fmt: skip


class Repositories:
    """The operations on repositories."""

    service = "ecr"

    def __init__(
        self, registry: Registry, resources: Resources, identities: Identities, *, clock: Clock
    ) -> None:
        self._registry = registry
        self._resources = resources
        self._identities = identities
        self._clock = clock

    @operation("GetAuthorizationToken")
    def get_authorization_token(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return user and password for `docker login`: they may what the caller may."""
        key = self._identities.find_key(call.caller.access_key_id)
        if key is None:
            raise AwsError("InvalidParameterException", "The caller has no access key that could be used.")
        expires = self._clock() + _TOKEN_S
        if key.expires is not None:
            expires = min(expires, key.expires)
        password = make_password(key.access_key_id, key.secret_access_key, expires)
        data = {
            "authorizationToken": base64.b64encode(f"{USER}:{password}".encode()).decode(),
            "expiresAt": expires,
            "proxyEndpoint": f"{call.endpoint_url.partition(':')[0]}://{registry_host(call)}",
        }
        return {"authorizationData": [data]}

    @operation("CreateRepository")
    def create_repository(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make an empty repository."""
        name = request["repositoryName"]
        document = {
            "imageTagMutability": request.get("imageTagMutability") or "MUTABLE",
            "imageScanningConfiguration": {
                "scanOnPush": False, **(request.get("imageScanningConfiguration") or {}),
            },
            "encryptionConfiguration": request.get("encryptionConfiguration") or {"encryptionType": "AES256"},
        }  # fmt: skip
        if request.get("imageTagMutabilityExclusionFilters"):
            document["imageTagMutabilityExclusionFilters"] = request["imageTagMutabilityExclusionFilters"]
        tags = {tag["Key"]: tag.get("Value", "") for tag in request.get("tags") or ()}
        self._registry.ensure_bucket()
        try:
            made = self._resources.create(
                KIND, call.region, name, arn=arn_of(call, name), document=document, tags=tags
            )
        except AlreadyExists:
            raise AwsError(
                "RepositoryAlreadyExistsException",
                f"The repository with name '{name}' already exists in the registry with id '{call.account}'",
            ) from None
        return {"repository": self._described(call, made)}

    @operation("DescribeRepositories")
    def describe_repositories(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the named repositories, or a page of all."""
        names = request.get("repositoryNames")
        if names:
            return {
                "repositories": [
                    self._described(call, required(call, self._registry, name)) for name in names
                ]
            }
        query = ListQuery(
            sort_by="name", limit=request.get("maxResults") or 100, token=request.get("nextToken")
        )
        page = self._resources.list(KIND, call.region, query)
        answer: dict[str, Any] = {
            "repositories": [self._described(call, repository) for repository in page.items]
        }
        return {**answer, "nextToken": page.next_token} if page.next_token else answer

    @operation("DeleteRepository")
    def delete_repository(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Delete a repository; its images only if `force` says so."""
        repository = required(call, self._registry, request["repositoryName"])
        if not request.get("force") and self._registry.has_images(repository):
            raise AwsError(
                "RepositoryNotEmptyException",
                f"The repository with name '{repository.name}' in registry with id '{call.account}' cannot be "
                "deleted because it still contains images",
            )
        described = self._described(call, repository)
        self._resources.delete(repository)
        self._registry.wipe(repository)
        return {"repository": described}

    @operation("TagResource")
    def tag_resource(self, call: Call, request: Mapping[str, Any]) -> None:
        """Add tags to a repository."""
        tags = {tag["Key"]: tag.get("Value", "") for tag in request["tags"]}
        self._resources.tag(self._by_arn(call, request["resourceArn"]).arn, tags)

    @operation("UntagResource")
    def untag_resource(self, call: Call, request: Mapping[str, Any]) -> None:
        """Remove tags from a repository."""
        self._resources.untag(self._by_arn(call, request["resourceArn"]).arn, request["tagKeys"])

    @operation("ListTagsForResource")
    def list_tags_for_resource(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the tags of a repository."""
        tags = self._resources.tags(self._by_arn(call, request["resourceArn"]).arn)
        return {"tags": [{"Key": key, "Value": value} for key, value in tags.items()]}

    def _by_arn(self, call: Call, arn: str) -> Resource:
        found = self._resources.by_arn(arn)
        if found is None or found.kind != KIND:
            raise repository_not_found(arn.partition(":repository/")[2] or arn, call.account)
        return found

    def _described(self, call: Call, repository: Resource) -> dict[str, Any]:
        document = repository.document
        return {
            "repositoryArn": repository.arn,
            "registryId": call.account,
            "repositoryName": repository.name,
            "repositoryUri": repository_uri(call, repository, self._registry.region),
            "createdAt": repository.created,
            **{member: document[member] for member in _SHOWN if member in document},
        }
