"""MXNet: a Module from symbol, parameters and shapes, and Gluon blocks that the user's code loads."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from sagesmith_toolkit.serving.handlers import Handlers, ModelError

__all__ = ["MXNetHandlers"]

_SYMBOL, _PARAMETERS, _SHAPES = "model-symbol.json", "model-0000.params", "model-shapes.json"


class MXNetHandlers(Handlers):
    """The files that SageMaker's MXNet container writes and reads; ``model-shapes.json`` names the inputs."""

    def model_fn(self, model_dir: str) -> Any:
        """Return the Module in *model_dir*, bound for inference with the shapes that were saved with it."""
        folder = Path(model_dir)
        for name in (_SYMBOL, _PARAMETERS, _SHAPES):
            if not (folder / name).is_file():
                raise ModelError(
                    "Failed to load model with default model_fn: missing file %s. Save a Module with "
                    "save_checkpoint and its input shapes beside it, or define model_fn(model_dir)." % name
                )
        mx = importlib.import_module("mxnet")
        shapes = [
            (str(entry["name"]), tuple(entry["shape"]))
            for entry in json.loads((folder / _SHAPES).read_text("utf-8"))
        ]
        symbol, arguments, auxiliary = mx.model.load_checkpoint(str(folder / "model"), 0)
        module = mx.mod.Module(
            symbol=symbol, context=_context(mx), data_names=[name for name, _ in shapes], label_names=None
        )
        module.bind(for_training=False, data_shapes=shapes)
        module.set_params(arguments, auxiliary, allow_missing=True)
        return module

    def input_fn(self, body: Any, content_type: str) -> Any:
        """Return the NDArray in *body*; a single row may come without its outer brackets."""
        mx = importlib.import_module("mxnet")
        data = super().input_fn(body, content_type)
        return mx.nd.array(data.reshape(1, -1) if data.ndim == 1 else data, ctx=_context(mx))

    def predict_fn(self, data: Any, model: Any) -> Any:
        """Return what a Module, or else what a Gluon block, makes of *data*."""
        mx = importlib.import_module("mxnet")
        if isinstance(model, mx.module.BaseModule):
            # In batches of the size that it was bound with: a symbol that has a label's shape takes no other.
            return model.predict(mx.io.NDArrayIter(data, batch_size=model.data_shapes[0].shape[0]))
        return model(data)

    def output_fn(self, prediction: Any, accept: str) -> Any:
        """Return *prediction* as *accept*."""
        return super().output_fn(_arrays(prediction), accept)


def _arrays(prediction: Any) -> Any:
    if hasattr(prediction, "asnumpy"):
        return prediction.asnumpy()
    return [_arrays(item) for item in prediction] if isinstance(prediction, (list, tuple)) else prediction


def _context(mx: Any) -> Any:
    return mx.gpu() if mx.context.num_gpus() else mx.cpu()
