"""Hyperparameters declared as data: SageMaker's names, types, ranges and defaults, which check and describe themselves.

What comes in is what a training job gets: text to text, the text perhaps JSON-quoted by an SDK. What goes out
is typed values with the defaults filled in. All faults are gathered and reported together.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sagesmith_algorithms.errors import HyperparameterError

__all__ = ["Flag", "Hyperparameter", "Hyperparameters", "Number", "Text", "Words"]

_ALWAYS_ACCEPTED = ("_tuning_objective_metric",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameter:
    """One hyperparameter.

    `default` None means that it is unset unless given. `tunable` says whether AWS lets a tuning job vary it.
    `auto` allows the word ``auto``, which stays a text. `needs` names other hyperparameters and the values that one of
    these must have for it to mean anything; `idle` says why it is accepted and never has an effect.
    """

    name: str
    default: Any = None
    required: bool = False
    tunable: bool = False
    auto: bool = False
    needs: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    idle: str = ""
    doc: str = ""

    def parse(self, text: str) -> Any:
        """Return the value that *text* means.

        Raises:
            ValueError: *text* means none; the error says what is allowed.
        """
        text = _unquoted(text)
        if self.auto and text == "auto":
            return text
        return self._parse(text)

    def _parse(self, text: str) -> Any:
        raise NotImplementedError

    def allowed(self) -> str:
        """Return what is allowed, in words."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Return the declaration as plain data."""
        return {
            "Name": self.name,
            "Type": type(self).__name__,
            "Allowed": self.allowed(),
            "Default": self.default,
            "Required": self.required,
            "Tunable": self.tunable,
            "Needs": {name: list(values) for name, values in self.needs.items()},
            "Idle": self.idle,
            "Description": self.doc,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Number(Hyperparameter):
    """A number from `low` to `high`; `above` and `below` exclude the ends."""

    integer: bool = False
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def _parse(self, text: str) -> int | float:
        try:
            value: int | float = float(text)
        except ValueError:
            raise ValueError(f"expected {self.allowed()}") from None
        if self.integer:
            if not math.isfinite(value) or value != int(value):
                raise ValueError(f"expected {self.allowed()}")
            value = int(text) if text.strip().lstrip("+-").isdecimal() else int(value)
        inside = (
            not math.isnan(value)
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )
        if not inside:
            raise ValueError(f"expected {self.allowed()}")
        return value

    def allowed(self) -> str:
        """Return the range in words."""
        kind = "an integer" if self.integer else "a number"
        limits = [
            f"{word} {bound:g}"
            for word, bound in (
                ("at least", self.low),
                ("above", self.above),
                ("at most", self.high),
                ("below", self.below),
            )
            if bound is not None
        ]
        words = " ".join([kind, " and ".join(limits)]) if limits else kind
        return f"{words}, or auto" if self.auto else words


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag(Hyperparameter):
    """true or false."""

    def _parse(self, text: str) -> bool:
        lowered = text.lower()
        if lowered in ("true", "1"):
            return True
        if lowered in ("false", "0"):
            return False
        raise ValueError(f"expected {self.allowed()}")

    def allowed(self) -> str:
        """Return the values in words."""
        return "true or false"


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(Hyperparameter):
    """A text; one of `choices` if there are any. `check` may refuse it, with a ValueError that says why."""

    choices: tuple[str, ...] = ()
    check: Callable[[str], None] | None = None

    def _parse(self, text: str) -> str:
        if self.choices and text not in self.choices:
            raise ValueError(f"expected {self.allowed()}{_suggestion(text, self.choices)}")
        if self.check is not None:
            self.check(text)
        return text

    def allowed(self) -> str:
        """Return the values in words."""
        return "one of " + ", ".join(self.choices) if self.choices else "a text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Words(Hyperparameter):
    """A list of `choices`: JSON, or separated by commas. `matches` may accept further words."""

    choices: tuple[str, ...] = ()
    matches: Callable[[str], bool] | None = None

    def _parse(self, text: str) -> tuple[str, ...]:
        stripped = text.strip()
        try:
            items = json.loads(stripped) if stripped.startswith("[") else stripped.split(",")
        except ValueError:
            items = [word.strip(" '\"") for word in stripped.strip("[]").split(",")]
        if not isinstance(items, list):
            raise ValueError(f"expected {self.allowed()}")
        words = tuple(w for w in (str(item).strip() for item in items) if w)
        for word in words:
            if word not in self.choices and not (self.matches is not None and self.matches(word)):
                raise ValueError(
                    f"{word!r} is not known: expected {self.allowed()}{_suggestion(word, self.choices)}"
                )
        return words

    def allowed(self) -> str:
        """Return the values in words."""
        return "a list of " + ", ".join(self.choices)


class Hyperparameters(Mapping[str, Hyperparameter]):
    """The hyperparameters of one algorithm.

    Args:
        declared: one for each name.
        rules: checks that concern several; each gets the parsed values and yields faults.
        ignored: names that are accepted without effect.
    """

    def __init__(
        self,
        *declared: Hyperparameter,
        rules: tuple[Callable[[Mapping[str, Any]], Iterable[str]], ...] = (),
        ignored: tuple[str, ...] = (),
    ) -> None:
        self._declared = {parameter.name: parameter for parameter in declared}
        self._rules = rules
        self._ignored = frozenset((*ignored, *_ALWAYS_ACCEPTED))

    def __getitem__(self, name: str) -> Hyperparameter:
        return self._declared[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._declared)

    def __len__(self) -> int:
        return len(self._declared)

    def parse(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return a value for every declared name that has one.

        Args:
            given: texts as a training job gets them, or Python values.

        Raises:
            HyperparameterError: names all faults, their ranges, and the name that was probably meant.
        """
        faults: list[str] = []
        values = {name: p.default for name, p in self._declared.items() if p.default is not None}
        for name, raw in given.items():
            parameter = self._declared.get(name)
            if parameter is None:
                if name not in self._ignored:
                    faults.append(
                        f"The hyperparameter {name!r} is not known{_suggestion(name, self._declared)}"
                    )
                continue
            text = _as_text(raw)
            if not text.strip() and not parameter.required:
                continue
            try:
                values[name] = parameter.parse(text)
            except ValueError as error:
                faults.append(f"The value {text!r} is not valid for the hyperparameter {name!r}: {error}")
        faults.extend(
            f"The hyperparameter {name!r} is required: {parameter.allowed()}"
            for name, parameter in self._declared.items()
            if parameter.required and name not in given
        )
        if not faults:
            for rule in self._rules:
                faults.extend(rule(values))
        if faults:
            raise HyperparameterError(faults)
        return values

    def without_effect(self, given: Mapping[str, Any]) -> list[str]:
        """Return a sentence for each of *given*, as `parse` takes them, that is accepted and changes nothing.

        A default that is given, as SDKs do, is not worth one.
        """
        values = self.parse(given)
        found = []
        for name in given:
            parameter = self._declared.get(name)
            if parameter is None:
                if name not in _ALWAYS_ACCEPTED:
                    found.append(f"{name} has no effect: it sets what AWS's own containers are made of")
            elif values.get(name, parameter.default) != parameter.default:
                what = f"{name}={_as_text(values[name])}"
                if parameter.idle:
                    found.append(f"{what} has no effect: {parameter.idle}")
                found.extend(
                    f"{what} has no effect with {other}={_as_text(values[other]) if other in values else '(unset)'}: "
                    f"it is for {' and '.join(map(_as_text, wanted))}"
                    for other, wanted in parameter.needs.items()
                    if values.get(other) not in wanted
                )
        return found

    def describe(self) -> list[dict[str, Any]]:
        """Return all declarations as plain data."""
        return [parameter.describe() for parameter in self._declared.values()]


def _unquoted(text: str) -> str:
    """Return *text* without the JSON quotes that SDKs put around texts in script mode."""
    stripped = text.strip()
    if len(stripped) >= 2 and stripped[0] == stripped[-1] == '"':
        try:
            value = json.loads(stripped)
        except ValueError:
            return stripped
        return value.strip() if isinstance(value, str) else stripped
    return stripped


def _as_text(value: Any) -> str:
    return (
        value
        if isinstance(value, str)
        else str(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        else json.dumps(value)
    )


def _suggestion(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f". Did you mean {close[0]!r}?" if close else ""
