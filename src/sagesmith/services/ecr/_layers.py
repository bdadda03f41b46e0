"""Layers and configurations in the registry's HTTP API: reading them, and uploading them in pieces."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, TypeVar
from urllib.parse import quote

from sagesmith.aws import BodyReader, Call, HttpResponse
from sagesmith.errors import AwsError
from sagesmith.services.ecr._access import Access, Refused
from sagesmith.store.objects import ObjectInfo
from sagesmith.store.registry import BadDigest, Registry, UnknownUpload, WrongOffset
from sagesmith.store.resources import Resource

__all__ = ["Layers"]

_PIECE: Final = 1024 * 1024
_RANGE: Final = re.compile(r"bytes=(\d+)-(\d*)")
_CONTENT_RANGE: Final = re.compile(r"(?:bytes )?(\d+)-(\d+)(?:/.*)?")
T = TypeVar("T")


class Layers:
    """What is below ``blobs/`` of a repository."""

    def __init__(self, registry: Registry, access: Access) -> None:
        self._registry = registry
        self._access = access

    def get(self, call: Call, body: BodyReader, name: str, digest: str) -> HttpResponse:
        """Return a content or a range of it; only its size to HEAD."""
        action = "BatchCheckLayerAvailability" if call.method == "HEAD" else "GetDownloadUrlForLayer"
        repository = self._access.repository(call, name, action, pull=True)
        blob = self._registry.blob(repository, digest)
        if blob is None:
            raise Refused(404, "BLOB_UNKNOWN", f"the repository has no {digest}")
        headers = {"Docker-Content-Digest": digest, "Content-Type": "application/octet-stream",
                   "Accept-Ranges": "bytes", "ETag": f'"{digest}"'}  # fmt: skip
        first, last, status = 0, blob.size - 1, 200
        wanted = _RANGE.fullmatch(call.headers.get("range", ""))
        if wanted:
            first, last = int(wanted[1]), min(int(wanted[2] or last), last)
            if first > last:
                raise Refused(416, "RANGE_INVALID", f"the content has {blob.size} bytes")
            headers["Content-Range"], status = f"bytes {first}-{last}/{blob.size}", 206
        headers["Content-Length"] = str(last - first + 1)
        if call.method == "HEAD" or not blob.size:
            return HttpResponse(status, headers)
        return HttpResponse(status, headers, self._bytes_of(blob, first, last - first + 1))

    def _bytes_of(self, blob: ObjectInfo, first: int, size: int) -> Iterator[bytes]:
        content = self._registry.content(blob)
        if content is None:
            raise Refused(404, "BLOB_UNKNOWN", "it was deleted just now")
        file = content.open()

        def pieces() -> Iterator[bytes]:
            left = size
            with file:
                file.seek(first)
                while left and (data := file.read(min(left, _PIECE))):
                    left -= len(data)
                    yield data

        return pieces()

    def delete(self, call: Call, body: BodyReader, name: str, digest: str) -> HttpResponse:
        """Delete a content."""
        repository = self._access.repository(call, name, "BatchDeleteImage")
        if not self._registry.delete_blob(repository, digest):
            raise Refused(404, "BLOB_UNKNOWN", f"the repository has no {digest}")
        return HttpResponse(202)

    def begin(self, call: Call, body: BodyReader, name: str) -> HttpResponse:
        """Begin an upload, take a whole content, or mount one of another repository."""
        repository = self._access.repository(call, name, "InitiateLayerUpload")
        mounted, source = call.query.get("mount", ""), call.query.get("from", "")
        if mounted and source and self._mount(call, repository, source, mounted):
            return self._made(name, mounted)
        upload = self._registry.uploads.begin()
        if digest := call.query.get("digest", ""):
            self._registry.uploads.append(upload, body)
            return self._finish(repository, name, upload, digest)
        return self._under_way(name, upload, 0)

    def _mount(self, call: Call, repository: Resource, source: str, digest: str) -> bool:
        try:
            other = self._access.repository(call, source, "GetDownloadUrlForLayer", pull=True)
        except (Refused, AwsError):  # then it is uploaded, as if nothing had been said
            return False
        return self._registry.mount(other, repository, digest)

    def place(self, call: Call, body: BodyReader, name: str, upload: str) -> HttpResponse:
        """Say how far an upload is."""
        self._access.repository(call, name, "UploadLayerPart")
        size = self._known(lambda: self._registry.uploads.size(upload))
        return self._under_way(name, upload, size, status=204)

    def append(self, call: Call, body: BodyReader, name: str, upload: str) -> HttpResponse:
        """Take the next piece of an upload."""
        self._access.repository(call, name, "UploadLayerPart")
        return self._under_way(name, upload, self._append(call, body, upload))

    def finish(self, call: Call, body: BodyReader, name: str, upload: str) -> HttpResponse:
        """Take the last piece, if there is one, and make the upload a content."""
        repository = self._access.repository(call, name, "CompleteLayerUpload")
        if call.headers.get("content-length") != "0":
            self._append(call, body, upload)
        return self._finish(repository, name, upload, call.query.get("digest", ""))

    def cancel(self, call: Call, body: BodyReader, name: str, upload: str) -> HttpResponse:
        """Forget an upload."""
        self._access.repository(call, name, "UploadLayerPart")
        self._known(lambda: self._registry.uploads.cancel(upload))
        return HttpResponse(204)

    def _append(self, call: Call, body: BodyReader, upload: str) -> int:
        place = _CONTENT_RANGE.fullmatch(call.headers.get("content-range", ""))
        try:
            return self._known(
                lambda: self._registry.uploads.append(upload, body, int(place[1]) if place else None)
            )
        except WrongOffset as error:
            raise Refused(416, "RANGE_INVALID", str(error), Range=_range(error.size)) from None

    def _finish(self, repository: Resource, name: str, upload: str, digest: str) -> HttpResponse:
        try:
            self._known(lambda: self._registry.finish_upload(repository, upload, digest))
        except BadDigest as error:
            raise Refused(400, "DIGEST_INVALID", str(error)) from None
        return self._made(name, digest)

    @staticmethod
    def _known(do: Callable[[], T]) -> T:
        try:
            return do()
        except UnknownUpload:
            raise Refused(404, "BLOB_UPLOAD_UNKNOWN", "there is no such upload (any more)") from None

    @staticmethod
    def _made(name: str, digest: str) -> HttpResponse:
        location = f"/v2/{quote(name)}/blobs/{digest}"
        return HttpResponse(201, {"Location": location, "Docker-Content-Digest": digest})

    @staticmethod
    def _under_way(name: str, upload: str, size: int, status: int = 202) -> HttpResponse:
        headers = {"Location": f"/v2/{quote(name)}/blobs/uploads/{upload}", "Docker-Upload-UUID": upload}
        return HttpResponse(status, {**headers, "Range": _range(size)})


def _range(size: int) -> str:
    return f"0-{max(0, size - 1)}"
