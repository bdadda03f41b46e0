"""The artifact: ``model_algo-1``, a ZIP file as AWS's algorithm writes it.

In it are ``params`` (an MXNet file of ``arg:w0_weight`` (1, 1), ``arg:w1_weight`` (n_features, 1) and ``arg:v``
(n_features, n_factors)), ``symbol.json`` (the network of them) and ``additional-params.json`` (predictor_type).
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.errors import CustomerError, DataError
from sagesmith_algorithms.factorization_machines.hyperparameters import BINARY, REGRESSOR
from sagesmith_algorithms.formats import mxnet

__all__ = ["load", "save"]

Array = npt.NDArray[Any]
_FILE = "model_algo-1"
_PARAMS, _SYMBOL, _MORE = "params", "symbol.json", "additional-params.json"
_BIAS, _WEIGHTS, _FACTORS = "arg:w0_weight", "arg:w1_weight", "arg:v"
_WHEN = (1980, 1, 1, 0, 0, 0)  # equal models give equal files


def save(folder: Path, bias: float, weights: Array, factors: Array, predictor_type: str) -> None:
    """Write a model: *weights* (n_features,), *factors* (n_features, n_factors)."""
    arrays = (np.full((1, 1), bias, np.float32), weights[:, None], factors)
    files = {
        _PARAMS: mxnet.dump(arrays, (_BIAS, _WEIGHTS, _FACTORS)),
        _SYMBOL: json.dumps(_symbol(predictor_type)).encode(),
        _MORE: json.dumps({"predictor_type": predictor_type}).encode(),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _WHEN), content)
    (folder / _FILE).write_bytes(buffer.getvalue())


def load(folder: Path) -> tuple[float, Array, Array, str]:
    """Return bias, weights (n_features,), factors (n_features, n_factors) and predictor_type.

    Raises:
        CustomerError: there is no such file, or it cannot be read.
    """
    path = next(iter(sorted(folder.glob("model_algo-*"))), None)
    if path is None:
        raise CustomerError(
            f"There is no {_FILE} in the model artifact; it was not made by factorization machines."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            params = archive.read(_PARAMS)
            symbol = archive.read(_SYMBOL) if _SYMBOL in names else b""
            more = json.loads(archive.read(_MORE)) if _MORE in names else {}
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise DataError(f"is not an artifact of factorization machines: {error}", path.name) from error
    arrays = mxnet.load_named(params, path.name)
    bias, weights, factors = (arrays.get(name) for name in (_BIAS, _WEIGHTS, _FACTORS))
    if bias is None or weights is None or factors is None or bias.size != 1 or factors.ndim != 2:
        raise DataError(f"has no {_BIAS}, {_WEIGHTS} and {_FACTORS} of a model", path.name)
    if weights.size != len(factors):
        raise DataError("has weights and factors of different numbers of features", path.name)
    said = more.get("predictor_type") if isinstance(more, dict) else None
    kind = said or (BINARY if b"Logistic" in symbol or b"Softmax" in symbol else REGRESSOR)
    return float(bias.reshape(-1)[0]), weights.reshape(-1), factors, str(kind)


def _symbol(predictor_type: str) -> dict[str, Any]:
    """Return the network in MXNet's form: nodes that name their inputs by number."""
    nodes: list[dict[str, Any]] = []

    def node(op: str, name: str, *inputs: int, **attributes: str) -> int:
        one: dict[str, Any] = {"op": op, "name": name, "inputs": [[i, 0, 0] for i in inputs]}
        if attributes:
            one["attrs"] = attributes
        nodes.append(one)
        return len(nodes) - 1

    data, weights, factors = (node("null", name) for name in ("data", "w1_weight", "v"))
    bias, label = (node("null", name) for name in ("w0_weight", "out_label"))
    linear = node("dot", "linear", data, weights)
    inner = node("square", "inner_squared", node("dot", "inner", data, factors))
    together = node("sum", "together", inner, axis="1", keepdims="True")
    lengths = node("sum", "lengths", node("square", "v_squared", factors), axis="1", keepdims="True")
    alone = node("dot", "alone", node("square", "data_squared", data), lengths)
    pairs = node("_mul_scalar", "pairs", node("broadcast_sub", "between", together, alone), scalar="0.5")
    biased = node("broadcast_add", "biased", node("broadcast_add", "sum", linear, pairs), bias)
    kind = "LogisticRegressionOutput" if predictor_type == BINARY else "LinearRegressionOutput"
    out = node(kind, "out", biased, label)
    return {
        "nodes": nodes,
        "arg_nodes": [data, weights, factors, bias, label],
        "node_row_ptr": list(range(len(nodes) + 1)),
        "heads": [[out, 0, 0]],
        "attrs": {"mxnet_version": ["int", 10900]},
    }
