"""Listing resources: what to filter by, in which order, and the page after a token.

Pages are found by key, not by offset: a token holds the sort key of the last row, and the next page is what
comes after it in an index. So every page costs the same, and rows that come and go in between neither repeat
nor hide others.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeVar

import orjson

from sagesmith.errors import AwsError, validation_error

__all__ = ["ListQuery", "Page", "decode_token", "encode_token", "fingerprint"]

T = TypeVar("T")

_SORT_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "name": ("name",),
    "created": ("created", "name"),
    "modified": ("modified", "name"),
    "status": ("status", "created", "name"),
}


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of what was asked for, and the token of the rest (None: this was all)."""

    items: list[T]
    next_token: str | None


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Which resources, in which order, how many.

    Args:
        name_contains: part of the name, in upper or lower case.
        created_after, created_before, modified_after, modified_before: seconds since 1970, both included.
        status: one status, or several of which any will do; empty for all.
        parent: the exact `Resource.parent`; None for all.
        where: top-level members of the document and the text, number or flag each must equal (None: absent).
            Not backed by an index.
        contains: top-level members of the document and what each must have in it: a part of its text or, of a list,
            an element's JSON. Not backed by an index.
        arn_in: only these ARNs, upper and lower case alike; None for all.
        limit: at most so many on the page.
        token: `Page.next_token` of the page before, of a query with the same filters and order.
    """

    name_contains: str = ""
    created_after: float | None = None
    created_before: float | None = None
    modified_after: float | None = None
    modified_before: float | None = None
    status: str | Sequence[str] = ""
    parent: str | None = None
    where: Mapping[str, Any] = field(default_factory=dict)
    contains: Mapping[str, str] = field(default_factory=dict)
    arn_in: Sequence[str] | None = None
    sort_by: Literal["name", "created", "modified", "status"] = "created"
    descending: bool = False
    limit: int = 100
    token: str | None = None

    def conditions(self, kind: str, region: str | None, dialect: str) -> tuple[str, dict[str, Any]]:
        """Return the SQL after ``from resources``, for one row more than `limit`, and its parameters.

        Raises:
            AwsError: `ValidationException`, the token is malformed or of another query.
        """
        clauses, parameters = self._filters(kind, region, dialect)
        key = self.key(region)
        if self.token:
            last = decode_token(self.token, self._fingerprint(kind, region), len(key))
            names = [f"last_{column}" for column in key]
            comparison = "<" if self.descending else ">"
            clauses.append(f"({', '.join(key)}) {comparison} ({', '.join(':' + name for name in names)})")
            parameters.update(zip(names, last, strict=True))
        direction = " desc" if self.descending else ""
        order = ", ".join(column + direction for column in key)
        parameters["limit"] = self.limit + 1
        return f"where {' and '.join(clauses)} order by {order} limit :limit", parameters

    def key(self, region: str | None) -> tuple[str, ...]:
        """Return the columns that put the resources of a kind in *region* (None: in all) into a total order."""
        key = _SORT_KEYS[self.sort_by]
        return key if region is not None else (*key, "region")

    def page(
        self, kind: str, region: str | None, rows: list[T], key_of: Callable[[T], Sequence[Any]]
    ) -> Page[T]:
        """Return the page that *rows* (one more than `limit` if there is a next page) make.

        *key_of* returns the values of `key` of a row.
        """
        if len(rows) <= self.limit:
            return Page(rows, None)
        items = rows[: self.limit]
        return Page(items, encode_token(key_of(items[-1]), self._fingerprint(kind, region)))

    def _filters(self, kind: str, region: str | None, dialect: str) -> tuple[list[str], dict[str, Any]]:
        clauses = ["kind = :kind"]
        parameters: dict[str, Any] = {"kind": kind}
        if region is not None:
            clauses.append("region = :region")
            parameters["region"] = region
        for name, column, comparison in (
            ("created_after", "created", ">="),
            ("created_before", "created", "<="),
            ("modified_after", "modified", ">="),
            ("modified_before", "modified", "<="),
        ):
            value = getattr(self, name)
            if value is not None:
                clauses.append(f"{column} {comparison} :{name}")
                parameters[name] = float(value)
        if self.name_contains:
            position = (
                "instr(lower(name), :part)" if dialect == "sqlite" else "position(:part in lower(name))"
            )
            clauses.append(f"{position} > 0")
            parameters["part"] = self.name_contains.lower()
        if isinstance(self.status, str):
            if self.status:
                clauses.append("status = :status")
                parameters["status"] = self.status
        elif self.status:
            clauses.append(_any_of("status", self.status, parameters))
        if self.parent is not None:
            clauses.append("parent = :parent")
            parameters["parent"] = self.parent
        if self.arn_in is not None:
            clauses.append(_any_of("arn_key", [arn.lower() for arn in self.arn_in], parameters))
        for number, (member, value) in enumerate(self.where.items()):
            clauses.append(_member_equals(f"where_{number}", member, value, dialect, parameters))
        for number, (member, part) in enumerate(self.contains.items()):
            name = f"contains_{number}"
            found = _member(name, member, dialect, parameters)
            parameters[name] = part
            clauses.append(
                f"instr({found}, :{name}) > 0" if dialect == "sqlite" else f"position(:{name} in {found}) > 0"
            )
        return clauses, parameters

    def _fingerprint(self, kind: str, region: str | None) -> str:
        return fingerprint(
            kind, region, self.name_contains, self.created_after, self.created_before, self.modified_after,
            self.modified_before, self.status, self.parent, dict(self.where), self.arn_in, self.sort_by,
            self.descending, *([dict(self.contains)] if self.contains else ()),
        )  # fmt: skip


def _any_of(column: str, values: Sequence[str], parameters: dict[str, Any]) -> str:
    if not values:
        return "1 = 0"
    names = [f"{column}_{number}" for number in range(len(values))]
    parameters.update(zip(names, values, strict=True))
    return f"{column} in ({', '.join(':' + name for name in names)})"


def _member(name: str, member: str, dialect: str, parameters: dict[str, Any]) -> str:
    """Return the SQL that stands for a top-level *member* of the document, whose key becomes a parameter."""
    if dialect == "sqlite":
        parameters[f"{name}_key"] = f'$."{member}"'
        return f"(document ->> :{name}_key)"
    parameters[f"{name}_key"] = member
    return f"(cast(document as json) ->> cast(:{name}_key as text))"


def _member_equals(name: str, member: str, value: Any, dialect: str, parameters: dict[str, Any]) -> str:
    sqlite = dialect == "sqlite"
    found = _member(name, member, dialect, parameters)
    if value is None:
        return f"{found} is null"
    if sqlite:
        parameters[name] = int(value) if isinstance(value, bool) else value
    else:
        parameters[name] = value if isinstance(value, str) else orjson.dumps(value).decode()
    return f"{found} = :{name}"


def fingerprint(*parts: Any) -> str:
    """Return a few characters that tell one query from another."""
    return hashlib.blake2s(orjson.dumps(parts, default=list), digest_size=6).hexdigest()


def encode_token(last: Sequence[Any], query: str) -> str:
    """Return an opaque token: the sort key of the last row, and the fingerprint of its query."""
    return base64.urlsafe_b64encode(orjson.dumps([query, *last])).decode("ascii")


def decode_token(token: str, query: str, length: int) -> list[Any]:
    """Return the sort key of *length* values that `encode_token` put into *token*.

    Raises:
        AwsError: `ValidationException`, the token is malformed or belongs to another query.
    """
    try:
        parts = orjson.loads(base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error) as error:
        raise _invalid_token() from error
    if (
        not isinstance(parts, list)
        or len(parts) != length + 1
        or parts[0] != query
        or not all(isinstance(part, (str, int, float)) for part in parts)
    ):
        raise _invalid_token()
    return parts[1:]


def _invalid_token() -> AwsError:
    return validation_error(
        "Invalid NextToken: it must be the one that the previous page returned, "
        "with the same filters and sort order."
    )
