"""Answering requests: vectors of words, or labels of sentences with their probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from sagesmith_algorithms.blazingtext import fasttext
from sagesmith_algorithms.errors import CustomerError, DataError, RequestError
from sagesmith_algorithms.formats import content_type as types
from sagesmith_algorithms.formats.content_type import ContentType, accepted
from sagesmith_algorithms.serving import EXECUTION_PARAMETERS, execution_parameters, failure
from sagesmith_toolkit.environment import cpu_count
from sagesmith_toolkit.server import Request, Response

if TYPE_CHECKING:
    from sagesmith_algorithms.blazingtext import BlazingText

__all__ = ["TextPredictor"]

_WHERE = "the request"


@dataclass(frozen=True, slots=True)
class _Question:
    texts: list[str]
    n_labels: list[int]
    accept: str


class TextPredictor:
    """Answers requests with a model; the response has the content type of the request unless it asks for another."""

    def __init__(self, model: BlazingText, environ: Mapping[str, str]) -> None:
        self._model = model
        self._default = environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or ""
        self._n_cpus = cpu_count(environ)

    def predict(self, requests: Sequence[Request]) -> Sequence[Response]:
        """Return one response for each of *requests*, in their order; all texts are looked at together."""
        responses: list[Response | None] = [None] * len(requests)
        questions: list[tuple[int, _Question]] = []
        for i, request in enumerate(requests):
            if request.path == EXECUTION_PARAMETERS:
                responses[i] = execution_parameters(self._n_cpus)
                continue
            try:
                if request.body:
                    questions.append((i, self._question(request)))
                else:
                    responses[i] = Response(204, "", b"")
            except CustomerError as error:
                responses[i] = failure(error)
        texts = [text for _, question in questions for text in question.texts]
        counts = [n for _, question in questions for n in question.n_labels]
        answers = self._answers(texts, counts) if texts else []
        start = 0
        for i, question in questions:
            mine = answers[start : start + len(question.texts)]
            start += len(question.texts)
            body = (
                orjson.dumps(mine)
                if question.accept == types.JSON
                else b"".join(orjson.dumps(one) + b"\n" for one in mine)
            )
            responses[i] = Response(200, question.accept, body)
        return [response for response in responses if response is not None]

    def _answers(self, texts: list[str], counts: list[int]) -> list[dict[str, Any]]:
        model = self._model.model
        if model.kind != fasttext.SUPERVISED:
            return [{"vector": self._model.vector(word).tolist(), "word": word} for word in texts]
        answers = []
        for row, n_labels in zip(self._model.predict_proba(texts), counts, strict=True):
            order = np.argsort(-row, kind="stable")[:n_labels]
            answers.append({"prob": row[order].tolist(), "label": [model.labels[i] for i in order]})
        return answers

    def _question(self, request: Request) -> _Question:
        content_type = ContentType.parse(request.content_type).name
        if content_type not in self._model.request_types:
            raise RequestError(
                f"Content type {request.content_type or '(none)'} is not supported. "
                f"Send one of {', '.join(self._model.request_types)}.",
                415,
            )
        accept = accepted(request.accept, self._model.response_types, self._default or content_type)
        try:
            if content_type == types.JSON:
                document = orjson.loads(request.body)
                texts = document.get("instances") if isinstance(document, dict) else None
                configuration = document.get("configuration") or {} if isinstance(document, dict) else {}
                n_labels = [_count(configuration.get("k", 1))] * len(texts or [])
            else:
                lines = [orjson.loads(line) for line in request.body.splitlines() if line.strip()]
                texts = [line.get("source") for line in lines]
                n_labels = [_count(line.get("k", 1)) for line in lines]
        except (orjson.JSONDecodeError, AttributeError) as error:
            raise DataError(f"is not JSON of the form expected: {error}", _WHERE) from error
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise DataError(
                'must be {"instances": ["text", ...], "configuration": {"k": 1}}, or in JSON Lines {"source": "text", "k": 1}',
                _WHERE,
            )
        return _Question(texts, n_labels, accept.name)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise DataError(
            f"k, the number of labels to return, must be an integer at least 1, not {value!r}", _WHERE
        )
    return value
