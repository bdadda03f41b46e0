"""How S3 differs from the REST-XML of its model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from sagesmith.aws._model import OperationModel, ServiceModel, Shape
from sagesmith.aws._protocols import Answer, Request, RestXmlProtocol
from sagesmith.aws._xml import escape
from sagesmith.errors import AwsError

__all__ = ["S3Protocol", "bucket_and_path", "bucket_of_host"]

# The model does not name the root elements, and Python does not look at them; other clients do.
_ROOTS: Final[Mapping[str, str]] = {
    "CompleteMultipartUpload": "CompleteMultipartUploadResult",
    "CreateMultipartUpload": "InitiateMultipartUploadResult",
    "DeleteObjects": "DeleteResult",
    "GetBucketAcl": "AccessControlPolicy",
    "GetBucketCors": "CORSConfiguration",
    "GetBucketLifecycleConfiguration": "LifecycleConfiguration",
    "GetBucketLogging": "BucketLoggingStatus",
    "GetBucketNotificationConfiguration": "NotificationConfiguration",
    "GetBucketRequestPayment": "RequestPaymentConfiguration",
    "GetBucketTagging": "Tagging",
    "GetBucketVersioning": "VersioningConfiguration",
    "GetBucketWebsite": "WebsiteConfiguration",
    "GetObjectAcl": "AccessControlPolicy",
    "GetObjectAttributes": "GetObjectAttributesResponse",
    "GetObjectTagging": "Tagging",
    "ListBuckets": "ListAllMyBucketsResult",
    "ListMultipartUploads": "ListMultipartUploadsResult",
    "ListObjectVersions": "ListVersionsResult",
    "ListObjects": "ListBucketResult",
    "ListObjectsV2": "ListBucketResult",
    "ListParts": "ListPartsResult",
}
_NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
# Status codes of common errors, for handlers that leave the default.
_STATUS: Final[Mapping[str, int]] = {
    "AccessDenied": 403,
    "BucketAlreadyExists": 409,
    "BucketAlreadyOwnedByYou": 409,
    "BucketNotEmpty": 409,
    "ConditionalRequestConflict": 409,
    "InvalidRange": 416,
    "MethodNotAllowed": 405,
    "MissingContentLength": 411,
    "NoSuchBucket": 404,
    "NoSuchBucketPolicy": 404,
    "NoSuchKey": 404,
    "NoSuchTagSet": 404,
    "NoSuchUpload": 404,
    "NoSuchVersion": 404,
    "NotModified": 304,
    "PreconditionFailed": 412,
}


class S3Protocol(RestXmlProtocol):
    """REST-XML as S3 speaks it."""

    blob_type = "binary/octet-stream"

    def __init__(self, service: ServiceModel) -> None:
        super().__init__(service, millis=True)
        self.namespace = _NAMESPACE

    def read(self, operation: OperationModel, request: Request) -> dict[str, Any]:
        """Return the operation's input; a copy source is percent-encoded in its header."""
        value = super().read(operation, request)
        source = value.get("CopySource")
        if isinstance(source, str):
            path, mark, version = source.partition("?versionId=")
            value["CopySource"] = unquote(path) + mark + version
        return value

    def root_name(self, operation: OperationModel, shape: Shape) -> str:
        """Return the root element as AWS names it."""
        return _ROOTS.get(operation.name) or super().root_name(operation, shape)

    def write(self, operation: OperationModel, result: Mapping[str, Any] | None, request_id: str) -> Answer:
        """Return the answer; GetBucketLocation's root *is* its only member, which the model cannot say."""
        if operation.name == "GetBucketLocation":
            place = (result or {}).get("LocationConstraint") or ""
            body = self.document("LocationConstraint", [escape(place)])
            return Answer(200, [("Content-Type", self.body_type), *_ids(request_id)], body)
        answer = super().write(operation, result, request_id)
        answer.headers.extend(_ids(request_id))
        if result and result.get("ContentRange"):  # which only a part of an object has
            answer.status = 206
        return answer

    def fault(self, error: AwsError, request_id: str) -> Answer:
        """Return S3's own error element, with *error*'s members in it."""
        status = _STATUS.get(error.code, 400) if error.status == 400 else error.status
        out = [f"<Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message>"]
        out.extend(f"<{name}>{escape(str(value))}</{name}>" for name, value in error.members.items())
        out.append(f"<RequestId>{request_id}</RequestId><HostId>{request_id}</HostId>")
        text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{"".join(out)}</Error>'
        return Answer(status, [("Content-Type", self.body_type), *_ids(request_id)], text.encode())


def _ids(request_id: str) -> list[tuple[str, str]]:
    return [("x-amz-request-id", request_id), ("x-amz-id-2", request_id)]


def bucket_of_host(host: str) -> str | None:
    """Return the bucket that a Host header names (``bucket.s3.us-east-1.amazonaws.com``), or None.

    Any address will do whose first labels stand before ``s3.`` or ``s3-region.``; so do
    ``bucket.localhost`` and ``bucket.127.0.0.1.nip.io``.
    """
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    labels = name.split(".")
    for place, label in enumerate(labels[1:], 1):
        if label == "s3" or label.startswith("s3-"):
            return ".".join(labels[:place])
        if label == "localhost" and place == len(labels) - 1:
            return ".".join(labels[:place])
    if name.endswith((".nip.io", ".sslip.io")):
        digits = next((place for place, label in enumerate(labels) if label.isdigit()), 0)
        return ".".join(labels[:digits]) or None
    return None


def bucket_and_path(headers: Mapping[bytes, bytes], target: bytes) -> tuple[str, str]:
    """Return the bucket of a request (perhaps "") and the path in it, decoded, without its first slash."""
    path = unquote(target.partition(b"?")[0].decode("latin-1"))
    bucket = bucket_of_host(headers.get(b"host", b"").decode("latin-1"))
    if bucket is None:
        bucket, _, path = path.removeprefix("/").partition("/")
        return bucket, path
    return bucket, path.removeprefix("/")
