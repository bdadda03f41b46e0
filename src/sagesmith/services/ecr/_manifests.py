"""Manifests and tags in the registry's HTTP API."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Final
from urllib.parse import quote

from sagesmith.aws import BodyReader, Call, HttpResponse
from sagesmith.errors import AwsError
from sagesmith.services.ecr._access import Access, Refused
from sagesmith.services.ecr._images import check_tag_may_move
from sagesmith.store.registry import Manifest, MissingBlobs, Registry

__all__ = ["Manifests"]

_MANIFEST_BYTES: Final = 4 * 1024 * 1024
_PIECE: Final = 1024 * 1024
_PAGE: Final = 1000
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


class Manifests:
    """What is below ``manifests/`` and ``tags/`` of a repository."""

    def __init__(self, registry: Registry, access: Access) -> None:
        self._registry = registry
        self._access = access

    def get(self, call: Call, body: BodyReader, name: str, reference: str) -> HttpResponse:
        """Return a manifest, by tag or digest."""
        repository = self._access.repository(call, name, "BatchGetImage", pull=True)
        manifest = self._registry.manifest(repository, reference)
        if manifest is None:
            raise Refused(404, "MANIFEST_UNKNOWN", "Requested image not found")
        headers = _of_manifest(manifest) | {"Content-Type": manifest.media_type}
        return HttpResponse(200, headers | {"Content-Length": str(len(manifest.content))}, manifest.content)

    def put(self, call: Call, body: BodyReader, name: str, reference: str) -> HttpResponse:
        """Store a manifest under its tag or digest."""
        repository = self._access.repository(call, name, "PutImage")
        content = _read_limited(body, _MANIFEST_BYTES)
        is_digest = reference.startswith("sha256:")
        if not is_digest and not _TAG.fullmatch(reference):
            raise Refused(400, "TAG_INVALID", f"{reference!r} is no tag")
        digest = _digest(content)
        if is_digest and reference != digest:
            raise Refused(400, "DIGEST_INVALID", f"the manifest has the digest {digest}, not {reference}")
        tag = "" if is_digest else reference
        try:
            check_tag_may_move(self._registry, repository, tag, digest)
            manifest = self._registry.put_manifest(
                repository, content, call.headers.get("content-type", ""), tag
            )
        except MissingBlobs as error:
            raise Refused(404, "MANIFEST_BLOB_UNKNOWN", f"blob unknown to registry: {error}") from None
        except (ValueError, TypeError, KeyError) as error:
            raise Refused(400, "MANIFEST_INVALID", f"that is no manifest: {error}") from None
        except AwsError as error:
            raise Refused(400, "TAG_INVALID", error.message) from None
        location = {"Location": f"/v2/{quote(name)}/manifests/{manifest.digest}"}
        return HttpResponse(201, _of_manifest(manifest) | location)

    def delete(self, call: Call, body: BodyReader, name: str, reference: str) -> HttpResponse:
        """Delete an image, or a tag of it."""
        repository = self._access.repository(call, name, "BatchDeleteImage")
        if reference.startswith("sha256:"):
            found = self._registry.delete_image(repository, reference)
        else:
            found = bool(self._registry.tagged(repository, reference))
            self._registry.untag(repository, reference)
        if not found:
            raise Refused(404, "MANIFEST_UNKNOWN", "Requested image not found")
        return HttpResponse(202)

    def tags(self, call: Call, body: BodyReader, name: str) -> HttpResponse:
        """Return a page of the tags."""
        repository = self._access.repository(call, name, "ListImages", pull=True)
        last, count = call.query.get("last", ""), call.query.get("n", "")
        limit = min(int(count), _PAGE) if count.isdigit() else _PAGE
        tags = sorted(tag for tag in self._registry.tags(repository) if tag > last)
        page = tags[:limit]
        headers = {}
        if len(tags) > limit and page:
            more = f"/v2/{quote(name)}/tags/list?n={limit}&last={quote(page[-1])}"
            headers["Link"] = f'<{more}>; rel="next"'
        content = json.dumps({"name": name, "tags": page}).encode()
        return HttpResponse(200, {"Content-Type": "application/json", **headers}, content)


def _of_manifest(manifest: Manifest) -> dict[str, str]:
    return {"Docker-Content-Digest": manifest.digest, "ETag": f'"{manifest.digest}"'}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _read_limited(body: BodyReader, limit: int) -> bytes:
    parts, size = [], 0
    while part := body.read(_PIECE):
        size += len(part)
        if size > limit:
            raise Refused(413, "SIZE_INVALID", f"a manifest has at most {limit} bytes")
        parts.append(part)
    return b"".join(parts)
