"""Addresses and faults that the parts of ECR share, in its own words.

The registry is at the address at which the client reaches the API.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from sagesmith.aws.call import Call
from sagesmith.errors import AwsError
from sagesmith.store.registry import Registry, place_of
from sagesmith.store.resources import Resource

__all__ = [
    "arn_of",
    "image_not_found",
    "registry_host",
    "repository_not_found",
    "repository_uri",
    "required",
]


def arn_of(call: Call, name: str) -> str:
    """Return the ARN of the repository *name* in the call's region."""
    return call.arn(f"repository/{name}", service="ecr")


def registry_host(call: Call) -> str:
    """Return host and port of the registry, as `docker login` takes them."""
    return urlsplit(call.endpoint_url).netloc


def repository_uri(call: Call, repository: Resource, own_region: str) -> str:
    """Return what `docker push` and `docker pull` call the repository."""
    plain = place_of(repository.name, own_region) == (repository.region, repository.name)
    path = repository.name if plain else f"{repository.region}/{repository.name}"
    return f"{registry_host(call)}/{path}"


def required(call: Call, registry: Registry, name: str) -> Resource:
    """Return the repository of that name in the call's region.

    Raises:
        AwsError: `RepositoryNotFoundException`.
    """
    found = registry.repository(call.region, name)
    if found is None:
        raise repository_not_found(name, call.account)
    return found


def repository_not_found(name: str, account: str) -> AwsError:
    """Return the error for a repository that does not exist."""
    return AwsError(
        "RepositoryNotFoundException",
        f"The repository with name '{name}' does not exist in the registry with id '{account}'",
    )


def image_not_found(digest: str, tag: str, name: str, account: str) -> AwsError:
    """Return the error for an image that does not exist."""
    return AwsError(
        "ImageNotFoundException",
        f"The image with imageId {{imageDigest:'{digest or 'null'}', imageTag:'{tag or 'null'}'}} does not exist "
        f"within the repository with name '{name}' in the registry with id '{account}'",
    )
