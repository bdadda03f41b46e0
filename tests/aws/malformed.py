"""Malformed inputs for any operation: each has at least one fault that the model can know.

`inputs` yields values (as Python has JSON), `bodies` yields bytes that are no proper input of any JSON
operation. Both name what is wrong, for the failing test's message.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sagesmith.aws import OperationModel, Shape
from sagesmith.aws._patterns import PatternTimeoutError, full_match

__all__ = ["bodies", "inputs"]

WRONG_TYPES: dict[str, list[Any]] = {
    "string": [5, 1.5, True, [], {}, ["x"]],
    "integer": ["x", "5", 1.5, True, 2**31, [], {}],
    "long": ["x", 1.5, True, 10**30, []],
    "float": ["x", True, [], {}],
    "double": ["x", True, [], {}],
    "boolean": ["yes", "true", 1, 0, [], {}],
    "timestamp": ["not a date", 1e300, True, [], {}],
    "blob": ["%%%", 5, [], {}],
    "list": ["x", 5, {}, True],
    "map": ["x", 5, [], True],
    "structure": ["x", 5, [], True],
}
STRANGE = [
    "",
    " ",
    "\0",
    "é😀",
    "!" * 50,
    "\n",
    "a" * 5000,
    "-",
    "\u202e",
    "${jndi:x}",
    "' OR 1=1 --",
    "../../etc",
]
MAX_DEPTH = 4


def inputs(operation: OperationModel) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (what is wrong, input) for each constraint of *operation*'s input that can be broken."""
    if operation.input is None:
        return
    for name in operation.input.required:
        yield f"{name} is missing", {}
        yield f"{name} is null", {name: None}
    yield from _in_structure(operation.input, 0, ())


def _in_structure(shape: Shape, depth: int, above: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    if depth > MAX_DEPTH or shape.name in above:
        return
    for name, member in shape.members.items():
        for what, value in _wrong(member.shape, depth, (*above, shape.name)):
            yield f"{name}: {what}", {name: value}


def _wrong(shape: Shape, depth: int, above: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for value in WRONG_TYPES[shape.type]:
        yield f"{value!r} is no {shape.type}", value
    if shape.type == "structure":
        if shape.required:
            yield "required members are missing", {}
        yield from _in_structure(shape, depth + 1, above)
    elif shape.type == "list":
        yield from _sizes(shape, ["x"])
        yield "an element is null", [None]
        if depth < MAX_DEPTH:
            for what, value in _wrong(shape.member.shape, depth + 1, above):
                yield f"element {what}", [value]
    elif shape.type == "map":
        if depth < MAX_DEPTH:
            for what, value in _wrong(shape.value.shape, depth + 1, above):
                yield f"value {what}", {"k": value}
    elif shape.type in ("integer", "long", "float", "double"):
        if shape.min is not None:
            yield "too small", _whole(shape, shape.min - 1)
        if shape.max is not None and shape.max < 2**31 - 1:
            yield "too large", _whole(shape, shape.max + 1)
    elif shape.type == "string":
        yield from _strings(shape)


def _whole(shape: Shape, value: float) -> float:
    return int(value) if shape.type in ("integer", "long") else value


def _sizes(shape: Shape, unit: Any) -> Iterator[tuple[str, Any]]:
    if shape.min:
        yield "too short", unit * (int(shape.min) - 1)
    if shape.max is not None and shape.max <= 10_000:
        yield "too long", unit * (int(shape.max) + 1)


def _strings(shape: Shape) -> Iterator[tuple[str, str]]:
    yield from _sizes(shape, "a")
    if shape.enum and not shape.name.endswith("InstanceType"):
        yield "not in the enum", "no-such-value"
    elif shape.pattern:
        match = full_match(shape.pattern)
        for text in STRANGE:
            try:
                matched = match(text)
            except PatternTimeoutError:
                matched = False
            if not matched:
                yield f"{text[:10]!r} does not match", text


def bodies() -> Iterator[tuple[str, bytes]]:
    """Yield (what is wrong, body): what no JSON operation may take."""
    yield "not JSON", b"{"
    yield "a list", b"[]"
    yield "a string", b'"x"'
    yield "a number", b"5"
    yield "null", b"null"
    yield "not UTF-8", b'{"\xff": 1}'
    yield "a NUL", b"\0"
    yield "deep lists", b"[" * 100_000
    yield "deep structures", b'{"a":' * 50_000
    yield "closed deep lists", b'{"Tags":' + b"[" * 900 + b"]" * 900 + b"}"
    yield "two values", b"{} {}"
    yield "NaN", b'{"a": NaN}'
