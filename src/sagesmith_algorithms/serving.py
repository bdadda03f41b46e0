"""Answering requests: formats in, one prediction of all rows that arrived together, formats out.

Each request is decoded by itself, so that a bad one is answered with a sentence and harms no other. The rows of
all good ones are predicted at once, and each gets its share of the columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import orjson

from sagesmith_algorithms.errors import CustomerError, DataError, RequestError
from sagesmith_algorithms.formats import content_type as types
from sagesmith_algorithms.formats import csv, json_lines, libsvm, parquet, recordio
from sagesmith_algorithms.formats.batch import Batch, Floats, Matrix, with_n_features
from sagesmith_algorithms.formats.content_type import ContentType, accepted
from sagesmith_toolkit.environment import cpu_count
from sagesmith_toolkit.server import Request, Response

__all__ = ["StreamingPredictor", "decode_request", "encode_columns", "failure", "records"]

EXECUTION_PARAMETERS = "/execution-parameters"
MAX_PAYLOAD_MB = 6


class Model(Protocol):
    """What answers requests: see `Algorithm` and `StreamingAlgorithm.infer`."""

    @property
    def request_types(self) -> tuple[str, ...]: ...
    @property
    def response_types(self) -> tuple[str, ...]: ...
    @property
    def response_key(self) -> str: ...
    @property
    def takes_sparse(self) -> bool: ...
    @property
    def n_features_in_(self) -> int: ...
    def infer(self, features: Any, options: Mapping[str, str]) -> Mapping[str, npt.NDArray[Any]]: ...


class StreamingPredictor:
    """Answers requests with a model."""

    def __init__(self, model: Model, environ: Mapping[str, str]) -> None:
        self._model = model
        self._default = environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or model.response_types[0]
        self._n_cpus = cpu_count(environ)
        self._contents: dict[str, ContentType] = {}
        self._accepts: dict[str, ContentType] = {}

    def predict(self, requests: Sequence[Request]) -> Sequence[Response]:
        """Return one response for each of *requests*, in their order."""
        responses: list[Response | None] = [None] * len(requests)
        parts: list[tuple[int, ContentType, Matrix]] = []
        for i, request in enumerate(requests):
            if request.path == EXECUTION_PARAMETERS:
                responses[i] = execution_parameters(self._n_cpus)
                continue
            try:
                if not request.body:
                    responses[i] = Response(204, "", b"")
                    continue
                answer = self._accept(request.accept)
                parts.append((i, answer, self._rows(request)))
            except CustomerError as error:
                responses[i] = failure(error)
        by_options: dict[tuple[tuple[str, str], ...], list[tuple[int, ContentType, Matrix]]] = {}
        for part in parts:
            by_options.setdefault(tuple(sorted(part[1].parameters.items())), []).append(part)
        for options, group in by_options.items():
            rows = _stacked([part[2] for part in group])
            columns = self._model.infer(rows, dict(options))
            start = 0
            for i, answer, part_rows in group:
                end = start + part_rows.shape[0]
                share = {name: column[start:end] for name, column in columns.items()}
                responses[i] = Response(200, answer.name, self._encoded(share, answer.name))
                start = end
        return [response for response in responses if response is not None]

    def _encoded(self, columns: Mapping[str, npt.NDArray[Any]], accept: str) -> bytes:
        return encode_columns(columns, accept, self._model.response_key)

    def _rows(self, request: Request) -> Matrix:
        content_type = self._contents.get(request.content_type)
        if content_type is None:
            content_type = ContentType.parse(request.content_type)
            if content_type.name not in self._model.request_types:
                raise RequestError(
                    f"Content type {request.content_type or '(none)'} is not supported. "
                    f"Send one of {', '.join(self._model.request_types)}.",
                    415,
                )
            self._contents[request.content_type] = content_type
        batch = decode_request(request.body, content_type)
        width = self._model.n_features_in_
        if batch.is_sparse and batch.n_features < width:
            batch = Batch(with_n_features(batch.features, width))
        if batch.n_features != width:
            raise RequestError(
                f"Each row must have {width} features, as the model was trained with, but has {batch.n_features}."
            )
        rows = batch.features if self._model.takes_sparse else batch.dense()
        if not np.isfinite(rows if isinstance(rows, np.ndarray) else rows.data).all():
            raise RequestError(
                "There are missing or infinite values; the model needs a finite number in every place."
            )
        return rows

    def _accept(self, accept: str) -> ContentType:
        answer = self._accepts.get(accept)
        if answer is None:
            answer = self._accepts[accept] = accepted(accept, self._model.response_types, self._default)
        return answer


def _stacked(parts: list[Matrix]) -> Matrix:
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    from scipy.sparse import csr_matrix, vstack

    return vstack([csr_matrix(part) for part in parts], format="csr")


def decode_request(body: bytes, content_type: ContentType) -> Batch:
    """Return the rows of a request; CSV and Parquet hold no label.

    Raises:
        DataError: *body* is not what the content type says.
        RequestError: the content type is none of those known (415).
    """
    decoders: dict[str, Callable[[bytes], Batch]] = {
        types.CSV: lambda b: Batch(_without_label(csv.decode(b), content_type)),
        types.JSON: json_lines.decode,
        types.JSON_LINES: json_lines.decode_lines,
        types.RECORDIO: recordio.decode,
        types.LIBSVM: lambda b: libsvm.decode(b, labelled=False),
        types.PARQUET: lambda b: Batch(parquet.decode(b)),
    }
    decoder = decoders.get(content_type.name)
    if decoder is None:
        raise RequestError(f"Content type {content_type.name or '(none)'} is not supported.", 415)
    batch = decoder(body)
    if not len(batch):
        raise DataError("there is no row in it", "the request")
    return batch


def encode_columns(columns: Mapping[str, npt.NDArray[Any]], accept: str, key: str = "predictions") -> bytes:
    """Return a response of *columns*, (n_rows,) or (n_rows, n_values) each, in the form *accept* names.

    *key* is what a JSON response calls its list of rows.
    """
    if accept == types.RECORDIO:
        return recordio.encode_columns(columns)
    if accept == types.CSV:
        flat = [c[:, None] if c.ndim == 1 else c for c in columns.values()]
        return csv.encode(flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1))
    rows = records(columns)
    if accept == types.JSON_LINES:
        return b"".join(orjson.dumps(row) + b"\n" for row in rows)
    return orjson.dumps({key: rows})


def records(columns: Mapping[str, npt.NDArray[Any]]) -> list[dict[str, Any]]:
    """Return *columns* as one dictionary for each row."""
    names = list(columns)
    lists = [column.tolist() for column in columns.values()]
    return [dict(zip(names, values, strict=True)) for values in zip(*lists, strict=True)]


def failure(error: CustomerError) -> Response:
    """Return the response that tells the caller of *error*."""
    status = error.status if isinstance(error, RequestError) else 400
    return Response(status, "text/plain", str(error).encode())


def execution_parameters(n_cpus: int) -> Response:
    """Return what a batch transform job is told of this server."""
    body = {
        "MaxConcurrentTransforms": n_cpus,
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": MAX_PAYLOAD_MB,
    }
    return Response(200, types.JSON, orjson.dumps(body))


def _without_label(rows: Floats, content_type: ContentType) -> Floats:
    """Return the features of CSV *rows*: ``label_size=1`` says that a request has its label in front."""
    return rows[:, 1:] if content_type.parameters.get("label_size") == "1" else rows
