"""Objects: put, get, head, copy, delete, their attributes and tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from sagesmith.aws.call import Call, FileSlice, operation
from sagesmith.errors import AwsError
from sagesmith.services.s3._common import (
    check_owner,
    check_version,
    checksum_members,
    described,
    encryption_of,
    integrity_of,
    number_between,
    owner_document,
    properties_of,
    quoted,
    refuse_what_is_not_kept,
    tags_of,
    whole_seconds,
    write_conditions,
)
from sagesmith.services.s3._conditions import ByteRange, check_conditions, parse_range
from sagesmith.store.object_errors import invalid_argument, precondition_failed
from sagesmith.store.objects import Content, ObjectInfo, ObjectStore

__all__ = ["Objects", "copy_source"]

_LINK_HEADER: Final = "x-sagesmith-link"
_PATH_HEADER: Final = "x-sagesmith-path"
_OVERRIDES: Final = (
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "ContentType",
    "Expires",
)
_MAX_DELETIONS: Final = 1000


class Objects:
    """The operations on one object, and DeleteObjects."""

    service = "s3"

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    # ---- put ----------------------------------------------------------------------------------------

    @operation("PutObject")
    def put_object(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store an object."""
        check_owner(self._store, request)
        refuse_what_is_not_kept(request)
        body = request["Body"]
        info = self._store.put(
            request["Bucket"],
            request["Key"],
            body,
            properties=properties_of(call, request),
            integrity=integrity_of(call, request, body),
            conditions=write_conditions(request),
        )
        return {
            "ETag": quoted(info.etag),
            **encryption_of(info.properties),
            **checksum_members(info.checksum),
        }

    @operation("CopyObject")
    def copy_object(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store another object's content as an object."""
        bucket, key = copy_source(request["CopySource"])
        check_owner(self._store, request, source=bucket)
        refuse_what_is_not_kept(request)
        source = self._store.head(bucket, key)
        check_conditions(source, request, prefix="CopySource")
        asked = properties_of(call, request)
        replaces = request.get("MetadataDirective") == "REPLACE"
        changes = replaces or any(
            name in request for name in ("StorageClass", "WebsiteRedirectLocation", "ServerSideEncryption")
        )
        if (bucket, key) == (request["Bucket"], request["Key"]) and not changes:
            raise AwsError(
                "InvalidRequest",
                "This copy request is illegal because it is trying to copy an object to itself without changing the "
                "object's metadata, storage class, website redirect location or encryption attributes.",
            )
        kept = source.properties
        if not replaces:
            members = {name: kept.members[name] for name in _OVERRIDES if name in kept.members}
            own = {name: value for name, value in asked.members.items() if name not in _OVERRIDES}
            asked = replace(asked, members={**members, **own}, metadata=kept.metadata)
        if request.get("TaggingDirective") != "REPLACE":
            asked = replace(asked, tags=kept.tags)
        info = self._store.copy(
            source,
            request["Bucket"],
            request["Key"],
            properties=asked,
            algorithm=request.get("ChecksumAlgorithm") or "",
            conditions=write_conditions(request),
        )
        result = {
            "ETag": quoted(info.etag),
            "LastModified": whole_seconds(info.modified),
            **checksum_members(info.checksum),
        }
        return {"CopyObjectResult": result, **encryption_of(info.properties)}

    # ---- get ----------------------------------------------------------------------------------------

    @operation("GetObject")
    def get_object(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return an object, or a part of it."""
        check_owner(self._store, request)
        check_version(request)
        while True:
            info = self._store.head(request["Bucket"], request["Key"])
            answer, (offset, size) = self._answer(call, request, info)
            content = self._store.content(info)
            if content is not None:
                break
            # Replaced or deleted between the two steps: what is there now is the answer.
        self._tell_path(call, content)
        if content.data is not None:
            return {**answer, "Body": content.data[offset : offset + size]}
        return {**answer, "Body": FileSlice(str(content.path), offset, size)}

    @operation("HeadObject")
    def head_object(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what is known of an object."""
        check_owner(self._store, request)
        check_version(request)
        info = self._store.head(request["Bucket"], request["Key"])
        answer, _ = self._answer(call, request, info)
        if call.headers.get(_LINK_HEADER) == "1" and not info.inline:
            content = self._store.content(info)
            if content is not None:
                self._tell_path(call, content)
        return answer

    def _answer(
        self, call: Call, request: Mapping[str, Any], info: ObjectInfo
    ) -> tuple[dict[str, Any], ByteRange]:
        """Return the headers' members and which bytes are asked for."""
        try:
            check_conditions(info, request)
        except AwsError as error:
            if error.status == 304:
                call.response_headers["ETag"] = quoted(info.etag)
            raise
        answer = described(info)
        for name in _OVERRIDES:
            if f"Response{name}" in request:
                answer[name] = request[f"Response{name}"]
        chosen = self._part(request, info, answer) or parse_range(request.get("Range"), info.size)
        if chosen is not None:
            offset, size = chosen
            if info.size:  # an empty object has a first part, but no range
                answer["ContentRange"] = f"bytes {offset}-{offset + size - 1}/{info.size}"
        elif request.get("ChecksumMode") == "ENABLED":
            # Only with the whole: a client checks what it received against it.
            answer.update(checksum_members(info.checksum))
        offset, size = chosen or (0, info.size)
        answer["ContentLength"] = size
        return answer, (offset, size)

    def _part(self, request: Mapping[str, Any], info: ObjectInfo, answer: dict[str, Any]) -> ByteRange | None:
        number = request.get("PartNumber")
        if number is None:
            return None
        if request.get("Range"):
            raise AwsError(
                "InvalidRequest", "Cannot specify both Range header and partNumber query parameter"
            )
        if number < 1:
            raise invalid_argument(
                "Part number must be an integer between 1 and 10000, inclusive", "partNumber", number
            )
        sizes = [part.size for part in self._store.uploads.parts(info.upload)] if info.upload else [info.size]
        if number > len(sizes):
            raise AwsError(
                "InvalidPartNumber",
                "The requested partnumber is not satisfiable",
                status=416,
                members={"PartNumberRequested": number, "ActualPartCount": len(sizes)},
            )
        if info.upload:
            answer["PartsCount"] = len(sizes)
        return sum(sizes[: number - 1]), sizes[number - 1]

    def _tell_path(self, call: Call, content: Content) -> None:
        """Tell an agent of ours the file, which it can link if it is on this machine."""
        if content.path is not None and call.headers.get(_LINK_HEADER) == "1":
            call.response_headers[_PATH_HEADER] = str(content.path)

    @operation("GetObjectAttributes")
    def get_object_attributes(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return chosen facts about an object."""
        check_owner(self._store, request)
        check_version(request)
        info = self._store.head(request["Bucket"], request["Key"])
        wanted = {name.strip() for text in request["ObjectAttributes"] for name in str(text).split(",")}
        answer: dict[str, Any] = {"LastModified": whole_seconds(info.modified)}
        if "ETag" in wanted:
            answer["ETag"] = info.etag
        if "Checksum" in wanted and info.checksum is not None:
            answer["Checksum"] = checksum_members(info.checksum)
        if "ObjectSize" in wanted:
            answer["ObjectSize"] = info.size
        if "StorageClass" in wanted:
            answer["StorageClass"] = info.properties.storage_class
        if "ObjectParts" in wanted and info.upload:
            most = number_between(request, "MaxParts", "max-parts", 1000, 1000)
            marker = request.get("PartNumberMarker") or 0
            everything = self._store.uploads.parts(info.upload)
            behind = [part for part in everything if part.number > marker]
            shown = behind[:most]
            answer["ObjectParts"] = {
                "TotalPartsCount": len(everything),
                "PartNumberMarker": marker,
                "NextPartNumberMarker": shown[-1].number if shown else marker,
                "MaxParts": most,
                "IsTruncated": len(shown) < len(behind),
            }
            if info.checksum is not None:  # S3 lists parts only for uploads with a checksum
                member = f"Checksum{info.checksum.algorithm}"
                answer["ObjectParts"]["Parts"] = [
                    {"PartNumber": part.number, "Size": part.size, member: part.checksum} for part in shown
                ]
        return answer

    @operation("GetObjectAcl")
    def get_object_acl(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the only grant there is: the bucket owner's."""
        check_owner(self._store, request)
        check_version(request)
        self._store.head(request["Bucket"], request["Key"])
        owner = owner_document(self._store.buckets.get(request["Bucket"]).owner)
        return {
            "Owner": owner,
            "Grants": [{"Grantee": {**owner, "Type": "CanonicalUser"}, "Permission": "FULL_CONTROL"}],
        }

    @operation("PutObjectAcl")
    def put_object_acl(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Accept the grant that is there anyway, and no other."""
        check_owner(self._store, request)
        refuse_what_is_not_kept(request)
        if request.get("AccessControlPolicy"):
            raise AwsError("AccessControlListNotSupported", "The bucket does not allow ACLs")
        self._store.head(request["Bucket"], request["Key"])
        return {}

    # ---- delete -------------------------------------------------------------------------------------

    @operation("DeleteObject")
    def delete_object(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Delete an object; one that does not exist is deleted already."""
        check_owner(self._store, request)
        check_version(request)
        names = ("IfMatch", "IfMatchLastModifiedTime", "IfMatchSize")
        given = [request.get(name) for name in names]
        check = partial(_check_deletion, *given) if any(item is not None for item in given) else None
        self._store.delete(request["Bucket"], request["Key"], check=check)
        return {}

    @operation("DeleteObjects")
    def delete_objects(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Delete up to 1000 objects; those that the caller may not delete, or that cannot be, are told as errors."""
        check_owner(self._store, request)
        entries = request["Delete"]["Objects"]
        if not 1 <= len(entries) <= _MAX_DELETIONS:
            raise AwsError(
                "MalformedXML",
                "The XML you provided was not well-formed or did not validate against our published schema",
            )
        deleted: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        plain: list[str] = []
        for position, entry in enumerate(entries):
            key = entry["Key"]
            conditions = [entry.get(name) for name in ("ETag", "LastModifiedTime", "Size")]
            try:
                if position in call.refused:
                    raise call.refused[position]
                check_version(entry)
                if any(condition is not None for condition in conditions):
                    self._store.delete(request["Bucket"], key, check=partial(_check_deletion, *conditions))
                else:
                    plain.append(key)
            except AwsError as error:
                if error.code == "NoSuchBucket":
                    raise
                errors.append({"Key": key, "Code": error.code, "Message": error.message})
                if entry.get("VersionId"):
                    errors[-1]["VersionId"] = entry["VersionId"]
                continue
            deleted.append({"Key": key})
        self._store.delete_many(request["Bucket"], plain)
        return {"Deleted": [] if request["Delete"].get("Quiet") else deleted, "Errors": errors}

    # ---- tags ---------------------------------------------------------------------------------------

    @operation("GetObjectTagging")
    def get_object_tagging(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return an object's tags."""
        check_owner(self._store, request)
        check_version(request)
        tags = self._store.head(request["Bucket"], request["Key"]).properties.tags
        return {"TagSet": [{"Key": key, "Value": value} for key, value in tags.items()]}

    @operation("PutObjectTagging")
    def put_object_tagging(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Replace an object's tags."""
        check_owner(self._store, request)
        check_version(request)
        tags = tags_of(request["Tagging"]["TagSet"])
        self._store.change_properties(
            request["Bucket"], request["Key"], lambda properties: replace(properties, tags=tags)
        )
        return {}

    @operation("DeleteObjectTagging")
    def delete_object_tagging(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Remove an object's tags."""
        check_owner(self._store, request)
        check_version(request)
        self._store.change_properties(
            request["Bucket"], request["Key"], lambda properties: replace(properties, tags={})
        )
        return {}


def copy_source(text: str) -> tuple[str, str]:
    """Return bucket and key of a copy source.

    Raises:
        AwsError: `InvalidArgument`, or `NoSuchVersion` for any version but ``null``.
    """
    path, _, version = text.partition("?versionId=")
    bucket, slash, key = path.removeprefix("/").partition("/")
    if not slash or not bucket or not key:
        raise AwsError(
            "InvalidArgument",
            "Invalid copy source object key",
            members={"ArgumentName": "x-amz-copy-source", "ArgumentValue": text},
        )
    check_version({"VersionId": version, "Key": key})
    return bucket, key


def _check_deletion(
    etag: str | None, modified: float | None, size: int | None, info: ObjectInfo | None
) -> None:
    if info is None:
        return
    if etag is not None and etag.strip('"') not in ("*", info.etag):
        raise precondition_failed("If-Match")
    if modified is not None and whole_seconds(info.modified) != whole_seconds(modified):
        raise precondition_failed("x-amz-if-match-last-modified-time")
    if size is not None and size != info.size:
        raise precondition_failed("x-amz-if-match-size")
