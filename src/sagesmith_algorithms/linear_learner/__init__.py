"""Linear learner: many linear models at once, of which the best is kept.

A model is trained for each of several regularizations (and learning rates), all from the same pass over the data: one
product of a block of rows with the weights of all. With ``optimizer=auto`` the models make Newton steps, which
need few passes and no learning rate; the mini-batch optimizers are there for those who ask for them, and for rows
too long for matrices of second derivatives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.base import Algorithm, ChannelKind, as_features
from sagesmith_algorithms.errors import CustomerError
from sagesmith_algorithms.formats import content_type as types
from sagesmith_algorithms.formats.batch import Batch, Origin
from sagesmith_algorithms.linear_learner import artifact
from sagesmith_algorithms.linear_learner.hyperparameters import BINARY, HYPERPARAMETERS, MULTICLASS
from sagesmith_algorithms.linear_learner.trainer import Fitted

if TYPE_CHECKING:
    from sagesmith_toolkit.environment import Environment
    from sagesmith_toolkit.server import Predictor

__all__ = ["LinearLearner"]

_FORMATS = (types.RECORDIO, types.CSV)


class LinearLearner(Algorithm):
    """Linear learner with SageMaker's hyperparameters.

    `seed` is the one argument that is no hyperparameter.

    Attributes (after `fit`):
        coef_: float64 (n_outputs, n_features).
        intercept_: float64 (n_outputs,).
        threshold_: score from which on a row is predicted 1, for binary classifiers.
        best_settings_: the settings of the model that was chosen.
        n_iter_: passes over the data.
    """

    name = "linear-learner"
    fitted = "coef_"
    title = "Linear Learner"
    hyperparameters = HYPERPARAMETERS
    channels = (
        ChannelKind("train", _FORMATS, required=True),
        ChannelKind("validation", _FORMATS),
        ChannelKind("test", _FORMATS),
    )
    request_types = (types.CSV, types.JSON, types.JSON_LINES, types.RECORDIO)
    response_types = (types.JSON, types.JSON_LINES, types.CSV, types.RECORDIO)

    coef_: npt.NDArray[np.float64]
    intercept_: npt.NDArray[np.float64]
    threshold_: float
    best_settings_: dict[str, Any]
    n_iter_: int

    def __init__(self, predictor_type: str = BINARY, *, seed: int = 0, **hyperparameters: Any) -> None:
        super().__init__(predictor_type=predictor_type, **hyperparameters)
        self.seed = seed
        self._loss = ""

    def fit(self, X: Any, y: Any, *, validation: tuple[Any, Any] | None = None) -> Self:  # noqa: N803
        """Train on the rows of *X*, float (n_samples, n_features) or CSR, with labels *y*.

        Args:
            X: the rows.
            y: (n_samples,) labels.
            validation: rows and labels that decide when to stop and which model is best.

        Raises:
            HyperparameterError: a hyperparameter is wrong.
            DataError: *X* holds values that are not finite, or *y* labels that are not allowed.
        """
        from sagesmith_algorithms.linear_learner.training import rows_of, trainer_of
        from sagesmith_toolkit.environment import cpu_count

        values = self.parsed()
        trainer = trainer_of(values, seed=self.seed, n_threads=cpu_count())
        train = rows_of(values, _passes(X, y), seed=self.seed)
        held = None if validation is None else rows_of(values, _passes(*validation), seed=self.seed)
        self.adopt(trainer.fit(train, held))
        return self

    def decision_function(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """Return the linear scores of each row, (n_samples,) or (n_samples, n_classes)."""
        self.check_fitted()
        rows = X if hasattr(X, "tocsr") else self._features(X)
        scores = np.asarray(rows @ self.coef_.T) + self.intercept_
        return scores[:, 0] if len(self.intercept_) == 1 else scores

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """Return the probability of each class, (n_samples, n_classes)."""
        scores = self.columns(self.decision_function(X))["score"]
        return scores if scores.ndim == 2 else np.stack([1 - scores, scores], axis=1)

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """Return the class, or the number, of each row."""
        found = self.columns(self.decision_function(X))
        return found.get("predicted_label", found["score"])

    def score(self, X: Any, y: Any) -> float:  # noqa: N803
        """Return the accuracy of a classifier on *X* with the labels *y*, R squared of a regressor."""
        return self._score(X, y)

    @property
    def classes_(self) -> npt.NDArray[np.int64]:
        """The labels of a classifier."""
        return np.arange(max(len(self.coef_), 2))

    @property
    def n_features_in_(self) -> int:
        """The number of features of the model."""
        return int(self.coef_.shape[1])

    def infer(self, features: Any, options: Mapping[str, str]) -> dict[str, npt.NDArray[Any]]:
        """Return the columns of a response: ``score``, and ``predicted_label`` of classifiers."""
        del options
        scores = np.asarray(features @ self.coef_.T) + self.intercept_
        return self.columns(scores[:, 0] if len(self.intercept_) == 1 else scores)

    def columns(self, scores: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[Any]]:
        """Return the columns of a response of linear *scores*."""
        kind = self.parsed()["predictor_type"]
        if kind == BINARY:
            if self._loss == "logistic":
                with np.errstate(over="ignore"):
                    scores = 1.0 / (1.0 + np.exp(-scores))
            return {
                "score": scores.astype(np.float32),
                "predicted_label": (scores >= self.threshold_).astype(np.int64),
            }
        if kind == MULTICLASS:
            powers = np.exp(scores - scores.max(axis=1, keepdims=True))
            return {
                "score": (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32),
                "predicted_label": scores.argmax(axis=1),
            }
        return {"score": scores.astype(np.float32)}

    def adopt(self, fitted: Fitted) -> None:
        """Become the model that training found."""
        self.coef_, self.intercept_ = fitted.weights, fitted.bias
        self.threshold_, self._loss = fitted.threshold, fitted.loss
        self.best_settings_, self.n_iter_ = fitted.settings, fitted.n_epochs

    def save(self, folder: Path) -> None:
        """Write ``model_algo-1`` (see `artifact`)."""
        values = self.parsed()
        more = {"predictor_type": values["predictor_type"], "loss": self._loss, "threshold": self.threshold_}
        artifact.save(folder, self.coef_, self.intercept_, more)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the model that `save` wrote into *folder*.

        Raises:
            CustomerError: there is none, or it cannot be read.
        """
        weights, bias, more = artifact.load(folder)
        kind = str(more.get("predictor_type", ""))
        classes = {"num_classes": len(bias)} if kind == MULTICLASS else {}
        model = cls(kind, feature_dim=weights.shape[1], **classes)
        try:
            model.parsed()
            model.threshold_, model._loss = float(more["threshold"]), str(more["loss"])
        except (ValueError, KeyError, TypeError) as error:
            raise CustomerError(f"The model artifact cannot be read: {error}") from error
        model.coef_, model.intercept_ = weights, bias
        return model

    def parsed(self) -> dict[str, Any]:
        """Return the hyperparameters' values."""
        values = self.hyperparameters.parse(self._all_given())
        if str(self._given.get("_tuning_objective_metric") or ""):
            values["num_models"] = 1  # as AWS does: the tuning job tries the others
        return values

    @classmethod
    def train(cls, environment: Environment) -> None:
        """Run a training job (see `training`)."""
        from sagesmith_algorithms.linear_learner.training import run_job

        run_job(cls, environment)

    @classmethod
    def load_predictor(cls, model_dir: Path, environ: Mapping[str, str]) -> Predictor:
        """Return what answers requests with the model in *model_dir*."""
        from sagesmith_algorithms.serving import StreamingPredictor

        return StreamingPredictor(cls.load(model_dir), environ)


def _passes(features: Any, labels: Any) -> Any:
    rows = features.tocsr() if hasattr(features, "tocsr") else as_features(features)
    y = np.asarray(labels, np.float32)
    if y.shape != (rows.shape[0],):
        raise ValueError(f"y must be of shape ({rows.shape[0]},), a label for each row of X, not {y.shape}")

    def one_pass(_: int) -> Iterator[Batch]:
        step = 65536
        for start in range(0, rows.shape[0], step):
            part = slice(start, start + step)
            yield Batch(rows[part], y[part], origins=(Origin("X", start + 1, len(y[part])),))

    return one_pass
