"""Some rows of data: what readers yield and algorithms take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.errors import DataError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["Batch", "Floats", "Matrix", "Origin", "concatenated", "located", "with_n_features"]

Floats: TypeAlias = npt.NDArray[np.float32]
Matrix: TypeAlias = "Floats | csr_matrix"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where rows come from: *n_rows* of the file *path*, beginning with its record *first*, counted from 1."""

    path: str
    first: int
    n_rows: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of features, with what belongs to each row.

    Attributes:
        features: float32 (n_samples, n_features); dense, or CSR where the data are sparse.
        labels: float32 (n_samples,) or (n_samples, n_labels), or None.
        weights: float32 (n_samples,), or None.
        groups: int64 (n_samples,) query of each row, or None.
        origins: where the rows come from, in their order; empty for rows that no file holds.
    """

    features: Any
    labels: Floats | None = None
    weights: Floats | None = None
    groups: npt.NDArray[np.int64] | None = None
    origins: tuple[Origin, ...] = ()

    def __len__(self) -> int:
        return int(self.features.shape[0])

    @property
    def n_features(self) -> int:
        """The number of columns."""
        return int(self.features.shape[1])

    @property
    def is_sparse(self) -> bool:
        """Whether `features` is CSR."""
        return not isinstance(self.features, np.ndarray)

    def dense(self) -> Floats:
        """Return the features as a dense matrix; what a sparse row leaves out is 0."""
        if isinstance(self.features, np.ndarray):
            return self.features
        result: Floats = self.features.toarray()
        return result

    def where(self, row: int) -> str:
        """Return the place of *row*, counted from 0: its file and record, for messages."""
        before = 0
        for origin in self.origins:
            if row < before + origin.n_rows:
                return f"{origin.path}, record {origin.first + row - before}"
            before += origin.n_rows
        return f"row {row + 1}"

    def part(self, start: int, end: int) -> Batch:
        """Return some of the rows."""
        if start == 0 and end >= len(self):
            return self
        span = slice(start, end)
        return Batch(
            self.features[span],
            None if self.labels is None else self.labels[span],
            None if self.weights is None else self.weights[span],
            None if self.groups is None else self.groups[span],
            tuple(_origins(self.origins, start, end)),
        )


@contextmanager
def located(batch: Batch) -> Iterator[None]:
    """Within, a `DataError` that names a row of *batch* is raised again with the file and record it comes from."""
    try:
        yield
    except DataError as error:
        if error.row is None or error.where:
            raise
        raise DataError(error.message, batch.where(error.row)) from error


def _origins(origins: tuple[Origin, ...], start: int, end: int) -> Iterator[Origin]:
    before = 0
    for origin in origins:
        a, b = max(start - before, 0), min(end - before, origin.n_rows)
        if a < b:
            yield Origin(origin.path, origin.first + a, b - a)
        before += origin.n_rows


def with_n_features(features: Any, n_features: int) -> Any:
    """Return *features* with *n_features* columns: sparse ones may have fewer, dense ones must match.

    Raises:
        DataError: the widths do not fit.
    """
    width = features.shape[1]
    if width == n_features:
        return features
    if isinstance(features, np.ndarray) or width > n_features:
        raise DataError(f"{n_features} features are expected in each row, but there are {width}")
    from scipy.sparse import csr_matrix

    return csr_matrix(
        (features.data, features.indices, features.indptr), shape=(features.shape[0], n_features)
    )


def concatenated(batches: list[Batch]) -> Batch:
    """Return one batch of all rows; sparse widths are levelled up to the widest.

    Raises:
        DataError: widths differ, or only some batches have labels, weights or groups.
    """
    if len(batches) == 1:
        return batches[0]
    sparse = any(b.is_sparse for b in batches)
    width = max(b.n_features for b in batches)
    if sparse:
        from scipy.sparse import csr_matrix, vstack

        features = vstack([with_n_features(csr_matrix(b.features), width) for b in batches], format="csr")
    else:
        expected = batches[0].n_features
        for other in batches:
            if other.n_features != expected:
                raise DataError(
                    f"rows differ in length: this one has {other.n_features} features, but those before have {expected}",
                    other.where(0),
                )
        features = np.concatenate([b.features for b in batches])
    return Batch(
        features,
        _joined([b.labels for b in batches], "label"),
        _joined([b.weights for b in batches], "weight"),
        _joined([b.groups for b in batches], "query id"),
        tuple(origin for b in batches for origin in b.origins),
    )


def _joined(parts: list[Any], what: str) -> Any:
    present = [p for p in parts if p is not None]
    if not present:
        return None
    if len(present) < len(parts):
        raise DataError(f"some rows have a {what} and some have none; give all of them one, or none")
    return np.concatenate(present)
