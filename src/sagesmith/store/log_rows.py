"""Log groups and streams as rows: finding and making them, and the faults in AWS's words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sagesmith.errors import AwsError
from sagesmith.store.database import Connection
from sagesmith.store.queries import Page, decode_token, encode_token

__all__ = [
    "APPEND",
    "GROUPS",
    "SEEN",
    "STREAMS",
    "LogGroup",
    "LogStream",
    "already_exists",
    "group_id_of",
    "insert_group",
    "insert_stream",
    "invalid_token",
    "last_of_token",
    "opened",
    "page_of",
    "prefix_clause",
    "stream_id_of",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LogGroup:
    """A group. `created` is in seconds since 1970; `retention_days` 0 keeps events for ever."""

    id: int
    region: str
    name: str
    created: float
    retention_days: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LogStream:
    """A stream. Times of events are in milliseconds since 1970, 0 if it has none yet."""

    id: int
    name: str
    created: float
    first_ms: int
    last_ms: int
    ingested: float
    bytes: int


GROUPS: Final = (
    "select g.id, g.region, g.name, g.created, g.retention_days, "
    "cast(coalesce((select sum(s.bytes) from log_streams s where s.group_id = g.id), 0) as bigint) from log_groups g"
)
STREAMS: Final = "select id, name, created, first_ms, last_ms, ingested, bytes from log_streams"
SEEN: Final = (
    "update log_streams set first_ms = case when ingested = 0 or first_ms > :first then :first else first_ms end, "
    "last_ms = case when last_ms < :last then :last else last_ms end, "
    "ingested = :now, bytes = bytes + :bytes where id = :id"
)
APPEND: Final = (
    "insert into log_batches (group_id, stream_id, first_ms, last_ms, ingested_ms, data) "
    "values (:group, :stream, :first, :last, :now, :data)"
)


def insert_group(connection: Connection, region: str, group: str, now: float) -> int:
    """Make a group and return its id; `Duplicate` if its name is taken."""
    row = connection.row(
        "insert into log_groups (region, name, created, retention_days) values (:region, :name, :now, 0) "
        "returning id",
        {"region": region, "name": group, "now": now},
    )
    return int(row[0]) if row else 0


def insert_stream(connection: Connection, group_id: int, stream: str, now: float) -> int:
    """Make a stream and return its id; `Duplicate` if its name is taken."""
    row = connection.row(
        "insert into log_streams (group_id, name, created, first_ms, last_ms, ingested, bytes) "
        "values (:group, :name, :now, 0, 0, 0, 0) returning id",
        {"group": group_id, "name": stream, "now": now},
    )
    return int(row[0]) if row else 0


def _find_group(connection: Connection, region: str, group: str) -> int | None:
    sql = "select id from log_groups where region = :region and name = :name"
    row = connection.row(sql, {"region": region, "name": group})
    return None if row is None else int(row[0])


def _find_stream(connection: Connection, group_id: int, stream: str) -> int | None:
    sql = "select id from log_streams where group_id = :group and name = :name"
    row = connection.row(sql, {"group": group_id, "name": stream})
    return None if row is None else int(row[0])


def group_id_of(connection: Connection, region: str, group: str) -> int:
    """Return the id of a group; `ResourceNotFoundException` if there is none."""
    found = _find_group(connection, region, group)
    if found is None:
        raise _not_found("log group")
    return found


def stream_id_of(connection: Connection, group_id: int, stream: str) -> int:
    """Return the id of a stream; `ResourceNotFoundException` if there is none."""
    found = _find_stream(connection, group_id, stream)
    if found is None:
        raise _not_found("log stream")
    return found


def opened(connection: Connection, region: str, group: str, stream: str, now: float) -> tuple[int, int]:
    """Return the ids of a group and a stream, made now if they were not there."""
    group_id = _find_group(connection, region, group)
    if group_id is None:
        group_id = insert_group(connection, region, group, now)
    stream_id = _find_stream(connection, group_id, stream)
    if stream_id is None:
        stream_id = insert_stream(connection, group_id, stream, now)
    return group_id, stream_id


def prefix_clause(column: str, prefix: str, clauses: list[str], parameters: dict[str, Any]) -> None:
    """Add to *clauses* and *parameters* what lets only names through that begin with *prefix*."""
    if prefix:
        clauses.append(f"{column} >= :prefix and {column} < :prefix_end")
        parameters.update(prefix=prefix, prefix_end=prefix + "\U0010ffff")


def page_of(items: list[T], limit: int, query: str, key: Callable[[T], Sequence[Any]]) -> Page[T]:
    """Return the page that *items* (one more than *limit* if there is a next page) make."""
    if len(items) <= limit:
        return Page(items, None)
    return Page(items[:limit], encode_token(key(items[limit - 1]), query))


def last_of_token(token: str | None, query: str, length: int) -> list[Any]:
    """Return the sort key in *token*, empty without one.

    Raises:
        AwsError: `InvalidParameterException`, the token is malformed or of another query.
    """
    if not token:
        return []
    try:
        return decode_token(token, query, length)
    except AwsError:
        raise invalid_token() from None


def invalid_token() -> AwsError:
    """Return the fault of a token that is none of ours."""
    return AwsError("InvalidParameterException", "The specified nextToken is invalid.")


def already_exists(what: str) -> AwsError:
    """Return the fault of a name that is taken."""
    return AwsError("ResourceAlreadyExistsException", f"The specified {what} already exists")


def _not_found(what: str) -> AwsError:
    return AwsError("ResourceNotFoundException", f"The specified {what} does not exist.")
