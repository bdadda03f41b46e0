"""Timestamps as the protocols write them; inside they are float seconds since 1970."""

from __future__ import annotations

import time
from datetime import UTC, datetime

__all__ = ["http_date", "iso8601", "iso8601_millis", "parse_timestamp"]

# 0001-01-01 and 9999-12-31: what datetime, and so every client in Python, can hold.
_EARLIEST, _LATEST = -62135596800.0, 253402300799.999


def parse_timestamp(value: object) -> float:
    """Return the seconds since 1970 that *value* means: a number, ISO 8601, RFC 822, or a datetime.

    Raises:
        ValueError: it means no moment between the years 1 and 9999.
    """
    if isinstance(value, datetime):
        seconds = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str):
        seconds = _parse_text(value.strip())
    else:
        raise ValueError(f"{value!r} is not a timestamp")
    if not _EARLIEST <= seconds <= _LATEST:
        raise ValueError(f"{value!r} is not a timestamp between the years 1 and 9999")
    return seconds


def _parse_text(text: str) -> float:
    if text[:1].isdigit() or text[:1] == "-":
        try:
            return float(text)
        except ValueError:
            moment = datetime.fromisoformat(text)
    else:
        from email.utils import parsedate_to_datetime

        try:
            moment = parsedate_to_datetime(text)
        except TypeError as error:
            raise ValueError(f"{text!r} is not a timestamp") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def iso8601(seconds: float) -> str:
    """Return ``2013-05-24T00:00:00Z``, with milliseconds only if there are any."""
    millis = round(seconds * 1000)
    text = _calendar(millis // 1000)
    rest = millis % 1000
    return f"{text}.{rest:03d}Z" if rest else f"{text}Z"


def iso8601_millis(seconds: float) -> str:
    """Return ``2013-05-24T00:00:00.000Z``, as S3 writes it."""
    millis = round(seconds * 1000)
    return f"{_calendar(millis // 1000)}.{millis % 1000:03d}Z"


def http_date(seconds: float) -> str:
    """Return ``Fri, 24 May 2013 00:00:00 GMT``, whole seconds."""
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(int(seconds // 1)))


def _calendar(seconds: int) -> str:
    moment = time.gmtime(seconds)
    return (
        f"{moment.tm_year:04d}-{moment.tm_mon:02d}-{moment.tm_mday:02d}"
        f"T{moment.tm_hour:02d}:{moment.tm_min:02d}:{moment.tm_sec:02d}"
    )
