"""Every built-in algorithm is an estimator that scikit-learn's own tools take as theirs."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks as checks
from sklearn.utils.validation import check_is_fitted

from sagesmith_algorithms import (
    KNN,
    LDA,
    PCA,
    BlazingText,
    CustomerError,
    FactorizationMachines,
    IPInsights,
    KMeans,
    LinearLearner,
    RandomCutForest,
    XGBoost,
    algorithm,
    names,
)

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 120)
ROWS = np.abs(RNG.normal(size=(120, 4)) + 2 * LABELS[:, None]).round(2).clip(0.01).astype(np.float32)
PAIRS = [(f"user{i % 5}", f"10.0.{i % 5}.{i % 9}") for i in range(120)]
LINES = [f"{'cat dog' if label else 'one two'} and {'cow' if label else 'ten'}" for label in LABELS]

MADE: dict[str, Callable[[], Any]] = {
    "blazingtext": lambda: BlazingText("supervised", vector_dim=4, buckets=10, min_count=1, epochs=1),
    "factorization-machines": lambda: FactorizationMachines(2, "binary_classifier", seed=3),
    "ipinsights": lambda: IPInsights(10, 4, epochs=1, seed=3),
    "kmeans": lambda: KMeans(3, seed=3),
    "knn": lambda: KNN(3, seed=3),
    "lda": lambda: LDA(2, seed=3),
    "linear-learner": lambda: LinearLearner("binary_classifier", num_models=1, seed=3),
    "pca": lambda: PCA(2),
    "randomcutforest": lambda: RandomCutForest(50, 20, seed=3),
    "xgboost": lambda: XGBoost(num_round=3, objective="binary:logistic", lambda_=2),
}
DATA: dict[str, Any] = {"blazingtext": LINES, "ipinsights": PAIRS}
ASKS = ("predict", "transform", "predict_proba", "decision_function", "score_samples", "kneighbors")
NUMERIC = [name for name in names() if name not in DATA]
ALL = pytest.mark.parametrize("name", names())


def fitted(name: str) -> Any:
    return MADE[name]().fit(DATA.get(name, ROWS), LABELS)


def asked(model: Any, rows: Any) -> list[np.ndarray]:
    """Return all that *model* says of *rows*."""
    found = [getattr(model, one)(rows) for one in ASKS if hasattr(type(model), one)]
    assert found
    return [np.asarray(part) for one in found for part in (one if isinstance(one, tuple) else (one,))]


@ALL
def test_a_clone_is_given_the_same_and_fits_alike(name: str) -> None:
    model = fitted(name)
    assert model.get_params() == MADE[name]().get_params()  # fit adds nothing to what was given
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not copy.__sklearn_is_fitted__()
    copy.fit(DATA.get(name, ROWS), LABELS)
    if name in ("blazingtext", "ipinsights") and not model.get_params().get("seed"):
        return  # threads do not take turns alike
    for one, other in zip(asked(model, DATA.get(name, ROWS)), asked(copy, DATA.get(name, ROWS)), strict=True):
        np.testing.assert_array_equal(one, other)


@ALL
def test_before_fit_there_is_no_model(name: str) -> None:
    model, rows = MADE[name](), DATA.get(name, ROWS)
    for one in ASKS:
        if hasattr(type(model), one):
            with pytest.raises(NotFittedError, match="call fit first"):
                getattr(model, one)(rows)
    with pytest.raises(NotFittedError):
        check_is_fitted(model)
    assert not hasattr(model, "n_features_in_")
    assert not hasattr(model, "no_such_thing_")
    check_is_fitted(fitted(name))


@ALL
def test_a_pickled_model_is_the_same(name: str) -> None:
    model, rows = fitted(name), DATA.get(name, ROWS)
    again = pickle.loads(pickle.dumps(model))
    for one, other in zip(asked(model, rows), asked(again, rows), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", NUMERIC)
def test_rows_of_another_width_and_sparse_ones(name: str) -> None:
    model = fitted(name)
    assert model.n_features_in_ == 4
    ask = next(one for one in ASKS if hasattr(type(model), one))
    with pytest.raises(ValueError, match="3"):
        getattr(model, ask)(ROWS[:, :3])
    assert model.fit(ROWS[:, :3], LABELS).n_features_in_ == 3
    model = fitted(name)
    np.testing.assert_allclose(
        np.asarray(getattr(model, ask)(csr_matrix(ROWS))), np.asarray(getattr(model, ask)(ROWS)), rtol=1e-5
    )


@pytest.mark.parametrize("name", [name for name in NUMERIC if name != "xgboost"])
def test_a_missing_value_is_refused_with_its_row(name: str) -> None:
    broken = ROWS.copy()
    broken[7, 1] = np.nan
    with pytest.raises(CustomerError, match=r"X, record 8: .*missing or infinite"):
        MADE[name]().fit(broken, LABELS)


@pytest.mark.parametrize(
    "check",
    [
        checks.check_get_params_invariance,
        checks.check_set_params,
        checks.check_estimators_overwrite_params,
        checks.check_dict_unchanged,
        checks.check_estimators_fit_returns_self,
        checks.check_estimators_unfitted,
        checks.check_do_not_raise_errors_in_init_or_set_params,
        checks.check_estimator_tags_renamed,
        checks.check_valid_tag_types,
        checks.check_estimator_repr,
    ],
)
@pytest.mark.parametrize("name", ["kmeans", "pca", "randomcutforest"])
def test_checks_of_scikit_learn(name: str, check: Any) -> None:
    """Those that ask nothing SageMaker refuses, such as labels that are texts; scikit-learn brings the data."""
    check(name, MADE[name]())


def test_searches_and_pipelines() -> None:
    assert cross_val_score(KNN(3), ROWS, LABELS, cv=3).min() > 0.8
    assert cross_val_score(make_pipeline(StandardScaler(), PCA(2), KNN(3)), ROWS, LABELS, cv=3).min() > 0.8
    assert cross_val_score(LinearLearner("regressor", num_models=1), ROWS, LABELS, cv=3).min() > 0.3
    search = GridSearchCV(KMeans(), {"k": [2, 5]}, cv=2).fit(ROWS)
    assert search.best_params_ == {"k": 5}
    linear = GridSearchCV(
        LinearLearner("binary_classifier", num_models=1), {"wd": [1e-3, 1e3]}, cv=2, scoring="neg_log_loss"
    )
    assert linear.fit(ROWS, LABELS).best_params_ == {"wd": 1e-3}
    np.testing.assert_array_equal(KMeans(3).fit_predict(ROWS), KMeans(3).fit(ROWS).labels_)
    np.testing.assert_array_equal(PCA(2).fit_transform(ROWS), PCA(2).fit(ROWS).transform(ROWS))


def test_all_are_here() -> None:
    assert set(MADE) == set(names())
    assert all(isinstance(make(), algorithm(name)) for name, make in MADE.items())
