"""CBOR bodies to and from values, by shape (smithy-rpc-v2-cbor, which newer boto3 speaks to CloudWatch)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sagesmith.aws._json import WrongTypeError
from sagesmith.aws._model import Shape
from sagesmith.aws._timestamps import parse_timestamp

__all__ = ["read_cbor", "write_cbor"]

_EPOCH_TAG: Final = 1  # RFC 8949, section 3.4.2
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (float, int),
    "double": (float, int),
    "blob": (bytes,),
}


def read_cbor(shape: Shape | None, body: bytes) -> dict[str, Any]:
    """Return the input that *body* holds; members that the model does not know are kept.

    Raises:
        WrongTypeError: it is not CBOR, or a value does not fit its shape.
    """
    if not body:
        return {}
    import cbor2

    try:
        raw = cbor2.loads(body)
    except (
        cbor2.CBORDecodeError,
        ValueError,
        OverflowError,
        RecursionError,
        MemoryError,
        TypeError,
    ) as error:
        raise WrongTypeError(f"The request body is not valid CBOR: {error}.") from error
    if shape is None:
        return {}
    value: dict[str, Any] = _read(shape, raw)
    return value


def _read(shape: Shape, raw: Any) -> Any:
    if shape.type == "structure":
        if not isinstance(raw, dict):
            raise WrongTypeError("A structure is expected")
        result = {}
        for name, item in raw.items():
            if item is None:
                continue
            member = shape.members.get(name)
            try:
                result[name] = item if member is None else _read(member.shape, item)
            except WrongTypeError as error:
                error.path.insert(0, str(name))
                raise
        return result
    if shape.type == "list":
        if not isinstance(raw, list | tuple):
            raise WrongTypeError("A list is expected")
        return [None if item is None else _read(shape.member.shape, item) for item in raw]
    if shape.type == "map":
        if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
            raise WrongTypeError("A map with text keys is expected")
        return {key: _read(shape.value.shape, item) for key, item in raw.items() if item is not None}
    if shape.type == "timestamp":
        if not isinstance(raw, datetime | int | float) or isinstance(raw, bool):
            raise WrongTypeError("A timestamp is expected")
        try:
            return parse_timestamp(raw)
        except (ValueError, OverflowError) as error:
            raise WrongTypeError(str(error)) from error
    wanted = _TYPES.get(shape.type)
    if wanted is not None and (not isinstance(raw, wanted) or (isinstance(raw, bool) and bool not in wanted)):
        raise WrongTypeError(f"A {shape.type} is expected, not {type(raw).__name__}")
    return raw


def write_cbor(shape: Shape | None, value: Mapping[str, Any]) -> bytes:
    """Return *value* as CBOR."""
    import cbor2

    result: bytes = cbor2.dumps(_write(shape, value) if shape is not None else dict(value))
    return result


def _write(shape: Shape, value: Any) -> Any:
    if shape.type == "structure":
        result = {}
        for name, item in value.items():
            if item is not None:
                member = shape.members.get(name)
                result[name] = item if member is None else _write(member.shape, item)
        return result
    if shape.type == "list":
        return [_write(shape.member.shape, item) for item in value]
    if shape.type == "map":
        return {key: _write(shape.value.shape, item) for key, item in value.items() if item is not None}
    if shape.type == "timestamp":
        import cbor2

        seconds = parse_timestamp(value)
        return cbor2.CBORTag(_EPOCH_TAG, int(seconds) if seconds.is_integer() else seconds)
    if shape.type in ("float", "double"):
        return float(value)
    return value
