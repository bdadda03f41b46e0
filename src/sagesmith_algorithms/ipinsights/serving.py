"""Answering requests for pairs of entity and address: the product of their vectors, and with ``verbose=true`` these too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from sagesmith_algorithms.errors import CustomerError, DataError, RequestError
from sagesmith_algorithms.formats import content_type as types
from sagesmith_algorithms.formats.content_type import ContentType, accepted
from sagesmith_algorithms.ipinsights.network import Addresses, Ints
from sagesmith_algorithms.ipinsights.pairs import encoded, parse_csv
from sagesmith_algorithms.serving import EXECUTION_PARAMETERS, encode_columns, execution_parameters, failure
from sagesmith_toolkit.environment import cpu_count
from sagesmith_toolkit.server import Request, Response

if TYPE_CHECKING:
    from sagesmith_algorithms.ipinsights import IPInsights

__all__ = ["PairPredictor"]

_WHERE = "the request"


class PairPredictor:
    """Answers requests with a model."""

    def __init__(self, model: IPInsights, environ: Mapping[str, str]) -> None:
        self._model = model
        self._default = environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or types.JSON
        self._n_cpus = cpu_count(environ)

    def predict(self, requests: Sequence[Request]) -> Sequence[Response]:
        """Return one response for each of *requests*, in their order; all pairs are scored at once."""
        responses: list[Response | None] = [None] * len(requests)
        parts: list[tuple[int, ContentType, tuple[Ints, Addresses]]] = []
        for i, request in enumerate(requests):
            if request.path == EXECUTION_PARAMETERS:
                responses[i] = execution_parameters(self._n_cpus)
                continue
            try:
                if not request.body:
                    responses[i] = Response(204, "", b"")
                    continue
                accept = accepted(request.accept, self._model.response_types, self._default)
                parts.append((i, accept, self._pairs(request)))
            except CustomerError as error:
                responses[i] = failure(error)
        if parts:
            columns = self._model.columns(*(np.concatenate([part[2][k] for part in parts]) for k in (0, 1)))
            start = 0
            for i, accept, pairs in parts:
                end = start + len(pairs[0])
                mine = {name: column[start:end] for name, column in columns.items()}
                if accept.parameters.get("verbose", "").lower() != "true":
                    mine = {"dot_product": mine["dot_product"]}
                responses[i] = Response(200, accept.name, encode_columns(mine, accept.name))
                start = end
        return [response for response in responses if response is not None]

    def _pairs(self, request: Request) -> tuple[Ints, Addresses]:
        content_type = ContentType.parse(request.content_type)
        if content_type.name not in self._model.request_types:
            raise RequestError(
                f"Content type {request.content_type or '(none)'} is not supported. "
                f"Send one of {', '.join(self._model.request_types)}.",
                415,
            )
        rows = (
            parse_csv(request.body, _WHERE)
            if content_type.name == types.CSV
            else _instances(request.body, content_type.name)
        )
        if not rows:
            raise DataError("there is no pair in it", _WHERE)
        return encoded(rows, self._model.n_vectors, _WHERE)


def _instances(body: bytes, content_type: str) -> list[list[str]]:
    try:
        if content_type == types.JSON:
            document = orjson.loads(body)
            instances = document.get("instances") if isinstance(document, dict) else None
        else:
            instances = [orjson.loads(line) for line in body.splitlines() if line.strip()]
    except orjson.JSONDecodeError as error:
        raise DataError(f"is not JSON: {error}", _WHERE) from error
    if not isinstance(instances, list):
        raise DataError('must be {"instances": [{"features": ["entity", "192.0.2.1"]}, ...]}', _WHERE)
    return [_features(instance, number) for number, instance in enumerate(instances, 1)]


def _features(instance: Any, number: int) -> list[str]:
    found = instance
    for name in ("data", "features", "values"):
        if isinstance(found, dict) and name in found:
            found = found[name]
    if not isinstance(found, list) or any(
        isinstance(value, (list, dict, bool, type(None))) for value in found
    ):
        raise DataError(f'record {number} must be {{"features": ["entity", "192.0.2.1"]}}', _WHERE)
    return [str(value) for value in found]
