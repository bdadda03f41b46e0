"""Listing keys in byte order, with common prefixes found by jumping over them.

A common prefix stands for all keys that begin with it. Once it is seen, the rest of its keys are not read:
the next query begins behind the last text that could begin so. How many rows a query asks for follows what
the last one gave: many where keys lie flat, few where each row opens a new folder.
"""

# ruff: noqa: S608 - the statements are put together from constants; values are always parameters

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sagesmith.store.database import Connection, Row

__all__ = ["Page", "list_page", "successor"]

_FEWEST: Final = 8
_MOST: Final = 1001
_COLUMNS: Final = "key, size, etag, modified, storage_class, checksum_algorithm, checksum_kind"


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a listing: rows and common prefixes, each in order, and where to go on ("" at the end)."""

    rows: list[Row]
    prefixes: list[str]
    next_after: str


def successor(prefix: str) -> str | None:
    """Return the first text, in byte order, behind all that begin with *prefix*; None if there is none."""
    stripped = prefix.rstrip("\U0010ffff")
    if not stripped:
        return None
    code = ord(stripped[-1]) + 1
    return stripped[:-1] + chr(0xE000 if code == 0xD800 else code)  # surrogates are no characters


def list_page(
    connection: Connection, bucket: str, *, prefix: str, delimiter: str, after: str, limit: int
) -> Page:
    """Return up to *limit* keys and common prefixes behind *after*, which may be either."""
    rows: list[Row] = []
    prefixes: list[str] = []
    last = ""
    end = successor(prefix) if prefix else None
    low, inclusive = _start(prefix, delimiter, after)
    batch = min(limit + 1, 64 if delimiter else _MOST)
    while low is not None:
        found = _query(connection, bucket, low, inclusive, end, batch)
        low, inclusive = (found[-1][0], False) if len(found) == batch else (None, False)
        entries = 0
        inside: str | None = None
        for row in found:
            key: str = row[0]
            if inside is not None and key.startswith(inside):
                continue
            inside = None
            if len(rows) + len(prefixes) == limit:
                return Page(rows, prefixes, last)
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            if cut < 0:
                rows.append(row)
                last = key
            else:
                last = inside = key[: cut + len(delimiter)]
                prefixes.append(inside)
            entries += 1
        if low is not None and inside is not None:
            low, inclusive = successor(inside), True
        batch = min(batch * 2, _MOST) if entries * 2 > len(found) else max(batch // 2, _FEWEST)
    return Page(rows, prefixes, "")


def _start(prefix: str, delimiter: str, after: str) -> tuple[str | None, bool]:
    if not after or after < prefix:
        return prefix, True
    if delimiter and after.startswith(prefix):
        cut = after.find(delimiter, len(prefix))
        if cut >= 0 and cut + len(delimiter) == len(after):
            return successor(after), True
    return after, False


def _query(
    connection: Connection, bucket: str, low: str, inclusive: bool, end: str | None, limit: int
) -> list[Row]:
    sql = (
        f"select {_COLUMNS} from objects where bucket = :bucket and key {'>=' if inclusive else '>'} :low"
        f"{'' if end is None else ' and key < :end'} order by key limit :limit"
    )
    return connection.rows(sql, {"bucket": bucket, "low": low, "end": end, "limit": limit})
