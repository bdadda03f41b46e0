"""The artifact: ``model_algo-1``, a ZIP file as AWS's algorithm writes it.

In it are ``mx-mod-0000.params`` (an MXNet file of ``arg:fc0_weight`` (n_outputs, n_features) and ``arg:fc0_bias``
(n_outputs,), in the units of the data), ``mx-mod-symbol.json`` (the network of them: one fully connected layer) and
``additional-params.json`` (predictor_type, loss, threshold).
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.errors import CustomerError, DataError
from sagesmith_algorithms.formats import mxnet

__all__ = ["load", "save"]

_FILE = "model_algo-1"
_PARAMS, _SYMBOL, _MORE = "mx-mod-0000.params", "mx-mod-symbol.json", "additional-params.json"
_WHEN = (1980, 1, 1, 0, 0, 0)  # equal models give equal files


def save(folder: Path, weights: npt.NDArray[Any], bias: npt.NDArray[Any], more: Mapping[str, Any]) -> None:
    """Write a model of *weights* (n_outputs, n_features) and *bias* (n_outputs,)."""
    params = mxnet.dump([weights, bias], ["arg:fc0_weight", "arg:fc0_bias"])
    files = {
        _PARAMS: params,
        _SYMBOL: json.dumps(_symbol(len(bias))).encode(),
        _MORE: json.dumps(dict(more)).encode(),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _WHEN), content)
    (folder / _FILE).write_bytes(buffer.getvalue())


def load(folder: Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], dict[str, Any]]:
    """Return weights, bias and what else was saved.

    Raises:
        CustomerError: there is no such file, or it cannot be read.
    """
    path = next(iter(sorted(folder.glob("model_algo-*"))), None)
    if path is None:
        raise CustomerError(f"There is no {_FILE} in the model artifact; it was not made by linear learner.")
    try:
        with zipfile.ZipFile(path) as archive:
            params, more = archive.read(_PARAMS), json.loads(archive.read(_MORE))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise DataError(f"is not an artifact of linear learner: {error}", path.name) from error
    arrays = mxnet.load_named(params, path.name)
    weights, bias = arrays.get("arg:fc0_weight"), arrays.get("arg:fc0_bias")
    if weights is None or bias is None or weights.ndim != 2 or bias.shape != (len(weights),):
        raise DataError("has no weights and bias that fit each other", path.name)
    if not isinstance(more, dict):
        raise DataError(f"has no dictionary in {_MORE}", path.name)
    return weights.astype(np.float64), bias.astype(np.float64), more


def _symbol(n_outputs: int) -> dict[str, Any]:
    def variable(name: str) -> dict[str, Any]:
        return {"op": "null", "name": name, "inputs": []}

    layer = {
        "op": "FullyConnected",
        "name": "fc0",
        "attrs": {"num_hidden": str(n_outputs)},
        "inputs": [[0, 0, 0], [1, 0, 0], [2, 0, 0]],
    }
    return {
        "nodes": [variable("data"), variable("fc0_weight"), variable("fc0_bias"), layer],
        "arg_nodes": [0, 1, 2],
        "node_row_ptr": [0, 1, 2, 3, 4],
        "heads": [[3, 0, 0]],
        "attrs": {"mxnet_version": ["int", 10900]},
    }
