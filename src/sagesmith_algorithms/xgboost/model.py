"""A saved model, ready to predict: the library's C function below its Python wrapping, on a buffer that stays.

`Booster.predict` takes 130 us for one row, most of it Python. Here the description of the buffer is made once for
each number of rows, and one row takes 30 us, with the same bits as a result; a model that is asked often has its rows
walked without the library, one in a tenth of that (see `walker`). Below a thousand rows one thread is quicker than several,
whose barriers wait for each other.

AWS's older containers saved pickled boosters. These are read by an unpickler that knows nothing but a booster.
"""

from __future__ import annotations

import ctypes
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import xgboost
from xgboost.core import _LIB

from sagesmith_algorithms.errors import CustomerError, DataError
from sagesmith_algorithms.formats.batch import Floats
from sagesmith_algorithms.xgboost.walker import WalkerInTime

__all__ = ["Model", "load_models"]

_CACHED_ROWS = 256
_ONE_THREAD_BELOW = 1000
_ALLOWED = {
    ("xgboost.core", "Booster"),
    ("builtins", "bytearray"),
    ("__builtin__", "bytearray"),
    ("copyreg", "_reconstructor"),
    ("copy_reg", "_reconstructor"),
    ("builtins", "object"),
    ("__builtin__", "object"),
    ("_codecs", "encode"),
}


def load_models(folder: Path, n_threads: int) -> list[Model]:
    """Return the models of an artifact: one, or those of a cross-validation.

    Raises:
        CustomerError: there is none, or one cannot be read.
    """
    found = sorted(
        (path for path in folder.glob("xgboost-model*") if path.is_file()),
        key=lambda path: (len(path.name), path.name),
    )
    if not found:
        # A model made elsewhere: exactly one file is taken for it, as AWS's container does.
        files = [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
        found = files if len(files) == 1 else []
    if not found:
        raise CustomerError("There is no file 'xgboost-model' in the model artifact.")
    return [Model(_load_booster(path), n_threads) for path in found]


class Model:
    """One booster. Not thread-safe: the buffers are its own.

    Attributes:
        booster: the `xgboost.Booster`.
        objective: XGBoost's name of it.
        n_features: the width of a row.
        n_classes: the number of classes of a multi-class model, else 0.
    """

    def __init__(self, booster: Any, n_threads: int) -> None:
        self.booster = booster
        config = json.loads(booster.save_config())["learner"]
        self.objective: str = config["objective"]["name"]
        self.n_classes = int(config["learner_model_param"].get("num_class", "0"))
        self.n_features = int(booster.num_features())
        self._is_linear = config["gradient_booster"]["name"] == "gblinear"
        self._n_threads = n_threads
        self._threads_now = 0
        best = booster.attr("best_iteration")
        self._end = int(best) + 1 if best is not None and int(best) < booster.num_boosted_rounds() else 0
        self._config = json.dumps(
            {
                "type": 0, "training": False, "iteration_begin": 0, "iteration_end": self._end,
                "missing": float("nan"), "strict_shape": False, "cache_id": 0,
            }
        ).encode()  # fmt: skip
        self.buffer: Floats = np.empty((_CACHED_ROWS, self.n_features), np.float32)
        self._described = [_described(self.buffer, n) for n in range(_CACHED_ROWS + 1)]
        self._shape = ctypes.POINTER(ctypes.c_uint64)()
        self._n_dims = ctypes.c_uint64()
        self._result = ctypes.POINTER(ctypes.c_float)()
        self._function = ctypes.PyDLL(_LIB._name).XGBoosterPredictFromDense
        self._function.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, *[ctypes.c_void_p] * 4]
        self._function.restype = ctypes.c_int
        self._rest = (None, ctypes.byref(self._shape), ctypes.byref(self._n_dims), ctypes.byref(self._result))
        self._handle = booster.handle
        self._use_threads(1)
        self._walker = WalkerInTime(
            lambda: bytes(booster.save_raw("json")),
            self._end,
            lambda rows: self._predict(_described(rows, len(rows)), len(rows)),
        )

    def predict(self, rows: Any) -> Floats:
        """Return what the objective predicts: (n_samples,) or (n_samples, n_values).

        Args:
            rows: float32 (n_samples, n_features), NaN for missing; or CSR, in which what is left out is missing.
        """
        if not isinstance(rows, np.ndarray) or self._is_linear:
            self._use_threads(1 if rows.shape[0] < _ONE_THREAD_BELOW else self._n_threads)
            matrix = xgboost.DMatrix(rows, missing=np.nan, nthread=self._threads_now)
            result: Floats = self.booster.predict(matrix, iteration_range=(0, self._end))
            return result
        if len(rows) <= _CACHED_ROWS:
            self.buffer[: len(rows)] = rows
            return self.predict_buffer(len(rows))
        contiguous = np.ascontiguousarray(rows, np.float32)
        return self._predict(_described(contiguous, len(contiguous)), len(contiguous))

    @property
    def reads_buffer(self) -> bool:
        """Whether `predict_buffer` works: for all but linear models."""
        return not self._is_linear

    def predict_buffer(self, n: int) -> Floats:
        """Return the predictions for the first *n* rows of `buffer`."""
        walker = self._walker.get()
        if walker is not None and n <= walker.most_rows:
            return walker.predict(self.buffer, n)
        return self._predict(self._described[n], n)

    def _predict(self, description: bytes, n: int) -> Floats:
        self._use_threads(1 if n < _ONE_THREAD_BELOW else self._n_threads)
        if self._function(self._handle, description, self._config, *self._rest):
            raise RuntimeError(
                f"XGBoost could not predict: {_LIB.XGBGetLastError().decode(errors='replace')}"
            )
        shape = tuple(self._shape[i] for i in range(self._n_dims.value))
        return np.ctypeslib.as_array(self._result, shape).copy()

    def _use_threads(self, n: int) -> None:
        if n != self._threads_now:
            self.booster.set_param({"nthread": n})
            self._threads_now = n


def _described(rows: Floats, n: int) -> bytes:
    """Return the array interface of the first *n* of *rows*."""
    interface = {
        "data": (rows.ctypes.data, True),
        "shape": (n, rows.shape[1]),
        "typestr": "<f4",
        "version": 3,
    }
    return json.dumps(interface).encode()


def _load_booster(path: Path) -> Any:
    data = path.read_bytes()
    if not data:
        raise DataError("the model file is empty", path.name)
    if data[:1] == b"\x80" or data[:3] in (b"cco", b"cxg"):
        return _unpickled(data, path)
    try:
        return xgboost.Booster(model_file=bytearray(data))
    except (xgboost.core.XGBoostError, ValueError) as error:
        reason = str(error).split("Stack trace", 1)[0].strip().splitlines()[-1:] or [""]
        raise DataError(
            f"is no model that XGBoost {xgboost.__version__} can load: {reason[0]}. Save it with Booster.save_model",
            path.name,
        ) from error


class _BoosterUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a model file")
        return super().find_class(
            module.replace("__builtin__", "builtins").replace("copy_reg", "copyreg"), name
        )


def _unpickled(data: bytes, path: Path) -> Any:
    try:
        booster = _BoosterUnpickler(io.BytesIO(data)).load()
    except Exception as error:  # other people's bytes: the unpickler raises anything
        raise DataError(
            f"is a pickle that does not hold just a Booster of a version XGBoost {xgboost.__version__} can load "
            f"({error}). Save it with Booster.save_model",
            path.name,
        ) from error
    if not isinstance(booster, xgboost.Booster):
        raise DataError(f"is a pickled {type(booster).__name__}, not a Booster", path.name)
    return booster
