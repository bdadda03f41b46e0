"""Conditional and ranged reading, decided in pure code.

Source: RFC 9110, sections 13 and 14; "GetObject", Amazon S3 API Reference, for how conditions combine.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

from sagesmith.errors import AwsError
from sagesmith.store.object_errors import precondition_failed
from sagesmith.store.objects import ObjectInfo

__all__ = ["ByteRange", "check_conditions", "copy_range", "parse_range", "range_not_satisfiable"]

ByteRange = tuple[int, int]
"""Offset and size in bytes."""

_RANGE: Final = re.compile(r"bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.IGNORECASE)


def check_conditions(info: ObjectInfo, request: Mapping[str, Any], *, prefix: str = "") -> None:
    """Compare an object with the conditions of a request.

    Args:
        info: the object.
        request: has `IfMatch` and its like, each behind *prefix* (`CopySource`).
        prefix: also makes "not modified" a failure, as it is for copies.

    Raises:
        AwsError: `PreconditionFailed` (412) or `NotModified` (304).
    """
    if_match = request.get(f"{prefix}IfMatch")
    if_none_match = request.get(f"{prefix}IfNoneMatch")
    if if_match is not None:
        if not _matches(if_match, info.etag):
            raise precondition_failed("If-Match")
    else:
        before = request.get(f"{prefix}IfUnmodifiedSince")
        if before is not None and math.floor(info.modified) > before:
            raise precondition_failed("If-Unmodified-Since")
    if if_none_match is not None:
        unchanged, condition = _matches(if_none_match, info.etag), "If-None-Match"
    else:
        since = request.get(f"{prefix}IfModifiedSince")
        unchanged, condition = since is not None and math.floor(info.modified) <= since, "If-Modified-Since"
    if unchanged:
        raise (
            precondition_failed(condition) if prefix else AwsError("NotModified", "Not Modified", status=304)
        )


def _matches(header: str, etag: str) -> bool:
    tags = {part.strip().removeprefix("W/").strip('"') for part in header.split(",")}
    return "*" in tags or etag in tags


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """Return the part of *size* bytes that a Range header asks for, None for all of them.

    A header that S3 does not understand (another unit, several ranges) is ignored, as the RFC allows.

    Raises:
        AwsError: `InvalidRange` (416), it begins behind the end.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if len(first) > 19 or len(last) > 19:
        raise range_not_satisfiable(header, size)
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= size or start == stop:
        raise range_not_satisfiable(header, size)
    return start, stop - start


def range_not_satisfiable(header: str | None, size: int) -> AwsError:
    """Return 416 `InvalidRange`."""
    return AwsError(
        "InvalidRange",
        "The requested range is not satisfiable",
        status=416,
        members={"RangeRequested": header or "", "ActualObjectSize": size},
    )


def copy_range(header: str | None, size: int) -> ByteRange:
    """Return the range of UploadPartCopy, which must be exact.

    Raises:
        AwsError: `InvalidArgument` or `InvalidRange`.
    """
    if not header:
        return 0, size
    found = re.fullmatch(r"bytes=(\d{1,19})-(\d{1,19})", header)
    if found is None or int(found[1]) > int(found[2]):
        raise AwsError(
            "InvalidArgument",
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the "
            "zero-based offsets of the first and last bytes to copy",
            members={"ArgumentName": "x-amz-copy-source-range", "ArgumentValue": header},
        )
    if int(found[2]) >= size:
        raise AwsError(
            "InvalidArgument",
            f"Range specified is not valid for source object of size: {size}",
            members={"ArgumentName": "x-amz-copy-source-range", "ArgumentValue": header},
        )
    return int(found[1]), int(found[2]) - int(found[1]) + 1
