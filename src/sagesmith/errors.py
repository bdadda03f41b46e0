"""The one error type that reaches a client, and the few constructors everybody needs.

An :class:`AwsError` carries what AWS would have answered: code, sentence, HTTP status and the error
shape's further members. Every layer may raise it; `aws/` puts it into the protocol's words. Anything else
that escapes a handler is a fault of ours: it is logged with its traceback and answered without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["AwsError", "access_denied", "not_implemented", "resource_in_use", "validation_error"]


class AwsError(Exception):
    """An error in AWS's words.

    Args:
        code: the error code as AWS spells it, such as ``ValidationException``.
        message: one or two sentences: what is wrong, with the value, and what to do.
        status: the HTTP status.
        members: further members of the error shape, such as ``{"OriginalStatusCode": 500}``.
    """

    def __init__(
        self, code: str, message: str, *, status: int = 400, members: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.members: Mapping[str, Any] = members or {}


def validation_error(message: str) -> AwsError:
    """Return SageMaker's `ValidationException`: bad input, or a name that does not exist."""
    return AwsError("ValidationException", message)


def resource_in_use(message: str) -> AwsError:
    """Return SageMaker's `ResourceInUse`: the name is taken, or the resource is busy."""
    return AwsError("ResourceInUse", message)


def access_denied(message: str) -> AwsError:
    """Return `AccessDeniedException` (403): the caller's policies do not allow the call."""
    return AwsError("AccessDeniedException", message, status=403)


def not_implemented(service: str, operation: str) -> AwsError:
    """Return the answer to an operation that AWS knows and Sagesmith does not do yet."""
    return AwsError(
        "NotImplementedException",
        f"Sagesmith does not implement {service}:{operation} yet. `sagesmith coverage` lists what it does.",
    )
