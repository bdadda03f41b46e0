"""JSON and JSON Lines requests: ``{"instances": [{"features": [...]}]}`` and its variants.

An instance is ``{"features": [...]}``, ``{"data": {"features": {"values": [...]}}}``, ``{"features": {"values": ...}}``, or a
plain list. Values with ``keys`` (and ``shape``) are sparse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from sagesmith_algorithms.errors import DataError
from sagesmith_algorithms.formats.batch import Batch
from sagesmith_algorithms.formats.protobuf import Tensor
from sagesmith_algorithms.formats.recordio import stacked

__all__ = ["decode", "decode_lines"]


def decode(body: bytes, where: str = "the request") -> Batch:
    """Return the instances of a JSON request.

    Raises:
        DataError: it is not JSON, or an instance is not as above.
    """
    document = _loads(body, where)
    instances = document.get("instances") if isinstance(document, dict) else document
    if not isinstance(instances, list) or not instances:
        raise DataError('must be {"instances": [{"features": [...]}, ...]} with at least one instance', where)
    if not isinstance(instances[0], (list, dict)):  # one bare row
        instances = [instances]
    return _batch(instances, where)


def decode_lines(body: bytes, where: str = "the request") -> Batch:
    """Return the instances of a JSON Lines request, one for each line.

    Raises:
        DataError: a line is not JSON, or is no instance.
    """
    lines = [
        _loads(line, f"{where}, line {number}")
        for number, line in enumerate(body.split(b"\n"), 1)
        if line.strip()
    ]
    if not lines:
        raise DataError("there is no instance in it", where)
    return _batch(lines, where)


def _loads(text: bytes, where: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise DataError(f"is not JSON: {error}", where) from error


def _batch(instances: list[Any], where: str) -> Batch:
    tensors = []
    for number, instance in enumerate(instances, 1):
        try:
            tensors.append(_tensor(instance))
        except (TypeError, ValueError, OverflowError, KeyError) as error:
            raise DataError(
                f"instance {number} has no list of numbers as its features ({error})", where
            ) from None
    return Batch(stacked(tensors, where))


def _tensor(instance: Any) -> Tensor:
    features = instance
    if isinstance(features, Mapping) and "data" in features:
        features = features["data"]
    if isinstance(features, Mapping) and "features" in features:
        features = features["features"]
    if not isinstance(features, Mapping):
        return Tensor(_row(features))
    values = _row(features["values"])
    keys = np.asarray(features.get("keys") or [], np.int64)
    shape = tuple(int(n) for n in features.get("shape") or ())
    if keys.size != values.size and keys.size:
        raise ValueError(f"{keys.size} keys for {values.size} values")
    if (keys < 0).any() or any(n < 0 for n in shape):
        raise ValueError("keys and shape must not be negative")
    return Tensor(values, keys.astype(np.uint64), shape)


def _row(values: Any) -> Any:
    if not isinstance(values, list):
        raise TypeError("features must be a list")
    if any(isinstance(v, (str, list, dict)) for v in values):
        raise TypeError("features must be numbers")
    row = np.array(values, np.float32)
    if row.ndim != 1:
        raise ValueError("features must be a flat list")
    return row
