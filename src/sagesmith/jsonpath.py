"""The JSONPath of batch transform's filters: `$`, names, indexes, slices, unions of them, and wildcards.

SageMaker knows no other operators: no filters by value, no recursive descent. A path that can select one thing only
(`$.a`, `$[0]`) gives that thing; one that could select several (`$[1:]`, `$[0,5:]`, `$.a[*]`) gives a list, and
several names (`$['id','label']`) give an object of those that are there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["JsonPath", "JsonPathError", "PathNotFoundError"]

_NAME: Final = re.compile(r"\.([^.\[\]'\"*$@?,:\s()]+)")
_QUOTED: Final = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""")
_RANGE: Final = re.compile(r"(-?\d+)?:(-?\d+)?|(-?\d+)")


class JsonPathError(ValueError):
    """The text is no JSONPath that SageMaker supports."""


class PathNotFoundError(LookupError):
    """A value has nothing where the path leads."""


@dataclass(frozen=True, slots=True)
class _Names:
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Places:
    places: tuple[int | slice, ...]

    @property
    def is_one(self) -> bool:
        return len(self.places) == 1 and isinstance(self.places[0], int)


@dataclass(frozen=True, slots=True)
class _Every:
    pass


_Step = _Names | _Places | _Every


class JsonPath:
    """A parsed path.

    Raises:
        JsonPathError: *text* is not valid; says where.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._steps = _parse(text)

    @property
    def is_root(self) -> bool:
        """Whether it selects everything."""
        return not self._steps

    def select(self, value: Any) -> Any:
        """Return what the path selects of *value*, which `json.loads` made.

        Raises:
            PathNotFoundError: there is nothing.
        """
        return self._select(value, self._steps)

    def columns(self) -> Callable[[Sequence[Any]], list[Any]] | None:
        """Return a function that selects columns of a row; None if the path is not about columns."""
        if not self._steps:
            return list
        if len(self._steps) != 1 or isinstance(self._steps[0], _Names):
            return None
        step = self._steps[0]
        if isinstance(step, _Every):
            return list
        if len(step.places) == 1 and isinstance(step.places[0], slice):
            one = step.places[0]
            return lambda row: list(row[one])
        return lambda row: self._places(row, step)

    def _select(self, value: Any, steps: Sequence[_Step]) -> Any:
        if not steps:
            return value
        step, rest = steps[0], steps[1:]
        match step:
            case _Names((name,)):
                if not isinstance(value, dict) or name not in value:
                    raise self._absent(f"no member {name!r}")
                return self._select(value[name], rest)
            case _Names(names):
                if not isinstance(value, dict):
                    raise self._absent("no object")
                return {name: value[name] for name in names if name in value}
            case _Places():
                if not isinstance(value, list):
                    raise self._absent("no array")
                found = self._places(value, step)
                if step.is_one:
                    return self._select(found[0], rest)
            case _Every():
                if not isinstance(value, dict | list):
                    raise self._absent("neither object nor array")
                found = list(value.values()) if isinstance(value, dict) else value
        several: list[Any] = []
        for item in found:
            selected = self._select(item, rest)
            several += selected if rest and not _is_definite(rest) else [selected]
        return several

    def _places(self, row: Sequence[Any], step: _Places) -> list[Any]:
        found: list[Any] = []
        for place in step.places:
            if isinstance(place, slice):
                found += row[place]
            elif -len(row) <= place < len(row):
                found.append(row[place])
            else:
                raise self._absent(f"no element {place}, but only {len(row)}")
        return found

    def _absent(self, what: str) -> PathNotFoundError:
        return PathNotFoundError(f"JSONPath {self.text!r}: there is {what}")


def _is_definite(steps: Sequence[_Step]) -> bool:
    return all(isinstance(step, _Names) or (isinstance(step, _Places) and step.is_one) for step in steps)


def _parse(text: str) -> tuple[_Step, ...]:
    def fault(why: str) -> JsonPathError:
        return JsonPathError(f"{text!r} is not a valid JSONPath: {why}")

    if not text.startswith("$"):
        raise fault("it must begin with $")
    steps: list[_Step] = []
    at = 1
    while at < len(text):
        if steps and isinstance(steps[-1], _Names) and len(steps[-1].names) > 1:
            raise fault("nothing can follow several names in brackets")
        if text.startswith("..", at):
            raise fault("recursive descent (..) is not supported")
        if text.startswith(".*", at):
            steps.append(_Every())
            at += 2
        elif text.startswith("[", at) or text.startswith(".[", at):
            start = text.index("[", at) + 1
            step, at = _brackets(text, start, fault)
            steps.append(step)
        elif found := _NAME.match(text, at):
            steps.append(_Names((found[1],)))
            at = found.end()
        else:
            raise fault(f"{text[at:]!r} is no operator that is supported here")
    return tuple(steps)


def _brackets(text: str, start: int, fault: Callable[[str], JsonPathError]) -> tuple[_Step, int]:
    """Return the step whose inside begins at *start*, and where it ends."""
    names: list[str] = []
    places: list[int | slice] = []
    at = _blank(text, start)
    if text.startswith("*", at):
        at = _blank(text, at + 1)
        if not text.startswith("]", at):
            raise fault("* must stand alone in its brackets")
        return _Every(), at + 1
    while True:
        if quoted := _QUOTED.match(text, at):
            raw = quoted[1] if quoted[1] is not None else quoted[2]
            names.append(re.sub(r"\\(.)", r"\1", raw))
            at = quoted.end()
        elif (found := _RANGE.match(text, at)) and found.end() > at:
            if found[3] is not None:
                places.append(int(found[3]))
            else:
                places.append(slice(int(found[1]) if found[1] else None, int(found[2]) if found[2] else None))
            at = found.end()
        else:
            raise fault(f"in the brackets, {text[at:]!r} is neither a quoted name, a number nor a slice")
        at = _blank(text, at)
        if text.startswith("]", at):
            break
        if not text.startswith(",", at):
            raise fault("a bracket is not closed")
        at = _blank(text, at + 1)
    if names and places:
        raise fault("names and numbers cannot stand in the same brackets")
    return (_Names(tuple(names)) if names else _Places(tuple(places))), at + 1


def _blank(text: str, at: int) -> int:
    while text.startswith(" ", at):
        at += 1
    return at
