"""The numerical parts of k-means: nearest centers, k-means++ and Lloyd's algorithm, on weighted points."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.formats.batch import Floats
from sagesmith_algorithms.threads import side_by_side

__all__ = ["cluster_sums", "kmeans_plus_plus", "lloyd", "nearest", "squared_distances_to"]

_BLOCK_ELEMENTS = 1 << 19  # products of one block: 2 MiB, which stays in the cache


def nearest(points: Floats, centers: Floats) -> npt.NDArray[np.intp]:
    """Return the index of the nearest center of each point.

    Args:
        points: float32 (n_samples, n_features).
        centers: float32 (n_centers, n_features).
    """
    half_norms = 0.5 * np.einsum("ij,ij->i", centers, centers)
    transposed = np.ascontiguousarray(centers.T)
    labels = np.empty(len(points), np.intp)
    step = max(64, _BLOCK_ELEMENTS // len(centers))

    def label(start: int) -> None:
        products = points[start : start + step] @ transposed
        products -= half_norms
        np.argmax(products, axis=1, out=labels[start : start + step])

    side_by_side(label, range(0, len(points), step))
    return labels


def squared_distances_to(points: Floats, centers: Floats, labels: npt.NDArray[np.intp]) -> Floats:
    """Return each point's squared distance to its center, from the difference and so without cancellation."""
    result = np.empty(len(points), np.float32)
    step = max(1, _BLOCK_ELEMENTS // points.shape[1])
    for start in range(0, len(points), step):
        span = slice(start, start + step)
        difference = points[span] - centers[labels[span]]
        np.einsum("ij,ij->i", difference, difference, out=result[span])
    return result


def cluster_sums(
    points: Floats,
    labels: npt.NDArray[np.intp],
    n_centers: int,
    weights: npt.NDArray[np.float64] | None = None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the sum of the points of each cluster, (n_centers, n_features), and their count or weight."""
    counts = np.bincount(labels, weights, n_centers).astype(np.float64)
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=n_centers))
    starts = np.concatenate(([0], ends[:-1]))
    filled = ends > starts
    sums = np.zeros((n_centers, points.shape[1]))
    if filled.any():
        ordered: npt.NDArray[Any] = points[order]
        if weights is not None:
            ordered = ordered * weights[order][:, None]
        sums[filled] = np.add.reduceat(ordered, starts[filled], axis=0)
    return sums, counts


def kmeans_plus_plus(
    points: Floats, weights: npt.NDArray[np.float64], k: int, *, rng: np.random.Generator
) -> Floats:
    """Choose *k* initial centers among the points, by weight times squared distance to the nearest chosen.

    Of several candidates in each step the one is kept that leaves the least distance in all.

    Args:
        points: float32 (n_samples, n_features), finite. Not modified.
        weights: (n_samples,), not negative.
        k: number of centers, 1 <= k <= n_samples.
        rng: the only source of randomness; equal state gives equal centers.

    Returns:
        float32 (k, n_features); every row is a row of *points*.

    Raises:
        ValueError: *k* is out of range.

    Source: Arthur and Vassilvitskii, "k-means++", SODA 2007, section 2.2; the candidates are those of scikit-learn.
    """
    n = len(points)
    if not 1 <= k <= n:
        raise ValueError(f"k must be from 1 to the number of points, {n}, not {k}")
    n_candidates = 2 + int(np.log(k))
    norms = np.einsum("ij,ij->i", points, points)
    chosen = [int(rng.choice(n, p=weights / weights.sum()))]
    nearest_so_far = np.maximum(norms - 2.0 * (points @ points[chosen[0]]) + norms[chosen[0]], 0.0)
    for _ in range(1, k):
        mass = np.cumsum(weights * nearest_so_far)
        if mass[-1] <= 0.0:  # fewer distinct points than centers
            left = np.setdiff1d(np.arange(n), chosen)
            chosen.extend(int(i) for i in rng.choice(left, k - len(chosen), replace=False))
            break
        picks = np.searchsorted(mass, rng.random(n_candidates) * mass[-1], side="right").clip(max=n - 1)
        distances = np.maximum(norms[picks][:, None] - 2.0 * (points[picks] @ points.T) + norms, 0.0)
        np.minimum(distances, nearest_so_far, out=distances)
        best = int(np.argmin(distances @ weights))
        chosen.append(int(picks[best]))
        nearest_so_far = distances[best]
    result: Floats = points[chosen].copy()
    return result


def lloyd(
    points: Floats,
    weights: npt.NDArray[np.float64] | None,
    centers: Floats,
    *,
    max_iter: int,
    tol: float,
) -> tuple[Floats, float]:
    """Move *centers* to a local minimum of the weighted sum of squared distances.

    Args:
        points: float32 (n_samples, n_features).
        weights: (n_samples,), or None for ones.
        centers: float32 (k, n_features); not modified.
        max_iter: at most so many steps.
        tol: stop when the centers move less, relative to the variance of the points (scikit-learn's meaning).

    Returns:
        the centers, and the sum. A center that loses all its points moves to the point farthest from its own.
    """
    least_move = tol * float(points.var(axis=0, dtype=np.float64).mean())
    labels = nearest(points, centers)
    for _ in range(max_iter):
        sums, counts = cluster_sums(points, labels, len(centers), weights)
        moved = centers.copy()
        filled = counts > 0
        moved[filled] = sums[filled] / counts[filled, None]
        if not filled.all():
            far = squared_distances_to(points, centers, labels)
            moved[~filled] = points[np.argsort(far)[::-1][: int((~filled).sum())]]
        shift = float(((moved - centers) ** 2).sum())
        centers = moved
        before, labels = labels, nearest(points, centers)
        if shift <= least_move or np.array_equal(before, labels):
            break
    distances = squared_distances_to(points, centers, labels)
    return centers, float(distances.sum(dtype=np.float64) if weights is None else distances @ weights)
