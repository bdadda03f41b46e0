"""Answering requests with XGBoost models.

The usual request, one line of plain numbers as CSV answered by CSV, takes a short way: all such requests that
arrived together fill one buffer and are one call of the library. Everything else takes the long way, one by one.
With several models (of a cross-validation) predictions are averaged, or voted on where they are classes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from sagesmith_algorithms.errors import CustomerError, RequestError
from sagesmith_algorithms.formats import content_type as types
from sagesmith_algorithms.formats import csv
from sagesmith_algorithms.formats.batch import Batch, Floats, with_n_features
from sagesmith_algorithms.formats.content_type import ContentType, accepted
from sagesmith_algorithms.serving import (
    EXECUTION_PARAMETERS,
    decode_request,
    encode_columns,
    execution_parameters,
    failure,
)
from sagesmith_algorithms.xgboost import XGBoost
from sagesmith_algorithms.xgboost.model import load_models
from sagesmith_algorithms.xgboost.selection import selectable, selected
from sagesmith_toolkit.environment import cpu_count
from sagesmith_toolkit.server import Request, Response

__all__ = ["XGBoostPredictor"]

_PLAIN = b"0123456789.,-+eE\r\n "
_EXPONENT, _NULL = b"en"
_VOTED = ("multi:softmax", "binary:hinge")


class XGBoostPredictor:
    """Answers requests with the model, or models, of an artifact.

    Environment variables: `SAGEMAKER_INFERENCE_OUTPUT` selects what is answered, `SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT`
    the form if the request names none, `SAGEMAKER_BATCH` ends CSV with a newline; the image repository ``xgboost``
    (the legacy container) answers CSV on one line.
    """

    def __init__(self, model_dir: Path, environ: Mapping[str, str]) -> None:
        self._n_cpus = cpu_count(environ)
        self._models = load_models(model_dir, self._n_cpus)
        self._model = self._models[0]
        self._default = environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or types.CSV
        self._separator = "," if environ.get("SAGESMITH_IMAGE_REPOSITORY") == "xgboost" else "\n"
        self._end = "\n" if environ.get("SAGEMAKER_BATCH", "").lower() == "true" else ""
        if self._end:
            self._separator = "\n"
        self._keys = selectable(environ.get("SAGEMAKER_INFERENCE_OUTPUT", ""), self._model.objective)
        self._heads: dict[tuple[str, str], tuple[ContentType, ContentType, bool]] = {}
        # A row is written with `struct`: NumPy takes twice as long to find out that a list holds numbers.
        self._row = struct.Struct(f"={self._model.n_features}f")
        self._buffer = self._model.buffer.data.cast("B")
        self._short = len(self._models) == 1 and not self._keys and self._model.reads_buffer

    def predict(self, requests: Sequence[Request]) -> Sequence[Response]:
        """Return one response for each of *requests*, in their order."""
        responses: list[Response | None] = [None] * len(requests)
        buffer, pack_into, size = self._buffer, self._row.pack_into, self._row.size
        others: list[int] = []
        width, room = self._model.n_features, len(self._model.buffer)
        waiting: list[int] = []
        for i, request in enumerate(requests):
            head = self._heads.get((request.content_type, request.accept))
            body = request.body
            if head is not None and head[2] and body and not body.translate(None, _PLAIN):
                try:
                    row = orjson.loads(b"[%b]" % body)
                except orjson.JSONDecodeError:
                    row = None
                if row is not None and len(row) == width:
                    try:
                        pack_into(buffer, len(waiting) * size, *row)
                    except OverflowError:  # no float32 is that large
                        others.append(i)
                        continue
                    waiting.append(i)
                    if len(waiting) == room:
                        self._answer_waiting(waiting, responses)
                    continue
            others.append(i)
        self._answer_waiting(waiting, responses)
        for i in others:  # only now, since they use the buffer too
            responses[i] = self._answer(requests[i])
        return [response for response in responses if response is not None]

    def _answer_waiting(self, waiting: list[int], responses: list[Response | None]) -> None:
        if not waiting:
            return
        predictions, end = self._model.predict_buffer(len(waiting)).tolist(), self._end.encode()
        for i, text in zip(waiting, _texts(predictions), strict=True):
            responses[i] = Response(200, types.CSV, text + end if end else text)
        waiting.clear()

    def _answer(self, request: Request) -> Response:
        if request.path == EXECUTION_PARAMETERS:
            return execution_parameters(self._n_cpus)
        try:
            if not request.body:
                return Response(204, "", b"")
            content_type, answer, _ = self._head(request)
            batch = self._fitting(decode_request(request.body, content_type), content_type)
            return Response(200, answer.name, self._encoded(self._predicted(batch.features), answer.name))
        except CustomerError as error:
            return failure(error)

    def _head(self, request: Request) -> tuple[ContentType, ContentType, bool]:
        head = self._heads.get((request.content_type, request.accept))
        if head is None:
            content_type = ContentType.parse(request.content_type)
            if content_type.name not in XGBoost.request_types:
                raise RequestError(
                    f"Content type {request.content_type or '(none)'} is not supported. "
                    f"Send one of {', '.join(XGBoost.request_types)}.",
                    415,
                )
            answer = accepted(request.accept, XGBoost.response_types, self._default)
            is_plain = (
                content_type.name == types.CSV and content_type.parameters.get("label_size", "0") == "0"
            )
            head = (content_type, answer, self._short and is_plain and answer.name == types.CSV)
            if len(self._heads) < 1024:
                self._heads[request.content_type, request.accept] = head
        return head

    def _fitting(self, batch: Batch, content_type: ContentType) -> Batch:
        """Return *batch* with the model's number of features; sparse rows may show fewer."""
        width = self._model.n_features
        if batch.is_sparse and batch.n_features < width:
            return Batch(with_n_features(batch.features, width))
        if batch.n_features != width:
            hint = ""
            if batch.n_features == width + 1 and content_type.name == types.CSV:
                hint = " Is the label still in it?"
            raise RequestError(
                f"Each row must have {width} features, as the model was trained with, but has "
                f"{batch.n_features}.{hint}"
            )
        return batch

    def _predicted(self, features: Any) -> Floats:
        if len(self._models) == 1:
            return self._model.predict(features)
        all_predictions = np.stack([model.predict(features) for model in self._models])
        if self._model.objective in _VOTED:
            return _votes(all_predictions)
        mean: Floats = all_predictions.mean(axis=0)
        return mean

    def _encoded(self, predictions: Floats, accept: str) -> bytes:
        if self._keys:
            return selected(predictions, self._keys, self._model.objective, self._model.n_classes, accept)
        if accept != types.CSV:
            return encode_columns({"score": predictions}, accept)
        if self._separator == "\n":
            return csv.encode(predictions) + self._end.encode()
        return self._separator.join(map(str, predictions.tolist())).encode()


def _texts(predictions: list[Any]) -> list[bytes]:
    """Return each prediction, a number or a list of numbers, as Python writes it."""
    if isinstance(predictions[0], float):
        # In a quarter of the time, and the same but for exponents and what is no number.
        text = orjson.dumps(predictions)
        if _EXPONENT not in text and _NULL not in text:
            return text[1:-1].split(b",")
        return [str(prediction).encode() for prediction in predictions]
    return [",".join(map(str, prediction)).encode() for prediction in predictions]


def _votes(classes: npt.NDArray[Any]) -> Floats:
    """Return the most frequent class of each column of *classes*, (n_models, n_samples); the least of equals."""
    whole = classes.astype(np.intp)
    counts = np.stack([(whole == c).sum(axis=0) for c in range(int(whole.max()) + 1)])
    winners: Floats = counts.argmax(axis=0).astype(np.float32)
    return winners
