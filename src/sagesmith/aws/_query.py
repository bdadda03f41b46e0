"""Query requests: form fields whose dotted names spell the way into the input, as in ``Tags.member.1.Key``."""

from __future__ import annotations

from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from sagesmith.aws._json import WrongTypeError
from sagesmith.aws._model import Shape
from sagesmith.aws._xml import read_scalar

__all__ = ["Fields", "parse_fields", "read_query"]

Fields: TypeAlias = "dict[str, Fields | str]"
"""The fields as a tree; the text of a name that is also a prefix of others is under the empty name."""

_MAX_FIELDS = 50_000
_MAX_DEPTH = 60


def parse_fields(text: bytes) -> dict[str, str]:
    """Return the fields of a form body or a query string; the last of equal names counts.

    Raises:
        WrongTypeError: it is not a form.
    """
    try:
        return dict(
            parse_qsl(text.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
        )
    except ValueError as error:
        raise WrongTypeError(f"The request body is not a valid form: {error}.") from error


def read_query(shape: Shape | None, fields: dict[str, str]) -> dict[str, Any]:
    """Return the input that *fields* spell.

    Raises:
        WrongTypeError: a field does not fit its shape.
    """
    if shape is None:
        return {}
    tree: Fields = {}
    for name, text in fields.items():
        parts = name.split(".")
        if len(parts) > _MAX_DEPTH:
            raise WrongTypeError("A field is nested too deeply.")
        place = tree
        for part in parts[:-1]:
            inner = place.get(part)
            if not isinstance(inner, dict):
                inner = place[part] = {} if inner is None else {"": inner}
            place = inner
        last = place.get(parts[-1])
        if isinstance(last, dict):
            last[""] = text
        else:
            place[parts[-1]] = text
    value = _structure(shape, tree)
    return value if value is not None else {}


def _read(shape: Shape, tree: Fields | str, *, flattened: bool) -> Any:
    if shape.type == "structure":
        return _structure(shape, tree if isinstance(tree, dict) else {})
    if shape.type == "list":
        return _list(shape, tree, flattened)
    if shape.type == "map":
        return _map(shape, tree, flattened)
    text = tree.get("") if isinstance(tree, dict) else tree
    if not isinstance(text, str):
        raise WrongTypeError(f"A {shape.type} is expected, not fields below it")
    return read_scalar(shape, text)


def _structure(shape: Shape, tree: Fields) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, member in shape.members.items():
        inner = member.shape
        flattened = member.flattened or inner.flattened
        wire = member.wire
        if flattened and inner.type == "list" and inner.member.named and wire not in tree:
            wire = inner.member.wire
        given = tree.get(wire)
        if given is None:
            continue
        try:
            value[name] = _read(inner, given, flattened=flattened)
        except WrongTypeError as error:
            error.path.insert(0, name)
            raise
    return value


def _numbered(tree: Fields) -> list[Fields | str]:
    try:
        return [tree[number] for number in sorted((part for part in tree if part), key=int)]
    except ValueError as error:
        raise WrongTypeError("List elements must be numbered: .1, .2, ...") from error


def _list(shape: Shape, tree: Fields | str, flattened: bool) -> list[Any]:
    if isinstance(tree, str):
        return []  # `Name=` is how an empty list is sent
    if not flattened:
        inner = tree.get(shape.member.wire if shape.member.named else "member", tree.get("member"))
        if not isinstance(inner, dict):
            return []
        tree = inner
    return [
        _read(shape.member.shape, item, flattened=shape.member.shape.flattened) for item in _numbered(tree)
    ]


def _map(shape: Shape, tree: Fields | str, flattened: bool) -> dict[str, Any]:
    if isinstance(tree, str):
        return {}
    if not flattened:
        inner = tree.get("entry")
        if not isinstance(inner, dict):
            return {}
        tree = inner
    result = {}
    for entry in _numbered(tree):
        if not isinstance(entry, dict) or shape.key.wire not in entry:
            raise WrongTypeError(f"Each entry of a map needs .{shape.key.wire} and .{shape.value.wire}")
        key = _read(shape.key.shape, entry[shape.key.wire], flattened=False)
        item = entry.get(shape.value.wire)
        result[key] = None if item is None else _read(shape.value.shape, item, flattened=False)
    return result
