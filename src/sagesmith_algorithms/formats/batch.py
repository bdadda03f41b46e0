"""Some rows of data: what readers yield and algorithms take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.errors import DataError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["Batch", "Floats", "Matrix"]

Floats: TypeAlias = npt.NDArray[np.float32]
Matrix: TypeAlias = "Floats | csr_matrix"


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of features, with what belongs to each row.

    Attributes:
        features: float32 (n_samples, n_features); dense, or CSR where the data are sparse.
        labels: float32 (n_samples,) or (n_samples, n_labels), or None.
        weights: float32 (n_samples,), or None.
        groups: int64 (n_samples,) query of each row, or None.
    """

    features: Any
    labels: Floats | None = None
    weights: Floats | None = None
    groups: npt.NDArray[np.int64] | None = None

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
        widths = sorted({b.n_features for b in batches})
        if len(widths) > 1:
            raise DataError(f"rows differ in length: some have {widths[0]} features, some {widths[-1]}")
        features = np.concatenate([b.features for b in batches])
    return Batch(
        features,
        _joined([b.labels for b in batches], "label"),
        _joined([b.weights for b in batches], "weight"),
        _joined([b.groups for b in batches], "query id"),
    )


def _joined(parts: list[Any], what: str) -> Any:
    present = [p for p in parts if p is not None]
    if not present:
        return None
    if len(present) < len(parts):
        raise DataError(f"some rows have a {what} and some have none; give all of them one, or none")
    return np.concatenate(present)
