"""Metric definitions applied to log lines.

A job of the built-in XGBoost has sixty definitions, and each line of its log goes through all of them. So a
text that a match must contain is taken from each expression once, and lines without it are passed over.
Compiling sixty takes 15 ms; the process that forks agents has compiled those of the built-in algorithms already.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any, Final

from sagesmith.instance.spec import MetricValue

__all__ = ["MetricScanner"]

_LONGEST_LINE: Final = 8192
"""No metric is further right than this. Keeps expressions that backtrack from stopping the agent."""


class MetricScanner:
    """Finds the values of metric definitions, given as (name, expression), in lines of text."""

    def __init__(self, definitions: Iterable[tuple[str, str]]) -> None:
        self._definitions = []
        self.refused: list[str] = []
        for name, expression in definitions:
            try:
                compiled, required = _compiled(expression)
            except re.error as error:
                self.refused.append(f"metric {name!r}: {expression!r} is not a regular expression: {error}")
                continue
            # `.*x` found by search() is tried again from every position; matched from the start it is tried once.
            find = compiled.match if expression.startswith(".*") else compiled.search
            if compiled.groups:
                self._definitions.append((name, find, required))
            else:
                self.refused.append(f"metric {name!r}: {expression!r} has no group to take the value from")

    def scan(self, line: str, time: float) -> Iterator[MetricValue]:
        """Yield the metrics that *line*, read at *time*, holds."""
        line = line[:_LONGEST_LINE]
        for name, find, required in self._definitions:
            if required in line and (match := find(line)) and match[1]:
                try:
                    value = float(match[1])
                except ValueError:
                    continue
                yield MetricValue(name, value, time)


@functools.lru_cache(maxsize=1024)
def _compiled(expression: str) -> tuple[re.Pattern[str], str]:
    return re.compile(expression), _required_text(expression)


def _required_text(expression: str) -> str:
    """The longest literal text that every match of *expression* contains; "" if none is certain."""
    best = current = ""
    parsed: Any = _parser.parse(expression)
    if parsed.state.flags & re.IGNORECASE:
        return ""
    for code, argument in parsed:
        if code is _constants.LITERAL:
            current += chr(argument)
            best = max(best, current, key=len)
        else:
            current = ""
    return best
