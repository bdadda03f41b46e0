"""A user's model as a predictor for the model server: the user's functions where there are any, else the defaults.

``transform_fn`` stands for the other three; having both is an error. Each function may take one argument more,
the context. An exception in it is answered with status 500 and its text, and the traceback goes to the log.

A function may return an iterator, such as a generator: its items are the parts of the answer. Clients that asked for
a stream get each as it is made, others all of them at once.

The functions of a user are called for each request by itself. Where ``predict_fn`` is the default and the model is known to
look at each row by itself, or where the user says so, requests that arrived together are one call of it (`batching`).
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import traceback
from collections.abc import Iterator
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any, Callable, Dict, Hashable, List, Mapping, Optional, Sequence, Tuple

from sagesmith_toolkit.server import Request, Response
from sagesmith_toolkit.serving import batching
from sagesmith_toolkit.serving.codecs import TEXT_TYPES, UnsupportedFormatError, accepted, media_type
from sagesmith_toolkit.serving.handlers import Handlers, ModelError
from sagesmith_toolkit.streams import Streamed

__all__ = ["UserModel"]

_BATCH_OF_THREE = ("input_fn", "predict_fn", "output_fn")
_SWITCH = "SAGESMITH_DYNAMIC_BATCHING"


class UserModel:
    """Answers requests with the model that ``model_fn`` loads. Blocking: a slow model never holds up ``/ping``.

    Args:
        module: the user's module, or None.
        defaults: what is done where the module says nothing.

    Raises:
        ModelError: the model cannot be loaded, the module has transform_fn and one of what it stands for, or
            `SAGESMITH_DYNAMIC_BATCHING` says what cannot be.
    """

    blocking = True

    def __init__(
        self,
        model_dir: str,
        module: Optional[ModuleType],
        defaults: Handlers,
        environ: Mapping[str, str] = MappingProxyType(os.environ),
    ) -> None:
        self._context = SimpleNamespace(
            system_properties={"model_dir": model_dir, "gpu_id": None}, model_name="model", manifest={}
        )
        self._default_accept = environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or defaults.default_accept
        self._default_content_type = defaults.default_content_type
        self._fault_status = defaults.fault_status
        own = [name for name in _BATCH_OF_THREE if callable(getattr(module, name, None))]
        self._transform = getattr(module, "transform_fn", None)
        if self._transform is not None and own:
            raise ModelError("Cannot use transform_fn implementation with %s." % ", ".join(own))

        def function(name: str, count: int) -> Callable[..., Any]:
            return self._with_context(getattr(module, name, None) or getattr(defaults, name), count)

        load = function("model_fn", 1)
        if self._transform is not None:
            self._transform = self._with_context(self._transform, 4)
        self._input, self._predict, self._output = (function(name, 2) for name in _BATCH_OF_THREE)
        self._reads, self._writes = "input_fn" in own or self._transform is not None, "output_fn" in own
        self._model = load(model_dir)
        self.one_by_one = not self._batches(environ.get(_SWITCH, "").lower(), own, defaults)
        """False if requests that arrived together are one call of predict_fn; see `server.Predictor`."""

    def _batches(self, wanted: str, own: Sequence[str], defaults: Handlers) -> bool:
        """Return whether predict_fn gets the rows of several requests at once, and prepare for it."""
        if wanted not in ("", "true", "false"):
            raise ModelError("%s must be true or false, not %r." % (_SWITCH, wanted))
        if wanted == "true" and self._transform is not None:
            raise ModelError(
                "transform_fn takes one request. With %s=true, define predict_fn instead." % _SWITCH
            )
        by_default = not wanted and self._transform is None and "predict_fn" not in own
        if wanted != "true" and not (by_default and defaults.predicts_row_by_row(self._model)):
            return False
        if "predict_fn" not in own:
            self._predict = defaults.predict_rows
            self._input = self._input if "input_fn" in own else defaults.read_rows
        read = self._input
        self._input = lambda body, content_type: batching.as_rows(read(body, content_type))
        return True

    def predict(self, requests: Sequence[Request]) -> Sequence[Response]:
        """Return one response for each of *requests*, in their order."""
        if self.one_by_one or len(requests) == 1:
            return [self._answer(request) for request in requests]
        return self._answer_together(requests)

    def _answer(self, request: Request) -> Response:
        status, kind, body, _ = self.stream(request)
        if isinstance(body, bytes):
            return Response(status, kind, body)
        try:
            return Response(status, kind, b"".join(body))
        except Exception as error:  # the user's generator
            return self._fault(error)

    def stream(self, request: Request) -> Streamed:
        """Return the response to *request*; its body is an iterator if the user's code returned one."""
        if request.path != "/invocations":
            return Streamed(404, "text/plain", b"Not Found")
        accept = accepted(request.accept, self._default_accept)
        self._context.custom_attributes = request.attributes
        try:
            if self._transform is not None:
                content_type = request.content_type or self._default_content_type
                result = self._transform(self._model, _text(request.body, content_type), content_type, accept)
                return _response(result, accept)
            return self._finished(self._predict(self._read(request), self._model), accept)
        except Exception as error:  # the user's code
            return Streamed(*self._fault(error))

    def _read(self, request: Request) -> Any:
        content_type = request.content_type or self._default_content_type
        return self._input(_text(request.body, content_type) if self._reads else request.body, content_type)

    def _finished(self, prediction: Any, accept: str) -> Streamed:
        if isinstance(prediction, Iterator) and not self._writes:
            return _response(_parts(prediction, lambda item: self._written(item, accept)), accept)
        return _response(self._output(prediction, accept), accept)

    # ---- several requests as one call ------------------------------------------------------------------

    def _answer_together(self, requests: Sequence[Request]) -> List[Response]:
        """Answer *requests*, those whose data are of one kind and have the same attributes by one call of predict_fn."""
        answers: Dict[int, Response] = {}
        groups: Dict[Hashable, List[Tuple[int, Any]]] = {}
        for at, request in enumerate(requests):
            kind = None
            if request.path == "/invocations":
                self._context.custom_attributes = request.attributes
                try:
                    data = self._read(request)
                    kind = batching.kind(data)
                except Exception as error:  # the user's code
                    answers[at] = self._fault(error)
                    continue
            if kind is None:
                answers[at] = self._answer(request)
            else:
                groups.setdefault((kind, request.attributes), []).append((at, data))
        for group in groups.values():
            self._answer_group(requests, group, answers)
        return [answers[at] for at in range(len(requests))]

    def _answer_group(
        self, requests: Sequence[Request], group: Sequence[Tuple[int, Any]], answers: Dict[int, Response]
    ) -> None:
        self._context.custom_attributes = requests[group[0][0]].attributes
        try:
            prediction = self._predict(batching.stack([data for _, data in group]), self._model)
            parts = batching.shares(prediction, [len(data) for _, data in group])
        except Exception as error:  # the user's code; or one request is bad, and its neighbours are not
            for at, _ in group:
                answers[at] = self._answer(requests[at])
            if len(group) > 1 and all(answers[at].status == 200 for at, _ in group):
                self._give_up(error)
            return
        for n, (at, _) in enumerate(group):
            try:
                status, kind, body, _ = self._finished(
                    parts[n], accepted(requests[at].accept, self._default_accept)
                )
                answers[at] = Response(status, kind, body if isinstance(body, bytes) else b"".join(body))
            except Exception as error:  # the user's code
                answers[at] = self._fault(error)

    def _give_up(self, error: Exception) -> None:
        """Say that the model does not take several requests at once, and give it them one by one from now on."""
        self.one_by_one = True
        print(
            "Requests are predicted one by one from now on, for together they failed: %s: %s"
            % (type(error).__name__, error),
            file=sys.stderr,
            flush=True,
        )

    def _written(self, item: Any, accept: str) -> bytes:
        """Return an item of an iterator that predict_fn returned: text and bytes as they are, else a line of its own."""
        if isinstance(item, (str, bytes, bytearray, memoryview)):
            return _bytes(item)
        written = _bytes(self._output(item, accept))
        return written if written.endswith(b"\n") or media_type(accept) not in TEXT_TYPES else written + b"\n"

    def _fault(self, error: Exception) -> Response:
        if isinstance(error, UnsupportedFormatError):
            return Response(error.status, "text/plain", str(error).encode())
        traceback.print_exception(type(error), error, error.__traceback__)
        sys.stderr.flush()
        return Response(self._fault_status, "text/plain", ("%s: %s" % (type(error).__name__, error)).encode())

    def _with_context(self, function: Callable[..., Any], count: int) -> Callable[..., Any]:
        """Return *function* so that it takes *count* arguments, with the context after them if it wants one more."""
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):  # a built-in
            return function
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if len(positional) != count + 1 or positional[-1].default is not inspect.Parameter.empty:
            return function
        return lambda *arguments: function(*arguments, self._context)


def _text(body: bytes, content_type: str) -> Any:
    """Text as text, and everything else as bytes: what users' functions are given by SageMaker's containers."""
    if _is_text(content_type):
        try:
            return body.decode("utf-8")
        except UnicodeDecodeError:
            return body
    return body


@functools.lru_cache(maxsize=256)
def _is_text(content_type: str) -> bool:
    kind = media_type(content_type)
    return kind.startswith("text/") or kind in ("application/json", "application/jsonlines")


def _response(result: Any, accept: str) -> Streamed:
    """Make a response of what output_fn or transform_fn returned: a body, (body, type), or a Flask-like response."""
    if isinstance(result, tuple) and len(result) == 2:
        result, accept = result
    elif hasattr(result, "get_data") and hasattr(result, "mimetype"):
        return Streamed(getattr(result, "status_code", 200), result.mimetype, result.get_data())
    elif hasattr(result, "response") and hasattr(result, "mimetype"):
        result, accept = result.response, result.mimetype
    if isinstance(result, Iterator):
        return Streamed(200, accept, _parts(result, _bytes))
    return Streamed(200, accept, _bytes(result))


def _parts(items: Iterator[Any], write: Callable[[Any], bytes]) -> Iterator[bytes]:
    try:
        for item in items:
            yield write(item)
    finally:  # also when nobody wants the rest
        close = getattr(items, "close", None)
        if close is not None:
            close()


def _bytes(result: Any) -> bytes:
    if isinstance(result, str):
        return result.encode("utf-8")
    if isinstance(result, (bytes, bytearray, memoryview)):
        return bytes(result)
    raise TypeError(
        "output_fn must return text, bytes, an iterator of such, or a pair of that and its content type, not %s"
        % type(result).__name__
    )


_Pair = Tuple[Any, str]
