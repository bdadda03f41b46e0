"""What models are worth, measured alike for all contenders with nothing but NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["area_under_roc", "explained_variance", "inertia"]

Array = npt.NDArray[Any]


def area_under_roc(labels: Array, scores: Array) -> float:
    """Return the area under the ROC curve of *scores* for *labels* 0 and 1."""
    positive = labels > 0
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores, kind="stable")] = np.arange(1, len(scores) + 1)
    n = int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(labels) - n)))


def inertia(points: Array, centers: Array) -> float:
    """Return the mean squared distance of *points* to their nearest of *centers*."""
    total, known = 0.0, centers.astype(np.float64)
    for start in range(0, len(points), 50_000):
        part = points[start : start + 50_000].astype(np.float64)
        squares = (part**2).sum(1)[:, None] - 2 * part @ known.T + (known**2).sum(1)
        total += float(squares.min(1).sum())
    return total / len(points)


def explained_variance(points: Array, components: Array) -> float:
    """Return the share of the variance of *points* that orthonormal *components*, a row each, hold."""
    centered = points - points.mean(axis=0, dtype=np.float64)
    return float((centered @ components.T.astype(np.float64)).var(axis=0).sum() / centered.var(axis=0).sum())
