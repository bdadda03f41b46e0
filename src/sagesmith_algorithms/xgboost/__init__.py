"""XGBoost with the hyperparameters, formats, metrics and log lines of `sagemaker-xgboost`.

The boosting is the library's own, so that a model is bit for bit what plain XGBoost makes of the same data;
around it stand SageMaker's channels, checks and formats. Importing this module does not import the library.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sagesmith_algorithms.base import Algorithm, ChannelKind, Metric, as_features
from sagesmith_algorithms.errors import DataError
from sagesmith_algorithms.formats import content_type as types
from sagesmith_algorithms.formats.batch import Batch, Floats
from sagesmith_algorithms.xgboost.hyperparameters import (
    CUSTOM_METRICS,
    HYPERPARAMETERS,
    NATIVE_METRICS,
    is_maximized,
)

if TYPE_CHECKING:
    from sagesmith_toolkit.environment import Environment
    from sagesmith_toolkit.server import Predictor

__all__ = ["XGBoost"]

# Not \S+: the TAB between the values of a line is visible text, #011.
_NUMBER = r"([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)"

_FORMATS = (types.LIBSVM, types.CSV, types.PARQUET, types.RECORDIO)


def _metrics() -> tuple[Metric, ...]:
    return tuple(
        Metric(
            f"{channel}:{name}",
            rf".*\[[0-9]+\].*#011{channel}-{name}:{_NUMBER}.*",
            "Maximize" if is_maximized(name) else "Minimize",
        )
        for channel in ("train", "validation")
        for name in (*NATIVE_METRICS, *CUSTOM_METRICS)
        if not name.endswith("-")
    )


class XGBoost(Algorithm):
    """Gradient boosted trees; ``XGBoost(num_round=100, objective="binary:logistic").fit(X, y).predict(X)``.

    `lambda` is spelled ``lambda_`` as a Python argument.

    Attributes (after `fit`):
        booster_: the `xgboost.Booster`.
        n_features_in_: the number of features.
        evals_result_: values of the metrics after each round, by data set and metric.
    """

    name = "xgboost"
    fitted = "booster_"
    hyperparameters = HYPERPARAMETERS
    channels = (
        ChannelKind("train", _FORMATS, required=True),
        ChannelKind("validation", _FORMATS),
        ChannelKind("code", (*_FORMATS, "application/x-code", types.JSON)),
    )
    request_types = (types.CSV, types.LIBSVM, types.PARQUET, types.RECORDIO)
    response_types = (types.CSV, types.JSON, types.JSON_LINES, types.RECORDIO)
    metrics = _metrics()

    booster_: Any
    n_features_in_: int
    evals_result_: dict[str, Any]

    def fit(self, X: Any, y: Any, sample_weight: Any = None, eval_set: Any = None) -> Self:  # noqa: N803
        """Train on the rows of *X*, float (n_samples, n_features), NaN for missing, with the labels *y*.

        Args:
            X: features.
            y: labels, (n_samples,).
            sample_weight: a weight for each row.
            eval_set: (X, y) of the validation data, for metrics and early stopping.

        Raises:
            HyperparameterError: a hyperparameter is wrong.
            CustomerError: the library refuses the parameters or the data.
        """
        from sagesmith_algorithms.xgboost.data import check_labels, dmatrix
        from sagesmith_algorithms.xgboost.training import boost
        from sagesmith_toolkit.environment import cpu_count

        values = self.hyperparameters.parse(self._all_given())
        n_threads = int(values.get("nthread", cpu_count()))
        batches = {"train": _batch(X, y, sample_weight)}
        if eval_set is not None:
            batches["validation"] = _batch(*eval_set)
        matrices = {}
        for name, batch in batches.items():
            check_labels(batch, values["objective"], values.get("num_class"))
            matrices[name] = dmatrix(batch, values["objective"], n_threads)
        self.evals_result_ = {}
        self.booster_ = boost(values, matrices, n_threads, says=False, results=self.evals_result_)
        self.n_features_in_ = batches["train"].n_features
        return self

    def predict(self, X: Any) -> Floats:  # noqa: N803
        """Return what the objective predicts for each row of *X*."""
        from xgboost import DMatrix

        self.check_fitted()
        features = X if hasattr(X, "tocsr") else as_features(X)
        if features.shape[1] != self.n_features_in_:
            raise DataError(
                f"X has {features.shape[1]} features, but XGBoost is expecting {self.n_features_in_} features as input"
            )
        result: Floats = self.booster_.predict(DMatrix(features, missing=np.nan))
        return result

    @classmethod
    def load_libraries(cls) -> None:
        """Import the library alone (see `library`)."""
        from sagesmith_algorithms.xgboost.library import load_without_sklearn

        load_without_sklearn()

    @classmethod
    def train(cls, environment: Environment) -> None:
        """Run a training job (see `training`)."""
        values = cls.check(environment.hyperparameters)
        cls.check_channels(environment)
        from sagesmith_algorithms.xgboost.training import train_xgboost

        train_xgboost(environment, values)

    @classmethod
    def load_predictor(cls, model_dir: Path, environ: Mapping[str, str]) -> Predictor:
        """Return what answers requests with the model in *model_dir* (see `serving`)."""
        from sagesmith_algorithms.xgboost.serving import XGBoostPredictor

        return XGBoostPredictor(model_dir, environ)


def _batch(features: Any, labels: Any, weights: Any = None) -> Batch:
    rows = features if hasattr(features, "tocsr") else as_features(features)
    given = np.asarray(labels, np.float32)
    if given.shape != (rows.shape[0],):
        raise DataError(
            f"y must have one label for each of the {rows.shape[0]} rows, not the shape {given.shape}"
        )
    return Batch(rows, given, None if weights is None else np.asarray(weights, np.float32))
