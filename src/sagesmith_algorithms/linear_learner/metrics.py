"""Metrics of scores, and the threshold that makes the best of a criterion.

Metrics come from sums over blocks of rows, and the area under the ROC curve from a `Ranking`, so that they take the same
memory however many rows there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.linear_learner.hyperparameters import BINARY, MULTICLASS

if TYPE_CHECKING:
    from sagesmith_algorithms.linear_learner.team import Team

__all__ = ["Ranking", "best_threshold", "metrics_of", "roc_auc", "sums_of"]

Array = npt.NDArray[Any]
EXACT_ROWS: Final = 1 << 16
_BITS: Final = 18  # of a score that more rows are ranked by: sign, exponent and 9 digits


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


class Ranking:
    """The area under the ROC curve of scores that come in blocks.

    It is exact for up to 65,536 rows. More are counted by the leading 18 bits of their scores, which keeps those apart that
    differ by two parts in a thousand; rows of one count are ties. The area is then right to about six digits.
    """

    def __init__(self) -> None:
        self._scores: list[Array] = [np.empty(0, np.float32)]
        self._positive: list[npt.NDArray[np.bool_]] = [np.empty(0, bool)]
        self._n_waiting = self._n_rows = 0
        self._counts: Array = np.zeros(0, np.int64)

    def add(self, scores: Array, labels: Array) -> None:
        """Take in the *scores* of rows, (n,), with *labels* 0 and 1."""
        self._scores.append(scores.astype(np.float32))
        self._positive.append(labels == 1)
        self._n_rows += len(scores)
        self._n_waiting += len(scores)
        if self._n_waiting > EXACT_ROWS:
            self._count()

    def area(self, team: Team) -> float | None:
        """Return the area for the rows of all hosts, or None if all labels are alike."""
        (n_rows,) = team.summed(np.array(self._n_rows))
        if n_rows <= EXACT_ROWS:
            scores, positive = team.joined(np.concatenate(self._scores), np.concatenate(self._positive))
            return roc_auc(scores, positive) if positive.any() and not positive.all() else None
        self._count()
        (counts,) = team.summed(self._counts)
        negative, positive = counts.reshape(-1, 2).T.astype(np.float64)
        below = np.cumsum(negative) - negative
        n_pairs = negative.sum() * positive.sum()
        return float((positive * (below + negative / 2)).sum() / n_pairs) if n_pairs else None

    def _count(self) -> None:
        """Count the scores that wait."""
        bits = np.concatenate(self._scores).view(np.uint32)
        ascending = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)) >> (32 - _BITS)
        places = (ascending << 1 | np.concatenate(self._positive)).astype(np.int64)
        counts = np.bincount(places, minlength=2 << _BITS)
        self._counts = self._counts + counts if len(self._counts) else counts
        self._scores, self._positive, self._n_waiting = self._scores[:1], self._positive[:1], 0


def sums_of(columns: Mapping[str, Array], labels: Array, values: Mapping[str, Any]) -> dict[str, Array]:
    """Return sums over rows that `metrics_of` makes metrics of; sums of several blocks are added.

    Args:
        columns: a model's answers (see `LinearLearner.infer`).
        labels: (n_samples,), what is right.
        values: the hyperparameters.
    """
    scores = columns["score"].astype(np.float64)
    if values["predictor_type"] == BINARY:
        said, truly = columns["predicted_label"] == 1, labels == 1
        return {
            "rows": np.array(len(labels)),
            "right": (said == truly).sum(),
            "said": said.sum(),
            "truly": truly.sum(),
            "hits": (said & truly).sum(),
        }
    if values["predictor_type"] == MULTICLASS:
        return _multiclass_sums(scores, labels.astype(np.intp), values)
    error = scores - labels
    return {"rows": np.array(len(error)), "squares": (error**2).sum(), "absolute": np.abs(error).sum()}


def _multiclass_sums(probabilities: Array, classes: Array, values: Mapping[str, Any]) -> dict[str, Array]:
    n, n_classes = probabilities.shape
    own = probabilities[np.arange(n), classes]
    rank = (probabilities > own[:, None]).sum(axis=1)
    predicted = probabilities.argmax(axis=1)
    return {
        "rows": np.array(n),
        "right": (predicted == classes).sum(),
        "near": (rank < values["accuracy_top_k"]).sum(),
        "gain": (1 / np.log2(rank + 2)).sum(),
        "log_loss": -np.log(np.maximum(own, 1e-15)).sum(),
        "hits": np.bincount(classes[predicted == classes], minlength=n_classes),
        "truly": np.bincount(classes, minlength=n_classes),
        "said": np.bincount(predicted, minlength=n_classes),
    }


def metrics_of(sums: Mapping[str, Array], area: float | None, values: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics, in AWS's words, of *sums* (see `sums_of`) and the *area* under the ROC curve, where there is one."""
    n = sums["rows"]
    if values["predictor_type"] == MULTICLASS:
        return _multiclass_metrics(sums, values)
    if values["predictor_type"] != BINARY:
        mse = float(sums["squares"] / n)
        return {
            "mse <loss>": mse,
            "rmse <loss>": mse**0.5,
            "absolute_loss <loss>": float(sums["absolute"] / n),
        }
    beta = values["f_beta"]
    precision, recall = (np.float64(sums["hits"] / max(sums[name], 1)) for name in ("said", "truly"))
    found = {
        "binary_classification_accuracy <score>": float(sums["right"] / n),
        f"binary_f_{beta:.3f} <score>": float(_f(precision, recall, beta)),
        "precision <score>": float(precision),
        "recall <score>": float(recall),
    }
    return found if area is None else {**found, "roc_auc_score <score>": area}


def _multiclass_metrics(sums: Mapping[str, Array], values: Mapping[str, Any]) -> dict[str, float]:
    n, k, beta = sums["rows"], values["accuracy_top_k"], values["f_beta"]
    present = sums["truly"] > 0
    recall = sums["hits"] / np.maximum(sums["truly"], 1)
    precision = sums["hits"] / np.maximum(sums["said"], 1)
    return {
        "multiclass_accuracy <score>": float(sums["right"] / n),
        f"multiclass_top_k_accuracy_{k} <score>": float(sums["near"] / n),
        "dcg <score>": float(sums["gain"] / n),
        "macro_recall <score>": float(recall[present].mean()),
        "macro_precision <score>": float(precision[present].mean()),
        f"macro_f_{beta:.3f} <score>": float(_f(precision, recall, beta)[present].mean()),
        "multiclass_balanced_accuracy <score>": float(recall[present].mean()),
        "multiclass_log_loss <score>": float(sums["log_loss"] / n),
    }


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
