"""JSON bodies to and from values, by shape (JSON 1.0, JSON 1.1 and the bodies of REST-JSON).

Reading checks types and converts timestamps and blobs; members that the model does not know are kept as
they are. Writing is `orjson` alone wherever a shape renames nothing and has no odd timestamps.
"""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, TypeAlias

import orjson

from sagesmith.aws._model import Member, Shape
from sagesmith.aws._timestamps import http_date, iso8601, parse_timestamp

__all__ = ["JsonReaders", "JsonText", "JsonWriters", "WrongTypeError", "dumps", "loads"]

Convert: TypeAlias = Callable[[Any], Any]

_INTEGERS: Final = {"integer": 2**31, "long": 2**63}
_JSON_WORDS: Final = {str: "STRING_VALUE", int: "NUMBER_VALUE", float: "NUMBER_VALUE", bool: "BOOLEAN_VALUE"}
_FLOAT_WORDS: Final = frozenset({"NaN", "Infinity", "-Infinity"})


class WrongTypeError(Exception):
    """A value has not the type that its shape wants; `path` names the member, from the outside in."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.path: list[str] = []
        self.located = False  # True if it stood in the path, the query or a header

    def __str__(self) -> str:
        return f"{self.message} (at '{'.'.join(self.path)}')" if self.path else self.message


def loads(body: bytes) -> Any:
    """Parse *body*.

    Raises:
        WrongTypeError: it is not JSON.
    """
    try:
        return orjson.loads(body) if body else {}
    except orjson.JSONDecodeError as error:
        raise WrongTypeError(f"The request body is not valid JSON: {error}.") from error


def _default(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return parse_timestamp(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


_OPTIONS: Final = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_NON_STR_KEYS


def dumps(value: Any) -> bytes:
    """Write *value*: bytes as base64, datetimes as seconds; members that are None are left out."""
    data = orjson.dumps(value, _default, _OPTIONS)
    if b":null" in data:
        data = orjson.dumps(_without_none(value), _default, _OPTIONS)
    return data


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value


class JsonText(Mapping[str, Any]):
    """An operation's output that is JSON already, such as a document that was stored as it is to be answered.

    The JSON protocols send the text as it is; to everybody else it is the mapping that it says, parsed when first
    looked at. Timestamps are in seconds, blobs in base64, and no member is null.
    """

    __slots__ = ("_members", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._members: dict[str, Any] | None = None

    @classmethod
    def of(cls, members: Mapping[str, Any]) -> JsonText:
        """Return the text of *members*, in the forms in which handlers return them."""
        return cls(dumps(members).decode())

    def _parsed(self) -> dict[str, Any]:
        if self._members is None:
            self._members = orjson.loads(self.text)
        return self._members

    def __getitem__(self, name: str) -> Any:
        return self._parsed()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parsed())

    def __len__(self) -> int:
        return len(self._parsed())


def _wrong(value: Any, wanted: str) -> WrongTypeError:
    if isinstance(value, dict):
        return WrongTypeError("Start of structure or map found where not expected.")
    if isinstance(value, list):
        return WrongTypeError("Unexpected list: Start of list found where not expected.")
    return WrongTypeError(f"{_JSON_WORDS.get(type(value), 'NULL_VALUE')} can not be converted to {wanted}")


def _string(value: Any) -> Any:
    if type(value) is not str:
        raise _wrong(value, "a String")
    return value


def _boolean(value: Any) -> Any:
    if type(value) is not bool:
        raise _wrong(value, "a Boolean")
    return value


def _float(value: Any) -> Any:
    if type(value) is float or type(value) is int:
        return value
    if type(value) is str and value in _FLOAT_WORDS:
        return float(value)
    raise _wrong(value, "a Double")


def _integer_below(limit: int, wanted: str) -> Convert:
    def integer(value: Any) -> Any:
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int:
            raise _wrong(value, wanted)
        if not -limit <= value < limit:
            raise WrongTypeError(
                f"Numeric value ({value}) is out of the range of {wanted[2:].strip().lower()}"
            )
        return value

    return integer


def _timestamp(value: Any) -> Any:
    try:
        return parse_timestamp(value)
    except (ValueError, OverflowError) as error:
        raise _wrong(value, "a Timestamp") from error


def _blob(value: Any) -> Any:
    if type(value) is not str:
        raise _wrong(value, "a Blob")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise WrongTypeError("STRING_VALUE can not be converted to a Blob: it is not valid base64") from error


_SCALARS: Final[Mapping[str, Convert]] = {
    "string": _string,
    "character": _string,
    "boolean": _boolean,
    "float": _float,
    "double": _float,
    "bigdecimal": _float,
    "integer": _integer_below(_INTEGERS["integer"], "an Integer"),
    "biginteger": _integer_below(_INTEGERS["long"], "a Long"),
    "short": _integer_below(2**15, "a Short"),
    "byte": _integer_below(2**7, "a Byte"),
    "long": _integer_below(_INTEGERS["long"], "a Long"),
    "timestamp": _timestamp,
    "blob": _blob,
}


class JsonReaders:
    """Makes and keeps one reader for each shape of a service. Thread-safe.

    A reader takes what `orjson` parsed and returns the value, changing dictionaries in place; it
    raises `WrongTypeError`.
    """

    def __init__(self) -> None:
        self._made: dict[str, Convert] = {}
        self._lock = threading.RLock()

    def reader(self, shape: Shape) -> Convert:
        """Return the reader of *shape*."""
        made = self._made.get(shape.name)
        if made is None:
            with self._lock:
                made = self._made.get(shape.name) or self._make(shape)
        return made

    def members_reader(self, members: Mapping[str, Member]) -> Convert:
        """Return a reader of a structure of *members*, which may be some of a shape's."""
        table: dict[str, tuple[str, Callable[[], Convert]]] = {}
        converts: dict[str, Convert] = {}
        renamed: dict[str, str] = {}
        for name, member in members.items():
            table[member.wire] = (name, lambda member=member: self.reader(member.shape))  # type: ignore[misc]
            if member.wire != name:
                renamed[member.wire] = name
        find = converts.get

        def structure(value: Any) -> Any:
            if type(value) is not dict:
                raise (
                    _wrong(value, "a structure")
                    if not isinstance(value, list | dict)
                    else WrongTypeError("Unexpected list: a structure is expected.")
                )
            nulls: list[str] | None = None
            name = ""
            try:
                for name, item in value.items():
                    if item is None:
                        nulls = nulls or []
                        nulls.append(name)
                        continue
                    convert = find(name)
                    if convert is None:
                        known = table.get(name)
                        if known is None:
                            continue
                        convert = converts[name] = known[1]()
                    new = convert(item)
                    if new is not item:
                        value[name] = new
            except WrongTypeError as error:
                error.path.insert(0, name)
                raise
            if nulls:
                for name in nulls:
                    del value[name]
            for wire, name in renamed.items():
                if wire in value:
                    value[name] = value.pop(wire)
            return value

        return structure

    def _make(self, shape: Shape) -> Convert:
        if shape.document:
            made: Convert = lambda value: value  # noqa: E731
        elif shape.type == "structure":
            made = self.members_reader(
                shape.members
            )  # looks at its members when first used: shapes may recurse
        elif shape.type == "list":
            made = self._list(shape)
        elif shape.type == "map":
            made = self._map(shape)
        else:
            made = _SCALARS.get(shape.type, lambda value: value)
        self._made[shape.name] = made
        return made

    def _list(self, shape: Shape) -> Convert:
        element: Convert | None = None

        def list_of(value: Any) -> Any:
            nonlocal element
            if type(value) is not list:
                if isinstance(value, dict):
                    raise WrongTypeError("Start of structure or map found where not expected.")
                raise WrongTypeError("Expected list or null")
            if element is None:
                element = self.reader(shape.member.shape)
            place = 0
            try:
                for place, item in enumerate(value):
                    if item is not None:
                        new = element(item)
                        if new is not item:
                            value[place] = new
            except WrongTypeError as error:
                error.path.insert(0, str(place + 1))
                raise
            return value

        return list_of

    def _map(self, shape: Shape) -> Convert:
        convert: Convert | None = None

        def map_of(value: Any) -> Any:
            nonlocal convert
            if type(value) is not dict:
                if isinstance(value, list):
                    raise WrongTypeError("Unexpected list: Start of list found where not expected.")
                raise WrongTypeError("Expected map or null")
            if convert is None:
                convert = self.reader(shape.value.shape)
            key = ""
            nulls: list[str] = []
            try:
                for key, item in value.items():
                    if item is None:
                        nulls.append(key)
                        continue
                    new = convert(item)
                    if new is not item:
                        value[key] = new
            except WrongTypeError as error:
                error.path.insert(0, key)
                raise
            for key in nulls:
                del value[key]
            return value

        return map_of


class JsonWriters:
    """Finds what must be changed in a shape's values before `orjson` can write them. Thread-safe."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str | None], Convert | None] = {}
        self._lock = threading.RLock()

    def writer(self, shape: Shape, timestamp_format: str | None = None) -> Convert | None:
        """Return the conversion of *shape*'s values, or None if `orjson` may write them as they are."""
        key = (shape.name, timestamp_format if shape.type == "timestamp" else None)
        try:
            return self._made[key]
        except KeyError:
            with self._lock:
                if not self._needed(shape, timestamp_format, set()):
                    return self._made.setdefault(key, None)
                return self._made.setdefault(key, self._make(shape, timestamp_format))

    def members_writer(self, members: Mapping[str, Member]) -> Convert:
        """Return the conversion of a structure of *members*, which may be some of a shape's."""

        def structure(value: Any) -> Any:
            out = {}
            for name, item in value.items():
                if item is None:
                    continue
                member = members.get(name)
                if member is None:
                    out[name] = item
                    continue
                convert = self.writer(member.shape, member.timestamp_format)
                out[member.wire] = item if convert is None else convert(item)
            return out

        return structure

    def members_need_writer(self, members: Mapping[str, Member]) -> bool:
        """Whether `orjson` alone would write *members* wrongly."""
        return any(
            member.wire != name or self._needed(member.shape, member.timestamp_format, set())
            for name, member in members.items()
        )

    def _needed(self, shape: Shape, timestamp_format: str | None, seen: set[str]) -> bool:
        if shape.type == "timestamp":
            return (timestamp_format or shape.timestamp_format or "unixTimestamp") != "unixTimestamp"
        if shape.name in seen or shape.document:
            return False
        seen.add(shape.name)
        if shape.type == "structure":
            return any(
                member.wire != name or self._needed(member.shape, member.timestamp_format, seen)
                for name, member in shape.members.items()
            )
        if shape.type == "list":
            return self._needed(shape.member.shape, shape.member.timestamp_format, seen)
        if shape.type == "map":
            return self._needed(shape.value.shape, shape.value.timestamp_format, seen)
        return False

    def _make(self, shape: Shape, timestamp_format: str | None) -> Convert:
        if shape.type == "structure":
            return self.members_writer(shape.members)
        if shape.type in ("list", "map"):
            inner = shape.member if shape.type == "list" else shape.value

            def convert(item: Any) -> Any:
                change = self.writer(inner.shape, inner.timestamp_format)
                return item if change is None else change(item)

            if shape.type == "list":
                return lambda value: [convert(item) for item in value]
            return lambda value: {key: convert(item) for key, item in value.items()}
        if (timestamp_format or shape.timestamp_format) == "iso8601":
            return lambda value: iso8601(parse_timestamp(value))
        return lambda value: http_date(parse_timestamp(value))
