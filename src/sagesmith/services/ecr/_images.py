"""The operations on images: what is in a repository, and giving one another tag."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from sagesmith.aws.call import Call, operation
from sagesmith.errors import AwsError
from sagesmith.services.ecr._names import image_not_found, required
from sagesmith.store.queries import decode_token, encode_token, fingerprint
from sagesmith.store.registry import Image, MissingBlobs, Registry
from sagesmith.store.resources import Resource

__all__ = ["Images", "check_tag_may_move"]


class Images:
    """The operations."""

    service = "ecr"

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @operation("ListImages")
    def list_images(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a page of the images' digests and tags, one entry for each tag."""
        repository = required(call, self._registry, request["repositoryName"])
        entries = []
        for image in self._filtered(repository, request):
            entries += [{"imageDigest": image.digest, "imageTag": tag} for tag in image.tags]
            if not image.tags:
                entries.append({"imageDigest": image.digest})
        return _page("imageIds", entries, repository, request)

    @operation("DescribeImages")
    def describe_images(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the named images, or a page of all."""
        repository = required(call, self._registry, request["repositoryName"])
        images = self._filtered(repository, request)
        wanted = request.get("imageIds")
        if wanted:
            images = [_named(images, identity, repository, call) for identity in wanted]
        entries = [_described(call, repository, image) for image in images]
        return {"imageDetails": entries} if wanted else _page("imageDetails", entries, repository, request)

    @operation("BatchGetImage")
    def batch_get_image(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the manifests of the named images."""
        repository = required(call, self._registry, request["repositoryName"])
        images, failures = [], []
        for identity in request["imageIds"]:
            manifest = self._registry.manifest(repository, _reference(identity))
            if manifest is None or identity.get("imageDigest", manifest.digest) != manifest.digest:
                failures.append(_failure(identity))
                continue
            tag = {"imageTag": identity["imageTag"]} if "imageTag" in identity else {}
            images.append(
                {
                    "registryId": call.account,
                    "repositoryName": repository.name,
                    "imageId": {"imageDigest": manifest.digest, **tag},
                    "imageManifest": manifest.content.decode(),
                    "imageManifestMediaType": manifest.media_type,
                }
            )
        return {"images": images, "failures": failures}

    @operation("BatchDeleteImage")
    def batch_delete_image(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Delete the named images; by a tag, only that tag unless it is the image's last."""
        repository = required(call, self._registry, request["repositoryName"])
        deleted, failures = [], []
        for identity in request["imageIds"]:
            tag, digest = identity.get("imageTag"), identity.get("imageDigest")
            tagged = self._registry.tagged(repository, tag) if tag else ""
            if tag and tagged and digest in (None, tagged):
                self._registry.untag(repository, tag)
                deleted.append({"imageDigest": tagged, "imageTag": tag})
            elif digest and not tag and self._registry.delete_image(repository, digest):
                deleted.append({"imageDigest": digest})
            else:
                failures.append(_failure(identity))
        return {"imageIds": deleted, "failures": failures}

    @operation("PutImage")
    def put_image(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store a manifest, or give one that is there another tag."""
        repository = required(call, self._registry, request["repositoryName"])
        content, tag = request["imageManifest"].encode(), request.get("imageTag", "")
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if request.get("imageDigest", digest) != digest:
            raise AwsError(
                "ImageDigestDoesNotMatchException",
                f"The manifest has the digest {digest}, not the given one.",
            )
        if tag and self._registry.tagged(repository, tag) == digest:
            raise AwsError(
                "ImageAlreadyExistsException",
                f"Image with digest '{digest}' and tag '{tag}' already exists in the repository with name "
                f"'{repository.name}' in registry with id '{call.account}'",
            )
        check_tag_may_move(self._registry, repository, tag, digest)
        try:
            manifest = self._registry.put_manifest(
                repository, content, request.get("imageManifestMediaType", ""), tag
            )
        except MissingBlobs as error:
            raise AwsError("LayersNotFoundException", f"Layers with digests '{error}' required for pushing image do not exist") from None  # fmt: skip
        except (ValueError, TypeError, KeyError) as error:
            raise AwsError(
                "InvalidParameterException",
                "Invalid parameter at 'ImageManifest' failed to satisfy constraint: "
                f"'Invalid JSON syntax or manifest' ({error})",
            ) from None
        identity = {"imageDigest": manifest.digest, **({"imageTag": tag} if tag else {})}
        return {
            "image": {
                "registryId": call.account,
                "repositoryName": repository.name,
                "imageId": identity,
                "imageManifest": request["imageManifest"],
                "imageManifestMediaType": manifest.media_type,
            }
        }

    @operation("BatchCheckLayerAvailability")
    def batch_check_layer_availability(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Say which layers the repository has."""
        repository = required(call, self._registry, request["repositoryName"])
        layers = []
        for digest in request["layerDigests"]:
            blob = self._registry.blob(repository, digest)
            found = {"layerDigest": digest, "layerAvailability": "AVAILABLE" if blob else "UNAVAILABLE"}
            layers.append({**found, "layerSize": blob.size} if blob else found)
        return {"layers": layers, "failures": []}

    def _filtered(self, repository: Resource, request: Mapping[str, Any]) -> list[Image]:
        status = (request.get("filter") or {}).get("tagStatus", "ANY")
        images = self._registry.images(repository)
        return [image for image in images if status == "ANY" or bool(image.tags) == (status == "TAGGED")]


def check_tag_may_move(registry: Registry, repository: Resource, tag: str, digest: str) -> None:
    """Refuse to move a tag of a repository whose tags do not move.

    Raises:
        AwsError: `ImageTagAlreadyExistsException`.
    """
    if not tag or not str(repository.document.get("imageTagMutability", "")).startswith("IMMUTABLE"):
        return
    present = registry.tagged(repository, tag)
    if present and present != digest:
        raise AwsError(
            "ImageTagAlreadyExistsException",
            f"The image tag '{tag}' already exists in the '{repository.name}' repository and cannot be overwritten "
            "because the tag is immutable.",
        )


def _named(images: Sequence[Image], identity: Mapping[str, str], repository: Resource, call: Call) -> Image:
    digest, tag = identity.get("imageDigest", ""), identity.get("imageTag", "")
    for image in images:
        if (not digest or image.digest == digest) and (not tag or tag in image.tags):
            return image
    raise image_not_found(digest, tag, repository.name, call.account)


def _described(call: Call, repository: Resource, image: Image) -> dict[str, Any]:
    described = {
        "registryId": call.account,
        "repositoryName": repository.name,
        "imageDigest": image.digest,
        "imageSizeInBytes": image.size_bytes,
        "imagePushedAt": image.pushed,
        "imageManifestMediaType": image.media_type,
    }
    return {**described, "imageTags": list(image.tags)} if image.tags else described


def _reference(identity: Mapping[str, str]) -> str:
    return identity.get("imageTag") or identity.get("imageDigest") or ""


def _failure(identity: Mapping[str, str]) -> dict[str, Any]:
    if not identity.get("imageTag") and not identity.get("imageDigest"):
        code, reason = "MissingDigestAndTag", "Invalid request parameters: both tag and digest cannot be null"
    else:
        code, reason = "ImageNotFound", "Requested image not found"
    return {"imageId": dict(identity), "failureCode": code, "failureReason": reason}


def _page(
    member: str, entries: list[dict[str, Any]], repository: Resource, request: Mapping[str, Any]
) -> dict[str, Any]:
    query = fingerprint(repository.arn, member, request.get("filter"))
    start = int(decode_token(request["nextToken"], query, 1)[0]) if request.get("nextToken") else 0
    end = start + (request.get("maxResults") or 100)
    answer: dict[str, Any] = {member: entries[start:end]}
    return {**answer, "nextToken": encode_token([end], query)} if end < len(entries) else answer
