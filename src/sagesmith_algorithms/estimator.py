"""The side of an algorithm that keeps scikit-learn's conventions, so that it works in pipelines, searches and `clone`.

What was given to the constructor stays as it was given; what `fit` learns of the data's size is kept apart. What only a
fitted estimator has raises `NotFittedError` before. scikit-learn itself is imported only where it is asked for its words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from sagesmith_algorithms.errors import DataError
from sagesmith_algorithms.formats.batch import Floats

if TYPE_CHECKING:
    from sagesmith_algorithms.hyperparameters import Hyperparameters

__all__ = ["Estimator", "as_features", "check_features"]

_RESERVED = {"lambda_": "lambda"}


class Estimator:
    """Hyperparameters under SageMaker's names, and perhaps a `seed`; they are checked when they are used."""

    name: ClassVar[str]
    hyperparameters: ClassVar[Hyperparameters]
    kind: ClassVar[str] = ""
    """What scikit-learn calls it: clusterer, transformer or outlier_detector; "" where hyperparameters say."""
    fitted: ClassVar[str]
    """The attribute that a fitted estimator has, and no other."""

    def __init__(self, **hyperparameters: Any) -> None:
        self._given = {_declared_name(name): value for name, value in hyperparameters.items()}
        self._of_data: dict[str, Any] = {}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the hyperparameters as given, and the seed."""
        del deep
        given = {_python_name(name): value for name, value in self._given.items()}
        return {**given, **({"seed": self.__dict__["seed"]} if "seed" in self.__dict__ else {})}

    def set_params(self, **hyperparameters: Any) -> Self:
        """Change hyperparameters, and the seed."""
        if "seed" in self.__dict__ and "seed" in hyperparameters:
            self.__dict__["seed"] = hyperparameters.pop("seed")
        self._given.update({_declared_name(name): value for name, value in hyperparameters.items()})
        if "_values" in self.__dict__:
            self.__dict__["_values"] = {}
        return self

    def __repr__(self) -> str:
        words = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
        return f"{type(self).__name__}({words})"

    def __sklearn_is_fitted__(self) -> bool:
        """Say whether there is a model."""
        return self.__dict__.get(self.fitted) is not None

    def __sklearn_tags__(self) -> Any:
        """Return what pipelines and searches ask of an estimator."""
        from sklearn.utils import ClassifierTags, InputTags, RegressorTags, Tags, TargetTags, TransformerTags

        predicted = str(self._given.get("predictor_type") or "").partition("_")[0]
        classifies = predicted in ("binary", "multiclass") or self._given.get("mode") == "supervised"
        kind = self.kind or ("classifier" if classifies else predicted)
        return Tags(
            estimator_type=kind or None,
            target_tags=TargetTags(required=not self.kind, one_d_labels=not self.kind),
            transformer_tags=TransformerTags(preserves_dtype=[]) if hasattr(self, "transform") else None,
            classifier_tags=ClassifierTags() if kind == "classifier" else None,
            regressor_tags=RegressorTags() if kind == "regressor" else None,
            input_tags=InputTags(sparse=True),
        )

    def __getattr__(self, name: str) -> Any:
        is_learned = hasattr(type(self), name) or (name.endswith("_") and not name.startswith("_"))
        if is_learned:  # or a property asked for it, whose error is an AttributeError, too
            self.check_fitted()
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def check_fitted(self) -> None:
        """Raise scikit-learn's `NotFittedError` if there is no model yet."""
        if not self.__sklearn_is_fitted__():
            from sklearn.exceptions import NotFittedError

            raise NotFittedError(f"This {type(self).__name__} has no model yet; call fit first.")

    def _fitted_part(self) -> Any:
        self.check_fitted()
        return self.__dict__[self.fitted]

    def fit_predict(self, X: Any, y: Any = None) -> Any:  # noqa: N803 - scikit-learn's name
        """Fit, and predict the same rows."""
        return self._fitted_to(X, y).predict(X)

    def fit_transform(self, X: Any, y: Any = None) -> Any:  # noqa: N803
        """Fit, and transform the same rows."""
        return self._fitted_to(X, y).transform(X)

    def _fitted_to(self, rows: Any, labels: Any) -> Any:
        model: Any = self
        return model.fit(rows, labels)

    def _score(self, rows: Any, labels: Any) -> float:
        """Return the accuracy of a classifier, R squared of a regressor."""
        model: Any = self
        y, predicted = np.asarray(labels), np.asarray(model.predict(rows))
        if self.__sklearn_tags__().estimator_type == "classifier":
            return float((predicted == y).mean())
        spread = float(((y - y.mean()) ** 2).sum())
        return 1.0 - float(((y - predicted) ** 2).sum()) / spread if spread else float("nan")

    def _all_given(self) -> dict[str, Any]:
        """Return the hyperparameters as given, and for the others what the data say."""
        return {**self._of_data, **self._given}

    def _features(self, values: Any) -> Floats:
        """Return *values* as rows for the model.

        Raises:
            NotFittedError: there is no model yet.
            DataError: they have another number of features, or values that are not finite.
        """
        self.check_fitted()
        features, width = as_features(values), int(self.n_features_in_)
        if features.shape[1] != width:
            raise DataError(
                f"X has {features.shape[1]} features, but {type(self).__name__} is expecting {width} features as input"
            )
        check_features(features, width, type(self).__name__)
        return features


def as_features(values: Any) -> Floats:
    """Return *values* as a float32 matrix, as estimators take it.

    Raises:
        ValueError: it is not two-dimensional.
    """
    features = np.asarray(values.toarray() if hasattr(values, "toarray") else values, np.float32)
    if features.ndim != 2:
        raise ValueError(
            f"X must be two-dimensional (n_samples, n_features), not of shape {features.shape}. "
            "Reshape your data: X.reshape(-1, 1) for one feature, X.reshape(1, -1) for one row."
        )
    return features


def check_features(features: Floats, feature_dim: int, algorithm: str) -> None:
    """Raise `DataError`, which names the row, unless *features* has *feature_dim* columns and finite values only."""
    if features.shape[1] != feature_dim:
        raise DataError(
            f"rows have {features.shape[1]} features, but feature_dim is {feature_dim}; change one of them",
            row=0,
        )
    with np.errstate(all="ignore"):  # one product is the quickest look at all values
        sums = np.ones(len(features), np.float32) @ features
    if not np.isfinite(sums).all():
        finite = np.isfinite(features)
        if not finite.all():
            row, column = (int(i) for i in np.argwhere(~finite)[0])
            raise DataError(
                f"feature {column + 1} is missing or infinite; {algorithm} needs a finite number in every place. "
                "Fill the gap or remove the row",
                row=row,
            )


def _declared_name(name: str) -> str:
    return _RESERVED.get(name, name)


def _python_name(name: str) -> str:
    return next((python for python, declared in _RESERVED.items() if declared == name), name)
