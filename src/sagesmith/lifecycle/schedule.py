"""Schedules of AWS: ``at(...)``, ``rate(...)`` and ``cron(...)``, and when they come next.

Source: Application Auto Scaling User Guide, "Schedule scaling actions using cron expressions" and
"Scheduling using rate expressions".
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

__all__ = ["Schedule", "ScheduleError"]

_FORM: Final = re.compile(r"(at|rate|cron)\(([^()]*)\)")
_UNITS: Final = {"minute": 60, "hour": 3600, "day": 86_400}
_MONTHS: Final = {name.upper(): number for number, name in enumerate(calendar.month_abbr) if name}
_DAYS: Final = {
    name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), 1)
}
_FIELDS: Final[tuple[tuple[str, int, int, Mapping[str, int]], ...]] = (
    ("minutes", 0, 59, {}), ("hours", 0, 23, {}), ("day of the month", 1, 31, {}), ("month", 1, 12, _MONTHS),
    ("day of the week", 1, 7, _DAYS), ("year", 1970, 2199, {}),
)  # fmt: skip
_YEARS_AHEAD: Final = 30


class ScheduleError(ValueError):
    """The text is no schedule, or one of a kind that is not known; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When something is due, again and again or once. Times are seconds since 1970."""

    once: float | None
    every_s: float
    fields: tuple[frozenset[int], ...]
    zone: tzinfo

    @classmethod
    def parse(cls, text: str, timezone: str = "") -> Schedule:
        """Return the schedule that *text* is, in *timezone* (an IANA name; UTC if empty).

        Raises:
            ScheduleError: it is none.
        """
        zone = _zone(timezone) if timezone else UTC
        form = _FORM.fullmatch(text.strip())
        if form is None:
            raise ScheduleError(
                f"The schedule {text!r} must look like at(2026-12-24T18:00:00), rate(1 day) or cron(0 9 * * ? *)."
            )
        kind, inside = form[1], form[2].strip()
        if kind == "at":
            try:
                moment = datetime.strptime(inside, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=zone)
            except ValueError:
                raise ScheduleError(f"at() takes a time like 2026-12-24T18:00:00, not {inside!r}.") from None
            return cls(moment.timestamp(), 0.0, (), zone)
        if kind == "rate":
            rate = re.fullmatch(r"([1-9]\d*)\s+(minute|hour|day)s?", inside)
            if rate is None:
                raise ScheduleError(f"rate() takes a number of minutes, hours or days, not {inside!r}.")
            return cls(None, float(int(rate[1]) * _UNITS[rate[2]]), (), zone)
        parts = inside.split()
        if len(parts) != len(_FIELDS):
            raise ScheduleError(
                f"cron() takes minutes, hours, day of the month, month, day of the week and year, not {inside!r}."
            )
        if parts[2] != "?" and parts[4] != "?" and "*" not in (parts[2], parts[4]):
            raise ScheduleError("Of day of the month and day of the week one must be ? or *.")
        fields = tuple(_field(part, *field) for part, field in zip(parts, _FIELDS, strict=True))
        return cls(None, 0.0, fields, zone)

    def next(self, after: float, begin: float) -> float | None:
        """Return the first time later than *after*; None if there is none any more.

        *begin* is where rates count from; nothing is due before it.
        """
        if self.once is not None:
            return self.once if self.once > after else None
        if self.every_s:
            if after < begin:
                return begin
            return begin + (int((after - begin) / self.every_s) + 1) * self.every_s
        return self._next_cron(max(after, begin))

    def _next_cron(self, after: float) -> float | None:
        minutes, hours, days, months, weekdays, years = self.fields
        moment = datetime.fromtimestamp(after, self.zone).replace(second=0, microsecond=0) + timedelta(
            minutes=1
        )
        day = moment.replace(hour=0, minute=0)
        for _ in range(_YEARS_AHEAD * 366):
            fits = day.year in years and day.month in months and day.day in days
            if fits and day.isoweekday() % 7 + 1 in weekdays:
                for hour in sorted(hours):
                    for minute in sorted(minutes):
                        found = day.replace(hour=hour, minute=minute)
                        if found >= moment:
                            return found.timestamp()
            day += timedelta(days=1)
        return None


def _zone(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ScheduleError(f"The time zone {name!r} is not known.") from None


def _field(text: str, name: str, least: int, most: int, words: Mapping[str, int]) -> frozenset[int]:
    if text == "?":
        return frozenset(range(least, most + 1))
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            begin, end = least, most
        else:
            begin = _number(first, name, words, text)
            end = _number(last, name, words, text) if dash else (most if step else begin)
        if not (least <= begin <= end <= most) or (step and not step.isdigit()) or step == "0":
            raise ScheduleError(f"The field {text!r} of cron() is no {name} from {least} to {most}.")
        found.update(range(begin, end + 1, int(step or 1)))
    return frozenset(found)


def _number(text: str, name: str, words: Mapping[str, int], whole: str) -> int:
    if text.upper() in words:
        return words[text.upper()]
    if not text.isdigit():
        raise ScheduleError(f"The field {whole!r} of cron() is no {name} (L, W and # are not supported).")
    return int(text)
