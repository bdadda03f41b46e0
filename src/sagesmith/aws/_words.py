"""Each service's own words for the errors that all services share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sagesmith.aws._validation import Fault
from sagesmith.errors import AwsError

__all__ = ["in_words_of", "serialization_error", "validation_fault"]

_QUERY_SERVICES: Final = frozenset({"sts", "iam", "query", "sns", "ec2", "autoscaling", "cloudformation"})
_QUERY: Final[Mapping[str, str]] = {
    "AccessDeniedException": "AccessDenied",
    "ExpiredTokenException": "ExpiredToken",
    "IncompleteSignatureException": "IncompleteSignature",
    "InvalidSignatureException": "SignatureDoesNotMatch",
    "MissingAuthenticationTokenException": "MissingAuthenticationToken",
    "RequestEntityTooLargeException": "RequestEntityTooLarge",
    "SerializationException": "MalformedInput",
    "UnknownOperationException": "InvalidAction",
    "UnrecognizedClientException": "InvalidClientTokenId",
    "ValidationException": "ValidationError",
}
_S3: Final[Mapping[str, str]] = {
    "AccessDeniedException": "AccessDenied",
    "ExpiredTokenException": "ExpiredToken",
    "IncompleteSignatureException": "AuthorizationHeaderMalformed",
    "InternalFailure": "InternalError",
    "InvalidSignatureException": "SignatureDoesNotMatch",
    "MissingAuthenticationTokenException": "AccessDenied",
    "NotImplementedException": "NotImplemented",
    "RequestEntityTooLargeException": "EntityTooLarge",
    "UnknownOperationException": "MethodNotAllowed",
    "UnrecognizedClientException": "InvalidAccessKeyId",
    "ValidationException": "InvalidArgument",
}
_VALIDATION: Final[Mapping[str, str]] = {
    "s3": "InvalidArgument",
    "cloudwatch": "InvalidParameterValue",
    "sagemaker-runtime": "ValidationError",
    "ecr": "InvalidParameterException",
    "logs": "InvalidParameterException",
}


def in_words_of(service: str, error: AwsError, path: str) -> AwsError:
    """Return *error* as *service* would say it; S3 also names the *path*."""
    if service == "s3":
        code = _S3.get(error.code, error.code)
        message = "Access Denied" if error.code == "MissingAuthenticationTokenException" else error.message
        status = {"EntityTooLarge": 400, "AuthorizationHeaderMalformed": 400}.get(code, error.status)
        return AwsError(code, message, status=status, members={"Resource": path, **error.members})
    if service in _QUERY_SERVICES and error.code in _QUERY:
        return AwsError(_QUERY[error.code], error.message, status=error.status, members=error.members)
    return error


def validation_fault(service: str, faults: Sequence[Fault], message: str) -> AwsError:
    """Return the error that *faults* in the input of an operation of *service* make."""
    code = _VALIDATION.get(service, "ValidationException")
    if service == "cloudwatch" and all(fault.missing for fault in faults):
        code = "MissingParameter"
    return AwsError(code, message)


def serialization_error(service: str, error: Exception) -> AwsError:
    """Return the answer to input that has not the types of the model or is not the protocol's format."""
    message = "The request is nested too deeply." if isinstance(error, RecursionError) else str(error)
    if service == "s3":
        located = getattr(error, "located", False)
        return AwsError("InvalidArgument" if located else "MalformedXML", message)
    return AwsError("SerializationException", message)
