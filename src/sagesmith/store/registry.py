"""The registry: repositories of container images, their layers, manifests and tags, as objects in one bucket.

Below ``{region}/{repository}/`` lie ``_blobs/{digest}``, ``_manifests/{digest}`` and ``_tags/{tag}`` (which holds a
digest). Names of repositories cannot have such parts. A layer that several repositories have is one file with several
links. A repository itself is a resource.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sagesmith.errors import AwsError
from sagesmith.store._registry_uploads import (
    DIGEST,
    BadDigest,
    LayerUploads,
    UnknownUpload,
    WrongOffset,
    digest_of,
    integrity_of,
)
from sagesmith.store.objects import Content, ListedObject, ObjectInfo, ObjectStore, Properties
from sagesmith.store.resources import Resource, Resources

__all__ = [
    "BUCKET",
    "KIND",
    "BadDigest",
    "Image",
    "Manifest",
    "MissingBlobs",
    "Registry",
    "UnknownUpload",
    "WrongOffset",
    "digest_of",
    "place_of",
]

KIND: Final = "ecr-repository"
BUCKET: Final = "sagesmith-ecr"
_REGION: Final = re.compile(r"[a-z]{2}(?:-[a-z]+)+-\d")
_UPLOAD_S: Final = 24 * 3600.0


class MissingBlobs(Exception):
    """A manifest names contents that the repository does not have: `digests`."""

    def __init__(self, digests: list[str]) -> None:
        super().__init__(", ".join(digests))
        self.digests = digests


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image's manifest: the very bytes that were pushed, and their type."""

    digest: str
    media_type: str
    content: bytes
    pushed: float


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest with the tags that lead to it, and the size of all its contents in bytes."""

    digest: str
    tags: tuple[str, ...]
    media_type: str
    size_bytes: int
    pushed: float


class Registry:
    """Images of all repositories. Thread-safe."""

    def __init__(self, objects: ObjectStore, resources: Resources, *, account_id: str, region: str) -> None:
        self._objects = objects
        self._resources = resources
        self._account_id = account_id
        self.region = region
        self.uploads = LayerUploads(objects, BUCKET)

    def ensure_bucket(self) -> None:
        """Make the bucket, if there is none yet: before the first repository is made."""
        try:
            self._objects.buckets.get(BUCKET)
        except AwsError:
            try:
                self._objects.buckets.create(BUCKET, region=self.region, owner=self._account_id)
            except AwsError:  # somebody else was quicker
                self._objects.buckets.get(BUCKET)

    def sweep(self, now: float) -> None:
        """Forget uploads that were begun a day ago and never finished."""
        with contextlib.suppress(AwsError):  # no bucket, no uploads
            self.uploads.sweep(now - _UPLOAD_S)

    def repository(self, region: str, name: str) -> Resource | None:
        """Return the repository, or None."""
        return self._resources.get(KIND, region, name)

    def locate(self, region: str, name: str) -> Resource | None:
        """Return the repository of that name in *region* or, if there is none, in the server's own region."""
        return self.repository(region, name) or self.repository(self.region, name)

    # ---- layers and configurations -------------------------------------------------------------------

    def blob(self, repository: Resource, digest: str) -> ObjectInfo | None:
        """Return the content of that digest, None if the repository does not have it."""
        if not DIGEST.fullmatch(digest):
            return None
        return self._objects.find(BUCKET, _key(repository, "_blobs", digest))

    def content(self, blob: ObjectInfo) -> Content | None:
        """Return the bytes of a blob, None if it was deleted since."""
        return self._objects.content(blob)

    def finish_upload(self, repository: Resource, upload: str, digest: str) -> ObjectInfo:
        """Make an upload a content of the repository; see `LayerUploads.finish`."""
        return self.uploads.finish(upload, digest, _key(repository, "_blobs", digest))

    def mount(self, source: Resource, repository: Resource, digest: str) -> bool:
        """Give *repository* a content that *source* has; False if that has none of that digest."""
        blob = self.blob(source, digest)
        if blob is None:
            return False
        self._objects.copy(blob, BUCKET, _key(repository, "_blobs", digest), properties=blob.properties)
        return True

    def delete_blob(self, repository: Resource, digest: str) -> bool:
        """Delete a content; False if there was none."""
        if not DIGEST.fullmatch(digest):
            return False
        return self._objects.delete(BUCKET, _key(repository, "_blobs", digest))

    # ---- manifests and tags --------------------------------------------------------------------------

    def put_manifest(self, repository: Resource, content: bytes, media_type: str, tag: str = "") -> Manifest:
        """Store a manifest, and let *tag* lead to it.

        Raises:
            ValueError: it is not a manifest.
            MissingBlobs: it names contents that are not here.
        """
        document = json.loads(content)
        if not isinstance(document, dict):
            raise ValueError("a manifest is a JSON object")
        missing = [
            digest
            for digest, _ in _contents(document)
            if self.blob(repository, digest) is None and self._manifest_info(repository, digest) is None
        ]
        if missing:
            raise MissingBlobs(missing)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        properties = Properties({"ContentType": media_type or str(document.get("mediaType", ""))})
        info = self._manifest_info(repository, digest) or self._objects.put(
            BUCKET, _key(repository, "_manifests", digest), io.BytesIO(content), properties=properties,
            integrity=integrity_of(digest),
        )  # fmt: skip
        if tag:
            self._objects.put_bytes(
                BUCKET, _key(repository, "_tags", tag), digest.encode(), content_type="text/plain"
            )
        return Manifest(digest, _type_of(info), content, info.modified)

    def manifest(self, repository: Resource, reference: str) -> Manifest | None:
        """Return the manifest that a digest or a tag leads to."""
        digest = reference if DIGEST.fullmatch(reference) else self.tagged(repository, reference)
        info = self._manifest_info(repository, digest) if digest else None
        content = self._objects.content(info) if info is not None else None
        if info is None or content is None:
            return None
        with content.open() as file:
            return Manifest(digest, _type_of(info), file.read(), info.modified)

    def tagged(self, repository: Resource, tag: str) -> str:
        """Return the digest that *tag* leads to, "" if there is no such tag."""
        info = self._objects.find(BUCKET, _key(repository, "_tags", tag))
        content = self._objects.content(info) if info is not None else None
        if content is None:
            return ""
        with content.open() as file:
            return file.read().decode()

    def tags(self, repository: Resource) -> dict[str, str]:
        """Return the digests by their tags, in the order of the tags."""
        prefix = _key(repository, "_tags", "")
        names = (entry.key[len(prefix) :] for entry in self._list(prefix))
        return {name: digest for name in names if (digest := self.tagged(repository, name))}

    def images(self, repository: Resource) -> list[Image]:
        """Return all images of the repository, in the order of their digests."""
        tags: dict[str, list[str]] = {}
        for tag, digest in self.tags(repository).items():
            tags.setdefault(digest, []).append(tag)
        found = []
        for entry in self._list(_key(repository, "_manifests", "")):
            digest = entry.key.rpartition("/")[2]
            manifest = self.manifest(repository, digest)
            if manifest is not None:
                size = sum(size for _, size in _contents(json.loads(manifest.content)))
                found.append(
                    Image(digest, tuple(tags.get(digest, ())), manifest.media_type, size, manifest.pushed)
                )
        return found

    def untag(self, repository: Resource, tag: str) -> None:
        """Delete a tag; an image that has no other goes with it, as in Amazon ECR."""
        digest = self.tagged(repository, tag)
        self._objects.delete(BUCKET, _key(repository, "_tags", tag))
        if digest and digest not in self.tags(repository).values():
            self.delete_image(repository, digest)

    def delete_image(self, repository: Resource, digest: str) -> bool:
        """Delete a manifest, its tags, and what no other manifest needs; False if there was none."""
        manifest = self.manifest(repository, digest)
        if manifest is None:
            return False
        leading = [tag for tag, found in self.tags(repository).items() if found == digest]
        self._objects.delete_many(BUCKET, [_key(repository, "_tags", tag) for tag in leading])
        self._objects.delete(BUCKET, _key(repository, "_manifests", digest))
        needed = {
            found
            for entry in self._list(_key(repository, "_manifests", ""))
            if (other := self.manifest(repository, entry.key.rpartition("/")[2])) is not None
            for found, _ in _contents(json.loads(other.content))
        }
        rest = {found for found, _ in _contents(json.loads(manifest.content))} - needed
        self._objects.delete_many(BUCKET, [_key(repository, "_blobs", found) for found in rest])
        return True

    def has_images(self, repository: Resource) -> bool:
        """Whether the repository has any image."""
        return bool(self._objects.list(BUCKET, prefix=_key(repository, "_manifests", ""), limit=1).objects)

    def wipe(self, repository: Resource) -> None:
        """Delete everything in the repository."""
        prefix = f"{repository.region}/{repository.name}/_"
        self._objects.delete_many(BUCKET, [entry.key for entry in self._list(prefix)])

    # --------------------------------------------------------------------------------------------------

    def _manifest_info(self, repository: Resource, digest: str) -> ObjectInfo | None:
        return self._objects.find(BUCKET, _key(repository, "_manifests", digest))

    def _list(self, prefix: str) -> Iterator[ListedObject]:
        after = ""
        while True:
            page = self._objects.list(BUCKET, prefix=prefix, after=after, limit=1000)
            yield from page.objects
            after = page.next_after
            if not after:
                return


def place_of(path: str, own_region: str) -> tuple[str, str]:
    """Return region and name of the repository that *path* in the registry's addresses means.

    One of the server's own region is called by its name, one of another region has that region before its name.
    """
    first, slash, rest = path.partition("/")
    return (first, rest) if slash and _REGION.fullmatch(first) else (own_region, path)


def _key(repository: Resource, part: str, name: str) -> str:
    return f"{repository.region}/{repository.name}/{part}/{name}"


def _type_of(info: ObjectInfo) -> str:
    return str(info.properties.members.get("ContentType", ""))


def _contents(document: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return digest and size of what a manifest (of an image or of several) is made of.

    Raises:
        ValueError: a part of it is not what it must be.
    """
    named = [document["config"]] if "config" in document else []
    for member in ("layers", "manifests"):
        named += document.get(member) or []
    found = []
    for one in named:
        if not isinstance(one, Mapping) or not DIGEST.fullmatch(str(one.get("digest"))):
            raise ValueError("a manifest names its parts by their digests")
        if not one.get("urls"):  # what is only elsewhere is not pushed
            found.append((str(one["digest"]), int(one.get("size") or 0)))
    return found
