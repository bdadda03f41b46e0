"""Multipart uploads."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Final

from sagesmith.aws.call import Call, operation
from sagesmith.errors import AwsError
from sagesmith.services.s3._common import (
    check_owner,
    checksum_members,
    encryption_of,
    integrity_of,
    key_encoder,
    number_between,
    owner_document,
    properties_of,
    quoted,
    refuse_what_is_not_kept,
    whole_seconds,
    write_conditions,
)
from sagesmith.services.s3._conditions import check_conditions, copy_range
from sagesmith.services.s3._objects import copy_source
from sagesmith.store.checksums import ALGORITHMS, COMPOSITE, FULL_OBJECT, Integrity
from sagesmith.store.object_errors import invalid_argument, no_such_key
from sagesmith.store.objects import ObjectInfo, ObjectStore
from sagesmith.store.uploads import ClaimedPart, Part, Upload

__all__ = ["Multipart"]

_MOST: Final = 1000
_MAX_PARTS: Final = 10_000


class Multipart:
    """The operations of multipart uploads."""

    service = "s3"

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @operation("CreateMultipartUpload")
    def create_multipart_upload(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Begin an upload."""
        check_owner(self._store, request)
        refuse_what_is_not_kept(request)
        algorithm, kind = _checksum_of(request)
        upload = self._store.uploads.create(
            request["Bucket"],
            request["Key"],
            initiator=call.caller.arn,
            properties=properties_of(call, request),
            checksum_algorithm=algorithm,
            checksum_kind=kind,
        )
        answer = {"Bucket": upload.bucket, "Key": upload.key, "UploadId": upload.id}
        if algorithm:
            answer |= {"ChecksumAlgorithm": algorithm, "ChecksumType": kind}
        return {**answer, **encryption_of(upload.properties)}

    @operation("UploadPart")
    def upload_part(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store one part."""
        check_owner(self._store, request)
        refuse_what_is_not_kept(request)
        body = request["Body"]
        integrity = integrity_of(call, request, body)
        part = self._store.uploads.put_part(
            request["Bucket"], request["Key"], request["UploadId"], _number(request), body, integrity
        )
        upload_algorithm = integrity.algorithm if part.checksum else ""
        return {"ETag": quoted(part.etag), **_part_checksum(upload_algorithm, part)}

    @operation("UploadPartCopy")
    def upload_part_copy(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store a part of another object as a part."""
        bucket, key = copy_source(request["CopySource"])
        check_owner(self._store, request, source=bucket)
        upload = self._store.uploads.get(request["Bucket"], request["Key"], request["UploadId"])
        number = _number(request)
        source = self._store.head(bucket, key)
        check_conditions(source, request, prefix="CopySource")
        offset, size = copy_range(request.get("CopySourceRange"), source.size)
        content = self._store.content(source)
        if content is None:
            raise no_such_key(key)
        with content.open() as file:
            file.seek(offset)
            part = self._store.uploads.put_part(
                upload.bucket, upload.key, upload.id, number, _Limited(file, size), Integrity(size=size)
            )
        result = {
            "ETag": quoted(part.etag),
            "LastModified": whole_seconds(part.modified),
            **_part_checksum(upload.checksum_algorithm, part),
        }
        return {"CopyPartResult": result, **encryption_of(upload.properties)}

    @operation("CompleteMultipartUpload")
    def complete_multipart_upload(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make the parts an object."""
        check_owner(self._store, request)
        claimed = []
        for part in (request.get("MultipartUpload") or {}).get("Parts") or []:
            checksums = [part[f"Checksum{name}"] for name in ALGORITHMS if part.get(f"Checksum{name}")]
            claimed.append(
                ClaimedPart(
                    part.get("PartNumber") or 0, part.get("ETag") or "", checksums[0] if checksums else ""
                )
            )

        def check(info: ObjectInfo) -> None:
            _check_whole(request, info)

        info = self._store.uploads.complete(
            request["Bucket"],
            request["Key"],
            request["UploadId"],
            claimed,
            conditions=write_conditions(request),
            check=check,
        )
        return {
            "Location": f"{call.endpoint_url}/{info.bucket}/{info.key}",
            "Bucket": info.bucket,
            "Key": info.key,
            "ETag": quoted(info.etag),
            **checksum_members(info.checksum),
            **encryption_of(info.properties),
        }

    @operation("AbortMultipartUpload")
    def abort_multipart_upload(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Give an upload up."""
        check_owner(self._store, request)
        self._store.uploads.abort(request["Bucket"], request["Key"], request["UploadId"])
        return {}

    @operation("ListParts")
    def list_parts(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return one page of an upload's parts."""
        check_owner(self._store, request)
        upload = self._store.uploads.get(request["Bucket"], request["Key"], request["UploadId"])
        limit = number_between(request, "MaxParts", "max-parts", _MOST, _MOST)
        marker = number_between(request, "PartNumberMarker", "part-number-marker", 0, 2**31)
        found = self._store.uploads.parts(upload.id, after=marker, limit=limit + 1)
        shown = found[:limit]
        answer: dict[str, Any] = {
            "Bucket": upload.bucket,
            "Key": upload.key,
            "UploadId": upload.id,
            "PartNumberMarker": marker,
            "NextPartNumberMarker": shown[-1].number if shown else 0,
            "MaxParts": limit,
            "IsTruncated": len(found) > limit,
            "Parts": [
                {
                    "PartNumber": part.number,
                    "LastModified": whole_seconds(part.modified),
                    "ETag": quoted(part.etag),
                    "Size": part.size,
                    **_part_checksum(upload.checksum_algorithm, part),
                }
                for part in shown
            ],
            **self._people(upload),
        }
        if upload.checksum_algorithm:
            answer |= {"ChecksumAlgorithm": upload.checksum_algorithm, "ChecksumType": upload.checksum_kind}
        return answer

    @operation("ListMultipartUploads")
    def list_multipart_uploads(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return one page of a bucket's uploads under way."""
        check_owner(self._store, request)
        self._store.buckets.get(request["Bucket"])
        encode = key_encoder(request)
        prefix, delimiter = request.get("Prefix") or "", request.get("Delimiter") or ""
        limit = number_between(request, "MaxUploads", "max-uploads", _MOST, _MOST)
        key_marker, id_marker = request.get("KeyMarker") or "", request.get("UploadIdMarker") or ""
        # Without an id the key itself is passed over: "~" stands behind every id.
        after = (key_marker, id_marker or "~") if key_marker else ("", "")
        uploads: list[dict[str, Any]] = []
        prefixes: list[str] = []
        last, truncated = ("", ""), False
        for upload in self._store.uploads.pending(request["Bucket"], prefix=prefix, after=after):
            cut = upload.key.find(delimiter, len(prefix)) if delimiter else -1
            common = upload.key[: cut + len(delimiter)] if cut >= 0 else ""
            if common and (common in prefixes[-1:] or (key_marker and common == key_marker)):
                continue
            if len(uploads) + len(prefixes) == limit:
                truncated = True
                break
            if common:
                prefixes.append(common)
                last = (common, "")
            else:
                uploads.append(self._shown(upload, encode(upload.key)))
                last = (upload.key, upload.id)
        answer: dict[str, Any] = {
            "Bucket": request["Bucket"],
            "KeyMarker": encode(key_marker),
            "UploadIdMarker": id_marker,
            "Prefix": encode(prefix),
            "MaxUploads": limit,
            "IsTruncated": truncated,
            "Uploads": uploads,
            "CommonPrefixes": [{"Prefix": encode(common)} for common in prefixes],
        }
        if truncated:
            answer |= {"NextKeyMarker": encode(last[0]), "NextUploadIdMarker": last[1]}
        if delimiter:
            answer["Delimiter"] = encode(delimiter)
        if request.get("EncodingType"):
            answer["EncodingType"] = request["EncodingType"]
        return answer

    def _shown(self, upload: Upload, key: str) -> dict[str, Any]:
        shown = {
            "UploadId": upload.id,
            "Key": key,
            "Initiated": whole_seconds(upload.created),
            **self._people(upload),
        }
        if upload.checksum_algorithm:
            shown |= {"ChecksumAlgorithm": upload.checksum_algorithm, "ChecksumType": upload.checksum_kind}
        return shown

    def _people(self, upload: Upload) -> dict[str, Any]:
        return {
            "Initiator": {"ID": upload.initiator, "DisplayName": upload.initiator.rpartition("/")[2]},
            "Owner": owner_document(self._store.buckets.get(upload.bucket).owner),
            "StorageClass": upload.properties.storage_class,
        }


class _Limited:
    """The next *size* bytes of a file, as a `Reader`."""

    def __init__(self, file: io.BufferedReader | Any, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        size = self._left if size < 0 else min(size, self._left)
        data: bytes = self._file.read(size)
        self._left -= len(data)
        return data


def _number(request: Mapping[str, Any]) -> int:
    number = int(request["PartNumber"])
    if not 1 <= number <= _MAX_PARTS:
        raise invalid_argument(
            "Part number must be an integer between 1 and 10000, inclusive", "partNumber", number
        )
    return number


def _part_checksum(algorithm: str, part: Part) -> dict[str, Any]:
    return {f"Checksum{algorithm}": part.checksum} if algorithm and part.checksum else {}


def _checksum_of(request: Mapping[str, Any]) -> tuple[str, str]:
    """Return the algorithm and kind of checksum that an upload is to have.

    Raises:
        AwsError: `InvalidRequest`, they do not go together; `NotImplemented`, there is no such algorithm here.
    """
    algorithm, kind = request.get("ChecksumAlgorithm") or "", request.get("ChecksumType") or ""
    if not algorithm:
        if kind:
            raise AwsError(
                "InvalidRequest",
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            )
        return "", ""
    Integrity(algorithm=algorithm).check_form()
    if not kind:
        kind = FULL_OBJECT if algorithm == "CRC64NVME" else COMPOSITE
    if (kind == COMPOSITE and algorithm == "CRC64NVME") or (
        kind == FULL_OBJECT and not algorithm.startswith("CRC")
    ):
        raise AwsError(
            "InvalidRequest",
            f"The {kind} checksum type cannot be used with the {algorithm.lower()} checksum algorithm.",
        )
    return algorithm, kind


def _check_whole(request: Mapping[str, Any], info: ObjectInfo) -> None:
    """Compare what a client says about the finished object with it."""
    size = request.get("MpuObjectSize")
    if size is not None and size != info.size:
        raise AwsError(
            "InvalidRequest",
            f"The provided 'x-amz-mp-object-size' header value {size} does not match what was computed: {info.size}",
        )
    kind = request.get("ChecksumType")
    if kind and info.checksum is not None and kind != info.checksum.kind:
        raise AwsError(
            "InvalidRequest",
            f"The upload was created using the {info.checksum.kind} checksum mode. "
            "The complete request must use the same checksum mode.",
        )
    if info.checksum is not None:
        given = request.get(f"Checksum{info.checksum.algorithm}")
        if given and given.partition("-")[0] != info.checksum.value.partition("-")[0]:
            raise AwsError(
                "BadDigest",
                f"The {info.checksum.algorithm} you specified did not match the calculated checksum.",
            )
