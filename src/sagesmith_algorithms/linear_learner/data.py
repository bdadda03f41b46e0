"""The rows of a channel, scaled, as often as the solver asks for them.

They are kept in memory while they are few, and read again on each pass when they are not. A last column of ones
stands for the intercept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.base import check_features
from sagesmith_algorithms.errors import DataError
from sagesmith_algorithms.formats.batch import Batch, Floats, located, with_n_features
from sagesmith_algorithms.linear_learner.hyperparameters import BINARY, MULTICLASS
from sagesmith_algorithms.threads import side_by_side

__all__ = ["Labels", "Rows", "Scaling"]

Array = npt.NDArray[Any]
KEPT_BYTES = 1 << 30
_BLOCK_ELEMENTS = 1 << 18


@dataclass(frozen=True, slots=True)
class Labels:
    """What labels are allowed."""

    predictor_type: str
    n_classes: int

    def of(self, batch: Batch) -> Floats:
        """Return the labels of *batch*.

        Raises:
            DataError: it has none, or some that are not allowed.
        """
        labels = batch.labels
        if labels is None or labels.ndim != 1:
            raise DataError(
                "rows have no label; the first column of CSV, or the label of a record, must be one number",
                row=0,
            )
        if self.predictor_type == BINARY:
            wrong = (labels != 0) & (labels != 1)
            allowed = "0 or 1 for predictor_type=binary_classifier"
        elif self.predictor_type == MULTICLASS:
            wrong = ~((labels >= 0) & (labels < self.n_classes) & (labels == np.floor(labels)))
            allowed = f"an integer from 0 to num_classes - 1 = {self.n_classes - 1}"
        else:
            wrong = ~np.isfinite(labels)
            allowed = "a finite number"
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(f"the label {labels[row]:g} is not allowed; it must be {allowed}", row=row)
        return labels


@dataclass(frozen=True, slots=True)
class Scaling:
    """What is subtracted from features and labels, and what they are then divided by."""

    mean: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]
    label_mean: float = 0.0
    label_deviation: float = 1.0


class Rows:
    """The rows of one channel.

    Args:
        passes: yields the batches of one pass over the data; the argument counts the passes.
        labels: what labels are allowed.
        n_features: the number of features, or 0 if the first batch decides.
        rng: for the order of the rows.
    """

    def __init__(
        self,
        passes: Callable[[int], Iterator[Batch]],
        labels: Labels,
        n_features: int,
        *,
        rng: np.random.Generator,
    ) -> None:
        self._passes = passes
        self._labels = labels
        self._rng = rng
        self._n_passes = 0
        self._n_bytes = 0
        self._kept: list[tuple[Any, Floats]] = []
        self._keeps = True
        self._scaling: Scaling | None = None
        self._matrix: Any = None
        self._vector: Floats = np.empty(0, np.float32)
        self.n_features = n_features
        self._widens = not n_features
        self.n_rows = 0
        self.is_sparse = False
        self.class_counts: Array = np.zeros(max(labels.n_classes, 2))

    @property
    def are_kept(self) -> bool:
        """Whether all rows are kept in memory; otherwise each pass reads them again."""
        return self._keeps

    def read(self) -> None:
        """Read all rows once and check them."""
        for features, labels in self._checked():
            self.n_rows += len(labels)
            if self._labels.predictor_type in (BINARY, MULTICLASS):
                self.class_counts += np.bincount(labels.astype(np.intp), minlength=len(self.class_counts))
            if self._keeps:
                self._kept.append((features, labels))
                self._n_bytes += features.nbytes if isinstance(features, np.ndarray) else 12 * features.nnz
                self._keeps = self._n_bytes <= KEPT_BYTES

    def widen(self, width: int, *, sparse: bool) -> None:
        """Let rows have *width* features; a row of sparse data may name fewer."""
        from_sparse = sparse and not self.is_sparse
        self.n_features, self.is_sparse, self._widens = width, sparse, False
        if sparse:
            from scipy.sparse import csr_matrix

            self._kept = [
                (with_n_features(csr_matrix(f) if from_sparse else f, width), y) for f, y in self._kept
            ]

    def sample(self, n: int) -> tuple[Any, Floats]:
        """Return *n* rows (or all), as they are, of those kept."""
        parts = []
        total = sum(len(labels) for _, labels in self._kept)
        for features, labels in self._kept:
            share = min(len(labels), -(-n * len(labels) // max(total, 1)))
            if share < len(labels):
                chosen = np.sort(self._rng.choice(len(labels), share, replace=False))
                parts.append((features[chosen], labels[chosen]))
            else:
                parts.append((features, labels))
        if not parts:
            return np.empty((0, self.n_features), np.float32), np.empty(0, np.float32)
        return _stacked([f for f, _ in parts]), np.concatenate([y for _, y in parts])

    def scale(self, scaling: Scaling, *, shuffled: bool) -> None:
        """Scale the rows that are kept, and from now on those that are read; mix them if *shuffled*."""
        self._scaling = scaling
        if not self._keeps:
            self._kept = []
            return
        ends = np.cumsum([len(labels) for _, labels in self._kept], dtype=np.int64)
        n = int(ends[-1]) if self._kept else 0
        self._vector = np.empty(n, np.float32)
        matrix = None if self.is_sparse else np.empty((n, self.n_features + 1), np.float32)
        kept: list[tuple[Any, Floats] | None] = [*self._kept]
        self._kept = []

        def take(number: int) -> Any:
            one, kept[number] = kept[number], None  # each part is let go as soon as it is copied
            if one is None:
                raise RuntimeError("a part is taken once")
            features, labels = one
            place = slice(int(ends[number]) - len(labels), int(ends[number]))
            self._vector[place] = self._scaled_labels(labels)
            return self._scaled(features, None if matrix is None else matrix[place])

        parts = side_by_side(take, range(len(kept)))
        self._matrix = matrix if matrix is not None else _stacked(parts) if parts else None
        if shuffled and n:
            order = self._rng.permutation(n)
            self._matrix, self._vector = self._matrix[order], self._vector[order]

    def blocks(self, size: int = 0) -> Iterator[tuple[Any, Floats]]:
        """Yield all rows, scaled, with a last column of ones, *size* at a time (0: as fits the cache)."""
        size = size or max(256, _BLOCK_ELEMENTS // (self.n_features + 1))
        if self._keeps:
            for start in range(0, len(self._vector), size):
                yield self._matrix[start : start + size], self._vector[start : start + size]
            return
        rest: list[tuple[Any, Floats]] = []
        for features, labels in self._checked():
            order = self._rng.permutation(len(labels))
            rest.append((features[order], labels[order]))
            n_rest = sum(len(y) for _, y in rest)
            if n_rest < size:
                continue
            whole, y = _stacked([f for f, _ in rest]), np.concatenate([y for _, y in rest])
            end = n_rest - n_rest % size
            for start in range(0, end, size):
                part = slice(start, start + size)
                yield self._scaled(whole[part]), self._scaled_labels(y[part])
            rest = [(whole[end:], y[end:])] if end < n_rest else []
        if rest:
            whole, y = _stacked([f for f, _ in rest]), np.concatenate([y for _, y in rest])
            yield self._scaled(whole), self._scaled_labels(y)

    def mixed_blocks(self, size: int) -> Iterator[tuple[Any, Floats]]:
        """Yield the blocks of one pass in another order each time."""
        if not self._keeps:
            yield from self.blocks(size)
            return
        starts = np.arange(0, len(self._vector), size)
        self._rng.shuffle(starts)
        for start in starts:
            yield self._matrix[start : start + size], self._vector[start : start + size]

    def square_sums(self) -> Array:
        """Return the sums of the squares of all scaled rows, (n_features + 1,)."""
        total = np.zeros(self.n_features + 1)
        for rows, _ in self.blocks():
            if isinstance(rows, np.ndarray):
                total += np.einsum("ij,ij->j", rows, rows)
            else:
                total += np.asarray(rows.multiply(rows).sum(axis=0)).reshape(-1)
        return total

    def scaled_sample(self, n: int) -> tuple[Any, Floats]:
        """Return *n* scaled rows, or all of them."""
        if self._keeps:
            if n >= len(self._vector):
                return self._matrix, self._vector
            chosen = np.sort(self._rng.choice(len(self._vector), n, replace=False))
            return self._matrix[chosen], self._vector[chosen]
        parts: list[tuple[Any, Floats]] = []
        for block in self.blocks(4096):
            parts.append(block)
            if sum(len(y) for _, y in parts) >= n:
                break
        return _stacked([f for f, _ in parts])[:n], np.concatenate([y for _, y in parts])[:n]

    def _checked(self) -> Iterator[tuple[Any, Floats]]:
        for batch in self._passes(self._n_passes):
            with located(batch):
                features, labels = self._one_checked(batch)
            yield features, labels
        self._n_passes += 1

    def _one_checked(self, batch: Batch) -> tuple[Any, Floats]:
        labels = self._labels.of(batch)
        features = batch.features
        width = self.n_features or batch.n_features
        if batch.is_sparse:
            if not self.is_sparse and self.n_rows:
                raise DataError(
                    "this record is sparse and those before are not; write all of them alike", row=0
                )
            self.is_sparse = True
            if batch.n_features > width and not self._widens:
                wide = np.flatnonzero(features.indices >= width)[:1]
                raise DataError(
                    f"there is a key of {batch.n_features - 1}, but feature_dim is {width}; change one of them",
                    row=int(np.searchsorted(features.indptr, wide[0], side="right")) - 1 if wide.size else 0,
                )
            width = max(width, batch.n_features)
            features = with_n_features(features, width)
            wrong = np.flatnonzero(~np.isfinite(features.data))
            if wrong.size:
                raise DataError(
                    "there is a missing or infinite value; linear learner needs finite ones. "
                    "Fill the gap or remove the row",
                    row=int(np.searchsorted(features.indptr, wrong[0], side="right")) - 1,
                )
        else:
            check_features(features, width, "linear learner")
            if self.is_sparse:
                from scipy.sparse import csr_matrix

                features = csr_matrix(features)
        self.n_features = width
        return features, labels

    def _scaled(self, features: Any, out: Array | None = None) -> Any:
        scaling = self._known_scaling()
        if self.is_sparse:
            from scipy.sparse import csr_matrix, hstack

            scaled = features.multiply((1.0 / scaling.deviation).astype(np.float32)[None, :])
            ones = np.ones((features.shape[0], 1), np.float32)
            return hstack([csr_matrix(scaled), csr_matrix(ones)], format="csr", dtype=np.float32)
        if out is None:
            out = np.empty((len(features), features.shape[1] + 1), np.float32)
        np.subtract(features, scaling.mean.astype(np.float32), out=out[:, :-1])
        out[:, :-1] *= (1.0 / scaling.deviation).astype(np.float32)
        out[:, -1] = 1.0
        return out

    def _known_scaling(self) -> Scaling:
        if self._scaling is None:
            raise RuntimeError("rows are scaled before they are taken")
        return self._scaling

    def _scaled_labels(self, labels: Floats) -> Floats:
        scaling = self._known_scaling()
        if scaling.label_mean == 0.0 and scaling.label_deviation == 1.0:
            return labels
        return ((labels - scaling.label_mean) / scaling.label_deviation).astype(np.float32)


def _stacked(parts: list[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    from scipy.sparse import vstack

    return vstack(parts, format="csr")
