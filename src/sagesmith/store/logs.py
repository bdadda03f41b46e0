"""Logs: groups of streams of events, as CloudWatch Logs keeps them.

Groups and streams are rows; events are stored in batches (`log_batches.py`). Everything is found by region and
name. Faults are AWS's: `ResourceNotFoundException`, `ResourceAlreadyExistsException`,
`InvalidParameterException`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from sagesmith.clock import Clock, system_clock
from sagesmith.store.database import Connection, Database, Duplicate
from sagesmith.store.log_batches import LogEvent, pack, split
from sagesmith.store.log_reader import FilteredEvent, FilterPage, LogPage, LogReader
from sagesmith.store.log_rows import (
    APPEND,
    GROUPS,
    SEEN,
    STREAMS,
    LogGroup,
    LogStream,
    already_exists,
    group_id_of,
    insert_group,
    insert_stream,
    last_of_token,
    opened,
    page_of,
    prefix_clause,
    stream_id_of,
)
from sagesmith.store.queries import Page, fingerprint

__all__ = ["FilterPage", "FilteredEvent", "LogEvent", "LogGroup", "LogPage", "LogStream", "Logs"]

_EVENT_OVERHEAD: Final = 26
"""Bytes that CloudWatch Logs counts for an event beyond its text."""


class Logs(LogReader):
    """All logs of a server. Thread-safe. Times of events are integers, milliseconds since 1970."""

    def __init__(self, database: Database, clock: Clock = system_clock) -> None:
        super().__init__(database)
        self._clock = clock

    # ---- groups and streams ----

    def create_group(self, group: str, *, region: str) -> None:
        """Make an empty group."""
        try:
            with self._database.write() as connection:
                insert_group(connection, region, group, self._clock())
        except Duplicate:
            raise already_exists("log group") from None

    def create_stream(self, group: str, stream: str, *, region: str) -> None:
        """Make an empty stream in a group that exists."""
        try:
            with self._database.write() as connection:
                insert_stream(connection, group_id_of(connection, region, group), stream, self._clock())
        except Duplicate:
            raise already_exists("log stream") from None

    def group(self, group: str, *, region: str) -> LogGroup:
        """Return the group of this name."""
        with self._database.read() as connection:
            group_id = group_id_of(connection, region, group)
            rows = connection.rows(f"{GROUPS} where g.id = :id", {"id": group_id})
        return LogGroup(*rows[0])

    def groups(
        self, *, region: str, prefix: str = "", contains: str = "", limit: int = 50, token: str | None = None
    ) -> Page[LogGroup]:
        """Return groups sorted by name: those that begin with *prefix* and have *contains* in them (any case)."""
        query = fingerprint("groups", region, prefix, contains)
        after = last_of_token(token, query, 1)
        parameters: dict[str, Any] = {"region": region, "contains": contains.lower(), "limit": limit + 1}
        part = "instr(lower(g.name), :contains)"
        if self._database.dialect == "postgresql":
            part = "position(:contains in lower(g.name))"
        clauses = [f"g.region = :region and {part} > 0" if contains else "g.region = :region"]
        prefix_clause("g.name", prefix, clauses, parameters)
        if after:
            clauses.append("g.name > :after")
            parameters["after"] = after[0]
        sql = f"{GROUPS} where {' and '.join(clauses)} order by g.name limit :limit"
        with self._database.read() as connection:
            found = [LogGroup(*row) for row in connection.rows(sql, parameters)]
        return page_of(found, limit, query, lambda group: [group.name])

    def streams(
        self,
        group: str,
        *,
        region: str,
        prefix: str = "",
        order_by: Literal["LogStreamName", "LastEventTime"] = "LogStreamName",
        descending: bool = False,
        limit: int = 50,
        token: str | None = None,
    ) -> Page[LogStream]:
        """Return the streams of *group* whose names begin with *prefix*."""
        query = fingerprint("streams", region, group, prefix, order_by, descending)
        key = ("name",) if order_by == "LogStreamName" else ("last_ms", "name")
        after = last_of_token(token, query, len(key))
        clauses = ["group_id = :group_id"]
        parameters: dict[str, Any] = {"limit": limit + 1}
        prefix_clause("name", prefix, clauses, parameters)
        if after:
            clauses.append(
                f"({', '.join(key)}) {'<' if descending else '>'} ({', '.join(':k_' + k for k in key)})"
            )
            parameters.update({f"k_{name}": value for name, value in zip(key, after, strict=True)})
        order = ", ".join(f"{name} desc" if descending else name for name in key)
        sql = f"{STREAMS} where {' and '.join(clauses)} order by {order} limit :limit"
        with self._database.read() as connection:
            parameters["group_id"] = group_id_of(connection, region, group)
            found = [LogStream(*row) for row in connection.rows(sql, parameters)]
        return page_of(found, limit, query, lambda stream: [getattr(stream, name) for name in key])

    def delete_group(self, group: str, *, region: str) -> None:
        """Remove a group with everything in it."""
        with self._database.write() as connection:
            parameters = {"id": group_id_of(connection, region, group)}
            connection.execute("delete from log_batches where group_id = :id", parameters)
            connection.execute("delete from log_streams where group_id = :id", parameters)
            connection.execute("delete from log_groups where id = :id", parameters)

    def delete_stream(self, group: str, stream: str, *, region: str) -> None:
        """Remove a stream with its events."""
        with self._database.write() as connection:
            parameters = {"id": stream_id_of(connection, group_id_of(connection, region, group), stream)}
            connection.execute("delete from log_batches where stream_id = :id", parameters)
            connection.execute("delete from log_streams where id = :id", parameters)

    def set_retention(self, group: str, days: int, *, region: str) -> None:
        """Keep the events of *group* for *days* (0: for ever); `expire` removes the older ones."""
        with self._database.write() as connection:
            connection.execute(
                "update log_groups set retention_days = :days where id = :id",
                {"days": days, "id": group_id_of(connection, region, group)},
            )

    def expire(self) -> int:
        """Remove the batches that are older than their group keeps them; return how many."""
        now_ms = int(self._clock() * 1000)
        removed = 0
        with self._database.read() as connection:
            groups = connection.rows("select id, retention_days from log_groups where retention_days > 0")
        for group_id, days in groups:
            with self._database.write() as connection:
                removed += connection.execute(
                    "delete from log_batches where group_id = :id and first_ms < :oldest and last_ms < :oldest",
                    {"id": group_id, "oldest": now_ms - days * 86_400_000},
                )
        return removed

    # ---- events ----

    def put(
        self, group: str, stream: str, events: Sequence[tuple[int, str]], *, region: str, create: bool = True
    ) -> None:
        """Append *events*, (milliseconds, text) each, in any order, as one transaction.

        Args:
            create: make the group and the stream if they are not there; otherwise that is a fault.
        """
        if not events:
            return
        now = self._clock()
        rows = [
            {"first": part[0][0], "last": part[-1][0], "now": int(now * 1000), "data": pack(part)}
            for part in split(events)
        ]
        size = sum(len(text.encode("utf-8", "replace")) + _EVENT_OVERHEAD for _, text in events)
        seen = {"first": rows[0]["first"], "last": rows[-1]["last"], "now": now, "bytes": size}

        def work(connection: Connection) -> None:
            if create:
                group_id, stream_id = opened(connection, region, group, stream, now)
            else:
                group_id = group_id_of(connection, region, group)
                stream_id = stream_id_of(connection, group_id, stream)
            connection.execute(SEEN, {**seen, "id": stream_id})  # locks the stream: its batches come in order
            connection.execute_many(APPEND, [{**row, "group": group_id, "stream": stream_id} for row in rows])

        try:
            self._database.transact(work)
        except Duplicate:  # another made the same stream at the same time
            self._database.transact(work)
