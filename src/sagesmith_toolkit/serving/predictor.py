"""A user's model as a predictor for the model server: the user's functions where there are any, else the defaults.

``transform_fn`` stands for the other three; having both is an error. Each function may take one argument more,
the context. An exception in it is answered with status 500 and its text, and the traceback goes to the log.

A function may return an iterator, such as a generator: its items are the parts of the answer. Clients that asked for
a stream get each as it is made, others all of them at once.
"""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Iterator
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any, Callable, Mapping, Optional, Sequence, Tuple

from sagesmith_toolkit.server import Request, Response
from sagesmith_toolkit.serving.codecs import TEXT_TYPES, UnsupportedFormatError, accepted, media_type
from sagesmith_toolkit.serving.handlers import Handlers, ModelError
from sagesmith_toolkit.streams import Streamed

__all__ = ["UserModel"]

_BATCH_OF_THREE = ("input_fn", "predict_fn", "output_fn")


class UserModel:
    """Answers requests with the model that ``model_fn`` loads. Blocking: a slow model never holds up ``/ping``.

    Args:
        module: the user's module, or None.
        defaults: what is done where the module says nothing.

    Raises:
        ModelError: the model cannot be loaded, or the module has transform_fn and one of what it stands for.
    """

    blocking = True
    one_by_one = True

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
        self._writes = "output_fn" in own
        self._model = load(model_dir)

    def predict(self, requests: Sequence[Request]) -> Sequence[Response]:
        """Return one response for each of *requests*, in their order."""
        return [self._answer(request) for request in requests]

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
        content_type = request.content_type or self._default_content_type
        accept = accepted(request.accept, self._default_accept)
        self._context.custom_attributes = request.attributes
        try:
            body: Any = request.body
            if self._transform is not None:
                result = self._transform(self._model, _text(body, content_type), content_type, accept)
            else:
                data = self._input(_text(body, content_type), content_type)
                prediction = self._predict(data, self._model)
                if isinstance(prediction, Iterator) and not self._writes:
                    result = _parts(prediction, lambda item: self._written(item, accept))
                else:
                    result = self._output(prediction, accept)
            return _response(result, accept)
        except Exception as error:  # the user's code
            return Streamed(*self._fault(error))

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
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith("text/") or kind in ("application/json", "application/jsonlines"):
        try:
            return body.decode("utf-8")
        except UnicodeDecodeError:
            return body
    return body


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
