"""Checks input against its shape: required members, lengths, ranges, patterns, enums, unions.

botocore's own validator ignores max, pattern and enum. Here each shape is compiled once into a closure
that returns its faults, or None at the cost of a few look-ups; paths are written only when there
is something to report. A check may raise `PatternTimeoutError`, which ends it. All faults come in one message, worded as AWS words them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from sagesmith.aws._model import Shape
from sagesmith.aws._patterns import full_match

__all__ = ["Fault", "Validator", "message_of"]

MAX_FAULTS: Final = 50
"""More faults than this are counted but not written out."""
MAX_SHOWN: Final = 256
"""Longer values are cut in messages."""
_ELEMENT_CHECK_LIMIT: Final = 100_000


@dataclass(slots=True)
class Fault:
    """One violated constraint. `path` is written from the end as the fault travels up."""

    path: str
    value: str
    constraint: str
    missing: bool = False

    def under(self, parent: str) -> Fault:
        """Return the fault as its *parent* sees it."""
        self.path = f"{parent}.{self.path}" if self.path else parent
        return self

    def __str__(self) -> str:
        return f"Value {self.value} at '{self.path}' failed to satisfy constraint: {self.constraint}"


Faults: TypeAlias = list[Fault]
Check: TypeAlias = Callable[[Any], "Faults | None"]


def message_of(faults: Faults) -> str:
    """Return all *faults* in one AWS-worded message."""
    count = len(faults)
    shown = "; ".join(str(fault) for fault in faults[:MAX_FAULTS])
    more = f"; and {count - MAX_FAULTS} more" if count > MAX_FAULTS else ""
    return f"{count} validation error{'s' if count > 1 else ''} detected: {shown}{more}"


class Validator:
    """Makes and keeps the checks of one service's shapes. Thread-safe."""

    def __init__(self) -> None:
        self._checks: dict[str, Check | None] = {}
        self._unpublished: dict[str, Check | None] = {}
        self._lock = threading.Lock()

    def check(self, shape: Shape) -> Check | None:
        """Return the check of *shape*: None if nothing about it can be wrong."""
        try:
            return self._checks[shape.name]
        except KeyError:
            with self._lock:
                check = self._check(shape)
                # Published only when all is made: other threads look without the lock.
                self._checks.update(self._unpublished)
                self._unpublished.clear()
                return check

    def _check(self, shape: Shape) -> Check | None:
        for known in (self._checks, self._unpublished):
            if shape.name in known:
                return known[shape.name]
        # A recursive shape meets itself while it is made, and calls itself through this cell.
        cell: list[Check | None] = []

        def itself(value: Any) -> Faults | None:
            check = cell[0]
            return check(value) if check is not None else None

        self._unpublished[shape.name] = itself
        made = self._unpublished[shape.name] = self._make(shape)
        cell.append(made)
        return made

    def _make(self, shape: Shape) -> Check | None:
        if shape.document:
            return None
        if shape.type == "structure":
            return self._structure(shape)
        if shape.type == "list":
            return self._list(shape)
        if shape.type == "map":
            return self._map(shape)
        return _scalar(shape)

    def _structure(self, shape: Shape) -> Check | None:
        checks = {
            name: check
            for name, member in shape.members.items()
            if (check := self._check(member.shape)) is not None
        }
        required = tuple(name for name in shape.required if name in shape.members)
        names = {name: lower_first(name) for name in shape.members}
        union = frozenset(shape.members) if shape.union else None
        if not checks and not required and union is None:
            return None
        find = checks.get

        def structure(value: Any) -> Faults | None:
            faults: Faults | None = None
            for name in required:
                if value.get(name) is None:
                    faults = faults or []
                    faults.append(Fault(names[name], "null", "Member must not be null", missing=True))
            for name, item in value.items():
                check = find(name)
                if check is not None and item is not None:
                    found = check(item)
                    if found:
                        faults = faults or []
                        faults.extend([fault.under(names[name]) for fault in found])
            if union is not None:
                given = [name for name in value if name in union and value[name] is not None]
                if len(given) > 1 or (not given and not (set(value) - union)):
                    faults = faults or []
                    said = "[" + ", ".join(map(lower_first, given)) + "]" if given else "null"
                    faults.append(Fault("", said, "Exactly one member of the union must be set"))
            return faults

        return structure

    def _list(self, shape: Shape) -> Check | None:
        element = self._check(shape.member.shape)
        length = _length_check(shape)
        plain = shape.member.shape.type not in ("structure", "list", "map")

        def list_of(value: Any) -> Faults | None:
            faults = length(value) if length is not None else None
            if len(value) > _ELEMENT_CHECK_LIMIT:
                return faults
            for number, item in enumerate(value, 1):
                if item is None:
                    faults = faults or []
                    faults.append(Fault(f"{number}.member", "null", "Member must not be null"))
                elif element is not None:
                    found = element(item)
                    if found:
                        faults = faults or []
                        if plain:
                            constraint = "[" + ", ".join(fault.constraint for fault in found) + "]"
                            shown = show(value, shape.member.shape.sensitive)
                            faults.append(Fault("", shown, f"Member must satisfy constraint: {constraint}"))
                            break
                        faults.extend([fault.under(f"{number}.member") for fault in found])
            return faults

        return list_of

    def _map(self, shape: Shape) -> Check | None:
        key_check, value_check = self._check(shape.key.shape), self._check(shape.value.shape)
        length = _length_check(shape)
        plain = shape.value.shape.type not in ("structure", "list", "map")
        if key_check is None and value_check is None and length is None:
            return None
        sensitive = shape.value.shape.sensitive or shape.key.shape.sensitive

        def map_of(value: Any) -> Faults | None:
            faults = length(value) if length is not None else None
            keys_done = values_done = False
            for key, item in value.items():
                if key_check is not None and not keys_done and (found := key_check(key)):
                    keys_done = True
                    faults = faults or []
                    constraint = "[" + ", ".join(fault.constraint for fault in found) + "]"
                    faults.append(
                        Fault("", show(value, sensitive), f"Map keys must satisfy constraint: {constraint}")
                    )
                if value_check is None or item is None or values_done:
                    continue
                found = value_check(item)
                if found and plain:
                    values_done = True
                    faults = faults or []
                    constraint = "[" + ", ".join(fault.constraint for fault in found) + "]"
                    faults.append(
                        Fault("", show(value, sensitive), f"Map value must satisfy constraint: {constraint}")
                    )
                elif found:
                    faults = faults or []
                    faults.extend([fault.under(f"{key}.member") for fault in found])
            return faults

        return map_of


def lower_first(name: str) -> str:
    """Return a member's name as AWS's messages write it: ``KMSKeyId`` becomes ``kMSKeyId``."""
    return name[:1].lower() + name[1:]


def show(value: Any, sensitive: bool) -> str:
    """Return *value* as a message quotes it; what is sensitive is not shown."""
    if sensitive:
        return "'***Sensitive***'"
    if isinstance(value, Mapping):
        text = "{" + ", ".join(f"{key}={item}" for key, item in list(value.items())[:20]) + "}"
    elif isinstance(value, list):
        text = "[" + ", ".join(str(item) for item in value[:20]) + "]"
    elif isinstance(value, bytes):
        text = f"{len(value)} bytes"
    else:
        text = str(value)
    return f"'{text[:MAX_SHOWN]}...'" if len(text) > MAX_SHOWN else f"'{text}'"


def _number(limit: float) -> str:
    return str(int(limit)) if float(limit).is_integer() else str(limit)


def _length_check(shape: Shape) -> Check | None:
    return _limits(shape, "Member must have length", len)


def _value_check(shape: Shape) -> Check | None:
    return _limits(shape, "Member must have value", lambda value: value)


def _limits(shape: Shape, words: str, measure: Callable[[Any], float]) -> Check | None:
    low, high = shape.min, shape.max
    if low is None and high is None:
        return None
    lowest = low if low is not None else float("-inf")
    highest = high if high is not None else float("inf")
    too_low = f"{words} greater than or equal to {_number(lowest)}"
    too_high = f"{words} less than or equal to {_number(highest)}"

    def check(value: Any) -> Faults | None:
        measured = measure(value)
        if lowest <= measured <= highest:
            return None
        return [Fault("", show(value, shape.sensitive), too_low if measured < lowest else too_high)]

    return check


def _scalar(shape: Shape) -> Check | None:
    if shape.type == "string":
        return _string(shape)
    if shape.type == "blob":
        # A streaming body has no length yet; its size is the handler's business.
        check = None if shape.streaming else _length_check(shape)
        return None if check is None else lambda value: check(value) if isinstance(value, bytes) else None
    if shape.type in ("integer", "long", "float", "double"):
        return _value_check(shape)
    return None


def _string(shape: Shape) -> Check | None:
    length = _length_check(shape)
    # Instance types come monthly; which exist is the fleet's knowledge, not that of the installed model.
    enum = frozenset(shape.enum) if shape.enum and not shape.name.endswith("InstanceType") else None
    enum_words = f"Member must satisfy enum value set: [{', '.join(shape.enum)}]"
    pattern = shape.pattern
    match = full_match(pattern) if pattern is not None and enum is None else None
    pattern_words = f"Member must satisfy regular expression pattern: {pattern}"
    if length is None and enum is None and match is None:
        return None
    longest = shape.max

    def check(value: Any) -> Faults | None:
        faults = length(value) if length is not None else None
        if enum is not None and value not in enum:
            faults = faults or []
            faults.append(Fault("", show(value, shape.sensitive), enum_words))
        # A value beyond its greatest length is refused without asking the pattern, which takes longer with it.
        if match is not None and (longest is None or len(value) <= longest) and not match(value):
            faults = faults or []
            faults.append(Fault("", show(value, shape.sensitive), pattern_words))
        return faults

    return check
