"""Requests that arrived together as one call of ``predict_fn``: their rows stacked, and to each its share of the result.

A call costs much the same for one row as for a hundred: nine tenths of the time of a linear model of scikit-learn is
spent on checking its input. But it is the same answers only if the model looks at each row by itself, which nobody can
know of a user's function; of a model made of scikit-learn's parts, `predicts_row_by_row` does.

What is stacked: arrays of NumPy and tensors of PyTorch, of one dtype and one shape but for the first axis; data frames
with the same columns; lists, whose items are the rows. Everything else is predicted by itself.
"""

from __future__ import annotations

import importlib
import itertools
from typing import Any, Hashable, List, Optional, Sequence, Tuple

__all__ = ["as_rows", "kind", "predicts_row_by_row", "shares", "stack"]

_TENSOR = ("torch", "Tensor")
_ARRAYS = (("numpy", "ndarray"), _TENSOR)
_FRAME = ("pandas", "DataFrame")
_LIST = ("builtins", "list")
_ESTIMATORS = ("sklearn", "xgboost", "lightgbm")
# What these draw at random, or how long they iterate, is for all rows together, as `check_methods_subset_invariance` of
# scikit-learn finds of them. The last runs any function of the users.
_NOT_ROW_BY_ROW = ("BernoulliRBM", "DummyClassifier", "NMF", "MiniBatchNMF", "FunctionTransformer")


def as_rows(data: Any) -> Any:
    """Return *data*, an array or tensor without a first axis of rows as one row."""
    return data.reshape(1, -1) if _name(data) in _ARRAYS and data.ndim < 2 else data


def kind(data: Any) -> Optional[Hashable]:
    """Return what *data* has in common with all that it can be stacked with; None if it cannot be, or has no rows."""
    name = _name(data)
    if name in _ARRAYS:
        shape = data.shape
        return (name, data.dtype, shape[1:], name == _TENSOR and data.device) if shape and shape[0] else None
    if name == _FRAME:
        return (name, *data.columns, *data.dtypes) if len(data) else None
    return name if name == _LIST and data else None


def stack(parts: Sequence[Any]) -> Any:
    """Return the rows of *parts*, which are of one `kind`, below each other."""
    if len(parts) == 1:
        return parts[0]
    name = _name(parts[0])
    if name == _LIST:
        return list(itertools.chain.from_iterable(parts))
    library = importlib.import_module(name[0])
    if name == _FRAME:
        return library.concat(parts, ignore_index=True)
    return library.cat(parts) if name[0] == "torch" else library.concatenate(parts)


def shares(prediction: Any, counts: Sequence[int]) -> List[Any]:
    """Return *prediction* cut along its first axis into parts of *counts* rows; of a dictionary, that of each value.

    Raises:
        TypeError: it has no rows, or not as many.
    """
    if isinstance(prediction, dict):
        columns = {key: shares(value, counts) for key, value in prediction.items()}
        return [{key: column[n] for key, column in columns.items()} for n in range(len(counts))]
    n_rows = sum(counts)
    shape = getattr(prediction, "shape", None)
    if shape is None and not isinstance(prediction, list):
        raise TypeError(_NO_ROWS % (n_rows, type(prediction).__name__))
    there = len(prediction) if shape is None else shape[0] if shape else 1
    if there != n_rows or shape == ():
        raise TypeError(_NO_ROWS % (n_rows, "%s with %d" % (type(prediction).__name__, there)))
    rows = getattr(prediction, "iloc", prediction)
    parts, start = [], 0
    for count in counts:
        parts.append(rows[start : start + count])
        start += count
    # A share of a data frame or series counts its rows from 0, as if it had been alone.
    return parts if rows is prediction else [part.reset_index(drop=True) for part in parts]


_NO_ROWS = (
    "predict_fn must return a row for each row that it is given, which are those of all requests that arrived together: "
    "it was given %d and returned %s. Without SAGESMITH_DYNAMIC_BATCHING=true it is given one request at a time."
)


def predicts_row_by_row(model: Any) -> bool:
    """Return whether *model* is an estimator, made of scikit-learn's own parts alone, that says the same of a row in any company.

    scikit-learn demands it of its estimators (``check_methods_subset_invariance``), up to rounding. A function of the
    user's anywhere in it, or a class, may do anything.
    """
    if type(model).__module__.partition(".")[0] not in _ESTIMATORS or not hasattr(model, "get_params"):
        return False
    parts = [model, *model.get_params(deep=True).values()]
    for part in parts:
        if hasattr(part, "get_params") and not isinstance(part, type):
            if _name(part)[0] not in _ESTIMATORS or type(part).__name__ in _NOT_ROW_BY_ROW:
                return False
        elif callable(part):
            return False
    return True


def _name(data: Any) -> Tuple[str, str]:
    return type(data).__module__.partition(".")[0], type(data).__name__
