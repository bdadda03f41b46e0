"""The registry's HTTP API, as `docker push` and `docker pull` speak it: OCI Distribution Specification 1.1.

Whoever asks gives user and password of `GetAuthorizationToken`. Each request is then an action of ECR on a
repository, decided by the same policies as the operations of its API.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar
from urllib.parse import quote, unquote

from sagesmith.aws import BodyReader, Call, Caller, HttpResponse
from sagesmith.aws.call import Key
from sagesmith.clock import Clock, system_clock
from sagesmith.errors import AwsError
from sagesmith.registry_token import USER, check_password, named_key
from sagesmith.services.ecr._images import check_tag_may_move
from sagesmith.store.objects import ObjectInfo
from sagesmith.store.registry import (
    BadDigest,
    Manifest,
    MissingBlobs,
    Registry,
    UnknownUpload,
    WrongOffset,
    place_of,
)
from sagesmith.store.resources import Resource

__all__ = ["Distribution", "Refused"]

_MANIFEST_BYTES: Final = 4 * 1024 * 1024
_PIECE: Final = 1024 * 1024
_PAGE: Final = 1000
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_PATHS: Final = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"/v2/?", "base"),
        (r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)", "manifest"),
        (r"/v2/(?P<name>.+)/blobs/uploads/?", "uploads"),
        (r"/v2/(?P<name>.+)/blobs/uploads/(?P<upload>[^/]+)", "upload"),
        (r"/v2/(?P<name>.+)/blobs/(?P<digest>[^/]+)", "blob"),
        (r"/v2/(?P<name>.+)/tags/list", "tags"),
    )
)
_RANGE: Final = re.compile(r"bytes=(\d+)-(\d*)")
_CONTENT_RANGE: Final = re.compile(r"(?:bytes )?(\d+)-(\d+)(?:/.*)?")

T = TypeVar("T")
Authorize = Callable[[Call, Mapping[str, Any]], None]


class Refused(Exception):
    """The request cannot be done: the status, and the specification's code."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


class Distribution:
    """Answers everything below ``/v2/``. Thread-safe; called in worker threads.

    Args:
        registry: the images.
        find_key: finds access keys, as the signature check does.
        authorize: decides whether a caller may do what it asks.
    """

    def __init__(
        self,
        registry: Registry,
        find_key: Callable[[str], Key | None],
        authorize: Authorize,
        *,
        account_id: str,
        clock: Clock = system_clock,
    ) -> None:
        self._registry = registry
        self._find_key = find_key
        self._authorize = authorize
        self._account_id = account_id
        self._clock = clock

    def __call__(self, call: Call, body: BodyReader) -> HttpResponse:
        """Answer one request: *call* has its method, path, query and headers."""
        try:
            answer = self._answer(call, body)
        except Refused as error:
            answer = _fault(error.status, error.code, str(error), error.headers)
        except AwsError as error:
            code = "DENIED" if error.status == 403 else "UNSUPPORTED"
            answer = _fault(error.status, code, error.message, {})
        headers = {"Docker-Distribution-Api-Version": "registry/2.0", **answer.headers}
        return HttpResponse(answer.status, headers, answer.body)

    def _answer(self, call: Call, body: BodyReader) -> HttpResponse:
        path = unquote(call.path)
        kind, match = next(
            ((kind, match) for pattern, kind in _PATHS if (match := pattern.fullmatch(path))), ("", None)
        )
        if match is None:
            raise Refused(404, "UNSUPPORTED", f"there is nothing at {path}")
        call = replace(call, service="ecr", caller=self._caller(call))
        method = "GET" if call.method == "HEAD" else call.method
        does = getattr(self, f"_{method.lower()}_{kind}", None)
        if does is None:
            raise Refused(405, "UNSUPPORTED", f"{call.method} is not possible here")
        answer: HttpResponse = does(call, body, **match.groupdict())
        return answer

    # ---- who, and where ------------------------------------------------------------------------------

    def _caller(self, call: Call) -> Caller:
        scheme, _, text = call.headers.get("authorization", "").partition(" ")
        host = call.endpoint_url.partition("://")[2]
        challenge = {"WWW-Authenticate": f'Basic realm="https://{host}/",service="ecr.amazonaws.com"'}
        if not text:
            raise Refused(
                401,
                "UNAUTHORIZED",
                "log in first: aws ecr get-login-password | docker login ...",
                **challenge,
            )
        try:
            user, _, password = base64.b64decode(text.strip(), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            user, password = "", ""
        key = self._find_key(named_key(password)) if scheme.lower() == "basic" and user == USER else None
        now = self._clock()
        if (
            key is None
            or not check_password(password, key.secret_access_key, now)
            or (key.expires is not None and key.expires < now)
        ):
            raise Refused(
                401, "UNAUTHORIZED", "Your authorization token is invalid or has expired. Log in again.",
                **challenge,
            )  # fmt: skip
        return key.caller

    def _repository(self, call: Call, name: str, action: str, *, pull: bool = False) -> Resource:
        """Return the repository of that path, if the caller may do *action* there."""
        region, plain = place_of(name, self._registry.region)
        self._authorize(replace(call, operation=action, region=region), {"repositoryName": plain})
        find = self._registry.locate if pull else self._registry.repository
        found = find(region, plain)
        if found is None:
            raise Refused(
                404,
                "NAME_UNKNOWN",
                f"The repository with name '{plain}' does not exist in the registry with id '{self._account_id}'",
            )
        return found

    def _get_base(self, call: Call, body: BodyReader) -> HttpResponse:
        return _json(200, {})

    # ---- manifests and tags --------------------------------------------------------------------------

    def _get_manifest(self, call: Call, body: BodyReader, name: str, reference: str) -> HttpResponse:
        repository = self._repository(call, name, "BatchGetImage", pull=True)
        manifest = self._registry.manifest(repository, reference)
        if manifest is None:
            raise Refused(404, "MANIFEST_UNKNOWN", "Requested image not found")
        headers = _of_manifest(manifest) | {"Content-Type": manifest.media_type}
        return HttpResponse(200, headers | {"Content-Length": str(len(manifest.content))}, manifest.content)

    def _put_manifest(self, call: Call, body: BodyReader, name: str, reference: str) -> HttpResponse:
        repository = self._repository(call, name, "PutImage")
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

    def _delete_manifest(self, call: Call, body: BodyReader, name: str, reference: str) -> HttpResponse:
        repository = self._repository(call, name, "BatchDeleteImage")
        if reference.startswith("sha256:"):
            found = self._registry.delete_image(repository, reference)
        else:
            found = bool(self._registry.tagged(repository, reference))
            self._registry.untag(repository, reference)
        if not found:
            raise Refused(404, "MANIFEST_UNKNOWN", "Requested image not found")
        return HttpResponse(202)

    def _get_tags(self, call: Call, body: BodyReader, name: str) -> HttpResponse:
        repository = self._repository(call, name, "ListImages", pull=True)
        last, count = call.query.get("last", ""), call.query.get("n", "")
        limit = min(int(count), _PAGE) if count.isdigit() else _PAGE
        tags = sorted(tag for tag in self._registry.tags(repository) if tag > last)
        page = tags[:limit]
        headers = {}
        if len(tags) > limit and page:
            more = f"/v2/{quote(name)}/tags/list?n={limit}&last={quote(page[-1])}"
            headers["Link"] = f'<{more}>; rel="next"'
        return _json(200, {"name": name, "tags": page}, headers)

    # ---- layers and configurations -------------------------------------------------------------------

    def _get_blob(self, call: Call, body: BodyReader, name: str, digest: str) -> HttpResponse:
        action = "BatchCheckLayerAvailability" if call.method == "HEAD" else "GetDownloadUrlForLayer"
        repository = self._repository(call, name, action, pull=True)
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

    def _delete_blob(self, call: Call, body: BodyReader, name: str, digest: str) -> HttpResponse:
        repository = self._repository(call, name, "BatchDeleteImage")
        if not self._registry.delete_blob(repository, digest):
            raise Refused(404, "BLOB_UNKNOWN", f"the repository has no {digest}")
        return HttpResponse(202)

    def _post_uploads(self, call: Call, body: BodyReader, name: str) -> HttpResponse:
        repository = self._repository(call, name, "InitiateLayerUpload")
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
            other = self._repository(call, source, "GetDownloadUrlForLayer", pull=True)
        except (Refused, AwsError):  # then it is uploaded, as if nothing had been said
            return False
        return self._registry.mount(other, repository, digest)

    def _get_upload(self, call: Call, body: BodyReader, name: str, upload: str) -> HttpResponse:
        self._repository(call, name, "UploadLayerPart")
        size = self._known(lambda: self._registry.uploads.size(upload))
        return self._under_way(name, upload, size, status=204)

    def _patch_upload(self, call: Call, body: BodyReader, name: str, upload: str) -> HttpResponse:
        self._repository(call, name, "UploadLayerPart")
        return self._under_way(name, upload, self._append(call, body, upload))

    def _put_upload(self, call: Call, body: BodyReader, name: str, upload: str) -> HttpResponse:
        repository = self._repository(call, name, "CompleteLayerUpload")
        if call.headers.get("content-length") != "0":
            self._append(call, body, upload)
        return self._finish(repository, name, upload, call.query.get("digest", ""))

    def _delete_upload(self, call: Call, body: BodyReader, name: str, upload: str) -> HttpResponse:
        self._repository(call, name, "UploadLayerPart")
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


def _json(status: int, content: Any, headers: Mapping[str, str] | None = None) -> HttpResponse:
    body = json.dumps(content).encode()
    return HttpResponse(status, {"Content-Type": "application/json", **(headers or {})}, body)


def _fault(status: int, code: str, message: str, headers: Mapping[str, str]) -> HttpResponse:
    return _json(status, {"errors": [{"code": code, "message": message}]}, headers)
