"""TensorFlow SavedModels, asked as TensorFlow Serving's REST interface asks them.

A request is a JSON document: ``instances`` (a list with an entry for each row) or ``inputs`` (a value for each
input, all rows together) to predict, ``examples`` to classify or regress. The answer has ``predictions``,
``outputs`` or ``results``. Binary values are ``{"b64": "..."}``.

Source: the REST API of TensorFlow Serving (tensorflow.org/tfx/serving/api_rest).
"""

from __future__ import annotations

import base64
import binascii
import importlib
import json
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from sagesmith_toolkit.serving.handlers import ModelError

__all__ = ["METHODS", "RequestError", "SavedModels", "find_models"]

METHODS = ("predict", "classify", "regress")
_DEFAULT_SIGNATURE = "serving_default"


class RequestError(ValueError):
    """A request that the model cannot answer, with the status of the response."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status


def find_models(model_dir: Path) -> Dict[str, Dict[int, Path]]:
    """Return the folders of all SavedModels below *model_dir*: by name, then version; ``NAME/1/saved_model.pb``.

    Raises:
        ModelError: there is none.
    """
    found: Dict[str, Dict[int, Path]] = {}
    for file in sorted(model_dir.rglob("saved_model.pb")):
        version = file.parent.name
        if version.isdigit() and file.parent != model_dir:
            found.setdefault(file.parent.parent.name, {})[int(version)] = file.parent
    if not found:
        raise ModelError(
            "No SavedModel bundles found! A model's artifact must have a folder named by a version, such as 1, with "
            'saved_model.pb in it (model.export("/opt/ml/model/1"), or tf.saved_model.save).'
        )
    return found


class SavedModels:
    """The models of an artifact, the newest version of each loaded at once and others when they are asked for.

    Args:
        default: the name of the model that is asked where a request names none; "" for the first.
    """

    def __init__(self, model_dir: Path, default: str = "") -> None:
        self._folders = find_models(model_dir)
        self.default = default or ("model" if "model" in self._folders else min(self._folders))
        if self.default not in self._folders:
            raise ModelError(
                "SAGEMAKER_TFS_DEFAULT_MODEL_NAME is %r; the artifact has %s."
                % (self.default, ", ".join(sorted(self._folders)))
            )
        self._tf = importlib.import_module("tensorflow")
        self._loaded: Dict[Tuple[str, int], Any] = {}
        for name, versions in self._folders.items():
            self._model(name, max(versions))

    def answer(
        self, body: bytes, *, name: str = "", version: Optional[int] = None, method: str = "predict"
    ) -> bytes:
        """Return the JSON answer to the JSON request *body*.

        Raises:
            RequestError: the request is not what this model and *method* take.
        """
        if method not in METHODS:
            raise RequestError(
                "Malformed request: the method %r is none of %s" % (method, ", ".join(METHODS))
            )
        try:
            request = json.loads(body)
        except ValueError as error:
            raise RequestError("JSON Parse error: %s" % error) from error
        if not isinstance(request, dict):
            raise RequestError("JSON Parse error: the request must be an object")
        name = name or self.default
        versions = self._folders.get(name, {})
        chosen = max(versions, default=0) if version is None else version
        if chosen not in versions:
            which = "Latest" if version is None else "Specific"
            text = name if version is None else "%s, %d" % (name, version)
            raise RequestError("Servable not found for request: %s(%s)" % (which, text), 404)
        signature = self._signature(name, chosen, str(request.get("signature_name") or _DEFAULT_SIGNATURE))
        try:
            answer = (self._predict if method == "predict" else self._examples)(signature, request)
        except (ValueError, TypeError, self._tf.errors.InvalidArgumentError) as error:
            if isinstance(error, RequestError):
                raise
            raise RequestError(str(error)) from error
        return json.dumps(answer).encode()

    def _model(self, name: str, version: int) -> Any:
        key = (name, version)
        if key not in self._loaded:
            self._loaded[key] = self._tf.saved_model.load(str(self._folders[name][version]))
        return self._loaded[key]

    def _signature(self, name: str, version: int, wanted: str) -> Any:
        signatures = self._model(name, version).signatures
        if wanted not in signatures:
            raise RequestError('Serving signature name: "%s" not found in signature def' % wanted)
        return signatures[wanted]

    # ---- predict ----------------------------------------------------------------------------------------

    def _predict(self, signature: Any, request: Mapping[str, Any]) -> Mapping[str, Any]:
        specs = signature.structured_input_signature[1]
        if ("instances" in request) == ("inputs" in request):
            raise RequestError("JSON Value: one of 'instances' and 'inputs' must be given")
        if "instances" in request:
            outputs = self._call(signature, _columns(request["instances"], specs))
            return {"predictions": _rows(outputs)}
        inputs = request["inputs"]
        if not (isinstance(inputs, dict) and set(inputs) == set(specs)):
            inputs = {_only(specs): inputs}
        outputs = self._call(signature, inputs)
        lists = {name: _listed(name, value) for name, value in outputs.items()}
        return {"outputs": next(iter(lists.values())) if len(lists) == 1 else lists}

    def _call(self, signature: Any, inputs: Mapping[str, Any]) -> Dict[str, Any]:
        specs = signature.structured_input_signature[1]
        missing = sorted(set(specs) - set(inputs))
        if missing or set(inputs) - set(specs):
            raise RequestError(
                "The inputs of this signature are %s, not %s."
                % (", ".join(sorted(specs)), ", ".join(sorted(inputs)))
            )
        tensors = {
            name: self._tf.constant(_decoded(value), dtype=specs[name].dtype)
            for name, value in inputs.items()
        }
        for name, tensor in tensors.items():
            if not specs[name].shape.is_compatible_with(tensor.shape):
                raise RequestError(
                    "The input %s must have the shape %s, not %s." % (name, specs[name].shape, tensor.shape)
                )
        return {name: value.numpy() for name, value in signature(**tensors).items()}

    # ---- classify and regress ---------------------------------------------------------------------------

    def _examples(self, signature: Any, request: Mapping[str, Any]) -> Mapping[str, Any]:
        examples = request.get("examples")
        if not isinstance(examples, list) or not all(isinstance(example, dict) for example in examples):
            raise RequestError(
                "When method is classify or regress, key 'examples' is expected, a list of objects"
            )
        context = request.get("context") or {}
        specs = signature.structured_input_signature[1]
        texts = [self._example({**context, **example}) for example in examples]
        tensors = {_only(specs): self._tf.constant(texts, dtype=self._tf.string)}
        outputs = {name: value.numpy() for name, value in signature(**tensors).items()}
        if "scores" in outputs:
            scores = outputs["scores"]
            classes = outputs.get("classes")
            labels = classes.astype(str) if classes is not None and classes.dtype.kind != "O" else classes
            return {
                "results": [
                    [[_text(labels[row][column]) if labels is not None else "", float(score)]
                     for column, score in enumerate(line)]
                    for row, line in enumerate(scores)
                ]
            }  # fmt: skip
        (values,) = (
            outputs.values() if len(outputs) == 1 else (outputs.get("outputs", next(iter(outputs.values()))),)
        )
        return {"results": [float(value) for value in values.reshape(len(texts), -1)[:, 0]]}

    def _example(self, features: Mapping[str, Any]) -> bytes:
        train = self._tf.train
        made = {}
        for name, value in features.items():
            values = [_decoded(item) for item in (value if isinstance(value, list) else [value])]
            if all(isinstance(item, int) for item in values):
                made[name] = train.Feature(int64_list=train.Int64List(value=values))
            elif all(isinstance(item, (int, float)) for item in values):
                made[name] = train.Feature(float_list=train.FloatList(value=values))
            else:
                encoded = [item if isinstance(item, bytes) else str(item).encode() for item in values]
                made[name] = train.Feature(bytes_list=train.BytesList(value=encoded))
        text: bytes = train.Example(features=train.Features(feature=made)).SerializeToString()
        return text


def _only(specs: Mapping[str, Any]) -> str:
    if len(specs) != 1:
        raise RequestError("The signature has the inputs %s; name each." % ", ".join(sorted(specs)))
    return next(iter(specs))


def _columns(instances: Any, specs: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the value of each input for all rows of *instances*."""
    if not isinstance(instances, list) or not instances:
        raise RequestError("JSON Value: 'instances' must be a list with at least one entry")
    named = [isinstance(row, dict) and set(row) != {"b64"} for row in instances]
    if not any(named):
        return {_only(specs): instances}
    if not all(named) or any(set(row) != set(instances[0]) for row in instances):
        raise RequestError("JSON Value: all 'instances' must have the same inputs by name")
    return {name: [row[name] for row in instances] for name in instances[0]}


def _rows(outputs: Mapping[str, Any]) -> List[Any]:
    lists = {name: _listed(name, value) for name, value in outputs.items()}
    sizes = {len(value) if isinstance(value, list) else -1 for value in lists.values()}
    if len(sizes) != 1 or -1 in sizes:
        raise RequestError("The outputs of this signature have no common number of rows; ask with 'inputs'.")
    if len(lists) == 1:
        return list(next(iter(lists.values())))
    return [{name: value[row] for name, value in lists.items()} for row in range(sizes.pop())]


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) != {"b64"}:
            raise RequestError('JSON Value: an object stands for a value only as {"b64": ...}')
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise RequestError("JSON Value: b64 is not base64: %s" % error) from error
    return [_decoded(item) for item in value] if isinstance(value, list) else value


def _listed(name: str, value: Any) -> Any:
    """Return an output as JSON has it; texts as such, and as base64 where the output's name ends with ``_bytes``."""
    plain = value.tolist()
    return _texts(plain, binary=name.endswith("_bytes")) if value.dtype.kind in "OS" else plain


def _texts(value: Any, *, binary: bool) -> Any:
    if isinstance(value, list):
        return [_texts(item, binary=binary) for item in value]
    return {"b64": base64.b64encode(value).decode()} if binary else _text(value)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
