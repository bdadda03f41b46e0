"""Generates values for any shape of a model: valid ones, and in what form botocore gives and takes them."""

from __future__ import annotations

import datetime
import random
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from sagesmith.aws import Shape
from sagesmith.aws._model import Member

WORDS = ["plain", "with space", "<a>&\"b'</a>", "é€😀", "line\nbreak", "a+b%20c/d?e=f&g", "", "0", "true"]
# S3 takes any text for Expires and gives it back; botocore alone makes a timestamp of it.
EXPIRES = "Fri, 24 May 2013 00:00:00 GMT"
HEADER_WORDS = ["plain", "with space", "a+b%20c/d?e=f&g", "0"]


class Values:
    """Makes values without regard to length, range and pattern: what travels, not what is allowed."""

    def __init__(self, seed: int, *, millis: bool) -> None:
        self.rng = random.Random(seed)
        self._millis = millis

    def structure(self, shape: Shape, depth: int = 0) -> dict[str, Any]:
        members = {name: member for name, member in shape.members.items() if not member.shape.eventstream}
        if shape.union:
            name = self.rng.choice(list(members))
            return {name: self.member(members[name], depth)}
        return {
            name: self.member(member, depth)
            for name, member in members.items()
            if depth < 3 or name in shape.required or member.shape.type not in ("structure", "list", "map")
        }

    def member(self, member: Member, depth: int) -> Any:
        return self.value(member.shape, depth, located=member.location)

    def value(self, shape: Shape, depth: int, located: str | None = None) -> Any:
        rng = self.rng
        kind = shape.type
        if kind == "structure":
            return self.structure(shape, depth + 1) if depth < 6 else {}
        if kind == "list":
            return [self.value(shape.member.shape, depth + 1, located) for _ in range(2)] if depth < 6 else []
        if kind == "map":
            keys = ["k1", "k-2"]
            return (
                {key: self.value(shape.value.shape, depth + 1, located) for key in keys} if depth < 6 else {}
            )
        if shape.name == "Expires":
            return EXPIRES
        if kind == "string":
            if shape.enum:
                return rng.choice(shape.enum)
            return rng.choice(HEADER_WORDS if located else WORDS) or ("x" if located else "")
        if kind in ("integer", "long"):
            return rng.choice([0, 1, -7, 2**31 - 1 if kind == "integer" else 2**53])
        if kind in ("float", "double"):
            return rng.choice([0.0, 1.5, -2.25, 1e300 if kind == "double" else 0.5])
        if kind == "boolean":
            return rng.random() < 0.5
        if kind == "blob":
            return rng.randbytes(rng.choice([0, 1, 100]))
        if kind == "timestamp":
            seconds = float(rng.randrange(2_000_000_000))
            return seconds + (rng.randrange(1000) / 1000 if self._millis and not located else 0.0)
        raise AssertionError(kind)


def for_botocore(shape: Shape, value: Any) -> Any:
    """Return *value* as botocore has it: timestamps as datetimes."""
    if shape.type == "structure":
        return {name: for_botocore(shape.members[name].shape, item) for name, item in value.items()}
    if shape.type == "list":
        return [for_botocore(shape.member.shape, item) for item in value]
    if shape.type == "map":
        return {key: for_botocore(shape.value.shape, item) for key, item in value.items()}
    if shape.name == "Expires":
        return parsedate_to_datetime(value)
    if shape.type == "timestamp":
        return datetime.datetime.fromtimestamp(round(value * 1000) / 1000, datetime.UTC)
    return value


def plain(value: Any) -> Any:
    """Return *value* with streams read and times rounded to milliseconds, to be compared."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, datetime.datetime):
        return round(value.timestamp() * 1000)
    if hasattr(value, "read"):
        return value.read()
    return value
