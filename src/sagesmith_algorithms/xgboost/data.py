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
    batch = concatenated(batches)
    if batch.labels is None:
        raise DataError("records have no label, which XGBoost needs", f"channel {channel.name!r}")
    if batch.labels.ndim != 1:
        raise DataError("records have more than one label", f"channel {channel.name!r}")
    return batch


def check_labels(batch: Batch, objective: str, num_class: int | None) -> None:
    """Raise `DataError` if the labels of *batch* do not fit *objective*; it names the first that does not."""
    labels = batch.labels
    if labels is None:
        return
    wrong, allowed = ~np.isfinite(labels), "a finite number"
    if wrong.any():
        pass
    elif objective.startswith("multi:") and num_class is not None:
        wrong = (labels < 0) | (labels >= num_class) | (labels != np.floor(labels))
        allowed = f"a whole number from 0 to num_class - 1 = {num_class - 1}"
    elif objective == "binary:hinge":
        wrong, allowed = ~np.isin(labels, (0, 1)), "0 or 1"
    elif objective in ("binary:logistic", "binary:logitraw", "reg:logistic"):
        wrong, allowed = (labels < 0) | (labels > 1), "from 0 to 1"
    elif objective == "reg:gamma":
        wrong, allowed = labels <= 0, "positive"
    elif objective in ("count:poisson", "reg:tweedie"):
        wrong, allowed = labels < 0, "not negative"
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"the label {labels[row]:g} is not allowed; for the objective {objective!r} it must be {allowed}",
            batch.where(row),
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
