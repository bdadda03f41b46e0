"""What the handlers of S3 share: whose bucket it is, what is kept of a request, and how it is told again."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, quote_plus

from sagesmith.aws.call import BodyReader, Call
from sagesmith.errors import AwsError
from sagesmith.store.checksums import Checksum, Integrity
from sagesmith.store.object_errors import invalid_argument, not_implemented_header
from sagesmith.store.objects import Conditions, ObjectInfo, ObjectStore, Properties

__all__ = [
    "check_owner",
    "check_version",
    "checksum_members",
    "described",
    "encryption_of",
    "integrity_of",
    "key_encoder",
    "number_between",
    "owner_document",
    "properties_of",
    "quoted",
    "refuse_what_is_not_kept",
    "tags_of",
    "whole_seconds",
    "write_conditions",
]

_KEPT: Final = (
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "ContentType",
    "Expires",
    "WebsiteRedirectLocation",
)
_ENCRYPTION: Final = ("ServerSideEncryption", "SSEKMSKeyId", "BucketKeyEnabled")
_OWN_ACLS: Final = frozenset({"private", "bucket-owner-full-control", "bucket-owner-read"})
_MAX_METADATA_BYTES: Final = 2048
_MAX_TAGS: Final = 10


def check_owner(store: ObjectStore, request: Mapping[str, Any], *, source: str = "") -> None:
    """Check that the buckets of a request belong to whom the client thinks.

    Args:
        store: knows the owners.
        request: the operation's input.
        source: the bucket that is copied from.

    Raises:
        AwsError: `AccessDenied`.
    """
    for member, bucket in (
        ("ExpectedBucketOwner", request.get("Bucket", "")),
        ("ExpectedSourceBucketOwner", source),
    ):
        expected = request.get(member)
        if expected and bucket and store.buckets.get(bucket).owner != expected:
            raise AwsError("AccessDenied", "Access Denied", status=403)


def check_version(request: Mapping[str, Any]) -> None:
    """Check that a request names no version but ``null``, the only one where versions are not kept.

    Raises:
        AwsError: `NoSuchVersion`.
    """
    version = request.get("VersionId")
    if version and version != "null":
        raise AwsError(
            "NoSuchVersion",
            "The specified version does not exist.",
            status=404,
            members={"Key": request.get("Key", ""), "VersionId": version},
        )


def refuse_what_is_not_kept(request: Mapping[str, Any]) -> None:
    """Refuse what would otherwise silently not happen: foreign grants, customers' keys, locks.

    Raises:
        AwsError: `AccessControlListNotSupported`, `NotImplemented` or `InvalidRequest`.
    """
    if request.get("ACL", "private") not in _OWN_ACLS or any(name.startswith("Grant") for name in request):
        raise AwsError("AccessControlListNotSupported", "The bucket does not allow ACLs")
    if request.get("SSECustomerAlgorithm") or request.get("SSECustomerKey"):
        raise not_implemented_header("x-amz-server-side-encryption-customer-algorithm")
    if any(name.startswith("ObjectLock") for name in request):
        raise AwsError("InvalidRequest", "Bucket is missing Object Lock Configuration")
    if "WriteOffsetBytes" in request:
        raise not_implemented_header("x-amz-write-offset-bytes")


def owner_document(account: str) -> dict[str, Any]:
    """Return an account as S3 shows owners: by a long canonical id."""
    return {"ID": hashlib.sha256(f"canonical user {account}".encode()).hexdigest()}


def quoted(etag: str) -> str:
    """Return an ETag as it stands in answers."""
    return f'"{etag}"'


def whole_seconds(time: float) -> float:
    """Return a time as S3 shows it, without fraction, so that headers and listings agree."""
    return float(math.floor(time))


# ---- what comes with a content ---------------------------------------------------------------------------


def properties_of(call: Call, request: Mapping[str, Any]) -> Properties:
    """Return what a request wants kept with its content.

    Raises:
        AwsError: `MetadataTooLarge` or `InvalidTag`.
    """
    members = {name: request[name] for name in _KEPT if name in request}
    encodings = [part.strip() for part in str(members.get("ContentEncoding", "")).split(",")]
    encodings = [part for part in encodings if part and part != "aws-chunked"]
    if encodings:
        members["ContentEncoding"] = ",".join(encodings)
    else:
        members.pop("ContentEncoding", None)
    members.setdefault("ContentType", "binary/octet-stream")
    metadata = {name.lower(): value for name, value in (request.get("Metadata") or {}).items()}
    size = sum(len(name.encode()) + len(value.encode()) for name, value in metadata.items())
    if size > _MAX_METADATA_BYTES:
        raise AwsError(
            "MetadataTooLarge",
            "Your metadata headers exceed the maximum allowed metadata size",
            members={"Size": size, "MaxSizeAllowed": _MAX_METADATA_BYTES},
        )
    return Properties(
        {**members, **_encryption(call, request)},
        metadata,
        _tags_of_header(request.get("Tagging") or ""),
        request.get("StorageClass") or "STANDARD",
    )


def _encryption(call: Call, request: Mapping[str, Any]) -> dict[str, Any]:
    asked = {name: request[name] for name in _ENCRYPTION if name in request}
    if str(asked.get("ServerSideEncryption", "")).startswith("aws:kms"):
        asked.setdefault("SSEKMSKeyId", call.arn("alias/aws/s3", service="kms"))
    return asked


def encryption_of(properties: Properties) -> dict[str, Any]:
    """Return the members that repeat what encryption was asked for."""
    return {name: properties.members[name] for name in _ENCRYPTION if name in properties.members}


def _tags_of_header(text: str) -> dict[str, str]:
    if not text:
        return {}
    pairs = parse_qsl(text, keep_blank_values=True)
    return tags_of([{"Key": key, "Value": value} for key, value in pairs])


def tags_of(tag_set: list[Mapping[str, str]], *, limit: int = _MAX_TAGS) -> dict[str, str]:
    """Return a tag set as a mapping.

    Raises:
        AwsError: `InvalidTag` or `BadRequest`, AWS would not take it.
    """
    if len(tag_set) > limit:
        raise AwsError("BadRequest", f"Object tags cannot be greater than {limit}")
    tags: dict[str, str] = {}
    for tag in tag_set:
        key, value = tag["Key"], tag["Value"]
        if key in tags:
            raise AwsError(
                "InvalidTag", "Cannot provide multiple Tags with the same key", members={"TagKey": key}
            )
        if not 1 <= len(key) <= 128:
            raise AwsError("InvalidTag", "The TagKey you have provided is invalid", members={"TagKey": key})
        if len(value) > 256:
            raise AwsError(
                "InvalidTag", "The TagValue you have provided is invalid",
                members={"TagKey": key, "TagValue": value},
            )  # fmt: skip
        tags[key] = value
    return tags


def integrity_of(call: Call, request: Mapping[str, Any], body: BodyReader) -> Integrity:
    """Return what a request says about its content, in headers or in the trailer to come.

    Raises:
        AwsError: `InvalidRequest`, there is more than one checksum.
    """
    md5 = request.get("ContentMD5") or ""
    given = {name.removeprefix("Checksum"): request[name] for name in request if _is_checksum(name)}
    trailers = [
        name.strip().lower() for name in call.headers.get("x-amz-trailer", "").split(",") if name.strip()
    ]
    announced = [name for name in trailers if name.startswith("x-amz-checksum-")]
    if len(given) + len(announced) > 1:
        raise AwsError(
            "InvalidRequest",
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
        )
    if announced:
        name = announced[0]
        algorithm = name.removeprefix("x-amz-checksum-").upper()
        return Integrity(body.size, md5, algorithm, lambda: body.trailers.get(name, ""))
    if given:
        algorithm, value = next(iter(given.items()))
        return Integrity(body.size, md5, algorithm, lambda: value)
    return Integrity(body.size, md5, request.get("ChecksumAlgorithm") or "")


def _is_checksum(name: str) -> bool:
    return name.startswith("Checksum") and name not in ("ChecksumAlgorithm", "ChecksumMode", "ChecksumType")


def checksum_members(checksum: Checksum | None) -> dict[str, Any]:
    """Return the members that tell a checksum."""
    if checksum is None:
        return {}
    return {f"Checksum{checksum.algorithm}": checksum.value, "ChecksumType": checksum.kind}


def described(info: ObjectInfo) -> dict[str, Any]:
    """Return what the headers of GetObject and HeadObject have in common."""
    properties = info.properties
    found: dict[str, Any] = {
        **properties.members,
        "AcceptRanges": "bytes",
        "ETag": quoted(info.etag),
        "LastModified": whole_seconds(info.modified),
        "Metadata": properties.metadata,
    }
    if properties.storage_class != "STANDARD":
        found["StorageClass"] = properties.storage_class
    if properties.tags:
        found["TagCount"] = len(properties.tags)
    return found


def number_between(request: Mapping[str, Any], member: str, name: str, default: int, most: int) -> int:
    """Return a limit that a client asked for, at most *most*.

    Raises:
        AwsError: `InvalidArgument`, it is negative or beyond 31 bits.
    """
    value = request.get(member)
    if value is None:
        return default
    if not 0 <= value < 2**31:
        raise invalid_argument(f"Argument {name} must be an integer between 0 and 2147483647", name, value)
    return min(int(value), most)


def _plain(text: str) -> str:
    return text


def _url_encoded(text: str) -> str:
    return quote_plus(text, safe="/*")


def key_encoder(request: Mapping[str, Any]) -> Callable[[str], str]:
    """Return what encodes keys in a listing's answer: ``encoding-type=url`` can carry any character.

    Raises:
        AwsError: `InvalidArgument`, there is no such encoding.
    """
    encoding = request.get("EncodingType")
    if encoding not in (None, "", "url"):
        raise invalid_argument("Invalid Encoding Method specified in Request", "encoding-type", encoding)
    return _url_encoded if encoding else _plain


def write_conditions(request: Mapping[str, Any]) -> Conditions | None:
    """Return under which conditions a write may happen, None if there are none."""
    if request.get("IfMatch") or request.get("IfNoneMatch"):
        return Conditions(request.get("IfMatch") or "", request.get("IfNoneMatch") or "")
    return None
