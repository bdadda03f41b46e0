"""A channel as XGBoost's `DMatrix`.

All rows are read first, since the library needs them all: as one dense float32 matrix whose missing cells are
NaN, or as CSR where what is left out is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sagesmith_algorithms.errors import CustomerError, DataError
from sagesmith_algorithms.formats import content_type as types
from sagesmith_algorithms.formats.batch import Batch, concatenated
from sagesmith_algorithms.formats.readers import channel_batches

if TYPE_CHECKING:
    from sagesmith_toolkit.environment import Channel

__all__ = ["check_labels", "dmatrix", "read_channel"]


def read_channel(channel: Channel, *, weighted: bool, n_threads: int) -> Batch | None:
    """Return all rows of *channel*, or None if this host has none.

    Raises:
        DataError: a file cannot be read, or its rows have no label.
    """
    batches = list(channel_batches(channel, types.LIBSVM, weighted=weighted, n_threads=n_threads))
    if not batches:
        return None
    try:
        batch = concatenated(batches)
    except DataError as error:
        raise DataError(error.message, f"channel {channel.name!r}") from error
    if batch.labels is None:
        raise DataError("its records have no label, which XGBoost needs", f"channel {channel.name!r}")
    if batch.labels.ndim != 1:
        raise DataError("its records have more than one label", f"channel {channel.name!r}")
    if not np.isfinite(batch.labels).all():
        row = int(np.flatnonzero(~np.isfinite(batch.labels))[0]) + 1
        raise DataError(f"the label of row {row} is missing or infinite", f"channel {channel.name!r}")
    return batch


def check_labels(labels: Any, objective: str, num_class: int | None, channel: str) -> None:
    """Raise `CustomerError` if *labels* do not fit *objective*, in words that say what does."""
    if not len(labels):
        return
    low, high = float(labels.min()), float(labels.max())
    if objective.startswith("multi:") and num_class is not None:
        if low < 0 or high >= num_class or (labels != np.floor(labels)).any():
            raise CustomerError(
                f"The labels of channel {channel!r} range from {low:g} to {high:g}, but the objective {objective!r} "
                f"needs whole numbers from 0 to num_class - 1 = {num_class - 1}."
            )
    elif objective in ("binary:logistic", "binary:logitraw", "binary:hinge", "reg:logistic"):
        whole = objective == "binary:hinge"
        if low < 0 or high > 1 or (whole and not np.isin(labels, (0, 1)).all()):
            raise CustomerError(
                f"The labels of channel {channel!r} range from {low:g} to {high:g}, but the objective "
                f"{objective!r} needs labels from 0 to 1."
            )
    elif objective in ("count:poisson", "reg:gamma", "reg:tweedie") and (
        low < 0 or (objective == "reg:gamma" and low == 0)
    ):
        raise CustomerError(
            f"The least label of channel {channel!r} is {low:g}, but the objective {objective!r} needs "
            f"{'positive labels' if objective == 'reg:gamma' else 'labels that are not negative'}."
        )


def dmatrix(batch: Batch, objective: str, n_threads: int) -> Any:
    """Return *batch* as a `DMatrix`.

    Raises:
        CustomerError: the objective needs query ids, and they are not sorted.
    """
    import xgboost

    matrix = xgboost.DMatrix(
        batch.features, label=batch.labels, weight=batch.weights, missing=np.nan, nthread=n_threads
    )
    if batch.groups is not None:
        if (np.diff(batch.groups) < 0).any():
            raise CustomerError("Rows of one query (qid) must stand together, in ascending order of qid.")
        matrix.set_info(qid=batch.groups)
    if objective == "survival:aft":
        matrix.set_info(label_lower_bound=batch.labels, label_upper_bound=batch.labels)
    return matrix
