"""Requests as one call of predict_fn: what is stacked, how the result is shared out, and which models it is right for."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import NMF
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sagesmith_toolkit.server import Request, Response
from sagesmith_toolkit.serving import Handlers, ModelError, UserModel
from sagesmith_toolkit.serving.batching import as_rows, kind, predicts_row_by_row, shares, stack
from sagesmith_toolkit.serving.codecs import decode
from sagesmith_toolkit.serving.handlers import XGBoostHandlers

ON = {"SAGESMITH_DYNAMIC_BATCHING": "true"}
OFF = {"SAGESMITH_DYNAMIC_BATCHING": "false"}
rng = np.random.default_rng(0)
ROWS = rng.normal(size=(40, 3))
LABELS = (ROWS.sum(axis=1) > 0).astype(int)


def a_model(model: Any, environ: dict[str, str], **functions: Callable[..., Any]) -> UserModel:
    module = ModuleType("inference")
    module.__dict__.update({"model_fn": lambda model_dir: model, **functions})
    handlers = XGBoostHandlers() if isinstance(model, xgboost.Booster) else Handlers()
    return UserModel("/opt/ml/model", module, handlers, environ)


def csv(rows: Any, attributes: str = "") -> Request:
    text = "\n".join(",".join(map(str, row)) for row in np.atleast_2d(rows))
    return Request("/invocations", "text/csv", "", attributes, text.encode())


def numbers(answer: Response) -> Any:
    return decode(answer.body, answer.content_type)


class Calls:
    """A predict_fn that counts the rows of its calls and returns their sums."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, data: Any, model: Any) -> Any:
        self.rows.append(len(data))
        return data.sum(axis=1)


def test_alike_data_are_stacked() -> None:
    a, b = np.ones((1, 3)), np.zeros((2, 3))
    assert kind(a) == kind(b) is not None
    assert stack([a, b]).tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 0]]
    others = [a.astype("float32"), np.ones((1, 4)), np.array(1.0), np.ones((0, 3)), {"a": 1}, "text", [], [1]]
    assert len({kind(a), *map(kind, others)} - {None}) == 4
    left, right = pd.DataFrame({"x": [1], "y": ["a"]}), pd.DataFrame({"x": [2, 3], "y": ["b", "c"]})
    assert kind(left) == kind(right)
    assert stack([left, right]).to_dict("list") == {"x": [1, 2, 3], "y": ["a", "b", "c"]}
    assert stack([["a"], ["b", "c"]]) == ["a", "b", "c"]
    assert as_rows(np.arange(3)).shape == (1, 3)
    assert as_rows(np.array(5.0)).shape == (1, 1)


def test_each_gets_its_share() -> None:
    assert [share.tolist() for share in shares(np.arange(3), [1, 2])] == [[0], [1, 2]]
    assert shares({"a": [1, 2, 3], "b": ["x", "y", "z"]}, [2, 1]) == [
        {"a": [1, 2], "b": ["x", "y"]},
        {"a": [3], "b": ["z"]},
    ]
    assert [list(share.index) for share in shares(pd.Series([1, 2, 3]), [1, 2])] == [[0], [0, 1]]
    for wrong in (np.float64(3), np.arange(2), "abc", iter([1, 2, 3]), {"a": [1]}):
        with pytest.raises(TypeError, match="predict_fn must return a row for each row"):
            shares(wrong, [1, 2])


class Own(BaseEstimator):  # type: ignore[misc]
    """A user's estimator."""


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (LogisticRegression(), True),
        (make_pipeline(StandardScaler(), KMeans()), True),
        (xgboost.XGBClassifier(), True),
        (make_pipeline(Own(), LogisticRegression()), False),
        (make_pipeline(FunctionTransformer(), LogisticRegression()), False),
        (make_pipeline(NMF(), LogisticRegression()), False),
        (TransformedTargetRegressor(LinearRegression(), func=np.log1p, inverse_func=np.expm1), False),
        (DummyClassifier(strategy="uniform"), False),
        (LogisticRegression, False),
        (object(), False),
    ],
)
def test_which_models_predict_row_by_row(model: Any, expected: bool) -> None:
    assert predicts_row_by_row(model) is expected


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression().fit(ROWS, LABELS),
        make_pipeline(StandardScaler(), LinearRegression()).fit(ROWS, ROWS[:, 0]),
        xgboost.train({"max_depth": 2}, xgboost.DMatrix(ROWS, LABELS), 5),
    ],
)
def test_the_defaults_give_the_same_answers_together(model: Any) -> None:
    requests = [csv(ROWS[at : at + 1 + at % 3]) for at in range(20)]
    together, alone = a_model(model, {}), a_model(model, OFF)
    assert (together.one_by_one, alone.one_by_one) == (False, True)
    with mock.patch.object(model, "predict", wraps=model.predict) as predict:
        answers = together.predict(requests)
    assert predict.call_count == 1
    for found, expected in zip(answers, alone.predict(requests), strict=True):
        assert found[:2] == expected[:2]
        np.testing.assert_allclose(numbers(found), numbers(expected))


def test_a_users_predict_fn_gets_one_request_unless_told_otherwise() -> None:
    alone, together = Calls(), Calls()
    requests = [csv(ROWS[0]), csv(ROWS[1:3]), csv(ROWS[3])]
    assert a_model(None, {}, predict_fn=alone).one_by_one
    model = a_model(None, ON, predict_fn=together)
    expected = [ROWS[:1].sum(axis=1), ROWS[1:3].sum(axis=1), ROWS[3:4].sum(axis=1)]
    for answer, sums in zip(model.predict(requests), expected, strict=True):
        np.testing.assert_allclose(numbers(answer), sums.squeeze(), rtol=1e-6)
    assert together.rows == [4]
    model.predict([csv(ROWS[0], "a=1"), csv(ROWS[1], "a=2"), csv(ROWS[2], "a=1")])
    assert together.rows == [4, 2, 1], "requests with other attributes are another call"
    model.predict([csv(ROWS[0])])
    assert together.rows[3:] == [1], "a row that comes alone is given as a row, too"


def test_a_bad_request_fails_alone(capfd: pytest.CaptureFixture[str]) -> None:
    model = a_model(LogisticRegression().fit(ROWS, LABELS), {})
    requests = [csv(ROWS[0]), csv([float("nan")] * 3), csv(ROWS[1]), csv(ROWS[0, :2]), csv(["x", "y"])]
    requests += [requests[0]._replace(path="/other"), requests[0]._replace(accept="image/png")]
    assert [answer.status for answer in model.predict(requests)] == [200, 500, 200, 500, 500, 404, 406]
    assert not model.one_by_one
    assert "one by one" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "predict_fn", [lambda data, model: data.sum(), lambda data, model: data.reshape(1, 3)[0]]
)
def test_a_model_that_cannot_take_several_is_given_them_one_by_one(
    predict_fn: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    model = a_model(None, ON, predict_fn=predict_fn)
    answers: list[Response] = list(model.predict([csv(ROWS[0]), csv(ROWS[1])]))
    assert [answer.status for answer in answers] == [200, 200]
    assert model.one_by_one
    assert "Requests are predicted one by one from now on" in capfd.readouterr().err


def test_what_the_switch_may_say() -> None:
    with pytest.raises(ModelError, match="must be true or false, not 'yes'"):
        a_model(None, {"SAGESMITH_DYNAMIC_BATCHING": "yes"})
    with pytest.raises(ModelError, match="transform_fn takes one request"):
        a_model(None, ON, transform_fn=lambda *_: b"")
    assert a_model(None, {}, transform_fn=lambda *_: b"").one_by_one
