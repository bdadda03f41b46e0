"""A model that does not answer: its process ends, and another one is started in its place.

The gateway gives a request up when its time is over, but the model still works on it, and with one process nothing else
is predicted meanwhile: if it never answers, the endpoint never does again. Nothing can interrupt a thread that waits in
other people's code, so the process ends as a whole, as a worker of gunicorn's does in SageMaker's containers.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any, Callable, Iterator, Mapping, Sequence

from sagesmith_toolkit.server import Request, Response
from sagesmith_toolkit.serving.handlers import ModelError
from sagesmith_toolkit.streams import Streamed

__all__ = ["TIMEOUT", "limit_of", "watch"]

TIMEOUT = "SAGEMAKER_MODEL_SERVER_TIMEOUT"
_LATER_S = 2.0  # than the gateway, which tells the client
_LOOK_S = 0.5
_PART_S = 480.0  # a stream that has begun may be silent for as long as it may take


def limit_of(environ: Mapping[str, str]) -> float:
    """Return how long an answer may take in seconds; 0 for any time.

    Raises:
        ModelError: the variable is no number from 0.
    """
    text = environ.get(TIMEOUT) or "0"
    try:
        limit_s = float(text)
    except ValueError:
        limit_s = -1.0
    if not 0 <= limit_s < float("inf"):
        raise ModelError("%s must be a number of seconds from 0, not %r." % (TIMEOUT, text))
    return limit_s


def watch(predictor: Any, limit_s: float, end: Callable[[int], Any] = os._exit) -> None:
    """End the process if *predictor*, which one thread at a time calls, is at an answer for longer than *limit_s*."""
    watched = _Watched(predictor.predict, getattr(predictor, "stream", None), limit_s, end)
    predictor.predict = watched.predict
    if hasattr(predictor, "stream"):
        predictor.stream = watched.stream


class _Watched:
    def __init__(self, predict: Any, stream: Any, limit_s: float, end: Callable[[int], Any]) -> None:
        self._predict = predict
        self._stream = stream
        self._limit_s = limit_s
        self._end = end
        self._due = 0.0  # while nothing is called
        threading.Thread(target=self._look, name="watch", daemon=True).start()

    def predict(self, requests: Sequence[Request]) -> Sequence[Response]:
        answers: Sequence[Response] = self._call(self._limit_s, self._predict, requests)
        return answers

    def stream(self, request: Request) -> Streamed:
        answer: Streamed = self._call(self._limit_s, self._stream, request)
        return answer if isinstance(answer.body, bytes) else answer._replace(body=self._parts(answer.body))

    def _parts(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        limit_s = self._limit_s
        try:
            while True:
                piece = self._call(limit_s, next, pieces, None)
                if piece is None:
                    return
                yield piece
                limit_s = max(self._limit_s, _PART_S)
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()

    def _call(self, limit_s: float, work: Callable[..., Any], *arguments: Any) -> Any:
        if self._due:  # a part of what is watched already
            return work(*arguments)
        self._due = time.monotonic() + limit_s + _LATER_S
        try:
            return work(*arguments)
        finally:
            self._due = 0.0

    def _look(self) -> None:
        while True:
            time.sleep(_LOOK_S)
            due = self._due
            if due and time.monotonic() > due:
                print(
                    "ERROR: The model did not answer in %g s (%s); its process ends, and another one is started."
                    % (self._limit_s, TIMEOUT),
                    file=sys.stderr,
                    flush=True,
                )
                self._end(1)
                return
