"""Log events as they are stored: batches, written once as they arrive, merged when they are read.

One row holds what one call brought, compressed: a tenth of the rows and bytes that a row for each line takes,
and a hundredth of the statements. A batch spans at most `SPAN_MS`, so that an index on its first timestamp also
finds the batches that reach into a range of time.

The order of events is that of their `Position`: timestamp, then batch (in the order of arrival), then place in
the batch. Batches may overlap in time; a reader takes them in the order of their beginnings and holds an event
back until no batch to come can begin before it.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

import orjson

__all__ = [
    "SPAN_MS",
    "Batch",
    "LogEvent",
    "Position",
    "ascending",
    "descending",
    "pack",
    "position_text",
    "read_position",
    "split",
    "unpack",
]

SPAN_MS: Final = 60_000
_MOST_EVENTS: Final = 1_000

Lines: TypeAlias = Sequence[tuple[int, str]]


class Position(NamedTuple):
    """Where an event stands in the order of all events."""

    ms: int
    batch: int
    place: int


class LogEvent(NamedTuple):
    """One event: its place, its text, the stream it is in, and when it arrived (milliseconds since 1970)."""

    position: Position
    text: str
    stream_id: int
    ingested_ms: int


class Batch(NamedTuple):
    """A stored row."""

    id: int
    stream_id: int
    first_ms: int
    last_ms: int
    ingested_ms: int
    data: bytes


def split(events: Lines) -> Iterator[list[tuple[int, str]]]:
    """Yield *events*, sorted by timestamp (else as they come), in parts that make a batch each."""
    part: list[tuple[int, str]] = []
    for event in sorted(events, key=lambda event: event[0]):
        if part and (event[0] - part[0][0] > SPAN_MS or len(part) >= _MOST_EVENTS):
            yield part
            part = []
        part.append(event)
    if part:
        yield part


def pack(events: Lines) -> bytes:
    """Return *events*, sorted by timestamp, as bytes."""
    first = events[0][0]
    times = [ms - first for ms, _ in events]
    try:
        raw = orjson.dumps([times, [text for _, text in events]])
    except TypeError:  # a lone surrogate, which UTF-8 does not have
        raw = orjson.dumps([times, [text.encode("utf-8", "replace").decode() for _, text in events]])
    return zlib.compress(raw, 1)


def unpack(batch: Batch) -> list[LogEvent]:
    """Return the events of *batch* in order."""
    times, texts = orjson.loads(zlib.decompress(batch.data))
    return [
        LogEvent(Position(batch.first_ms + time, batch.id, place), text, batch.stream_id, batch.ingested_ms)
        for place, (time, text) in enumerate(zip(times, texts, strict=True))
    ]


def ascending(batches: Iterable[Batch], after: Position) -> Iterator[LogEvent]:
    """Yield the events behind *after*, the earliest first, of *batches* sorted by `first_ms`."""
    waiting: list[LogEvent] = []
    for batch in batches:
        while waiting and waiting[0].position.ms < batch.first_ms:
            yield heapq.heappop(waiting)
        for event in unpack(batch):
            if event.position > after:
                heapq.heappush(waiting, event)
    while waiting:
        yield heapq.heappop(waiting)


def descending(batches: Iterable[Batch], before: Position) -> Iterator[LogEvent]:
    """Yield the events ahead of *before*, the latest first, of *batches* sorted by `last_ms` from the end."""
    waiting: list[tuple[int, int, int, LogEvent]] = []
    for batch in batches:
        while waiting and -waiting[0][0] > batch.last_ms:
            yield heapq.heappop(waiting)[-1]
        for event in unpack(batch):
            ms, number, place = event.position
            if event.position < before:
                heapq.heappush(waiting, (-ms, -number, -place, event))
    while waiting:
        yield heapq.heappop(waiting)[-1]


def position_text(position: Position) -> str:
    """Return *position* as 56 digits, the form of AWS's event ids."""
    return f"{position.ms:020d}{position.batch:020d}{position.place:016d}"


def read_position(text: str) -> Position | None:
    """Return the position that `position_text` wrote, or None if *text* is something else."""
    if len(text) != 56 or not text.isascii() or not text.isdigit():
        return None
    return Position(int(text[:20]), int(text[20:40]), int(text[40:]))
