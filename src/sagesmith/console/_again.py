"""What the forms that run a job again have in common."""

from __future__ import annotations

import time
from typing import Final

from sagesmith.console._pages import Context
from sagesmith.sdk import SdkError

__all__ = ["new_name", "whole"]

_LONGEST: Final = 63


def new_name(old: str) -> str:
    """Return a name for a job like *old*: the same beginning, another second."""
    second = str(int(time.time()))
    return f"{old[: _LONGEST - len(second) - 1].rstrip('-')}-{second}"


def whole(context: Context, field: str, what: str) -> int:
    """Return a field of the form as a number.

    Raises:
        SdkError: it is none.
    """
    text = context.request.one(field)
    try:
        return int(text)
    except ValueError as error:
        raise SdkError(f"{what} is a whole number, not {text!r}.") from error
