"""States as JSON: dataclasses of enums, tuples, mappings and plain values, there and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["from_plain", "to_plain"]

_T = TypeVar("_T")


def to_plain(value: Any) -> Any:
    """Return *value* as JSON values; members that have their default are left out."""
    if is_dataclass(value):
        return {
            f.name: to_plain(getattr(value, f.name))
            for f in fields(value)
            if f.default is MISSING or getattr(value, f.name) != f.default
        }
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    return value


def from_plain(wanted: type[_T], data: Mapping[str, Any]) -> _T:
    """Return the dataclass *wanted* from what :func:`to_plain` made; unknown members are ignored."""
    result: _T = _build(wanted, data)
    return result


@cache
def _hints(wanted: type[Any]) -> dict[str, Any]:
    return get_type_hints(wanted)


def _build(wanted: Any, data: Any) -> Any:
    if isinstance(wanted, type):
        if is_dataclass(wanted):
            hints = _hints(wanted)
            return wanted(**{name: _build(hints[name], item) for name, item in data.items() if name in hints})
        if issubclass(wanted, Enum):
            return wanted(data)
    origin = get_origin(wanted)
    if origin in (Union, UnionType):
        if data is None:
            return None
        return _build(next(a for a in get_args(wanted) if a is not NoneType), data)
    if origin is tuple:
        args = get_args(wanted)
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_build(args[0], item) for item in data)
        return tuple(_build(arg, item) for arg, item in zip(args, data, strict=True))
    return data
