"""What an invocation may ask for: the body's limit, and features that are refused instead of ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sagesmith.errors import AwsError

__all__ = ["ACTION", "MAX_BODY", "REFUSED", "REFUSED_HEADERS", "body_too_large", "refuse"]

ACTION: Final = "sagemaker:InvokeEndpoint"
MAX_BODY: Final = 6 * 1024 * 1024

REFUSED: Final[Mapping[str, str]] = {
    "TargetModel": "x-amzn-sagemaker-target-model",
    "TargetContainerHostname": "x-amzn-sagemaker-target-container-hostname",
    "EnableExplanations": "x-amzn-sagemaker-enable-explanations",
    "InferenceComponentName": "x-amzn-sagemaker-inference-component",
    "SessionId": "x-amzn-sagemaker-session-id",
    "PrefixAwareId": "x-amzn-sagemaker-prefix-aware-id",
}
"""Members of InvokeEndpoint that change what happens and have no behaviour here yet, with their headers."""

REFUSED_HEADERS: Final = {header.encode(): member for member, header in REFUSED.items()}


def refuse(member: str) -> AwsError:
    """Return the answer to an invocation that uses *member*."""
    return AwsError(
        "ValidationError",
        f"{member} is not supported by this endpoint: Sagesmith does not implement it for InvokeEndpoint yet. "
        f"Leave {member} out.",
    )


def body_too_large(size: int) -> AwsError:
    """Return the answer to a body of *size* bytes, which is more than a real-time invocation may carry."""
    return AwsError(
        "ValidationError",
        "1 validation error detected: Value at 'body' failed to satisfy constraint: Member must have length "
        f"less than or equal to {MAX_BODY}. It has {size}; send large inputs through a batch transform job.",
        status=413,
    )
