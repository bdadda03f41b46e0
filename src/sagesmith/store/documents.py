"""Documents as texts: JSON that also carries bytes, and refuses what JSON cannot say.

Bytes become ``{"$bytes": "<base64>"}``; an object that has itself a member ``$bytes`` is wrapped as
``{"$bytes": {...}}``, so that every document comes back as it went in.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any, Final

import orjson

__all__ = ["decode", "encode"]

_TAG: Final = "$bytes"
_AS_THEY_ARE: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_QUOTED_TAG: Final = '"$bytes"'


def encode(document: Mapping[str, Any]) -> str:
    """Return *document* as JSON text. Members may be str, int, float, bool, None, bytes, mappings, sequences.

    Raises:
        ValueError: a number is NaN or infinite, or beyond 64 bits.
        TypeError: a value is of another type, or a key is not a string.
    """
    # Most documents are plain JSON, and `orjson` alone is ten times as quick. It refuses what it does not know, and
    # writes NaN and infinity as null: where there is neither null nor our tag, nothing was to be looked at.
    try:
        data = orjson.dumps(document, option=_AS_THEY_ARE)
        if b"null" not in data and b'"$bytes"' not in data:
            return data.decode()
    except TypeError:
        pass
    try:
        return orjson.dumps(_plain(document)).decode()
    except orjson.JSONEncodeError as error:
        raise ValueError(f"the document cannot be stored as JSON: {error}.") from error


def decode(text: str) -> dict[str, Any]:
    """Return the document that `encode` made *text* of."""
    document: dict[str, Any] = orjson.loads(text)
    if _QUOTED_TAG in text:
        restored: dict[str, Any] = _restored(document)
        return restored
    return document


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if kind is float:
        if not math.isfinite(value):
            raise ValueError(f"the document has a number that JSON cannot hold: {value}.")
        return value
    if kind is dict or isinstance(value, Mapping):
        for key in value:
            if type(key) is not str and not isinstance(key, str):
                raise TypeError(f"the document has a key that is not a string: {key!r}.")
        members = {key: _plain(item) for key, item in value.items()}
        return {_TAG: members} if _TAG in members else members
    if kind is list or isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {_TAG: base64.b64encode(value).decode("ascii")}
    if isinstance(value, (str, int)):
        return value
    raise TypeError(f"the document has a value of type {kind.__name__}, which JSON cannot hold.")


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        if _TAG in value:
            inner = value[_TAG]
            if isinstance(inner, str):
                return base64.b64decode(inner)
            return {key: _restored(item) for key, item in inner.items()}
        return {key: _restored(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_restored(item) for item in value]
    return value
