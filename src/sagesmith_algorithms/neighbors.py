"""Search for the nearest of many points: all of them, or those of the lists whose centers are nearest.

A block of queries is multiplied with a block of points, and only products better than the worst neighbor known so
far are looked at, so that nearly all the time goes into the product. The points' own lengths are one more column of
it. What is found is compared once more by exact differences.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms import clustering
from sagesmith_algorithms.formats.batch import Floats

__all__ = ["Flat", "Lists", "compressed", "decompressed"]

Indices = npt.NDArray[np.intp]
_QUERIES: Final = 256
_POINTS: Final = 4096
_SPARE: Final = 8  # candidates beyond k, since products of float32 may order near ones wrongly
_ROWS_PER_CENTER: Final = 64
_CODES: Final = 256


class Flat:
    """All points, each of them compared.

    Args:
        points: float32 (n_points, n_features). Not modified.
        inner_product: nearest means the largest product instead of the least Euclidean distance.
    """

    def __init__(self, points: Floats, *, inner_product: bool = False) -> None:
        self._points = points
        self._inner = inner_product
        self._middle = np.zeros(points.shape[1], np.float32)
        if not inner_product and len(points):
            self._middle = points.mean(axis=0, dtype=np.float64).astype(np.float32)
        self._columns = _with_lengths(points - self._middle, inner_product).T.copy()

    def search(self, queries: Floats, k: int) -> tuple[Indices, Floats]:
        """Return the indices of the *k* nearest points of each query, nearest first, and the distances (or products).

        1 <= k <= n_points.
        """
        found = np.empty((len(queries), k), np.intp)
        distances = np.empty((len(queries), k), np.float32)
        for start in range(0, len(queries), _QUERIES):
            block = queries[start : start + _QUERIES]
            chosen = self._best(block, min(k + _SPARE, len(self._points)))
            part = slice(start, start + len(block))
            found[part], distances[part] = _exact(block, self._points, chosen, k, inner_product=self._inner)
        return found, distances

    def _best(self, queries: Floats, k: int) -> Indices:
        """Return the indices of the *k* largest products of each query, in no order."""
        shifted = np.ones((len(queries), queries.shape[1] + 1), np.float32)
        np.subtract(queries, self._middle, out=shifted[:, :-1])
        n = self._columns.shape[1]
        first = min(n, max(_POINTS, 4 * k))
        products = shifted @ self._columns[:, :first]
        indices: Indices = np.argpartition(products, first - k, axis=1)[:, first - k :]
        values = np.take_along_axis(products, indices, axis=1)
        least = values.min(axis=1)
        for start in range(first, n, _POINTS):
            products = shifted @ self._columns[:, start : start + _POINTS]
            better = np.flatnonzero(products > least[:, None])
            if not better.size:
                continue
            width = products.shape[1]
            rows, columns = better // width, better % width
            counts = np.bincount(rows, minlength=len(queries))
            place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
            more = np.full((len(queries), int(counts.max())), -np.inf, np.float32)
            which = np.zeros(more.shape, np.intp)
            more[rows, place], which[rows, place] = products[rows, columns], columns + start
            values = np.concatenate([values, more], axis=1)
            indices = np.concatenate([indices, which], axis=1)
            kept = np.argpartition(values, values.shape[1] - k, axis=1)[:, -k:]
            values, indices = (
                np.take_along_axis(values, kept, axis=1),
                np.take_along_axis(indices, kept, axis=1),
            )
            least = values.min(axis=1)
        return indices


class Lists:
    """Points in the lists of their nearest centers, of which only some are searched.

    Args:
        points: float32 (n_points, n_features). Not modified.
        centers: float32 (n_lists, n_features).
        labels: (n_points,) which list each point is in.
        inner_product: nearest means the largest product instead of the least Euclidean distance.
    """

    def __init__(
        self, points: Floats, centers: Floats, labels: Indices, *, inner_product: bool = False
    ) -> None:
        self._points = points
        self._centers = Flat(centers, inner_product=inner_product)
        self._inner = inner_product
        self._order = np.argsort(labels, kind="stable")
        self._ends = np.cumsum(np.bincount(labels, minlength=len(centers)))
        self._middle = centers.mean(axis=0) * np.float32(not inner_product)
        self._rows = _with_lengths(points[self._order] - self._middle, inner_product)
        # Searching so many gave a recall of 0.99 and more on clustered data.
        self._n_probed = min(len(centers), 4 + int(np.ceil(0.5 * np.sqrt(len(centers)))))

    def search(self, queries: Floats, k: int) -> tuple[Indices, Floats]:
        """Return what `Flat.search` does, of the lists searched; these are more where they hold too few points."""
        found = np.empty((len(queries), k), np.intp)
        distances = np.empty((len(queries), k), np.float32)
        for part in _spans(len(queries), _QUERIES):
            block = queries[part]
            chosen = self._best(block, k)
            found[part], distances[part] = _exact(block, self._points, chosen, k, inner_product=self._inner)
        return found, distances

    def _best(self, queries: Floats, k: int) -> Indices:
        sizes = np.diff(self._ends, prepend=0)
        n_probed = self._n_probed
        while True:
            lists, _ = self._centers.search(queries, n_probed)
            if n_probed == len(sizes) or sizes[lists].sum(axis=1).min() >= k:
                break
            n_probed = min(len(sizes), 2 * n_probed)
        each = min(k + _SPARE, int(sizes.max()))
        values = np.full((len(queries), n_probed, each), -np.inf, np.float32)
        indices = np.zeros(values.shape, np.intp)
        shifted = np.ones((len(queries), queries.shape[1] + 1), np.float32)
        np.subtract(queries, self._middle, out=shifted[:, :-1])
        flat = lists.reshape(-1)
        by_list = np.argsort(flat, kind="stable")
        edges = np.append(np.flatnonzero(np.diff(flat[by_list], prepend=-1)), len(flat))
        for a, b in pairwise(edges.tolist()):
            which = int(flat[by_list[a]])
            end, size = int(self._ends[which]), int(sizes[which])
            if not size:
                continue
            rows, slots = np.divmod(by_list[a:b], n_probed)
            products = shifted[rows] @ self._rows[end - size : end].T
            if size > each:
                best = np.argpartition(products, size - each, axis=1)[:, size - each :]
                values[rows, slots] = np.take_along_axis(products, best, axis=1)
                indices[rows, slots] = best + (end - size)
            else:
                values[rows, slots, :size] = products
                indices[rows, slots, :size] = np.arange(end - size, end)
        all_values, all_indices = values.reshape(len(queries), -1), indices.reshape(len(queries), -1)
        # As many as all queries have: what stands for nothing (-inf) must not be chosen.
        n = min(k + _SPARE, int(np.isfinite(all_values).sum(axis=1).min()))
        best = np.argpartition(all_values, all_values.shape[1] - n, axis=1)[:, -n:]
        chosen: Indices = self._order[np.take_along_axis(all_indices, best, axis=1)]
        return chosen


def centers_of(points: Floats, n: int, rng: np.random.Generator) -> Floats:
    """Return *n* centers of *points*, by a few steps of k-means on some of them."""
    some = points
    if len(points) > n * _ROWS_PER_CENTER:
        some = points[np.sort(rng.choice(len(points), n * _ROWS_PER_CENTER, replace=False))]
    start = some[rng.choice(len(some), n, replace=False)]
    return clustering.lloyd(some, None, start, max_iter=10, tol=1e-3)[0]


def compressed(rows: Floats, n_parts: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.uint8], Floats]:
    """Return *rows* as codes (n_rows, n_parts), and what they mean: (n_parts, n_codes, n_features / n_parts).

    Source: Jegou et al., "Product Quantization for Nearest Neighbor Search", PAMI 2011.
    """
    width = rows.shape[1] // n_parts
    n_codes = min(_CODES, len(rows))
    codes = np.empty((len(rows), n_parts), np.uint8)
    meanings = np.empty((n_parts, n_codes, width), np.float32)
    for part in range(n_parts):
        columns = np.ascontiguousarray(rows[:, part * width : (part + 1) * width])
        meanings[part] = centers_of(columns, n_codes, rng)
        codes[:, part] = clustering.nearest(columns, meanings[part])
    return codes, meanings


def decompressed(codes: npt.NDArray[np.uint8], meanings: Floats) -> Floats:
    """Return the rows that *codes* stand for."""
    return np.concatenate([meanings[part][codes[:, part]] for part in range(codes.shape[1])], axis=1)


def _with_lengths(points: Floats, inner_product: bool) -> Floats:
    last = np.zeros(len(points), np.float32)
    if not inner_product:
        last = -0.5 * np.einsum("ij,ij->i", points, points)
    return np.concatenate([points, last[:, None]], axis=1)


def _exact(
    queries: Floats, points: Floats, chosen: Indices, k: int, *, inner_product: bool
) -> tuple[Indices, Floats]:
    """Return the best *k* of the *chosen* points of each query, and their distances or products."""
    found = np.empty((len(queries), k), np.intp)
    values = np.empty((len(queries), k), np.float32)
    step = max(1, (1 << 20) // (chosen.shape[1] * queries.shape[1]))
    for part in _spans(len(queries), step):
        near = points[chosen[part]]
        if inner_product:
            exact = np.einsum("ijf,if->ij", near, queries[part])
            order = np.argsort(-exact, axis=1, kind="stable")[:, :k]
        else:
            difference = near - queries[part][:, None, :]
            exact = np.sqrt(np.einsum("ijf,ijf->ij", difference, difference))
            order = np.argsort(exact, axis=1, kind="stable")[:, :k]
        found[part] = np.take_along_axis(chosen[part], order, axis=1)
        values[part] = np.take_along_axis(exact, order, axis=1)
    return found, values


def _spans(n: int, step: int) -> Iterator[Any]:
    return (slice(start, min(start + step, n)) for start in range(0, n, step))
