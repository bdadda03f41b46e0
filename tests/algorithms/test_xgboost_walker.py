"""Trees walked without the library: the same predictions, or none at all."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost

from sagesmith_algorithms.formats.batch import Floats
from sagesmith_algorithms.xgboost import kernels
from sagesmith_algorithms.xgboost.model import Model, load_models
from sagesmith_algorithms.xgboost.walker import Walker, WalkerInTime

OBJECTIVES = (
    "reg:squarederror", "reg:squaredlogerror", "reg:absoluteerror", "reg:pseudohubererror", "reg:logistic",
    "binary:logistic", "binary:logitraw", "count:poisson", "reg:gamma", "reg:tweedie", "rank:ndcg", "rank:pairwise",
    "multi:softprob", "multi:softmax",
)  # fmt: skip


def booster_of(objective: str, **more: Any) -> tuple[Any, Floats]:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(400, 6)).astype(np.float32)
    score = rows @ [2.0, -1.0, 0.5, 0.0, 1.0, -2.0]
    rows[rng.random(rows.shape) < 0.1] = np.nan
    label = {"reg:logistic": score > 0, "binary:logistic": score > 0, "binary:logitraw": score > 0}.get(
        objective, np.exp(score / 4).round() + 1
    )
    if objective.startswith(("multi", "rank")):
        label = np.digitize(score, [-2, 2])
    matrix = xgboost.DMatrix(rows, label=label)
    if objective.startswith("rank"):
        matrix.set_group([200, 200])
    classes = {"num_class": 3} if objective.startswith("multi") else {}
    parameters = {"objective": objective, "max_depth": 5, "nthread": 1, **classes, **more}
    return xgboost.train(parameters, matrix, 20), rows


def as_saved(booster: Any, folder: Path) -> Model:
    booster.save_model(folder / "model.json")
    (folder / "model.json").rename(folder / "xgboost-model")
    (model,) = load_models(folder, 1)
    return model


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_predictions_are_the_librarys(objective: str, tmp_path: Path) -> None:
    booster, rows = booster_of(objective)
    model = as_saved(booster, tmp_path)
    walker = Walker(json.loads(model.booster.save_raw("json")), 0)
    expected = model.booster.inplace_predict(rows[:40])
    np.testing.assert_allclose(walker.predict(rows, 40), expected, rtol=2.0**-22)
    assert walker.agrees(model.booster.inplace_predict)
    assert len(kernels.predict.signatures) == 1  # type: ignore[attr-defined]  # compiled once, for all


@pytest.mark.parametrize("depth", [3, 0])  # 0: as deep as the data ask for
def test_rows_that_go_together_end_in_the_leaves_of_rows_alone(depth: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(2000, 3)).astype(np.float32)
    labels = rows[:, 0] * 2 + np.sin(50 * rows[:, 1])
    parameters = {"max_depth": depth, "grow_policy": "lossguide", "min_child_weight": 0, "nthread": 1}
    booster = xgboost.train(parameters, xgboost.DMatrix(rows, labels), 10)
    model = as_saved(booster, tmp_path)
    walker = Walker(json.loads(model.booster.save_raw("json")), 0)
    rows[5, 1] = np.nan
    together = walker.predict(rows, 99)
    assert together.tolist() == [walker.predict(rows[i : i + 1], 1)[0] for i in range(99)]
    np.testing.assert_array_equal(together, model.booster.inplace_predict(rows[:99]))


def test_only_the_rounds_that_predict_are_walked(tmp_path: Path) -> None:
    booster, rows = booster_of("reg:squarederror")
    booster.set_attr(best_iteration="4")
    model = as_saved(booster, tmp_path)
    walker = Walker(json.loads(model.booster.save_raw("json")), 5)
    np.testing.assert_array_equal(walker.predict(rows, 9), model.predict(rows[:9]))


def test_what_is_not_known_is_not_walked() -> None:
    dart, _ = booster_of("reg:squarederror", booster="dart")
    with pytest.raises(ValueError, match="its booster is dart"):
        Walker(json.loads(dart.save_raw("json")), 0)
    hinge, _ = booster_of("binary:hinge")
    with pytest.raises(ValueError, match="its objective binary:hinge"):
        Walker(json.loads(hinge.save_raw("json")), 0)
    column = np.array([0.0, 1.0, 2.0, 3.0] * 25)[:, None]
    matrix = xgboost.DMatrix(column, column[:, 0] == 2, feature_types=["c"], enable_categorical=True)
    categories = xgboost.train({"max_depth": 2, "max_cat_to_onehot": 1}, matrix, 2)
    with pytest.raises(ValueError, match="categorical"):
        Walker(json.loads(categories.save_raw("json")), 0)


def test_a_model_that_is_asked_often_is_walked(tmp_path: Path) -> None:
    booster, rows = booster_of("binary:logistic")
    model = as_saved(booster, tmp_path)
    expected = booster.inplace_predict(rows[:16])
    deadline = time.monotonic() + 60
    while model._walker.get() is None and time.monotonic() < deadline:
        time.sleep(0.001)
        np.testing.assert_allclose(model.predict(rows[:16]), expected, rtol=2.0**-22)
    walker = model._walker.get()
    assert walker is not None
    assert walker.most_rows >= 16
    np.testing.assert_allclose(model.predict(rows[:16]), expected, rtol=2.0**-22)


def test_a_walker_that_predicts_otherwise_is_not_used() -> None:
    booster, _ = booster_of("binary:logistic")
    asked: list[int] = []

    def library(rows: Floats) -> Floats:
        asked.append(len(rows))
        found: Floats = booster.inplace_predict(rows) * np.float32(1.001)
        return found

    walker = WalkerInTime(lambda: bytes(booster.save_raw("json")), 0, library)
    deadline = time.monotonic() + 60
    while not asked and time.monotonic() < deadline:
        time.sleep(0.001)
        assert walker.get() is None
    assert asked
    assert walker.get() is None


def test_many_rows_are_left_to_a_library_that_is_quicker_then(tmp_path: Path) -> None:
    booster, _ = booster_of("reg:squarederror")
    model = as_saved(booster, tmp_path)
    walker = Walker(json.loads(model.booster.save_raw("json")), 0)

    def quick_for_many(rows: Floats) -> Floats:
        time.sleep(0.001)
        return rows[:, 0]

    walker.measure(quick_for_many)
    assert walker.most_rows == 256

    def quick(rows: Floats) -> Floats:
        return rows[:, 0]

    walker.measure(quick)
    assert walker.most_rows < 100
