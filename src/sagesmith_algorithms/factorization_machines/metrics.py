"""From sums over rows to metrics under SageMaker's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.factorization_machines.hyperparameters import BINARY

__all__ = ["NAMES", "metrics_of", "sums_of"]

Array = npt.NDArray[Any]
NAMES: Final = ("rows", "squares", "absolute", "entropy", "true_1", "false_1", "false_0", "true_0")
"""What the sums of `kernels.gradients` are, in their order."""


def sums_of(scores: Array, labels: Array, predictor_type: str) -> dict[str, float]:
    """Return the sums over rows of *scores*, before any sigmoid, and *labels*, both (n_samples,)."""
    scores, labels = scores.astype(np.float64), labels.astype(np.float64)
    values = np.zeros(len(NAMES))
    values[0] = len(labels)
    if predictor_type == BINARY:
        values[3] = (np.logaddexp(0.0, scores) - scores * labels).sum()
        said, is_1 = scores >= 0, labels > 0.5
        values[4:] = (said & is_1).sum(), (said & ~is_1).sum(), (~said & is_1).sum(), (~said & ~is_1).sum()
    else:
        errors = scores - labels
        values[1], values[2] = errors @ errors, np.abs(errors).sum()
    return dict(zip(NAMES, values.tolist(), strict=True))


def metrics_of(sums: Mapping[str, float], predictor_type: str) -> dict[str, float]:
    """Return the metrics that *sums* come to, in the words of log lines."""
    rows = max(sums["rows"], 1.0)
    if predictor_type == BINARY:
        wrong = sums["false_1"] + sums["false_0"]
        return {
            "binary_classification_accuracy <score>": 1.0 - wrong / rows,
            "binary_classification_cross_entropy <loss>": sums["entropy"] / rows,
            "binary_f_1.000 <score>": 2 * sums["true_1"] / max(2 * sums["true_1"] + wrong, 1.0),
        }
    return {
        "rmse <loss>": (sums["squares"] / rows) ** 0.5,
        "mse <loss>": sums["squares"] / rows,
        "absolute_loss <loss>": sums["absolute"] / rows,
    }
