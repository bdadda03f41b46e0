"""Listings of objects: the two versions of ListObjects, and ListObjectVersions of a store without versions."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

from sagesmith.aws.call import Call, operation
from sagesmith.services.s3._common import (
    check_owner,
    key_encoder,
    number_between,
    owner_document,
    quoted,
    whole_seconds,
)
from sagesmith.store.object_errors import invalid_argument
from sagesmith.store.objects import ListedObject, Listing, ObjectStore

__all__ = ["Listings"]

_MOST: Final = 1000


class Listings:
    """The operations that list objects."""

    service = "s3"

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @operation("ListObjectsV2")
    def list_objects_v2(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return one page of a bucket's keys."""
        check_owner(self._store, request)
        token = request.get("ContinuationToken")
        after = _position(token) if token is not None else request.get("StartAfter") or ""
        page, limit = self._page(request, after)
        owner = owner_document(self._owner(request)) if request.get("FetchOwner") else None
        answer = self._answer(request, page, limit, owner)
        answer["KeyCount"] = len(page.objects) + len(page.prefixes)
        if token is not None:
            answer["ContinuationToken"] = token
        if page.next_after:
            answer["NextContinuationToken"] = _token(page.next_after)
        if request.get("StartAfter"):
            answer["StartAfter"] = key_encoder(request)(request["StartAfter"])
        return answer

    @operation("ListObjects")
    def list_objects(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return one page of a bucket's keys, the older way."""
        check_owner(self._store, request)
        marker = request.get("Marker") or ""
        page, limit = self._page(request, marker)
        answer = self._answer(request, page, limit, owner_document(self._owner(request)))
        answer["Marker"] = key_encoder(request)(marker)
        if page.next_after and request.get("Delimiter"):  # without one, the last key is the next marker
            answer["NextMarker"] = key_encoder(request)(page.next_after)
        return answer

    @operation("ListObjectVersions")
    def list_object_versions(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return one page of a bucket's objects as their only version, ``null``."""
        check_owner(self._store, request)
        marker = request.get("KeyMarker") or ""
        page, limit = self._page(request, marker)
        encode = key_encoder(request)
        owner = owner_document(self._owner(request))
        answer = self._answer(request, page, limit, owner)
        answer["Versions"] = [
            {**shown, "VersionId": "null", "IsLatest": True} for shown in answer.pop("Contents")
        ]
        answer["KeyMarker"] = encode(marker)
        answer["VersionIdMarker"] = request.get("VersionIdMarker") or ""
        if page.next_after:
            answer["NextKeyMarker"] = encode(page.next_after)
            answer["NextVersionIdMarker"] = "null"
        return answer

    # -------------------------------------------------------------------------------------------------

    def _page(self, request: Mapping[str, Any], after: str) -> tuple[Listing, int]:
        limit = number_between(request, "MaxKeys", "max-keys", _MOST, _MOST)
        if limit == 0:
            self._store.buckets.get(request["Bucket"])
            return Listing([], [], ""), 0
        page = self._store.list(
            request["Bucket"],
            prefix=request.get("Prefix") or "",
            delimiter=request.get("Delimiter") or "",
            after=after,
            limit=limit,
        )
        return page, limit

    def _owner(self, request: Mapping[str, Any]) -> str:
        return self._store.buckets.get(request["Bucket"]).owner

    def _answer(
        self, request: Mapping[str, Any], page: Listing, limit: int, owner: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        encode = key_encoder(request)
        answer: dict[str, Any] = {
            "Name": request["Bucket"],
            "Prefix": encode(request.get("Prefix") or ""),
            "MaxKeys": limit,
            "IsTruncated": bool(page.next_after),
            "Contents": [_shown(one, encode(one.key), owner) for one in page.objects],
            "CommonPrefixes": [{"Prefix": encode(prefix)} for prefix in page.prefixes],
        }
        if request.get("Delimiter"):
            answer["Delimiter"] = encode(request["Delimiter"])
        if request.get("EncodingType"):
            answer["EncodingType"] = request["EncodingType"]
        return answer


def _shown(one: ListedObject, key: str, owner: Mapping[str, Any] | None) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "Key": key,
        "LastModified": whole_seconds(one.modified),
        "ETag": quoted(one.etag),
        "Size": one.size,
        "StorageClass": one.storage_class,
    }
    if one.checksum_algorithm:
        shown["ChecksumAlgorithm"] = [one.checksum_algorithm]
        shown["ChecksumType"] = one.checksum_kind
    if owner is not None:
        shown["Owner"] = owner
    return shown


def _token(position: str) -> str:
    return base64.urlsafe_b64encode(b"1" + position.encode()).decode()


def _position(token: str) -> str:
    try:
        data = base64.urlsafe_b64decode(token.encode())
        if data[:1] == b"1":
            return data[1:].decode()
    except (binascii.Error, ValueError):
        pass
    raise invalid_argument("The continuation token provided is incorrect", "continuation-token", token)
