"""Search for the nearest of many points, by faiss: all of them, those in the nearest lists, or compressed ones.

Points are kept around their mean, since faiss's Euclidean distances come of products of float32, which lose digits
far from the origin; of what it finds among all points the distances are computed once more by differences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.errors import DataError
from sagesmith_algorithms.formats.batch import Floats
from sagesmith_toolkit.environment import cpu_count

__all__ = ["CODES", "FLAT", "LISTS", "Index"]

Indices = npt.NDArray[np.int64]
FLAT, LISTS, CODES = "faiss.Flat", "faiss.IVFFlat", "faiss.IVFPQ"
_BLOCK: Final = 1 << 20  # differences at a time
_ROWS_PER_LIST: Final = 64
_STEPS: Final = 10
_MOST_BITS: Final = 8  # of a code of one part


class Index:
    """An index of points.

    Args:
        faiss_index: of the points around *middle*.
        middle: float32 (n_features,).
        inner_product: nearest means the largest product instead of the least Euclidean distance.
    """

    def __init__(self, faiss_index: Any, middle: Floats, *, inner_product: bool) -> None:
        import faiss

        self._index = faiss_index
        self._middle = middle
        self._inner = inner_product
        self._is_flat = isinstance(faiss_index, faiss.IndexFlat)

    @classmethod
    def of(
        cls,
        points: Floats,
        kind: str,
        *,
        inner_product: bool = False,
        n_lists: int = 1,
        n_parts: int = 1,
        seed: int = 0,
    ) -> Index:
        """Return an index of *points*, float32 (n_points, n_features).

        Args:
            points: not modified.
            kind: `FLAT`, `LISTS` or `CODES`.
            inner_product: see above.
            n_lists: lists of `LISTS` and `CODES`.
            n_parts: parts of a row that `CODES` gives a byte each; they divide n_features.
            seed: of the lists' centers.
        """
        import faiss

        _use_threads()
        middle = np.zeros(points.shape[1], np.float32)
        if not inner_product:
            middle = points.mean(axis=0, dtype=np.float64).astype(np.float32)
        rows = np.ascontiguousarray(points - middle)
        width = rows.shape[1]
        flat = faiss.IndexFlatIP(width) if inner_product else faiss.IndexFlatL2(width)
        if kind == FLAT:
            flat.add(rows)
            return cls(flat, middle, inner_product=inner_product)
        metric = faiss.METRIC_INNER_PRODUCT if inner_product else faiss.METRIC_L2
        n_lists = min(n_lists, len(rows))
        if kind == LISTS:
            index: Any = faiss.IndexIVFFlat(flat, width, n_lists, metric)
        else:
            n_bits = max(1, min(_MOST_BITS, int(np.log2(len(rows)))))
            index = faiss.IndexIVFPQ(flat, width, n_lists, n_parts, n_bits)
            index.pq.cp.min_points_per_centroid = 1
            index.pq.cp.seed = seed + 1
        index.cp.min_points_per_centroid = 1
        index.cp.max_points_per_centroid = _ROWS_PER_LIST
        index.cp.niter = _STEPS
        index.cp.seed = seed + 1
        index.train(rows)
        index.add(rows)
        # Searching so many gave a recall of 0.99 and more on clustered data.
        index.nprobe = min(n_lists, 4 + int(np.ceil(0.375 * np.sqrt(n_lists))))
        return cls(index, middle, inner_product=inner_product)

    def search(self, queries: Floats, k: int) -> tuple[Indices, Floats]:
        """Return the indices of the *k* nearest points of each query, nearest first, and the distances (or products).

        1 <= k <= n_points.
        """
        import faiss

        _use_threads()
        shifted = np.ascontiguousarray(queries - self._middle, np.float32)
        values, found = self._index.search(shifted, k)
        lacking = np.flatnonzero((found < 0).any(axis=1))
        if lacking.size:  # their lists hold too few points: look at all
            everywhere: Any = faiss.SearchParametersIVF()
            everywhere.nprobe = self._index.nlist
            values[lacking], found[lacking] = self._index.search(shifted[lacking], k, params=everywhere)
        if self._inner:
            return found, values
        if not self._is_flat:
            return found, np.sqrt(np.maximum(values, 0.0))
        return self._by_differences(shifted, found)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the index as arrays: ``faiss.deserialize_index(index)`` is of the points around ``middle``."""
        import faiss

        return {"index": faiss.serialize_index(self._index), "middle": self._middle}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], *, inner_product: bool) -> Index:
        """Return the index that `arrays` was of.

        Raises:
            DataError: *arrays* hold none.
        """
        import faiss

        try:
            index = faiss.deserialize_index(arrays["index"])
        except (RuntimeError, AssertionError) as error:
            raise DataError(f"its index cannot be read: {error}") from error
        middle = arrays["middle"]
        if middle.shape != (index.d,):
            raise DataError(f"its index has {index.d} features, but the mean of its rows {middle.size}")
        return cls(index, middle, inner_product=inner_product)

    def _by_differences(self, queries: Floats, found: Indices) -> tuple[Indices, Floats]:
        import faiss

        n_features = queries.shape[1]
        points = faiss.rev_swig_ptr(self._index.get_xb(), self._index.ntotal * n_features).reshape(
            -1, n_features
        )
        values = np.empty(found.shape, np.float32)
        for part in _spans(len(queries), max(1, _BLOCK // (found.shape[1] * n_features))):
            difference = points[found[part]] - queries[part][:, None, :]
            exact = np.sqrt(np.einsum("ijf,ijf->ij", difference, difference))
            order = np.argsort(exact, axis=1, kind="stable")
            found[part] = np.take_along_axis(found[part], order, axis=1)
            values[part] = np.take_along_axis(exact, order, axis=1)
        return found, values


def _use_threads() -> None:
    import faiss

    if faiss.omp_get_max_threads() != (n_threads := cpu_count()):
        faiss.omp_set_num_threads(n_threads)


def _spans(n: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, n)) for start in range(0, n, step))
