"""Metrics: named series of numbers over time, as CloudWatch keeps them.

What arrives is appended, one row for each series and second of a call. Rows that get older are merged into
coarser ones as CloudWatch does, so that storage stays bounded: seconds for three hours, minutes for 15 days,
five minutes for 63 days, hours for 455 days. The merging is done a little at a time when new data arrives.

Unlike CloudWatch, which keeps data of different units of one metric apart, a series has the latest unit.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from sagesmith.clock import Clock, system_clock
from sagesmith.store.database import Connection, Database
from sagesmith.store.metric_summaries import Summary, summary_of
from sagesmith.store.queries import Page, decode_token, encode_token, fingerprint

__all__ = ["Datum", "Metrics", "Point", "Series", "Summary"]

_DAY_S: Final = 86_400
_LEVELS: Final = (
    (1, 3 * 3600, 60),
    (60, 15 * _DAY_S, 300),
    (300, 63 * _DAY_S, 3600),
    (3600, 455 * _DAY_S, 0),
)
"""(seconds a row stands for, age in seconds at which rows are merged, into rows of; 0: removed)."""

_COMPACT_EVERY_S: Final = 300
_COMPACT_ROWS: Final = 2_000
_COMPACT_S: Final = 0.5
_RECENT_S: Final = 3 * 3600
_LISTED: Final = 500
_GREATEST: Final = 2.0**360


@dataclass(frozen=True, slots=True)
class Datum:
    """What happened to one metric: a value, or values with counts, or statistics of values kept elsewhere.

    `timestamp` is in seconds since 1970; None means now.
    """

    name: str
    dimensions: Mapping[str, str] = field(default_factory=dict)
    timestamp: float | None = None
    value: float | None = None
    unit: str = "None"
    values: Sequence[float] = ()
    counts: Sequence[float] = ()
    statistics: Summary | None = None

    def summary(self) -> Summary:
        """Return a summary of its own of what the datum brings.

        Raises:
            ValueError: it brings nothing, more than one thing, or numbers that are not finite.
        """
        given = [self.value is not None, bool(self.values), self.statistics is not None]
        if sum(given) != 1:
            raise ValueError(f"metric {self.name!r} needs either a value, values, or statistics.")
        if self.statistics is not None:
            s = self.statistics
            self._check((s.count, s.sum, s.minimum, s.maximum), [s.count])
            return Summary(s.count, s.sum, s.minimum, s.maximum, dict(s.sketch))
        values = list(self.values) if self.value is None else [self.value]
        counts = list(self.counts) or [1.0] * len(values)
        if len(counts) != len(values):
            raise ValueError(f"metric {self.name!r} has {len(values)} values but {len(counts)} counts.")
        self._check(values, counts)
        return summary_of(zip(map(float, values), map(float, counts), strict=True))

    def _check(self, values: Iterable[float], counts: Iterable[float]) -> None:
        if not all(abs(value) <= _GREATEST for value in values) or not all(
            0 < n <= _GREATEST for n in counts
        ):
            raise ValueError(f"metric {self.name!r} needs numbers within 2^360 of zero and positive counts.")


@dataclass(frozen=True, slots=True)
class Series:
    """A metric that has data."""

    namespace: str
    name: str
    dimensions: Mapping[str, str]
    unit: str
    last_time: float


@dataclass(frozen=True, slots=True)
class Point:
    """The values of a series in the period that begins at `time`."""

    time: float
    summary: Summary


class Metrics:
    """All metrics of a server. Thread-safe."""

    def __init__(self, database: Database, clock: Clock = system_clock) -> None:
        self._database = database
        self._clock = clock
        self._ids: dict[tuple[str, str, str, str], int] = {}
        self._compacting = threading.Lock()
        self._compact_at = clock() + _COMPACT_EVERY_S

    def put(self, namespace: str, data: Iterable[Datum], *, region: str) -> None:
        """Add *data* to the metrics of *namespace*, in one transaction.

        Raises:
            ValueError: a datum makes no sense; nothing is kept then.
        """
        now = self._clock()
        merged: dict[tuple[str, str], dict[float, Summary]] = {}
        units: dict[tuple[str, str], str] = {}
        for datum in data:
            key = datum.name, _dimensions_text(datum.dimensions)
            seconds = merged.setdefault(key, {})
            second = float(math.floor(now if datum.timestamp is None else datum.timestamp))
            if second in seconds:
                seconds[second].add(datum.summary())
            else:
                seconds[second] = datum.summary()
            units[key] = datum.unit
        if not merged:
            return

        def work(connection: Connection) -> dict[tuple[str, str, str, str], int]:
            ids = {}
            rows: list[dict[str, Any]] = []
            for (name, dimensions), seconds in sorted(merged.items()):  # one order: no deadlock of two puts
                series = region, namespace, name, dimensions
                last = {"unit": units[name, dimensions], "last": max(seconds)}
                ids[series] = series_id = _series_id(connection, series, self._ids.get(series), last)
                rows.extend(_row(series_id, 1, second, summary) for second, summary in seconds.items())
            connection.execute_many(_APPEND, rows)
            return ids

        self._ids.update(self._database.transact(work))
        if now >= self._compact_at:
            self.compact()

    def statistics(
        self,
        namespace: str,
        name: str,
        dimensions: Mapping[str, str],
        *,
        region: str,
        start: float,
        end: float,
        period: int,
        unit: str = "",
    ) -> list[Point]:
        """Return what is known of one series in [*start*, *end*), in periods of *period* seconds.

        The periods begin at *start*; those without data are left out. A *unit* other than the series' own
        finds nothing.
        """
        sql = (
            "select p.time, p.count, p.sum, p.minimum, p.maximum, p.sketch "
            "from metric_series s join metric_points p on p.series_id = s.id "
            "where s.region = :region and s.namespace = :namespace and s.name = :name "
            "and s.dimensions = :dimensions and p.time >= :start and p.time < :end"
        )
        parameters: dict[str, Any] = {
            "region": region, "namespace": namespace, "name": name,
            "dimensions": _dimensions_text(dimensions), "start": start, "end": end,
        }  # fmt: skip
        if unit:
            sql += " and s.unit = :unit"
            parameters["unit"] = unit
        with self._database.read() as connection:
            rows = connection.rows(sql, parameters)
        found: dict[float, Summary] = {}
        for second, *columns in rows:
            begin = start + (second - start) // period * period
            summary = Summary.read(*columns)
            if begin in found:
                found[begin].add(summary)
            else:
                found[begin] = summary
        return [Point(begin, found[begin]) for begin in sorted(found)]

    def unit(self, namespace: str, name: str, dimensions: Mapping[str, str], *, region: str) -> str:
        """Return the unit of a series; ``None`` (as a word) if there is no such series."""
        key = {
            "region": region,
            "namespace": namespace,
            "name": name,
            "dimensions": _dimensions_text(dimensions),
        }
        with self._database.read() as connection:
            row = connection.row(f"select unit from metric_series {_SERIES_KEY}", key)  # noqa: S608
        return "None" if row is None else str(row[0])

    def list(
        self,
        *,
        region: str,
        namespace: str = "",
        name: str = "",
        dimensions: Sequence[tuple[str, str | None]] = (),
        recent: bool = False,
        token: str | None = None,
    ) -> Page[Series]:
        """Return up to 500 series, ordered by namespace, name and dimensions.

        Args:
            dimensions: (name, value) pairs that each must have; a value None stands for any.
            recent: only those with data of the last three hours.

        Raises:
            AwsError: `ValidationException`, the token is malformed or of another query.
        """
        query = fingerprint("metrics", region, namespace, name, list(dimensions), recent)
        clauses = ["region = :region"]
        parameters: dict[str, Any] = {"region": region, "limit": _LISTED}
        for column, value in (("namespace", namespace), ("name", name)):
            if value:
                clauses.append(f"{column} = :{column}")
                parameters[column] = value
        if recent:
            clauses.append("last_time >= :recent")
            parameters["recent"] = self._clock() - _RECENT_S
        clauses.append("(namespace, name, dimensions) > (:k0, :k1, :k2)")
        last = decode_token(token, query, 3) if token else ["", "", ""]
        sql = (
            f"select namespace, name, dimensions, unit, last_time from metric_series "  # noqa: S608
            f"where {' and '.join(clauses)} order by namespace, name, dimensions limit :limit"
        )
        found: list[tuple[Series, Sequence[str]]] = []
        while True:
            with self._database.read() as connection:
                rows = connection.rows(sql, {**parameters, "k0": last[0], "k1": last[1], "k2": last[2]})
            for row in rows:
                series = Series(row[0], row[1], orjson.loads(row[2]), row[3], row[4])
                if all(
                    key in series.dimensions and value in (None, series.dimensions[key])
                    for key, value in dimensions
                ):
                    if len(found) == _LISTED:
                        return Page([item for item, _ in found], encode_token(found[-1][1], query))
                    found.append((series, row[:3]))
            if len(rows) < _LISTED:
                return Page([item for item, _ in found], None)
            last = [*rows[-1][:3]]

    def compact(self) -> int:
        """Merge some of the rows that are old enough; return how many there were. Called by `put` now and then."""
        if not self._compacting.acquire(blocking=False):
            return 0
        try:
            now = self._clock()
            self._compact_at = now + _COMPACT_EVERY_S
            give_up = time.monotonic() + _COMPACT_S
            gone = 0
            for period, age, into in _LEVELS:
                merge = functools.partial(_merge, now=now, period=period, age=age, into=into)
                while step := self._database.transact(merge):
                    gone += step
                    if not into or time.monotonic() > give_up:
                        break
            return gone
        finally:
            self._compacting.release()


_SERIES_KEY: Final = (
    "where region = :region and namespace = :namespace and name = :name and dimensions = :dimensions"
)
_APPEND: Final = (
    "insert into metric_points (series_id, period, time, count, sum, minimum, maximum, sketch) "
    "values (:series_id, :period, :time, :count, :sum, :minimum, :maximum, :sketch)"
)
_SERIES: Final = (
    "insert into metric_series (region, namespace, name, dimensions, unit, last_time) "
    "values (:region, :namespace, :name, :dimensions, :unit, :last) "
    "on conflict (region, namespace, name, dimensions) do update set unit = excluded.unit, "
    "last_time = case when metric_series.last_time < excluded.last_time then excluded.last_time "
    "else metric_series.last_time end returning id"
)
_SEEN: Final = (
    "update metric_series set unit = :unit, last_time = case when last_time < :last then :last else last_time end "
    "where id = :id"
)


def _dimensions_text(dimensions: Mapping[str, str]) -> str:
    return orjson.dumps(dict(dimensions), option=orjson.OPT_SORT_KEYS).decode()


def _row(series_id: int, period: int, begin: float, summary: Summary) -> dict[str, Any]:
    return {
        "series_id": series_id, "period": period, "time": begin, "count": summary.count, "sum": summary.sum,
        "minimum": summary.minimum, "maximum": summary.maximum, "sketch": summary.sketch_text(),
    }  # fmt: skip


def _series_id(
    connection: Connection, series: tuple[str, str, str, str], known: int | None, last: dict[str, Any]
) -> int:
    if known is not None and connection.execute(_SEEN, {**last, "id": known}):
        return known
    key = dict(zip(("region", "namespace", "name", "dimensions"), series, strict=True))
    row = connection.row(_SERIES, {**key, **last})
    if row is None:
        raise RuntimeError("the database returned no id for a series")
    return int(row[0])


def _merge(connection: Connection, now: float, period: int, age: float, into: int) -> int:
    """Merge some rows of *period* that are older than *age* into rows of *into*; return how many there were."""
    before = (now - age) // (into or period) * (into or period)
    if not into:
        return connection.execute(
            "delete from metric_points where period = :period and time < :before",
            {"period": period, "before": before},
        )
    rows = connection.rows(
        "delete from metric_points where id in (select id from metric_points "
        "where period = :period and time < :before order by time limit :limit) "
        "returning series_id, time, count, sum, minimum, maximum, sketch",
        {"period": period, "before": before, "limit": _COMPACT_ROWS},
    )
    merged: dict[tuple[int, float], Summary] = {}
    for series_id, second, *columns in rows:
        key = series_id, second // into * into
        summary = Summary.read(*columns)
        if key in merged:
            merged[key].add(summary)
        else:
            merged[key] = summary
    connection.execute_many(
        _APPEND, [_row(series_id, into, begin, summary) for (series_id, begin), summary in merged.items()]
    )
    return len(rows)
