"""S3's errors, in its words, that the object store raises and its service adds to."""

from __future__ import annotations

from sagesmith.errors import AwsError

__all__ = [
    "bucket_not_empty",
    "invalid_argument",
    "no_such_bucket",
    "no_such_key",
    "no_such_upload",
    "not_implemented_header",
    "precondition_failed",
]


def no_such_bucket(bucket: str) -> AwsError:
    """Return 404 `NoSuchBucket`."""
    return AwsError(
        "NoSuchBucket", "The specified bucket does not exist", status=404, members={"BucketName": bucket}
    )


def no_such_key(key: str) -> AwsError:
    """Return 404 `NoSuchKey`."""
    return AwsError("NoSuchKey", "The specified key does not exist.", status=404, members={"Key": key})


def no_such_upload(upload: str) -> AwsError:
    """Return 404 `NoSuchUpload`."""
    return AwsError(
        "NoSuchUpload",
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted "
        "or completed.",
        status=404,
        members={"UploadId": upload},
    )


def bucket_not_empty(bucket: str) -> AwsError:
    """Return 409 `BucketNotEmpty`."""
    return AwsError(
        "BucketNotEmpty",
        "The bucket you tried to delete is not empty",
        status=409,
        members={"BucketName": bucket},
    )


def precondition_failed(condition: str) -> AwsError:
    """Return 412 `PreconditionFailed` for the header *condition*."""
    return AwsError(
        "PreconditionFailed",
        "At least one of the pre-conditions you specified did not hold",
        status=412,
        members={"Condition": condition},
    )


def invalid_argument(message: str, name: str, value: object) -> AwsError:
    """Return 400 `InvalidArgument` for the argument *name*."""
    return AwsError("InvalidArgument", message, members={"ArgumentName": name, "ArgumentValue": str(value)})


def not_implemented_header(header: str) -> AwsError:
    """Return 501 `NotImplemented` for a request header that cannot be honoured."""
    return AwsError(
        "NotImplemented",
        "A header you provided implies functionality that is not implemented",
        status=501,
        members={"Header": header},
    )
