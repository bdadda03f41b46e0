"""Factorization machines: a linear model and, for each pair of features, the product of what both are like.

Every feature has a weight and a few factors; the weight of a pair is the inner product of its features' factors, so
that pairs are known which never occurred together. Training is Adam on mini-batches, which touches only the features
that occur in them. Rows are sparse, and stay so.

Source: Rendle, "Factorization Machines", ICDM 2010.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.base import ChannelKind, Metric, StreamingAlgorithm, as_features
from sagesmith_algorithms.errors import DataError
from sagesmith_algorithms.factorization_machines import artifact
from sagesmith_algorithms.factorization_machines.hyperparameters import BINARY, HYPERPARAMETERS, REGRESSOR
from sagesmith_algorithms.factorization_machines.metrics import metrics_of, sums_of
from sagesmith_algorithms.formats import content_type as types
from sagesmith_algorithms.formats.batch import Batch, Floats, Origin

if TYPE_CHECKING:
    from sagesmith_algorithms.factorization_machines.rows import Rows
    from sagesmith_algorithms.factorization_machines.trainer import Parameters, Trainer
    from sagesmith_toolkit.environment import Environment

__all__ = ["FactorizationMachines"]

Array = npt.NDArray[Any]
_FORMATS = (types.RECORDIO,)
_TEST = r"#quality_metric: host=\S+, test "


class FactorizationMachines(StreamingAlgorithm):
    """Factorization machines with SageMaker's hyperparameters.

    `seed` is the one argument that is no hyperparameter: equal seeds and data give equal models.

    Attributes (after `fit`):
        bias_: float.
        coef_: float32 (n_features,), the weights.
        factors_: float32 (n_features, num_factors).
    """

    name = "factorization-machines"
    fitted = "_parameters"
    title = "factorization-machines"
    hyperparameters = HYPERPARAMETERS
    channels = (ChannelKind("train", _FORMATS, required=True), ChannelKind("test", _FORMATS))
    request_types = (types.JSON, types.JSON_LINES, types.RECORDIO)
    response_types = (types.JSON, types.JSON_LINES, types.RECORDIO)
    compiles = True
    takes_sparse = True
    metrics = (
        Metric("test:rmse", _TEST + r"rmse <loss>=(\S+)", "Minimize"),
        Metric("test:binary_classification_accuracy", _TEST + r"binary_classification_accuracy <score>=(\S+)", "Maximize"),
        Metric("test:binary_classification_cross_entropy", _TEST + r"binary_classification_cross_entropy <loss>=(\S+)", "Minimize"),
        Metric("test:binary_f_beta", _TEST + r"binary_f_\S+ <score>=(\S+)", "Maximize"),
    )  # fmt: skip

    def __init__(
        self,
        num_factors: int | str = 8,
        predictor_type: str = REGRESSOR,
        *,
        seed: int = 0,
        **hyperparameters: Any,
    ) -> None:
        super().__init__(num_factors=num_factors, predictor_type=predictor_type, **hyperparameters)
        self.seed = seed
        self._values: dict[str, Any] = {}
        self._parameters: Parameters | None = None
        self._trainer: Trainer | None = None
        self._rng = np.random.default_rng(seed)
        self._counts: Array = np.empty(0)
        self._merged: dict[str, Array] = {}

    @classmethod
    def load_libraries(cls) -> None:
        """Import the libraries of a job or model server."""
        for module in ("scipy.sparse", "sagesmith_algorithms.factorization_machines.training"):
            importlib.import_module(module)

    # ---- the estimator ----

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803 - scikit-learn's name
        """Train on the rows of *X*, float (n_samples, n_features) or CSR, with labels *y* (n_samples,).

        Raises:
            HyperparameterError: a hyperparameter is wrong.
            DataError: *X* holds values that are not finite, or *y* labels that are not allowed.
        """
        from sagesmith_algorithms.factorization_machines.rows import Windows
        from sagesmith_algorithms.factorization_machines.trainer import Trainer

        features = X.tocsr() if hasattr(X, "tocsr") else as_features(X)
        labels = np.asarray(y, np.float32)
        if labels.shape != (features.shape[0],):
            raise ValueError(
                f"y must be of shape ({features.shape[0]},), a label for each row, not {labels.shape}"
            )
        self._values = {}
        self._of_data = {"feature_dim": features.shape[1]}
        values = self._parsed()

        def one_pass(_: int) -> Iterator[Batch]:
            yield Batch(features, labels, origins=(Origin("X", 1, len(labels)),))

        windows = Windows(one_pass, self.rows_of, self.order(0))
        trainer = Trainer(self.begin(), values)
        for epoch in range(values["epochs"]):
            for _ in trainer.epoch(windows(epoch), np.random.default_rng(self.order(0, epoch))):
                pass
            self.check_finite()
        return self

    def decision_function(self, X: Any) -> Floats:  # noqa: N803
        """Return the score of each row, before any sigmoid."""
        return self._scores(X.tocsr() if hasattr(X, "tocsr") else self._features(X))

    def predict(self, X: Any) -> Array:  # noqa: N803
        """Return the class, or the number, of each row of *X*."""
        scores = self.decision_function(X)
        return (scores >= 0).astype(np.int64) if self._parsed()["predictor_type"] == BINARY else scores

    def predict_proba(self, X: Any) -> Floats:  # noqa: N803
        """Return the probability of each class, (n_samples, 2)."""
        ones = _sigmoid(self.decision_function(X))
        return np.stack([1 - ones, ones], axis=1)

    def score(self, X: Any, y: Any) -> float:  # noqa: N803
        """Return the accuracy of a classifier on *X* with the labels *y*, R squared of a regressor."""
        return self._score(X, y)

    @property
    def classes_(self) -> npt.NDArray[np.int64]:
        """The labels of a classifier."""
        return np.arange(2)

    @property
    def bias_(self) -> float:
        """The bias."""
        return float(self._fitted().bias[0])

    @property
    def coef_(self) -> Floats:
        """The weights of the features, float32 (n_features,)."""
        weights: Floats = self._fitted().weights
        return weights

    @property
    def factors_(self) -> Floats:
        """The factors of the features, float32 (n_features, num_factors)."""
        parameters = self._fitted()
        factors: Floats = parameters.factors[:, : parameters.n_factors]
        return factors

    @property
    def n_features_in_(self) -> int:
        """The number of features of the model."""
        return len(self._fitted().weights)

    # ---- streaming ----

    def update(self, batch: Batch) -> None:
        """Make the steps of one pass over *batch*."""
        from sagesmith_algorithms.factorization_machines.trainer import Trainer

        rows = self.rows_of(batch)
        if self._trainer is None:
            self._trainer = Trainer(self.begin(), self._parsed())
            self._rng = np.random.default_rng(self.order(0))
            self._counts = np.zeros(self._parsed()["feature_dim"])
        for _ in self._trainer.epoch(iter([rows]), self._rng):
            pass
        self._counts += np.bincount(rows.indices, minlength=len(self._counts))

    def state(self) -> dict[str, Array]:
        """Return the parameters, and how often each feature occurred."""
        if self._trainer is None:
            return {}
        n = np.array(self._counts.sum())
        return {
            "bias": n * self.bias_, "weights": self._counts * self.coef_,
            "factors": self._counts[:, None] * self.factors_, "counts": self._counts, "n": n,
        }  # fmt: skip

    def merge(self, state: Mapping[str, Array]) -> None:
        """Take in the `state` of another host: the mean of both, each by how often it saw a feature."""
        if not self._merged and self._trainer is not None:
            self._merged = self.state()
        for name, value in state.items():
            self._merged[name] = self._merged[name] + value if name in self._merged else value

    def finalize(self) -> None:
        """Make the model of what was merged; of one host's rows, `update` has made it."""
        if self._merged:
            parameters, merged = self.begin(), self._merged
            seen = merged["counts"] > 0
            counts = merged["counts"][seen]
            parameters.bias[0] = merged["bias"] / max(float(merged["n"]), 1.0)
            parameters.weights[seen] = merged["weights"][seen] / counts
            parameters.factors[seen, : parameters.n_factors] = merged["factors"][seen] / counts[:, None]
        self._fitted()
        self._trainer, self._merged = None, {}

    def infer(self, features: Any, options: Mapping[str, str]) -> dict[str, Array]:
        """Return ``score``, and ``predicted_label`` of classifiers."""
        del options
        scores = self._scores(features)
        if self._parsed()["predictor_type"] != BINARY:
            return {"score": scores}
        return {"score": _sigmoid(scores), "predicted_label": (scores >= 0).astype(np.float32)}

    def measure(self, batch: Batch) -> dict[str, float]:
        """Return sums of errors over *batch*."""
        rows = self.rows_of(batch)
        return sums_of(self._fitted().scores(rows), rows.labels, self._parsed()["predictor_type"])

    def quality(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Return the metrics of the predictor type."""
        return metrics_of(sums, self._parsed()["predictor_type"])

    def score_lines(self, host: str, metrics: Mapping[str, float]) -> list[str]:
        """Return the lines of the older log form, which notebooks show."""
        return [f"#test_score ({host}) : ('{name.split()[0]}', {value!r})" for name, value in metrics.items()]

    def save(self, folder: Path) -> None:
        """Write ``model_algo-1`` (see `artifact`)."""
        artifact.save(folder, self.bias_, self.coef_, self.factors_, self._parsed()["predictor_type"])

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the model that `save`, or AWS's algorithm, wrote into *folder*."""
        from sagesmith_algorithms.factorization_machines.trainer import Parameters

        bias, weights, factors, kind = artifact.load(folder)
        model = cls(factors.shape[1], kind, feature_dim=len(weights))
        model._parsed()
        model._parameters = Parameters(bias, weights, factors)
        return model

    @classmethod
    def train(cls, environment: Environment) -> None:
        """Run a training job (see `training`)."""
        from sagesmith_algorithms.factorization_machines.training import run_job

        run_job(cls, environment)

    # ---- for training ----

    def begin(self) -> Parameters:
        """Forget the model, and return new parameters, which are the model's."""
        from sagesmith_algorithms.factorization_machines.trainer import Parameters

        self._parameters = Parameters.initial(self._parsed(), np.random.default_rng(self.seed))
        return self._parameters

    def order(self, rank: int, *epoch: int) -> list[int]:
        """Return the seed of the order of rows on the host *rank*: in windows of them, or in an *epoch*.

        It is a matter of these numbers alone, so that a job may go on in the middle.
        """
        return [self.seed, rank, *(number + 1 for number in epoch)]

    def rows_of(self, batch: Batch) -> Rows:
        """Return the rows of *batch*, checked, with their labels.

        Raises:
            DataError: they do not fit the hyperparameters, or hold values or labels that are not allowed.
        """
        from sagesmith_algorithms.factorization_machines.rows import labels_of, rows_of

        values = self._parsed()
        return rows_of(batch.features, labels_of(batch, values["predictor_type"]), values["feature_dim"])

    def check_finite(self) -> None:
        """Raise `DataError` if the model has left the range of numbers."""
        parameters = self._fitted()
        if not np.isfinite(parameters.bias[0]) or not np.isfinite(parameters.weights).all():
            raise DataError(
                "the loss became infinite; choose a smaller linear_lr or factors_lr, or scale the features"
            )

    # ---- inside ----

    def _fitted(self) -> Parameters:
        parameters: Parameters = self._fitted_part()
        return parameters

    def _scores(self, features: Any) -> Floats:
        from sagesmith_algorithms.factorization_machines.rows import rows_of

        parameters = self._fitted()
        scores: Floats = parameters.scores(rows_of(features, None, len(parameters.weights)))
        return scores

    def _parsed(self) -> dict[str, Any]:
        if not self._values:
            self._values = self.hyperparameters.parse(self._all_given())
        return self._values


def _sigmoid(scores: Array) -> Floats:
    with np.errstate(over="ignore"):
        return np.asarray(1.0 / (1.0 + np.exp(-scores.astype(np.float64))), np.float32)
