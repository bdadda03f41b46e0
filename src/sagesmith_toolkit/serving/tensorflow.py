"""TensorFlow's container: SavedModels behind TensorFlow Serving's REST forms, and the user's ``inference.py`` before them.

Requests become TensorFlow Serving's as SageMaker's container makes them so: JSON that has ``instances``, ``inputs`` or
``examples`` as it is, other JSON as instances, lines of JSON and rows of CSV as one instance each. The custom
attributes ``tfs-model-name``, ``tfs-model-version`` and ``tfs-method`` choose what is asked.

``inference.py`` may define ``input_handler(data, context)`` and ``output_handler(response, context)``, or
``handler(data, context)`` alone, which asks the models itself at ``context.rest_uri``.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Dict, Mapping, Optional, Sequence

from sagesmith_toolkit.server import Request, Response
from sagesmith_toolkit.serving.codecs import media_type
from sagesmith_toolkit.serving.handlers import ModelError
from sagesmith_toolkit.serving.saved_model import RequestError, SavedModels

__all__ = ["TensorFlowModel", "to_tfs"]

_JSON = "application/json"
_LINES = ("application/jsonlines", "application/jsons")
_IS_TFS = re.compile(rb'"(?:instances|inputs|examples)"\s*:')
_IS_LINES = re.compile(r"[}\]]\s*[\[{]")


class TensorFlowModel:
    """Answers requests with the SavedModels of an artifact. Blocking: a slow model never holds up ``/ping``.

    Args:
        module: the user's inference.py, or None.

    Raises:
        ModelError: there is no SavedModel, or *module* has half of a pair of handlers.
    """

    blocking = True
    one_by_one = True

    def __init__(self, model_dir: str, module: Optional[ModuleType], environ: Mapping[str, str]) -> None:
        self._handler = getattr(module, "handler", None)
        self._input = getattr(module, "input_handler", None)
        self._output = getattr(module, "output_handler", None)
        if self._handler is None and (self._input is None) != (self._output is None):
            raise ModelError(
                "inference.py must define handler, or both input_handler and output_handler; it has no %s."
                % ("output_handler" if self._output is None else "input_handler")
            )
        self._models = SavedModels(Path(model_dir), environ.get("SAGEMAKER_TFS_DEFAULT_MODEL_NAME", ""))
        self._lock = threading.Lock()
        self._address = "" if module is None else self._listen()

    def predict(self, requests: Sequence[Request]) -> Sequence[Response]:
        """Return one response for each of *requests*, in their order."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Response:
        if request.path != "/invocations":
            return Response(404, "text/plain", b"Not Found")
        try:
            if self._handler is not None or self._input is not None:
                return self._by_user(request)
            body = to_tfs(request.body, request.content_type)
            return Response(200, _JSON, self._ask(body, **_asked(request.attributes)))
        except RequestError as error:
            return _refused(error)
        except Exception as error:  # the user's code
            traceback.print_exc()
            sys.stderr.flush()
            return Response(500, _JSON, json.dumps({"error": str(error) or type(error).__name__}).encode())

    def _ask(self, body: bytes, **asked: Any) -> bytes:
        with self._lock:
            return self._models.answer(body, **asked)

    # ---- the user's handlers ----------------------------------------------------------------------------

    def _by_user(self, request: Request) -> Response:
        asked = _asked(request.attributes)
        context = self._context(request, asked)
        data = io.BytesIO(request.body)
        if self._handler is not None or self._input is None or self._output is None:
            return _answered(self._handler(data, context))  # type: ignore[misc]
        body = self._input(data, context)
        try:
            answer = _TfsResponse(200, self._ask(body.encode() if isinstance(body, str) else body, **asked))
        except RequestError as error:
            answer = _TfsResponse(error.status, _refused(error).body)
        return _answered(self._output(answer, context))

    def _context(self, request: Request, asked: Mapping[str, Any]) -> Any:
        name, version = asked["name"] or self._models.default, asked["version"]
        path = "/v1/models/" + name + ("/versions/%d" % version if version is not None else "")
        return SimpleNamespace(
            model_name=name,
            model_version=None if version is None else str(version),
            method=asked["method"],
            rest_uri="http://%s%s:%s" % (self._address, path, asked["method"]),
            grpc_port=None,
            custom_attributes=request.attributes,
            request_content_type=request.content_type,
            accept_header=request.accept or _JSON,
            content_length=len(request.body),
        )

    def _listen(self) -> str:
        """Answer TensorFlow Serving's REST paths on a port of this host's own; return the address."""
        ask = self._ask

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                match = _REST.fullmatch(self.path)
                try:
                    if match is None:
                        raise RequestError("Malformed request: POST %s" % self.path)
                    version = int(match[2]) if match[2] else None
                    status, answer = 200, ask(body, name=match[1], version=version, method=match[3])
                except RequestError as error:
                    status, answer = error.status, _refused(error).body
                self.send_response(status)
                self.send_header("Content-Type", _JSON)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                """Say nothing of each request."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, name="rest", daemon=True).start()
        return "127.0.0.1:%d" % server.server_address[1]


_REST = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?:(\w+)")


def to_tfs(body: bytes, content_type: str) -> bytes:
    """Return *body* as a request of TensorFlow Serving's.

    Raises:
        RequestError: its content type is none that can be made one (415), or it is not text.
    """
    kind = media_type(content_type or _JSON)
    if kind not in (_JSON, "text/csv", *_LINES):
        raise RequestError("Unsupported Media Type: %s" % (content_type or "Unknown"), 415)
    if kind != "text/csv" and _IS_TFS.search(body):
        return body
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError("The body is not UTF-8: %s" % error) from error
    if kind == "text/csv":
        instances = ",".join(_csv_row(line.strip()) for line in text.splitlines() if line.strip())
        return ('{"instances":[%s]}' % instances).encode()
    if _IS_LINES.search(text):
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        joined = (
            ",".join(lines) if len(lines) > 1 else _IS_LINES.sub(lambda m: m[0][0] + "," + m[0][-1], text)
        )
        return ('{"instances":[%s]}' % joined).encode()
    if not re.match(r"\s*\[\s*\[", text):
        text = "[" + text + "]"
    return ('{"instances":%s}' % text).encode()


def _csv_row(line: str) -> str:
    """Return a line of numbers or of texts as an instance: a list if it has several columns."""
    values = next(csv.reader([line], skipinitialspace=True))
    words = [value if _NUMBER.fullmatch(value) else json.dumps(value) for value in values]
    return "[%s]" % ",".join(words) if len(words) > 1 else words[0]


_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?")


def _asked(attributes: str) -> Dict[str, Any]:
    """Return which model, version and method the custom *attributes* name."""
    pairs = dict(part.strip().partition("=")[::2] for part in attributes.split(",") if "=" in part)
    version = pairs.get("tfs-model-version", "")
    if version and not version.isdigit():
        raise RequestError("tfs-model-version must be a number, not %r" % version)
    return {
        "name": pairs.get("tfs-model-name", ""),
        "version": int(version) if version else None,
        "method": pairs.get("tfs-method") or "predict",
    }


def _refused(error: RequestError) -> Response:
    return Response(error.status, _JSON, json.dumps({"error": str(error)}).encode())


def _answered(result: Any) -> Response:
    """Make a response of what a handler returned: a body, or a pair of it and its content type."""
    body, kind = result if isinstance(result, tuple) else (result, _JSON)
    return Response(200, kind, body.encode() if isinstance(body, str) else bytes(body))


class _TfsResponse:
    """An answer of TensorFlow Serving's, with what handlers use of a response of `requests`."""

    def __init__(self, status_code: int, content: bytes) -> None:
        self.status_code = status_code
        self.content = content
        self.headers: Mapping[str, str] = {"Content-Type": _JSON}
        self.ok = status_code < 400
        self.encoding = "utf-8"

    @property
    def text(self) -> str:
        """The content as text."""
        return self.content.decode("utf-8")

    def json(self) -> Any:
        """The content decoded."""
        return json.loads(self.content)

    def raise_for_status(self) -> None:
        """Raise if it is an error."""
        if not self.ok:
            raise RequestError(self.text, self.status_code)
