"""Verifies S3 addresses that are presigned with Signature Version 2.

AWS has long asked everybody to sign with Version 4, but boto3 still presigns S3 addresses with Version 2 in
us-east-1 unless it is configured otherwise: `generate_presigned_url`, called with defaults, makes
``?AWSAccessKeyId=...&Signature=...&Expires=...``. So these, and nothing else of Version 2, are accepted.

The signature is an HMAC-SHA1 over method, Content-MD5, Content-Type, end, ``x-amz-`` headers, path with the bucket, and
*sub-resources*: those fields of the query that say what of the bucket or object is meant. Other fields are not
signed. Headers that start with ``x-amz-`` may travel in the query instead, and count as if they were headers.

Source: "Signing and authenticating REST requests (AWS signature version 2)", Amazon S3 API Reference.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from sagesmith.aws._s3 import bucket_of_host
from sagesmith.errors import AwsError

__all__ = ["SUB_RESOURCES", "PresignedV2", "is_presigned_v2", "move_headers"]

_MARK: Final = b"AWSAccessKeyId="
_PREFIX: Final = b"x-amz-"

_SIGNED_BY_CLIENTS: Final = (
    b"accelerate acl analytics cors defaultObjectAcl delete inventory lifecycle location logging metrics "
    b"notification object-lock partNumber policy replication requestPayment response-cache-control "
    b"response-content-disposition response-content-encoding response-content-language response-content-type "
    b"response-expires restore select select-type storageClass tagging torrent uploadId uploads versionId "
    b"versioning versions website"
)
# Younger than Version 2, and not signed by botocore. They choose the operation: left out, whoever has an address
# for one operation could turn it into one for another. Signed, they are refused where the client did not.
_CHOOSE_OPERATIONS: Final = (
    b"abac attributes encryption intelligent-tiering legal-hold metadataConfiguration metadataInventoryTable "
    b"metadataJournalTable metadataTable ownershipControls policyStatus publicAccessBlock renameObject retention "
    b"session annotation metadataAnnotationTable"
)
SUB_RESOURCES: Final = frozenset((*_SIGNED_BY_CLIENTS.split(), *_CHOOSE_OPERATIONS.split()))
"""The fields of a query that are signed."""


def is_presigned_v2(headers: Mapping[bytes, bytes], target: bytes) -> bool:
    """Whether a request is presigned with Version 2."""
    return _MARK in target and b"authorization" not in headers and b"SignatureVersion=" not in target


def move_headers(headers: dict[bytes, bytes], target: bytes) -> None:
    """Set in *headers* what travels in the query of *target* instead, unless it is there already."""
    for name, value in _fields(target.partition(b"?")[2]):
        if name.startswith(_PREFIX):
            headers.setdefault(name, value)


class PresignedV2:
    """One presigned address: its fields, and whether a secret has signed it.

    Raises:
        AwsError: `AccessDenied`, a field is missing or malformed.
    """

    def __init__(self, method: bytes, target: bytes, headers: Mapping[bytes, bytes]) -> None:
        path, _, query = target.partition(b"?")
        fields = _fields(query)
        known = dict(fields)
        try:
            self.access_key_id = known[b"AWSAccessKeyId"].decode()
            self.signature = known[b"Signature"]
            end = known[b"Expires"]
        except (KeyError, UnicodeDecodeError):
            raise AwsError(
                "AccessDenied",
                "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters",
                status=403,
            ) from None
        if not end.isdigit() or len(end) > 15:
            said = end[:40].decode("latin-1")
            raise AwsError(
                "AccessDenied", f"Invalid date (should be seconds since epoch): {said}", status=403
            )
        self.expires = int(end)
        extra = {name: value for name, value in fields if name.startswith(_PREFIX)}
        extra.update((name, value) for name, value in headers.items() if name.startswith(_PREFIX))
        self.session_token = extra.get(b"x-amz-security-token")
        bucket = bucket_of_host(headers.get(b"host", b"").decode("latin-1"))
        path = (b"/" + bucket.encode("latin-1") if bucket is not None else b"") + (path or b"/")
        # As it was sent, or decoded and encoded anew; botocore ends the path of a bucket with a slash.
        self._paths = [path, quote_from_bytes(unquote_to_bytes(path), safe="/-_.~").encode()]
        if path.count(b"/") == 1:
            self._paths.append(path + b"/")
        self._before = b"\n".join(
            (
                method,
                headers.get(b"content-md5", b"").strip(),
                headers.get(b"content-type", b"").strip(),
                end,
                b"".join([name + b":" + extra[name].strip() + b"\n" for name in sorted(extra)]),
            )
        )
        chosen = sorted((name, part) for name, part in _parts(query) if name in SUB_RESOURCES)
        self._after = b"?" + b"&".join(part for _, part in chosen) if chosen else b""

    def is_signed_with(self, secret: str) -> bool:
        """Whether the signature was made with *secret*."""
        key = secret.encode()
        return any(
            hmac.compare_digest(
                b64encode(hmac.digest(key, self._before + path + self._after, "sha1")), self.signature
            )
            for path in dict.fromkeys(self._paths)
        )


def _fields(query: bytes) -> list[tuple[bytes, bytes]]:
    pairs = [part.partition(b"=")[::2] for part in query.split(b"&") if part]
    return [(unquote_to_bytes(name), unquote_to_bytes(value)) for name, value in pairs]


def _parts(query: bytes) -> list[tuple[bytes, bytes]]:
    """Return each field's name, and the field as it is signed: its value decoded."""
    return [
        (unquote_to_bytes(name), unquote_to_bytes(name + equals + value))
        for name, equals, value in (part.partition(b"=") for part in query.split(b"&") if part)
    ]
