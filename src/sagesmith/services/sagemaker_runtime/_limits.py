"""What an invocation may ask for: the body's limit, and features that are refused instead of ignored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from sagesmith.errors import AwsError
from sagesmith.hosting.gateway import DIRECT, MODELS

__all__ = [
    "ACTION",
    "COMPONENT",
    "MAX_BODY",
    "REFUSED",
    "REFUSED_HEADERS",
    "SPECIAL_HEADERS",
    "body_too_large",
    "is_asynchronous",
    "refuse",
    "special",
]

ACTION: Final = "sagemaker:InvokeEndpoint"
MAX_BODY: Final = 6 * 1024 * 1024

REFUSED: Final[Mapping[str, str]] = {
    "EnableExplanations": "x-amzn-sagemaker-enable-explanations",
    "SessionId": "x-amzn-sagemaker-session-id",
    "PrefixAwareId": "x-amzn-sagemaker-prefix-aware-id",
}
"""Members of InvokeEndpoint that change what happens and have no behaviour here yet, with their headers."""

SPECIAL: Final[Mapping[str, tuple[str, str, str]]] = {
    "TargetContainerHostname": ("x-amzn-sagemaker-target-container-hostname", "target-container", DIRECT),
    "TargetModel": ("x-amzn-sagemaker-target-model", "target-model", MODELS),
}
"""Members that only some models take: the header, the field in the frame's head, the feature that it needs."""

COMPONENT: Final = b"x-amzn-sagemaker-inference-component"
"""The header that names the inference component which is to answer."""

SPECIAL_HEADERS: Final = frozenset(
    (
        COMPONENT,
        *(header.encode() for header in (*REFUSED.values(), *(special[0] for special in SPECIAL.values()))),
    )
)
REFUSED_HEADERS: Final = {header.encode(): member for member, header in REFUSED.items()}


def special(get: Callable[[str, str], str | bytes | None]) -> tuple[bytes, frozenset[str]]:
    """Return the fields for a frame's head and the features that they need, from what *get* says.

    *get* is called with a member and its header, and returns the value or None.

    Raises:
        AwsError: `ValidationError`, a value is no name.
    """
    fields: list[bytes] = []
    needs: set[str] = set()
    for member, (header, field, need) in SPECIAL.items():
        value = get(member, header)
        if value is not None:
            raw = value.encode() if isinstance(value, str) else value
            if not raw or len(raw) > 1024 or b"\0" in raw or not raw.isascii():
                raise AwsError("ValidationError", f"The value of {member} is not a valid name.")
            fields.append(field.encode() + b"=" + raw)
            needs.add(need)
    return b"\0".join(fields), frozenset(needs)


def refuse(member: str) -> AwsError:
    """Return the answer to an invocation that uses *member*."""
    return AwsError(
        "ValidationError",
        f"{member} is not supported by this endpoint: Sagesmith does not implement it for InvokeEndpoint yet. "
        f"Leave {member} out.",
    )


def is_asynchronous(endpoint: str) -> AwsError:
    """Return the answer to a real-time invocation of an asynchronous *endpoint*."""
    return AwsError(
        "ValidationError",
        f"Endpoint {endpoint} is configured for asynchronous inference. Use InvokeEndpointAsync.",
    )


def body_too_large(size: int) -> AwsError:
    """Return the answer to a body of *size* bytes, which is more than a real-time invocation may carry."""
    return AwsError(
        "ValidationError",
        "1 validation error detected: Value at 'body' failed to satisfy constraint: Member must have length "
        f"less than or equal to {MAX_BODY}. It has {size}; send large inputs through a batch transform job.",
        status=413,
    )
