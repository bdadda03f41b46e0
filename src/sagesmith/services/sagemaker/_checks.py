"""Checks of requests that the service model cannot express; several operations share them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sagesmith.errors import AwsError, validation_error

__all__ = ["check_s3_uri", "check_unique", "not_available", "refuse", "split_s3_uri"]

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def split_s3_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of ``s3://bucket/key``; the key may be empty.

    Raises:
        ValueError: it is no such URI.
    """
    scheme, separator, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme.lower() != "s3" or not separator or not _BUCKET.fullmatch(bucket):
        raise ValueError(uri)
    return bucket, key


def check_s3_uri(uri: str, member: str) -> None:
    """Refuse what is not an S3 URI.

    Raises:
        AwsError: `ValidationException`, naming *member*.
    """
    try:
        split_s3_uri(uri)
    except ValueError:
        raise validation_error(
            f"The S3 URI '{uri}' at '{member}' is not valid. It must look like s3://bucket/prefix."
        ) from None


def check_unique(names: Iterable[str], what: str, member: str) -> None:
    """Refuse a name that comes twice.

    Raises:
        AwsError: `ValidationException`.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise validation_error(f"Duplicate {what} '{name}' at '{member}'. Each {what} must be unique.")
        seen.add(name)


def refuse(document: Mapping[str, Any], members: Iterable[str], where: str = "") -> None:
    """Refuse members whose meaning Sagesmith does not implement; empty ones and False are no request for it.

    Raises:
        AwsError: `ValidationException`, naming the member.
    """
    for member in members:
        if document.get(member):
            raise not_available(f"{where}.{member}" if where else member)


def not_available(what: str) -> AwsError:
    """Return the error that says Sagesmith does not do *what* yet."""
    return validation_error(
        f"{what} is not supported by Sagesmith yet. Leave it out to go on without it; "
        "`sagesmith coverage` lists what is there."
    )
