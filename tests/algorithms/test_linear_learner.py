from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.sparse import csr_matrix
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.linear_model import HuberRegressor, Lasso, LogisticRegression, QuantileRegressor, Ridge
from sklearn.metrics import f1_score, log_loss, mean_pinball_loss, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sagesmith_algorithms import CustomerError, LinearLearner
from sagesmith_algorithms.formats import mxnet, recordio
from sagesmith_algorithms.linear_learner import losses, metrics
from sagesmith_algorithms.linear_learner.team import Team
from tests.algorithms import jobs, serving

Floats = npt.NDArray[np.float64]
CANCER = load_breast_cancer(return_X_y=True)
DIABETES = load_diabetes(return_X_y=True)
BINARY = "binary_classifier"


def scaled(reference: Any) -> Any:
    return make_pipeline(StandardScaler(), reference)


class TestRegressor:
    def test_a_line_worked_by_hand(self) -> None:
        x = np.array([[0.0], [1.0], [2.0], [3.0]])
        model = LinearLearner("regressor", wd=0, l1=0).fit(x, 3 * x[:, 0] + 5)
        np.testing.assert_allclose(model.coef_, [[3]], rtol=1e-4)
        np.testing.assert_allclose(model.intercept_, [5], rtol=1e-4)
        np.testing.assert_allclose(model.predict([[10.0]]), [35], rtol=1e-4)

    def test_a_line_through_the_origin(self) -> None:
        model = LinearLearner("regressor", use_bias=False, wd=0).fit([[1.0], [2.0]], [1.0, 3.0])
        np.testing.assert_allclose(model.coef_, [[7 / 5]], rtol=1e-4)
        assert model.intercept_ == pytest.approx(0, abs=1e-6)

    def test_squared_loss_with_l2_is_ridge(self) -> None:
        x, y = DIABETES
        reference = scaled(Ridge(alpha=0.1 * len(y))).fit(x, y)
        np.testing.assert_allclose(
            LinearLearner("regressor", wd=0.1).fit(x, y).predict(x), reference.predict(x), rtol=1e-3
        )

    def test_squared_loss_with_l1_is_the_lasso(self) -> None:
        x, y = DIABETES
        reference = scaled(Lasso(alpha=0.1)).fit(x, (y - y.mean()) / y.std())
        model = LinearLearner("regressor", l1=0.1, wd=0).fit(x, y)
        found = model.coef_[0] * x.std(axis=0) / y.std()
        np.testing.assert_allclose(found, reference[-1].coef_, atol=1e-3)
        assert (found == 0).sum() == (reference[-1].coef_ == 0).sum() > 0

    @pytest.mark.parametrize(
        ("loss", "reference", "options"),
        [
            ("absolute_loss", QuantileRegressor(alpha=0), {}),
            ("eps_insensitive_absolute_loss", QuantileRegressor(alpha=0), {}),
            ("quantile_loss", QuantileRegressor(quantile=0.8, alpha=0), {"quantile": 0.8}),
            ("huber_loss", HuberRegressor(alpha=0), {}),
            ("eps_insensitive_squared_loss", Ridge(alpha=0), {}),
        ],
    )
    def test_the_other_losses(self, loss: str, reference: Any, options: dict[str, Any]) -> None:
        x, y = DIABETES
        expected = scaled(reference).fit(x, y).predict(x)
        found = LinearLearner("regressor", loss=loss, wd=0, **options).fit(x, y).predict(x)
        q = options.get("quantile", 0.5)
        assert mean_pinball_loss(y, found, alpha=q) <= 1.015 * mean_pinball_loss(y, expected, alpha=q)


class TestBinaryClassifier:
    @pytest.mark.parametrize("seed", range(3))
    def test_auc_and_accuracy_are_those_of_scikit_learn(self, seed: int) -> None:
        x, test_x, y, test_y = train_test_split(*CANCER, random_state=seed)
        reference = scaled(LogisticRegression()).fit(x, y)
        model = LinearLearner(BINARY).fit(x, y)
        expected = roc_auc_score(test_y, reference.decision_function(test_x))
        assert roc_auc_score(test_y, model.decision_function(test_x)) >= expected - 0.001
        assert (model.predict(test_x) == test_y).mean() >= (
            reference.predict(test_x) == test_y
        ).mean() - 0.015
        np.testing.assert_allclose(model.predict_proba(test_x), reference.predict_proba(test_x), atol=0.03)

    @pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop", "adagrad"])
    def test_mini_batches(self, optimizer: str) -> None:
        options: dict[str, Any] = (
            {"momentum": 0.5} if optimizer in ("sgd", "rmsprop") else {"beta_1": 0.8, "beta_2": 0.99}
        )
        if optimizer == "adagrad":
            options = {}
        model = LinearLearner(
            BINARY, optimizer=optimizer, mini_batch_size=32, epochs=30, bias_lr_mult=2, **options
        ).fit(*CANCER)
        reference = scaled(LogisticRegression()).fit(*CANCER)
        expected = log_loss(CANCER[1], reference.predict_proba(CANCER[0]))
        assert log_loss(CANCER[1], model.predict_proba(CANCER[0])) < expected + 0.04
        assert model.best_settings_["optimizer"] == optimizer

    def test_what_concerns_mini_batches_chooses_adam(self) -> None:
        model = LinearLearner(BINARY, learning_rate=0.1, mini_batch_size=50, l1=0.3).fit(*CANCER)
        assert model.best_settings_["optimizer"] == "adam"
        assert (model.coef_ == 0).any()

    def test_hinge_loss_separates(self) -> None:
        model = LinearLearner(BINARY, loss="hinge_loss", wd=0.01).fit(*CANCER)
        assert (model.predict(CANCER[0]) == CANCER[1]).mean() > 0.97

    def test_the_validation_rows_choose_among_many(self) -> None:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(300, 40))
        y = (x[:, 0] + 0.5 * rng.normal(size=300) > 0).astype(float)
        held = rng.normal(size=(2000, 40))
        held_y = (held[:, 0] + 0.5 * rng.normal(size=2000) > 0).astype(float)
        one = LinearLearner(BINARY, num_models=1).fit(x, y)
        many = LinearLearner(BINARY).fit(x, y, validation=(held, held_y))
        assert (many.predict(held) == held_y).mean() > (one.predict(held) == held_y).mean() + 0.01
        assert many.best_settings_ != one.best_settings_

    @pytest.mark.parametrize(
        ("criterion", "check"),
        [
            ("accuracy", lambda p, y: (p == y).mean() >= 0.98),
            ("f1", lambda p, y: f1_score(y, p) >= 0.98),
            ("f_beta", lambda p, y: f1_score(y, p) >= 0.98),
            ("precision_at_target_recall", lambda p, y: p[y == 1].mean() >= 0.999),
            ("recall_at_target_precision", lambda p, y: y[p == 1].mean() >= 0.999),
            ("loss_function", lambda p, y: (p == y).mean() >= 0.97),
        ],
    )
    def test_the_threshold_makes_the_best_of_the_criterion(self, criterion: str, check: Any) -> None:
        model = LinearLearner(
            BINARY, binary_classifier_model_selection_criteria=criterion, target_recall=0.999,
            target_precision=0.999,
        ).fit(*CANCER)  # fmt: skip
        assert check(model.predict(CANCER[0]), CANCER[1])
        if criterion == "loss_function":
            assert model.threshold_ == 0.5

    def test_weights_of_rare_labels(self) -> None:
        rng = np.random.default_rng(1)
        y = (rng.random(4000) < 0.05).astype(float)
        x = rng.normal(size=(4000, 3)) + y[:, None]
        reference = scaled(LogisticRegression(class_weight={0: 1, 1: 19})).fit(x, y)
        for weight in (19, "balanced", "auto"):
            model = LinearLearner(BINARY, positive_example_weight_mult=weight).fit(x, y)
            if weight == 19:
                np.testing.assert_allclose(model.predict_proba(x), reference.predict_proba(x), atol=0.01)
        assert model.best_settings_["positive_example_weight_mult"] in (1.0, (y == 0).sum() / y.sum())

    def test_rare_and_heavy_tailed_features_do_not_hold_it_back(self) -> None:
        rng = np.random.default_rng(0)
        groups = (rng.pareto(0.7, 6000) * 3).astype(int).clip(max=59)  # most groups have a handful of rows
        tail = rng.pareto(1.5, 6000)
        x = np.column_stack([np.eye(60)[groups], tail])
        y = (rng.random(6000) < 1 / (1 + np.exp(2 - 0.5 * np.log1p(tail) - (groups % 3)))).astype(float)
        reference = scaled(LogisticRegression(max_iter=500)).fit(x, y)
        model = LinearLearner(BINARY, num_models=4, epochs=15).fit(x, y)
        expected = log_loss(y, reference.predict_proba(x))
        assert log_loss(y, model.predict_proba(x)) <= expected + 0.002

    def test_sparse_rows_make_the_model_of_dense_ones(self) -> None:
        x, y = load_digits(return_X_y=True)
        y = (y < 5).astype(float)
        options: dict[str, Any] = {"unbias_data": False, "num_models": 1}
        dense = LinearLearner(BINARY, **options).fit(x, y)
        sparse = LinearLearner(BINARY, **options).fit(csr_matrix(x), y)
        np.testing.assert_allclose(sparse.predict_proba(x), dense.predict_proba(x), atol=2e-3)


class TestMulticlassClassifier:
    def test_loss_and_accuracy_are_those_of_scikit_learn(self) -> None:
        x, test_x, y, test_y = train_test_split(*load_digits(return_X_y=True), random_state=1)
        reference = scaled(LogisticRegression(max_iter=500)).fit(x, y)
        model = LinearLearner("multiclass_classifier", num_classes=10).fit(x, y)
        assert (model.predict(test_x) == test_y).mean() >= (
            reference.predict(test_x) == test_y
        ).mean() - 0.005
        expected = log_loss(test_y, reference.predict_proba(test_x))
        assert log_loss(test_y, model.predict_proba(test_x)) < expected + 0.01

    def test_balanced_weights_help_rare_classes(self) -> None:
        rng = np.random.default_rng(0)
        y = rng.choice(3, 3000, p=[0.9, 0.08, 0.02])
        x = rng.normal(size=(3000, 2)) + np.array([[0, 0], [1, 0], [0, 1]])[y]
        found = []
        for balance in (False, True):
            model = LinearLearner("multiclass_classifier", num_classes=3, balance_multiclass_weights=balance)
            predicted = model.fit(x, y).predict(x)
            found.append(np.mean([(predicted[y == c] == c).mean() for c in range(3)]))
        assert found[1] > found[0] + 0.1


@pytest.mark.parametrize("name", ["logistic", "hinge_loss", "softmax_loss", "squared_loss", "absolute_loss",
                                  "eps_insensitive_squared_loss", "eps_insensitive_absolute_loss", "quantile_loss",
                                  "huber_loss"])  # fmt: skip
def test_slopes_are_those_of_the_losses(name: str) -> None:
    values = {"loss_insensitivity": 0.1, "margin": 1.0, "num_classes": 3, "quantile": 0.7, "huber_delta": 0.5}
    loss = losses.loss_of(name, values)
    rng = np.random.default_rng(0)
    z = rng.normal(size=(50, 3)) * 3
    y = rng.integers(0, 2, 50).astype(float)
    step = 1e-6
    value, slope = loss.parts(z, y)
    for column in range(3):
        moved = z.copy()
        moved[:, column] += step
        more = loss.parts(moved, y)[0]
        numeric = (more - value)[:, 0 if name == "softmax_loss" else column] / step
        np.testing.assert_allclose(slope[:, column], numeric, atol=1e-4)
    assert (loss.curvature(z, y) >= 0).all()
    large = np.array([[500.0, -500.0, 0.0]])
    assert all(np.isfinite(part).all() for part in loss.parts(large, np.array([1.0])))


class TestMetrics:
    def test_a_threshold_worked_by_hand(self) -> None:
        scores, labels = np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 1, 0, 1])
        values = {"binary_classifier_model_selection_criteria": "accuracy"}
        threshold, accuracy = metrics.best_threshold(scores, labels, values)
        assert 0.4 < threshold <= 0.8
        assert accuracy == 0.75

    def test_auc_with_ties_is_that_of_scikit_learn(self) -> None:
        rng = np.random.default_rng(0)
        scores, labels = rng.integers(0, 5, 200).astype(float), rng.integers(0, 2, 200)
        assert metrics.roc_auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))

    @pytest.mark.parametrize("n_rows", [300, 100_000])
    def test_auc_of_blocks_is_that_of_scikit_learn(self, n_rows: int) -> None:
        rng = np.random.default_rng(0)
        scores = rng.standard_normal(n_rows).astype(np.float32)
        labels = (scores + 2 * rng.standard_normal(n_rows) > 0).astype(np.float32)
        ranking = metrics.Ranking()
        for part in np.array_split(np.arange(n_rows), 7):
            ranking.add(scores[part], labels[part])
        assert ranking.area(Team()) == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)

    def test_one_class_has_no_auc(self) -> None:
        ranking = metrics.Ranking()
        ranking.add(np.arange(70_000.0), np.ones(70_000))
        assert ranking.area(Team()) is None


@pytest.mark.parametrize(
    ("options", "x", "y", "message"),
    [
        ({}, [[1.0], [2.0]], [0, 2], "the label 2 is not allowed; it must be 0 or 1"),
        ({}, [[1.0], [np.inf]], [0, 1], "missing or infinite"),
        ({}, np.zeros((0, 3)), [], "no row"),
        ({"feature_dim": 2}, [[1.0]], [1], "rows have 1 features, but feature_dim is 2"),
        ({"predictor_type": "regressor"}, [[1.0]], [np.nan], "must be a finite number"),
        ({"predictor_type": "multiclass_classifier"}, [[1.0]], [1], "num_classes is required"),
        ({"predictor_type": "multiclass_classifier", "num_classes": 3}, [[1.0]], [3], "from 0 to"),
        ({"loss": "huber_loss"}, [[1.0]], [1], "loss=huber_loss is not for predictor_type=binary_classifier"),
        ({"optimizer": "sgd", "beta_1": 0.5}, [[1.0]], [1], "beta_1 is for optimizer=adam, not sgd"),
        ({"optimizer": "adam", "momentum": 0.5}, [[1.0]], [1], "momentum is for optimizer=sgd"),
        ({"positive_example_weight_mult": -1}, [[1.0]], [1], "a number above 0, balanced, or auto"),
        ({"epoch": 3}, [[1.0]], [1], "Did you mean 'epochs'?"),
    ],
)
def test_refusals(options: dict[str, Any], x: Any, y: Any, message: str) -> None:
    with pytest.raises(CustomerError, match=re.escape(message)):
        LinearLearner(**{"predictor_type": BINARY, **options}).fit(x, np.array(y))


def test_one_label_and_constant_features_are_learned() -> None:
    model = LinearLearner(BINARY).fit(np.ones((10, 2)), np.ones(10))
    assert (model.predict(np.ones((3, 2))) == 1).all()


class TestServing:
    def test_binary(self, tmp_path: Path) -> None:
        model = LinearLearner(BINARY).fit([[0.0, 1], [1.0, 1], [2.0, 0], [3.0, 0]], np.array([0, 0, 1, 1]))
        model.save(tmp_path)
        rows = np.array([[0, 1], [3, 0]])
        scores = model.infer(rows, {})["score"]
        expected = [{"score": float(s), "predicted_label": i} for i, s in enumerate(scores)]
        serving.check_every_form(LinearLearner.load_predictor(tmp_path, {}), rows, expected)

    def test_regressor_and_multiclass(self, tmp_path: Path) -> None:
        rows = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
        for kind, options in (("regressor", {}), ("multiclass_classifier", {"num_classes": 3})):
            model = LinearLearner(kind, **options).fit(np.tile(rows, (5, 1)), np.tile([0.0, 1.0, 2.0], 5))
            folder = tmp_path / kind
            folder.mkdir()
            model.save(folder)
            found = model.infer(rows, {})
            columns = {name: column.tolist() for name, column in found.items()}
            expected = [dict(zip(columns, one, strict=True)) for one in zip(*columns.values(), strict=True)]
            assert list(expected[0]) == (["score"] if kind == "regressor" else ["score", "predicted_label"])
            serving.check_every_form(LinearLearner.load_predictor(folder, {}), rows, expected)

    def test_the_artifact(self, tmp_path: Path) -> None:
        with pytest.raises(CustomerError, match="not made by linear learner"):
            LinearLearner.load(tmp_path)
        (tmp_path / "model_algo-1").write_bytes(b"x")
        with pytest.raises(CustomerError, match="not an artifact"):
            LinearLearner.load(tmp_path)
        model = LinearLearner("regressor").fit(*DIABETES)
        model.save(tmp_path)
        with zipfile.ZipFile(io.BytesIO((tmp_path / "model_algo-1").read_bytes())) as archive:
            arrays = mxnet.load_named(archive.read("mx-mod-0000.params"))
            assert json.loads(archive.read("mx-mod-symbol.json"))["heads"] == [[3, 0, 0]]
        np.testing.assert_array_equal(arrays["arg:fc0_weight"], model.coef_)


def metric(log: str, name: str) -> float:
    found = re.findall(rf"#quality_metric: host=\S+, {name}=(\S+)", log)
    assert found, log
    return float(found[-1])


class TestJob:
    def test_log_and_artifact(self, tmp_path: Path) -> None:
        x, test_x, y, test_y = train_test_split(*CANCER, random_state=0)
        table = "\n".join(",".join(map(str, [label, *row])) for label, row in zip(y, x.tolist(), strict=True))
        channels = {
            "train": ("text/csv", {"a.csv": table.encode()}),
            "validation": (serving.RECORDIO, {"v": recordio.encode(test_x.astype(np.float32), test_y)}),
            "test": (serving.RECORDIO, {"t": recordio.encode(test_x.astype(np.float32), test_y)}),
        }
        given = {"predictor_type": BINARY, "feature_dim": "30", "mini_batch_size": "100"}
        job = jobs.start(tmp_path / "ml", "linear-learner", given, channels)
        code, log = job.wait()
        assert code == 0, log
        model = LinearLearner.load(job.model_dir)
        auc = roc_auc_score(test_y, model.decision_function(test_x))
        for channel in ("validation", "test"):
            assert metric(log, f"{channel} roc_auc_score <score>") == pytest.approx(auc, abs=1e-6)
            assert metric(log, f"{channel} binary_f_1.000 <score>") > 0.95
        assert "epoch=0, train binary_classification_cross_entropy_objective <loss>=" in log
        assert 'Best model found for hyperparameters: {"optimizer": "newton"' in log

    @pytest.mark.parametrize("more", [{}, {"optimizer": "sgd", "mini_batch_size": "50"}])
    def test_two_hosts_make_the_model_of_one(self, tmp_path: Path, more: dict[str, str]) -> None:
        x, y = DIABETES
        given = {"predictor_type": "regressor", "feature_dim": "10", "wd": "0.01", **more}
        hosts = ("127.0.1.1", "127.0.1.2")
        started = [
            jobs.start(
                tmp_path / host, "linear-learner", given,
                {"train": (serving.RECORDIO, {"part": recordio.encode(x[part].astype(np.float32), y[part])}),
                 "test": (serving.RECORDIO, {"part": recordio.encode(x[part].astype(np.float32), y[part])})},
                hosts=hosts, host=host,
            )
            for host, part in zip(hosts, (slice(300), slice(300, None)), strict=True)
        ]  # fmt: skip
        ended = [job.wait() for job in started]
        assert [code for code, _ in ended] == [0, 0], ended
        model = LinearLearner.load(started[0].model_dir)
        alone = LinearLearner("regressor", wd=0.01).fit(x, y)
        tolerance = 0.05 if more else 1e-3
        deviation = alone.predict(x).std()
        np.testing.assert_allclose(model.predict(x), alone.predict(x), atol=10 * tolerance * deviation)
        rmse = float(np.sqrt(((model.predict(x) - y) ** 2).mean()))
        assert metric(ended[0][1], "test rmse <loss>") == pytest.approx(rmse, rel=1e-4)

    def test_rows_that_do_not_fit_memory_are_read_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from sagesmith_algorithms.linear_learner import data

        kept = LinearLearner(BINARY).fit(*CANCER)
        monkeypatch.setattr(data, "KEPT_BYTES", 0)
        several: tuple[dict[str, Any], ...] = ({}, {"optimizer": "adam", "mini_batch_size": 20, "epochs": 30})
        for options in several:
            model = LinearLearner(BINARY, **options).fit(*CANCER)
            auc = roc_auc_score(CANCER[1], model.decision_function(CANCER[0]))
            assert auc >= roc_auc_score(CANCER[1], kept.decision_function(CANCER[0])) - 0.003

    @pytest.mark.parametrize(
        ("content_type", "content", "message"),
        [
            (serving.CSV, b"1,2,3\n1,2\n", "line 2 has 2 columns"),
            (serving.CSV, b"2,2,3\n", "the label 2 is not allowed"),
            ("text/csv;label_size=0", b"1,2\n", "rows have no label"),
            (serving.RECORDIO, recordio.encode(np.ones((3, 2), np.float32)), "rows have no label"),
        ],
    )
    def test_bad_data_fail_it_with_a_sentence(
        self, tmp_path: Path, content_type: str, content: bytes, message: str
    ) -> None:
        given = {"predictor_type": BINARY, "feature_dim": "2"}
        job = jobs.start(tmp_path / "ml", "linear-learner", given, {"train": (content_type, {"d": content})})
        assert job.wait()[0] == 1
        assert message in job.failure
