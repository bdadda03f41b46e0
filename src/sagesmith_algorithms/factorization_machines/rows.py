"""Rows as the kernels take them, and their order.

Data that fit into `_KEPT_BYTES` are read once, shuffled once, and kept. Of larger data one window at a time is in memory,
and each epoch reads the files again; so memory does not grow with the data.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.base import check_features
from sagesmith_algorithms.errors import DataError
from sagesmith_algorithms.factorization_machines.hyperparameters import BINARY
from sagesmith_algorithms.formats.batch import Batch, Floats, located

__all__ = ["Rows", "Windows", "labels_of", "rows_of"]

Array = npt.NDArray[Any]
_KEPT_BYTES: Final = 32 << 20
_WINDOW_BYTES: Final = _KEPT_BYTES // 2  # beside it are its parts while it is mixed, and what is read ahead
_TOGETHER: Final = 16
"""Rows that stay side by side in each epoch: single rows in random order cost three times as much, in cache misses."""
_ALONE: Final = 1 << 14


@dataclass(frozen=True)
class Rows:
    """Rows in CSR form: int64, int32 and float32, as SciPy calls them, and float32 labels (n_samples,) or none."""

    indptr: Array
    indices: Array
    values: Array
    labels: Floats

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def n_bytes(self) -> int:
        """Memory of all arrays."""
        return self.indptr.nbytes + self.indices.nbytes + self.values.nbytes + self.labels.nbytes

    @functools.cached_property
    def longest(self) -> int:
        """The number of values in the row that has most."""
        return int(np.diff(self.indptr).max(initial=0))

    def order(self, rng: np.random.Generator) -> Array:
        """Return the numbers of all rows in a new order; of many rows, some stay side by side."""
        n = len(self)
        if n <= _ALONE:
            return rng.permutation(n)
        groups = rng.permutation(-(-n // _TOGETHER)) * _TOGETHER
        order = (groups[:, None] + np.arange(_TOGETHER)).ravel()
        return order[order < n]

    @classmethod
    def mixed(cls, parts: list[Rows], rng: np.random.Generator) -> Rows:
        """Return the rows of all *parts* in random order; *parts* is emptied, so that no row is in memory twice for long."""
        place = rng.permutation(sum(map(len, parts)))
        lengths = np.empty(len(place), np.int64)
        lengths[place] = np.concatenate([np.diff(part.indptr) for part in parts])
        indptr = np.concatenate(([0], np.cumsum(lengths)))
        mixed = cls(
            indptr, np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32), np.empty(len(place), np.float32)
        )  # fmt: skip
        width = int(lengths[0]) if len(lengths) and (lengths == lengths[0]).all() else 0
        at = 0
        while parts:
            part = parts.pop(0)
            to = place[at : at + len(part)]
            at += len(part)
            mixed.labels[to] = part.labels
            arrays = ((mixed.indices, part.indices), (mixed.values, part.values))
            if width > 0:
                for target, source in arrays:
                    target.reshape(-1, width)[to] = source.reshape(-1, width)
                continue
            spread = np.repeat(indptr[to] - part.indptr[:-1], np.diff(part.indptr)) + np.arange(
                part.indptr[-1]
            )
            for target, source in arrays:
                target[spread] = source
        return mixed


class Windows:
    """The rows of a channel in windows of limited size, in random order inside of each.

    Args:
        passes: yields the batches of one pass over the data; the argument counts the passes.
        checked: makes rows of a batch.
        seed: of the order, which is the same in each pass; what changes it from epoch to epoch is `Rows.order`.
    """

    def __init__(
        self,
        passes: Callable[[int], Iterator[Batch]],
        checked: Callable[[Batch], Rows],
        seed: Sequence[int],
    ) -> None:
        self._passes = passes
        self._checked = checked
        self._seed = seed
        self._kept: Rows | None = None
        self._limit = _KEPT_BYTES

    def __call__(self, epoch: int) -> Iterator[Rows]:
        """Yield the windows of *epoch*."""
        if self._kept is not None:
            yield self._kept
            return
        parts: list[Rows] = []
        n_bytes, rng = 0, np.random.default_rng(self._seed)
        for batch in self._passes(epoch):
            with located(batch):
                parts.append(self._checked(batch))
            n_bytes += parts[-1].n_bytes
            while n_bytes >= self._limit:
                self._limit = _WINDOW_BYTES
                some = _taken(parts, _WINDOW_BYTES)
                n_bytes -= sum(part.n_bytes for part in some)
                yield Rows.mixed(some, rng)
        if parts:
            last = Rows.mixed(parts, rng)
            if self._limit == _KEPT_BYTES:
                self._kept = last
            yield last


def _taken(parts: list[Rows], n_bytes: int) -> list[Rows]:
    """Remove and return the first of *parts* that make at least *n_bytes* together."""
    some: list[Rows] = []
    while parts and n_bytes > 0:
        some.append(parts.pop(0))
        n_bytes -= some[-1].n_bytes
    return some


def rows_of(features: Any, labels: Floats | None, feature_dim: int) -> Rows:
    """Return the rows of *features*, dense or CSR, for the kernels.

    Raises:
        DataError: there are not *feature_dim* features, or values that are not finite.
    """
    if isinstance(features, np.ndarray):
        from scipy.sparse import csr_matrix

        check_features(features, feature_dim, "factorization machines")
        features = csr_matrix(features)
    else:
        _check_sparse(features, feature_dim)
    return Rows(
        np.ascontiguousarray(features.indptr, np.int64),
        _writable(features.indices, np.int32),
        _writable(features.data, np.float32),
        _writable(np.empty(0, np.float32) if labels is None else labels, np.float32),
    )


def labels_of(batch: Batch, predictor_type: str) -> Floats:
    """Return the labels of *batch*.

    Raises:
        DataError: it has none, or some that are not allowed.
    """
    labels = batch.labels
    if labels is None or labels.ndim != 1:
        raise DataError("rows have no label; the label of a record must be one number", row=0)
    if predictor_type == BINARY:
        wrong = (labels != 0) & (labels != 1)
        allowed = "0 or 1 for predictor_type=binary_classifier"
    else:
        wrong = ~np.isfinite(labels)
        allowed = "a finite number"
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"the label {labels[row]:g} is not allowed; it must be {allowed}", row=row)
    return labels


def _check_sparse(features: Any, feature_dim: int) -> None:
    indptr = features.indptr

    def row_of(place: int) -> int:
        return int(np.searchsorted(indptr, place, side="right")) - 1

    if features.shape[1] > feature_dim:
        wide = np.flatnonzero(features.indices >= feature_dim)[:1]
        raise DataError(
            f"there is a feature of number {features.shape[1] - 1}, counted from 0, but feature_dim is {feature_dim}; "
            "change one of them",
            row=row_of(wide[0]) if wide.size else 0,
        )
    wrong = np.flatnonzero(~np.isfinite(features.data))[:1]
    if wrong.size:
        raise DataError(
            "there is a missing or infinite value; factorization machines need finite ones. "
            "Fill the gap or remove the row",
            row=row_of(wrong[0]),
        )


def _writable(values: Any, dtype: Any) -> Array:
    """Return *values* as the kernels are compiled for: contiguous, and not read-only."""
    array = np.ascontiguousarray(values, dtype)
    return array if array.flags.writeable else array.copy()
