"""What a framework's container does with a model where the user's code says nothing else.

A :class:`Handlers` is four functions: load, read, predict, write. The user's module replaces each by one of its
own name (``model_fn``, ``input_fn``, ``predict_fn``, ``output_fn``).
"""

from __future__ import annotations

import importlib
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Tuple

from sagesmith_toolkit.serving import batching, codecs

__all__ = ["Handlers", "ModelError", "handlers_of"]


class ModelError(RuntimeError):
    """The model cannot be loaded, or the user's module is not what it must be."""


class Handlers:
    """The default functions; those of scikit-learn, which has no way to load a model by itself."""

    default_content_type = codecs.JSON
    default_accept = codecs.JSON
    fault_status = 500
    """The status of the answer where one of the functions raises."""

    def model_fn(self, model_dir: str) -> Any:
        """Return the model in *model_dir*."""
        raise ModelError(
            "Please provide a model_fn implementation: this framework's container cannot load a model by itself. "
            "Define model_fn(model_dir) in the script named by SAGEMAKER_PROGRAM, or in code/inference.py."
        )

    def input_fn(self, body: Any, content_type: str) -> Any:
        """Return the array in *body*; numbers that came as text are float32."""
        data = codecs.decode(body if isinstance(body, bytes) else body.encode(), content_type)
        return data.astype("float32") if codecs.media_type(content_type) in codecs.TEXT_TYPES else data

    def predict_fn(self, data: Any, model: Any) -> Any:
        """Return the model's prediction; a single row may come without its outer brackets."""
        if getattr(data, "ndim", 2) == 1:
            data = data.reshape(1, -1)
        return model.predict(data)

    def output_fn(self, prediction: Any, accept: str) -> Any:
        """Return *prediction* as *accept*."""
        return codecs.encode(prediction, accept)

    def predicts_row_by_row(self, model: Any) -> bool:
        """Return whether what `predict_fn` says of a row is the same, whatever rows are beside it."""
        return batching.predicts_row_by_row(model)

    def read_rows(self, body: Any, content_type: str) -> Any:
        """Return what `input_fn` does, in a form in which those of several requests can be stacked."""
        return self.input_fn(body, content_type)

    def predict_rows(self, rows: Any, model: Any) -> Any:
        """Return what `predict_fn` says of *rows*, which `read_rows` read."""
        return self.predict_fn(rows, model)


class XGBoostHandlers(Handlers):
    """XGBoost: a Booster from ``xgboost-model``, in any form that it was ever saved in."""

    default_content_type = "text/libsvm"
    default_accept = codecs.CSV

    def model_fn(self, model_dir: str) -> Any:
        """Return the Booster in the file ``xgboost-model``, or in the only file there is."""
        path = _model_file(
            Path(model_dir), "xgboost-model", (".json", ".ubj", ".bin", ".model", ".pkl", ".joblib")
        )
        xgboost = importlib.import_module("xgboost")
        with path.open("rb") as file:
            is_pickle = file.read(2) in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
        if not is_pickle:
            booster = xgboost.Booster()
            booster.load_model(str(path))
            return booster
        with path.open("rb") as file:
            model = pickle.load(file)  # noqa: S301 (the user's own model, in the user's own container)
        return model.get_booster() if hasattr(model, "get_booster") else model

    def input_fn(self, body: Any, content_type: str) -> Any:
        """Return a DMatrix of *body*: CSV, LIBSVM, or an array."""
        return _dmatrix(self.read_rows(body, content_type))

    def read_rows(self, body: Any, content_type: str) -> Any:
        """Return the array in *body*, but a DMatrix of LIBSVM."""
        if codecs.media_type(content_type) in ("text/libsvm", "text/x-libsvm"):
            with tempfile.NamedTemporaryFile("wb", suffix=".libsvm") as file:
                file.write(body if isinstance(body, bytes) else body.encode())
                file.flush()
                return _dmatrix(file.name + "?format=libsvm")
        data = super().input_fn(body, content_type)
        return data.reshape(1, -1) if data.ndim < 2 else data

    def predict_fn(self, data: Any, model: Any) -> Any:
        """Return the Booster's prediction."""
        return model.predict(data, validate_features=False)

    def predicts_row_by_row(self, model: Any) -> bool:
        """Return True for a Booster."""
        return type(model).__module__.startswith("xgboost.")

    def predict_rows(self, rows: Any, model: Any) -> Any:
        """Return the Booster's prediction for an array, or a DMatrix."""
        return self.predict_fn(_dmatrix(rows), model)


class PyTorchHandlers(Handlers):
    """PyTorch: a TorchScript module from the only ``.pt`` or ``.pth`` file."""

    def model_fn(self, model_dir: str) -> Any:
        """Return the TorchScript module in *model_dir*."""
        path = _model_file(Path(model_dir), "model.pth", (".pt", ".pth"))
        torch = importlib.import_module("torch")
        try:
            model = torch.jit.load(str(path), map_location=_torch_device(torch))
        except RuntimeError as error:
            raise ModelError(
                "%s is not TorchScript (%s). Save it with torch.jit.save, or define model_fn(model_dir)."
                % (path, error)
            ) from error
        return model.eval()

    def input_fn(self, body: Any, content_type: str) -> Any:
        """Return a tensor of *body*."""
        torch = importlib.import_module("torch")
        data = super().input_fn(body, content_type)
        return torch.tensor(data).to(_torch_device(torch))

    def predict_fn(self, data: Any, model: Any) -> Any:
        """Return the module's output, without gradients."""
        torch = importlib.import_module("torch")
        with torch.no_grad():
            if hasattr(model, "to"):
                model = model.to(_torch_device(torch))
            return model(data)


_FRAMEWORKS: Dict[str, Callable[[], Handlers]] = {
    "scikit-learn": Handlers,
    "xgboost": XGBoostHandlers,
    "pytorch": PyTorchHandlers,
}
_OTHERS: Mapping[str, Tuple[str, str]] = {
    "mxnet": ("sagesmith_toolkit.serving.mxnet", "MXNetHandlers"),
    "huggingface": ("sagesmith_toolkit.serving.huggingface", "HuggingFaceHandlers"),
}


def handlers_of(framework: str) -> Handlers:
    """Return the default functions of *framework*; those that load nothing by themselves if it is unknown."""
    if framework in _OTHERS:
        module, name = _OTHERS[framework]
        found: Handlers = getattr(importlib.import_module(module), name)()
        return found
    return _FRAMEWORKS.get(framework, Handlers)()


def _dmatrix(data: Any) -> Any:
    """Return the DMatrix of an array or a file; one that is a DMatrix already as it is."""
    matrix = importlib.import_module("xgboost").DMatrix
    return data if isinstance(data, matrix) else matrix(data)


def _torch_device(torch: Any) -> Any:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _model_file(model_dir: Path, name: str, suffixes: Tuple[str, ...]) -> Path:
    """Return the file *name*, or the only one with one of *suffixes*."""
    if (model_dir / name).is_file():
        return model_dir / name
    found = sorted(path for path in model_dir.glob("*") if path.suffix in suffixes and path.is_file())
    if len(found) != 1:
        there = ", ".join(sorted(os.listdir(str(model_dir)))) or "nothing"
        raise ModelError(
            "Exactly one model file is expected in the artifact: %s, or one that ends with %s. It holds: %s."
            % (name, " or ".join(suffixes), there)
        )
    return found[0]
