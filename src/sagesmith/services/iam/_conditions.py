"""Condition operators: what ``{"StringLike": {"s3:prefix": ["home/${aws:username}/*"]}}`` asks of a request.

The rules, from "IAM JSON policy elements: Condition operators" of AWS's user guide: operators and keys are
joined by AND, the values of a key by OR (negated operators: none may match). A key that the request lacks
fails a positive operator and fulfils a negated one; ``...IfExists`` is fulfilled without the key.
``ForAllValues:`` wants every value of the request to fulfil the condition, and is fulfilled by none;
``ForAnyValue:`` wants at least one.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeAlias

from sagesmith.services.iam._patterns import Lookup, Pattern, compile_glob

__all__ = ["OPERATORS", "Condition", "parse_operator"]

Comparison: TypeAlias = Callable[[str, Pattern, Lookup], bool]
"""Compares a value of the request with a value of the policy."""


def _text(*, ignore_case: bool = False) -> Comparison:
    def compare(value: str, wanted: Pattern, lookup: Lookup) -> bool:
        text = wanted.resolve(lookup)
        if text is None:
            return False
        return value.lower() == text.lower() if ignore_case else value == text

    return compare


def _like(value: str, wanted: Pattern, lookup: Lookup) -> bool:
    return wanted.matches(value, lookup)


def _arn(value: str, wanted: Pattern, lookup: Lookup) -> bool:
    """Compare part by part, so that no wildcard reaches over a colon of the first five."""
    text = wanted.resolve(lookup)
    if text is None:
        return False
    if text == "*":
        return True
    patterns, parts = text.split(":", 5), value.split(":", 5)
    return len(patterns) == len(parts) and all(
        compile_glob(pattern).fullmatch(part) for pattern, part in zip(patterns, parts, strict=True)
    )


def _ordered(number: Callable[[str], float], test: Callable[[float, float], bool]) -> Comparison:
    def compare(value: str, wanted: Pattern, lookup: Lookup) -> bool:
        text = wanted.resolve(lookup)
        try:
            return text is not None and test(number(value), number(text))
        except ValueError:
            return False

    return compare


def _date(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _binary(value: str, wanted: Pattern, lookup: Lookup) -> bool:
    try:
        return base64.b64decode(value) == base64.b64decode(wanted.text)
    except binascii.Error:
        return False


def _address(value: str, wanted: Pattern, lookup: Lookup) -> bool:
    try:
        return ipaddress.ip_address(value) in ipaddress.ip_network(wanted.text, strict=False)
    except ValueError:
        return False


_ORDERS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "Equals": lambda value, wanted: value == wanted,
    "LessThan": lambda value, wanted: value < wanted,
    "LessThanEquals": lambda value, wanted: value <= wanted,
    "GreaterThan": lambda value, wanted: value > wanted,
    "GreaterThanEquals": lambda value, wanted: value >= wanted,
}

OPERATORS: Final[Mapping[str, tuple[Comparison, bool]]] = {
    "StringEquals": (_text(), False),
    "StringNotEquals": (_text(), True),
    "StringEqualsIgnoreCase": (_text(ignore_case=True), False),
    "StringNotEqualsIgnoreCase": (_text(ignore_case=True), True),
    "StringLike": (_like, False),
    "StringNotLike": (_like, True),
    "ArnEquals": (_arn, False),
    "ArnLike": (_arn, False),
    "ArnNotEquals": (_arn, True),
    "ArnNotLike": (_arn, True),
    "Bool": (_text(ignore_case=True), False),
    "BinaryEquals": (_binary, False),
    "IpAddress": (_address, False),
    "NotIpAddress": (_address, True),
    **{f"Numeric{name}": (_ordered(float, test), False) for name, test in _ORDERS.items()},
    "NumericNotEquals": (_ordered(float, _ORDERS["Equals"]), True),
    **{f"Date{name}": (_ordered(_date, test), False) for name, test in _ORDERS.items()},
    "DateNotEquals": (_ordered(_date, _ORDERS["Equals"]), True),
}
"""Per operator its comparison, and whether it is negated. ``Null`` is apart: it asks whether the key is there."""

_BY_LOWER_NAME: Final = {name.lower(): name for name in (*OPERATORS, "Null")}


@dataclass(frozen=True, slots=True)
class Condition:
    """One operator on one key. `key` is in lower case, as upper and lower case are the same there."""

    operator: str
    key: str
    wanted: Sequence[Pattern]
    quantifier: str = ""
    if_exists: bool = False

    def holds(self, lookup: Lookup) -> bool:
        """Whether the request that *lookup* knows fulfils the condition."""
        values = lookup(self.key)
        if self.operator == "Null":
            absent = "false" if values else "true"
            return any(pattern.text.lower() == absent for pattern in self.wanted)
        compare, negated = OPERATORS[self.operator]
        if not values:
            return self.if_exists or self.quantifier == "forallvalues" or (negated and not self.quantifier)

        def found(value: str) -> bool:
            return any(compare(value, pattern, lookup) for pattern in self.wanted)

        if self.quantifier == "forallvalues":
            return all(found(value) is not negated for value in values)
        if self.quantifier == "foranyvalue":
            return any(found(value) is not negated for value in values)
        return any(map(found, values)) is not negated


def parse_operator(text: str) -> tuple[str, str, bool] | None:
    """Return operator, quantifier and whether ``IfExists``, as *text* names them; None if it names none."""
    quantifier, _, rest = text.rpartition(":")
    quantifier = quantifier.lower()
    if quantifier not in ("", "forallvalues", "foranyvalue"):
        return None
    name = _BY_LOWER_NAME.get(rest.lower())
    if name is not None:
        return name, quantifier, False
    if rest.lower().endswith("ifexists"):
        name = _BY_LOWER_NAME.get(rest.lower().removesuffix("ifexists"))
        if name is not None and name != "Null":
            return name, quantifier, True
    return None
