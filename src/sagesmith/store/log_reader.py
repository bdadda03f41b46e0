"""Reading logs: pages of one stream in both directions, and several streams merged through a filter."""

# ruff: noqa: S608 - the statements are put together from constants; values are always parameters

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sagesmith.store.database import Connection, Database
from sagesmith.store.log_batches import (
    SPAN_MS,
    Batch,
    LogEvent,
    Position,
    ascending,
    descending,
    position_text,
    read_position,
)
from sagesmith.store.log_patterns import compile_pattern
from sagesmith.store.log_rows import group_id_of, invalid_token, last_of_token, prefix_clause, stream_id_of
from sagesmith.store.queries import encode_token, fingerprint

__all__ = ["FilterPage", "FilteredEvent", "LogPage", "LogReader"]

_PAGE_EVENTS: Final = 10_000
_PAGE_BYTES: Final = 1_048_576
_SCAN_EVENTS: Final = 200_000
"""One call of `filter` looks at no more events than this, then returns a token to go on with."""

_CHUNK: Final = 32
_MERGED_STREAMS: Final = 100
"""So many streams are read each by its own index; of more, the whole group is read in the order of time."""

_EVENT_OVERHEAD: Final = 26
_END_OF_TIME: Final = 1 << 62
_BATCH: Final = "id, stream_id, first_ms, last_ms, ingested_ms, data"


@dataclass(frozen=True, slots=True)
class LogPage:
    """Events of one stream in order, and the tokens of what follows and what precedes them."""

    events: list[LogEvent]
    forward_token: str
    backward_token: str


@dataclass(frozen=True, slots=True)
class FilteredEvent:
    """An event that a filter found, with the name of its stream."""

    stream: str
    event: LogEvent

    @property
    def id(self) -> str:
        """56 digits, the same each time the event is found."""
        return position_text(self.event.position)


@dataclass(frozen=True, slots=True)
class FilterPage:
    """What a filter found; with a token there may be more, even if nothing was found so far."""

    events: list[FilteredEvent]
    next_token: str | None


class LogReader:
    """Reads the events that `Logs` stores. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(
        self,
        group: str,
        stream: str,
        *,
        region: str,
        start_ms: int | None = None,
        end_ms: int | None = None,
        limit: int = _PAGE_EVENTS,
        from_head: bool = False,
        token: str | None = None,
    ) -> LogPage:
        """Return events of one stream, at most *limit* and 1 MB.

        Args:
            start_ms, end_ms: the first is included, the second is not.
            from_head: begin with the earliest event instead of ending with the latest. A *token* decides itself.
            token: `forward_token` or `backward_token` of an earlier page. At the end the same token comes back.
        """
        with self._database.read() as connection:
            stream_id = stream_id_of(connection, group_id_of(connection, region, group), stream)
        lowest = Position(start_ms or 0, -1, 0)
        highest = Position(_END_OF_TIME if end_ms is None else end_ms, -1, 0)
        forward = from_head
        if token:
            forward, position = _read_token(token)
            lowest, highest = (
                (max(lowest, position), highest) if forward else (lowest, min(highest, position))
            )
        if forward:
            batches = self._batches_of_stream(stream_id, lowest.ms, highest.ms)
            events = _some(ascending(batches, lowest), limit, lambda event: event.position < highest)
        else:
            batches = self._batches_of_stream(stream_id, lowest.ms, highest.ms, backwards=True)
            events = _some(descending(batches, highest), limit, lambda event: event.position > lowest)[::-1]
        if events:
            first, last = events[0].position, events[-1].position
        elif token:
            first = last = position
        else:
            first = last = Position(start_ms or 0, 0, 0)
        return LogPage(events, f"f/{position_text(last)}/s", f"b/{position_text(first)}/s")

    def filter(
        self,
        group: str,
        *,
        region: str,
        streams: Sequence[str] = (),
        prefix: str = "",
        start_ms: int | None = None,
        end_ms: int | None = None,
        pattern: str = "",
        limit: int = _PAGE_EVENTS,
        token: str | None = None,
    ) -> FilterPage:
        """Return the events of several streams, merged in order, whose texts match *pattern*.

        Args:
            streams: only those of these names; all if empty.
            prefix: only those whose names begin with it.
            start_ms, end_ms: both included, as AWS does it here.
            token: `FilterPage.next_token` of the page before.
        """
        matches = compile_pattern(pattern)
        query = fingerprint("filter", region, group, list(streams), prefix, start_ms, end_ms, pattern)
        after = Position(start_ms or 0, -1, 0)
        for text in last_of_token(token, query, 1):
            after = max(after, read_position(str(text)) or after)
        end = Position(_END_OF_TIME if end_ms is None else end_ms + 1, -1, 0)
        with self._database.read() as connection:
            group_id = group_id_of(connection, region, group)
            chosen = _chosen_streams(connection, group_id, streams, prefix)
        last = after
        found: list[FilteredEvent] = []
        size = 0
        events = ascending(self._batches_of_group(group_id, chosen, after.ms, end.ms), after)
        for scanned, event in enumerate(events):
            if event.position >= end:
                break
            if scanned >= _SCAN_EVENTS or len(found) >= limit or size >= _PAGE_BYTES:
                return FilterPage(self._named(found), encode_token([position_text(last)], query))
            last = event.position
            if matches is None or matches(event.text):
                found.append(FilteredEvent("", event))
                size += len(event.text) + _EVENT_OVERHEAD
        return FilterPage(self._named(found), None)

    # ---- reading batches ----

    def _batches_of_stream(
        self, stream_id: int, start_ms: int, end_ms: int, *, backwards: bool = False
    ) -> Iterator[Batch]:
        """Yield the batches of a stream that may hold events of a range of time, in chunks of growing size.

        Forwards in the order of their first, backwards of their last timestamps.
        """
        parameters: dict[str, Any] = {"stream": stream_id, "start": start_ms, "end": end_ms, "span": SPAN_MS}
        if backwards:
            range_ = "last_ms >= :start and last_ms <= :end + :span and first_ms <= :end"
            return self._chunks("stream_id = :stream and " + range_, "last_ms", "desc", parameters)
        range_ = "first_ms >= :start - :span and first_ms <= :end and last_ms >= :start"
        return self._chunks("stream_id = :stream and " + range_, "first_ms", "", parameters)

    def _batches_of_group(
        self, group_id: int, streams: set[int] | None, start_ms: int, end_ms: int
    ) -> Iterator[Batch]:
        if streams is not None and len(streams) <= _MERGED_STREAMS:
            each = [self._batches_of_stream(stream_id, start_ms, end_ms) for stream_id in sorted(streams)]
            yield from heapq.merge(*each, key=lambda batch: (batch.first_ms, batch.id))
            return
        parameters: dict[str, Any] = {"group": group_id, "start": start_ms, "end": end_ms, "span": SPAN_MS}
        where = "group_id = :group and first_ms >= :start - :span and first_ms <= :end and last_ms >= :start"
        for batch in self._chunks(where, "first_ms", "", parameters):
            if streams is None or batch.stream_id in streams:
                yield batch

    def _chunks(self, where: str, key: str, direction: str, parameters: dict[str, Any]) -> Iterator[Batch]:
        order = f"order by {key} {direction}, id {direction} limit :limit"
        comparison = "<" if direction else ">"
        size = _CHUNK
        behind = ""
        while True:
            sql = f"select {_BATCH} from log_batches where {where}{behind} {order}"
            with self._database.read() as connection:
                rows = connection.rows(sql, {**parameters, "limit": size})
            batches = [Batch(*row) for row in rows]
            yield from batches
            if len(batches) < size:
                return
            behind = f" and ({key}, id) {comparison} (:last_key, :last_id)"
            parameters = {**parameters, "last_key": getattr(batches[-1], key), "last_id": batches[-1].id}
            size = min(size * 2, 1000)

    def _named(self, found: list[FilteredEvent]) -> list[FilteredEvent]:
        """Return *found* with the names of their streams."""
        unknown = sorted({item.event.stream_id for item in found})
        names: dict[int, str] = {}
        with self._database.read() as connection:
            for start in range(0, len(unknown), 500):
                ids = {f"i{number}": i for number, i in enumerate(unknown[start : start + 500])}
                sql = f"select id, name from log_streams where id in ({', '.join(':' + i for i in ids)})"
                names.update(dict(connection.rows(sql, ids)))
        return [
            FilteredEvent(names[item.event.stream_id], item.event)
            for item in found
            if item.event.stream_id in names  # else deleted in between
        ]


def _some(events: Iterable[LogEvent], limit: int, wanted: Callable[[LogEvent], bool]) -> list[LogEvent]:
    """Return the first of *events*, as many as a page may hold, up to the first that is not *wanted*."""
    found: list[LogEvent] = []
    size = 0
    for event in events:
        size += len(event.text) + _EVENT_OVERHEAD
        if not wanted(event) or (found and size > _PAGE_BYTES):
            break
        found.append(event)
        if len(found) >= limit:
            break
    return found


def _read_token(token: str) -> tuple[bool, Position]:
    """Return whether *token* goes forward, and from where."""
    direction, _, rest = token.partition("/")
    digits, _, end = rest.partition("/")
    position = read_position(digits)
    if direction not in ("f", "b") or end != "s" or position is None:
        raise invalid_token()
    return direction == "f", position


def _chosen_streams(
    connection: Connection, group_id: int, streams: Sequence[str], prefix: str
) -> set[int] | None:
    """Return the ids of the streams of these names, or with *prefix*; None for all of the group."""
    if streams:
        return {stream_id_of(connection, group_id, stream) for stream in streams}
    if not prefix:
        return None
    clauses = ["group_id = :group"]
    parameters: dict[str, Any] = {"group": group_id}
    prefix_clause("name", prefix, clauses, parameters)
    sql = f"select id from log_streams where {' and '.join(clauses)}"
    return {row[0] for row in connection.rows(sql, parameters)}
