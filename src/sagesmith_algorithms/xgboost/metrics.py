"""Metrics of `sagemaker-xgboost` that the library lacks, on the predictions `xgboost.train` hands out.

Averages over classes are weighted by the classes' sizes where scikit-learn's "weighted" is meant (f1, precision
and recall of several classes), and plain for the ``_macro`` ones.

Source: aws/sagemaker-xgboost-container, `metrics/custom_metrics.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["custom_metric", "score"]

_Labels = npt.NDArray[np.intp]


def custom_metric(
    names: Sequence[str], objective: str
) -> Callable[[Any, Any], list[tuple[str, float]]] | None:
    """Return what `xgboost.train` takes as `custom_metric` for *names*, or None if there are none."""
    if not names:
        return None

    def evaluate(predictions: Any, data: Any) -> list[tuple[str, float]]:
        labels = data.get_label()
        return [(name, score(name, predictions, labels, objective)) for name in names]

    return evaluate


def score(name: str, predictions: Any, labels: Any, objective: str) -> float:
    """Return the metric *name*.

    Args:
        name: one of `hyperparameters.CUSTOM_METRICS`.
        predictions: what the objective predicts: probabilities, margins, classes or values.
        labels: (n_samples,).
        objective: XGBoost's name.
    """
    if name == "mse":
        return float(np.mean((np.asarray(predictions, np.float64) - labels) ** 2))
    if name == "r2":
        residual = np.sum((np.asarray(labels, np.float64) - predictions) ** 2)
        total = np.sum((np.asarray(labels, np.float64) - np.mean(labels, dtype=np.float64)) ** 2)
        return float(1.0 - residual / total) if total else 0.0
    return _CLASSIFIED[name](_confusion(_classes(predictions, objective), np.asarray(labels).astype(np.intp)))


def _classes(predictions: Any, objective: str) -> _Labels:
    values = np.asarray(predictions)
    if values.ndim == 2:
        return np.asarray(values.argmax(axis=1), np.intp)
    if objective.startswith("multi:"):
        return values.astype(np.intp)
    return (values > (0.0 if objective == "binary:logitraw" else 0.5)).astype(np.intp)


def _confusion(predicted: _Labels, true: _Labels) -> npt.NDArray[np.float64]:
    """Return counts of (true class, predicted class)."""
    n = int(max(predicted.max(initial=1), true.max(initial=1))) + 1
    return np.bincount(true * n + predicted, minlength=n * n).reshape(n, n).astype(np.float64)


def _divided(a: Any, b: Any) -> Any:
    return np.divide(a, b, out=np.zeros_like(a, dtype=np.float64), where=b > 0)


def _recall(table: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    result: npt.NDArray[np.float64] = _divided(np.diag(table), table.sum(axis=1))
    return result


def _precision(table: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    result: npt.NDArray[np.float64] = _divided(np.diag(table), table.sum(axis=0))
    return result


def _f1(table: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    result: npt.NDArray[np.float64] = _divided(2.0 * np.diag(table), table.sum(axis=0) + table.sum(axis=1))
    return result


def _macro(values: npt.NDArray[np.float64], table: npt.NDArray[np.float64]) -> float:
    """Return the mean over the classes that occur."""
    occurs = (table.sum(axis=0) + table.sum(axis=1)) > 0
    return float(values[occurs].mean())


def _by_size(values: npt.NDArray[np.float64], table: npt.NDArray[np.float64]) -> float:
    return float(values @ table.sum(axis=1) / table.sum())


def _accuracy(table: npt.NDArray[np.float64]) -> float:
    return float(np.trace(table) / table.sum())


def _balanced_accuracy(table: npt.NDArray[np.float64]) -> float:
    return float(_recall(table)[table.sum(axis=1) > 0].mean())


_CLASSIFIED: Final[dict[str, Callable[[npt.NDArray[np.float64]], float]]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "f1": lambda t: _macro(_f1(t), t),
    "f1_binary": lambda t: float(_f1(t)[1]),
    "f1_macro": lambda t: _macro(_f1(t), t),
    "precision": lambda t: float(_precision(t)[1]) if len(t) == 2 else _by_size(_precision(t), t),
    "precision_macro": lambda t: _macro(_precision(t), t),
    "precision_micro": _accuracy,
    "recall": lambda t: float(_recall(t)[1]) if len(t) == 2 else _by_size(_recall(t), t),
    "recall_macro": lambda t: _macro(_recall(t), t),
    "recall_micro": _accuracy,
}
