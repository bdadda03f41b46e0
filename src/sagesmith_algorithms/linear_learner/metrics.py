"""Metrics of scores, and the threshold that makes the best of a criterion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.linear_learner.hyperparameters import BINARY, MULTICLASS

__all__ = [
    "best_threshold",
    "binary_metrics",
    "metrics_of",
    "multiclass_metrics",
    "regression_metrics",
    "roc_auc",
]

Array = npt.NDArray[Any]


def best_threshold(scores: Array, labels: Array, values: Mapping[str, Any]) -> tuple[float, float]:
    """Return the threshold that makes the best of the criterion in *values*, and what it comes to.

    A row is predicted 1 if its score is at least the threshold. Thresholds lie between two scores.
    """
    ordered, positive = _sorted(scores, labels)
    ordered, positive = ordered[::-1].astype(np.float64), positive[::-1]
    true_positive = np.cumsum(positive)
    n_predicted = np.arange(1, len(scores) + 1)
    last = np.append(ordered[1:] != ordered[:-1], True)  # rows of one score fall together
    tp, predicted = true_positive[last], n_predicted[last]
    edges = ordered[last]
    n_positive, n = int(true_positive[-1]), len(scores)
    tp, predicted = np.concatenate([[0], tp]), np.concatenate([[0], predicted])  # or no row at all
    below = np.append(edges[1:], edges[-1] - 2 * abs(edges[-1]) - 1e-6)
    # Not at a score itself, which rounding may put on either side when the row comes again.
    thresholds = np.concatenate([[edges[0] + 1e-3 * abs(edges[0]) + 1e-6], (edges + below) / 2])
    precision = np.divide(tp, predicted, out=np.zeros(len(tp)), where=predicted > 0)
    recall = tp / max(n_positive, 1)
    criterion = values["binary_classifier_model_selection_criteria"]
    if criterion == "accuracy":
        goal = (tp + (n - predicted) - (n_positive - tp)) / n
    elif criterion in ("f1", "f_beta"):
        goal = _f(precision, recall, 1.0 if criterion == "f1" else values["f_beta"])
    elif criterion == "precision_at_target_recall":
        goal = np.where(recall >= values["target_recall"], precision, recall - 2)
    else:
        goal = np.where(precision >= values["target_precision"], recall, precision - 2)
    best = int(np.argmax(goal))
    return float(thresholds[best]), float(goal[best])


def binary_metrics(scores: Array, predicted: Array, labels: Array, f_beta: float) -> dict[str, float]:
    """Return accuracy, precision, recall, F and area under the curve, in AWS's words."""
    tp = float(((predicted == 1) & (labels == 1)).sum())
    precision, recall = tp / max((predicted == 1).sum(), 1), tp / max((labels == 1).sum(), 1)
    found = {
        "binary_classification_accuracy <score>": float((predicted == labels).mean()),
        f"binary_f_{f_beta:.3f} <score>": float(_f(np.float64(precision), np.float64(recall), f_beta)),
        "precision <score>": float(precision),
        "recall <score>": float(recall),
    }
    if 0 < (labels == 1).sum() < len(labels):
        found["roc_auc_score <score>"] = roc_auc(scores, labels)
    return found


def roc_auc(scores: Array, labels: Array) -> float:
    """Return the share of pairs of a row labelled 1 and one labelled 0 that *scores* order rightly; ties are half."""
    ordered, positive = _sorted(scores, labels)
    first = np.append(True, ordered[1:] != ordered[:-1])
    group = np.cumsum(first) - 1
    starts = np.flatnonzero(first)
    ends = np.append(starts[1:], len(scores))
    ranks = ((starts + ends + 1) / 2)[group]
    n1 = float(positive.sum())
    n0 = len(labels) - n1
    return float((ranks[positive].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def multiclass_metrics(probabilities: Array, labels: Array, values: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of class scores (n_samples, n_classes), in AWS's words."""
    n, n_classes = probabilities.shape
    classes = labels.astype(np.intp)
    own = probabilities[np.arange(n), classes]
    rank = (probabilities > own[:, None]).sum(axis=1)
    predicted = probabilities.argmax(axis=1)
    hits = np.bincount(classes[predicted == classes], minlength=n_classes).astype(float)
    truly = np.bincount(classes, minlength=n_classes)
    said = np.bincount(predicted, minlength=n_classes)
    present = truly > 0
    recall = hits / np.maximum(truly, 1)
    precision = hits / np.maximum(said, 1)
    k, beta = values["accuracy_top_k"], values["f_beta"]
    return {
        "multiclass_accuracy <score>": float((predicted == classes).mean()),
        f"multiclass_top_k_accuracy_{k} <score>": float((rank < k).mean()),
        "dcg <score>": float((1 / np.log2(rank + 2)).mean()),
        "macro_recall <score>": float(recall[present].mean()),
        "macro_precision <score>": float(precision[present].mean()),
        f"macro_f_{beta:.3f} <score>": float(_f(precision, recall, beta)[present].mean()),
        "multiclass_balanced_accuracy <score>": float(recall[present].mean()),
        "multiclass_log_loss <score>": float(-np.log(np.maximum(own, 1e-15)).mean()),
    }


def regression_metrics(predicted: Array, labels: Array) -> dict[str, float]:
    """Return mean squared and absolute errors, in AWS's words."""
    error = predicted - labels
    mse = float((error**2).mean())
    return {
        "mse <loss>": mse,
        "rmse <loss>": mse**0.5,
        "absolute_loss <loss>": float(np.abs(error).mean()),
    }


def metrics_of(columns: Mapping[str, Array], labels: Array, values: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a model's answers *columns* (see `LinearLearner.infer`)."""
    scores = columns["score"].astype(np.float64)
    if values["predictor_type"] == BINARY:
        return binary_metrics(scores, columns["predicted_label"], labels, values["f_beta"])
    if values["predictor_type"] == MULTICLASS:
        return multiclass_metrics(scores, labels, values)
    return regression_metrics(scores, labels)


def _f(precision: Array | np.float64, recall: Array | np.float64, beta: float) -> Array:
    squared = beta * beta
    bottom = squared * precision + recall
    return np.asarray((1 + squared) * precision * recall / np.where(bottom > 0, bottom, 1.0))


def _sorted(scores: Array, labels: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return the scores in ascending order, as float32, and which of them are those of rows labelled 1.

    The label rides in the last bit of the score, so that values are sorted and not their places: ten times as quick.
    """
    bits = np.ascontiguousarray(scores, np.float32).view(np.uint32) & np.uint32(0xFFFFFFFE)
    ordered = np.sort((bits | (labels == 1)).view(np.float32)).view(np.uint32)
    return (ordered & np.uint32(0xFFFFFFFE)).view(np.float32), (ordered & 1).astype(bool)
