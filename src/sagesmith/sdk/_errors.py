"""What can go wrong, in one sentence that says what to do; the original error is the cause.

botocore has one exception for all that a service refuses and a dozen for what does not reach one. One table
translates them by error code, so that a caller can catch what he can act upon.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ApiError",
    "CredentialsRefused",
    "DataMismatch",
    "EndpointFailed",
    "HyperparameterUnknown",
    "JobFailed",
    "NameInUse",
    "NotFound",
    "SdkError",
    "ServerUnreachable",
    "translated",
]


class SdkError(Exception):
    """Anything that this interface reports. Its text is one sentence or a few, and says what to do."""


class DataMismatch(SdkError, ValueError):
    """The data does not fit: a column that is not there, text where numbers belong, no label."""


class HyperparameterUnknown(SdkError, TypeError):
    """A hyperparameter that the algorithm does not have, or a required one that was not given."""


class ServerUnreachable(SdkError, ConnectionError):
    """Nothing answers at the address, or the connection cannot be trusted."""


class ApiError(SdkError):
    """A service refused the request. `code` is AWS's error code, `operation` the operation's name."""

    def __init__(self, message: str, *, code: str = "", operation: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.operation = operation


class CredentialsRefused(ApiError):
    """The keys are missing, unknown or expired, or they may not do this."""


class NameInUse(ApiError):
    """The name is taken."""


class NotFound(ApiError):
    """There is no such thing."""


class JobFailed(SdkError):
    """A job ended as Failed. `job_name`, `reason`, and `log`: its last lines."""

    def __init__(self, message: str, *, job_name: str, reason: str, log: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.job_name = job_name
        self.reason = reason
        self.log = tuple(log)


class EndpointFailed(SdkError):
    """An endpoint did not come into service, or its model answered with an error."""


_REFUSED: Final = {
    "ExpiredToken": "The keys have expired. Get new ones, or take up `sagesmith env` again.",
    "ExpiredTokenException": "The keys have expired. Get new ones, or take up `sagesmith env` again.",
    "RequestExpired": "The keys have expired. Get new ones, or take up `sagesmith env` again.",
    "InvalidClientTokenId": "The access key is not known there. Check AWS_ACCESS_KEY_ID, or take up `sagesmith env` again.",
    "InvalidAccessKeyId": "The access key is not known there. Check AWS_ACCESS_KEY_ID, or take up `sagesmith env` again.",
    "UnrecognizedClientException": "The access key is not known there. Check AWS_ACCESS_KEY_ID, or take up `sagesmith env` again.",
    "SignatureDoesNotMatch": "The secret key is not the access key's. Check AWS_SECRET_ACCESS_KEY.",
    "InvalidSignatureException": "The secret key is not the access key's. Check AWS_SECRET_ACCESS_KEY.",
    "IncompleteSignature": "The secret key is not the access key's. Check AWS_SECRET_ACCESS_KEY.",
    "AccessDenied": "These keys may not do this.",
    "AccessDeniedException": "These keys may not do this.",
}
_IN_USE: Final = re.compile(r"already (?:exists|existing|in use)|Cannot create already", re.I)
_MISSING: Final = re.compile(r"could not find|not found|does not exist|no such", re.I)
_BAD_NAME: Final = re.compile(
    r"Value '(?P<name>.*)' at '(?P<member>\w*[nN]ame)' failed to satisfy constraint: "
    r"Member must satisfy regular expression pattern: \^?\[a-zA-Z0-9\]\(-\*\[a-zA-Z0-9\]\)"
)
_MISSING_CODES: Final = frozenset(
    {"ResourceNotFound", "ResourceNotFoundException", "NoSuchKey", "NoSuchBucket", "404", "NotFound"}
)


def translated(error: Exception, *, operation: str, url: str) -> Exception:
    """Return the `SdkError` that *error* of botocore's means, or *error* itself if it is none of botocore's.

    Args:
        error: what botocore raised.
        operation: the operation's name, such as ``create_training_job``.
        url: where the request went.
    """
    from botocore import exceptions as aws

    if isinstance(error, aws.ClientError):
        return _of_service(error, operation)
    if isinstance(error, (aws.NoCredentialsError, aws.PartialCredentialsError, aws.TokenRetrievalError)):
        return CredentialsRefused(
            "There are no keys. Start a server with `sagesmith up` (its own are found), "
            "or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
            operation=operation,
        )
    if isinstance(error, aws.NoRegionError):
        return SdkError("There is no region: set AWS_REGION, or give `Session(region=...)`.")
    if isinstance(error, aws.SSLError):
        return ServerUnreachable(
            f"The certificate of {url} is not trusted ({error}). Set AWS_CA_BUNDLE to the server's authority; "
            "`sagesmith env` prints it."
        )
    if isinstance(error, (aws.HTTPClientError, aws.ConnectionError)):
        return ServerUnreachable(
            f"No answer from {url}. Is the server running? `sagesmith up` starts one, `sagesmith status` tells."
        )
    if isinstance(error, aws.ParamValidationError):
        return SdkError(str(error).replace("\n", " "))
    if isinstance(error, aws.BotoCoreError):
        return SdkError(str(error))
    return error


def _of_service(error: Any, operation: str) -> SdkError:
    found = error.response.get("Error", {})
    code, message = str(found.get("Code", "")), str(found.get("Message", "") or error)
    told: dict[str, Any] = {"code": code, "operation": operation}
    if code in _REFUSED:
        detail = f" ({message})" if code.startswith("AccessDenied") else ""
        return CredentialsRefused(_REFUSED[code] + detail, **told)
    if code in ("ResourceInUse", "BucketAlreadyExists", "BucketAlreadyOwnedByYou") or (
        operation.startswith("create_") and _IN_USE.search(message)
    ):
        return NameInUse(f"The name is taken: {message} Take another, or delete the old one.", **told)
    if code in _MISSING_CODES or _MISSING.search(message):
        return NotFound(message, **told)
    if code == "ModelError":
        original = error.response.get("OriginalMessage") or message
        return EndpointFailed(f"The model refused the request: {original}")
    bad = _BAD_NAME.search(message)
    if bad is not None:
        message = f"{bad['name']!r} cannot be a {bad['member']}: it may have letters and digits, and hyphens between them."
    return ApiError(f"{message} ({code})" if code else message, **told)
