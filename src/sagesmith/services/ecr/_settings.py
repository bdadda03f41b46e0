"""What a repository has beside its images: policies as texts, whether tags may move, whether images are scanned.

Amazon evaluates lifecycle policies in the background; here they are kept and shown, and nothing expires.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sagesmith.aws.call import Call, operation
from sagesmith.errors import AwsError
from sagesmith.services.ecr._names import required
from sagesmith.store.registry import KIND, Registry
from sagesmith.store.resources import Change, Resource, Resources

__all__ = ["RepositorySettings"]


class RepositorySettings:
    """The operations on them."""

    service = "ecr"

    def __init__(self, registry: Registry, resources: Resources) -> None:
        self._registry = registry
        self._resources = resources

    @operation("PutLifecyclePolicy", record_only=True)
    def put_lifecycle_policy(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Keep a lifecycle policy."""
        return self._put_text(call, request, "lifecyclePolicyText", "lifecyclePolicyText")

    @operation("GetLifecyclePolicy", record_only=True)
    def get_lifecycle_policy(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the lifecycle policy."""
        return self._get_text(call, request, "lifecyclePolicyText", "LifecyclePolicy", "Lifecycle policy")

    @operation("DeleteLifecyclePolicy", record_only=True)
    def delete_lifecycle_policy(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Forget the lifecycle policy, and return it."""
        answer = self._get_text(call, request, "lifecyclePolicyText", "LifecyclePolicy", "Lifecycle policy")
        self._change(call, request, {"lifecyclePolicyText": None})
        return answer

    @operation("SetRepositoryPolicy", record_only=True)
    def set_repository_policy(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Keep a policy for other accounts, of which this server has none."""
        return self._put_text(call, request, "policyText", "policyText")

    @operation("GetRepositoryPolicy", record_only=True)
    def get_repository_policy(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return that policy."""
        return self._get_text(call, request, "policyText", "RepositoryPolicy", "Repository policy")

    @operation("DeleteRepositoryPolicy", record_only=True)
    def delete_repository_policy(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Forget that policy, and return it."""
        answer = self._get_text(call, request, "policyText", "RepositoryPolicy", "Repository policy")
        self._change(call, request, {"policyText": None})
        return answer

    @operation("PutImageTagMutability")
    def put_image_tag_mutability(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Say whether a tag may be moved to another image."""
        members = {
            name: request.get(name) for name in ("imageTagMutability", "imageTagMutabilityExclusionFilters")
        }
        repository = self._change(call, request, members)
        return {**_identity(call, repository), **{name: value for name, value in members.items() if value}}

    @operation("PutImageScanningConfiguration", record_only=True)
    def put_image_scanning_configuration(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Keep whether images are to be scanned."""
        wanted = {"imageScanningConfiguration": request["imageScanningConfiguration"]}
        return {**_identity(call, self._change(call, request, wanted)), **wanted}

    def _put_text(self, call: Call, request: Mapping[str, Any], member: str, shown: str) -> dict[str, Any]:
        text = request[member]
        try:
            json.loads(text)
        except ValueError:
            raise AwsError(
                "InvalidParameterException",
                f"Invalid parameter at '{member[0].upper()}{member[1:]}' failed to satisfy constraint: 'Invalid JSON'",
            ) from None
        return {**_identity(call, self._change(call, request, {member: text})), shown: text}

    def _get_text(
        self, call: Call, request: Mapping[str, Any], member: str, code: str, words: str
    ) -> dict[str, Any]:
        repository = required(call, self._registry, request["repositoryName"])
        text = repository.document.get(member)
        if text is None:
            raise AwsError(
                f"{code}NotFoundException",
                f"{words} does not exist for the repository with name '{repository.name}' in the registry with id "
                f"'{call.account}'",
            )
        return {**_identity(call, repository), member: text}

    def _change(self, call: Call, request: Mapping[str, Any], members: Mapping[str, Any]) -> Resource:
        name = required(call, self._registry, request["repositoryName"]).name

        def edit(repository: Resource) -> Change:
            document = {**repository.document, **members}
            return Change(document={member: value for member, value in document.items() if value is not None})

        return self._resources.update(KIND, call.region, name, edit)


def _identity(call: Call, repository: Resource) -> dict[str, Any]:
    return {"registryId": call.account, "repositoryName": repository.name}
