from __future__ import annotations

import json
import re
import signal
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import train_test_split

from sagesmith_algorithms import CustomerError, DataError, FactorizationMachines
from sagesmith_algorithms.factorization_machines import kernels
from sagesmith_algorithms.factorization_machines.rows import rows_of
from sagesmith_algorithms.formats import mxnet, recordio
from sagesmith_algorithms.formats.batch import Batch
from sagesmith_toolkit.environment import Channel, Environment
from tests.algorithms import jobs, serving

RNG = np.random.default_rng(0)
X, Y = load_digits(return_X_y=True)
EVEN = (Y % 2 == 0).astype(np.float32)
TRAIN, TEST, TRAIN_Y, TEST_Y = train_test_split((X / 16).astype(np.float32), EVEN, random_state=0)
QUICK: dict[str, Any] = {
    "linear_lr": 0.02,
    "factors_lr": 0.02,
    "factors_init_sigma": 0.1,
    "linear_wd": 0,
    "factors_wd": 0,
}


def pairs(n: int, n_users: int = 60, n_items: int = 40, seed: int = 1) -> tuple[Any, Any]:
    """Return one-hot users and items, and ratings of rank 3 with noise of 0.1."""
    rng = np.random.default_rng(seed)
    users, items = rng.standard_normal((n_users, 3)), rng.standard_normal((n_items, 3))
    rng = np.random.default_rng(seed + n)
    u, i = rng.integers(0, n_users, n), rng.integers(0, n_items, n)
    y = 3 + (users[u] * items[i]).sum(axis=1) + 0.1 * rng.standard_normal(n)
    columns = np.column_stack([u, n_users + i]).ravel()
    rows = csr_matrix((np.ones(2 * n), columns, np.arange(0, 2 * n + 1, 2)), shape=(n, n_users + n_items))
    return rows.astype(np.float32), y.astype(np.float32)


def rmse(model: FactorizationMachines, rows: Any, y: Any) -> float:
    return float(np.sqrt(np.mean((model.predict(rows) - y) ** 2)))


def naive(model: FactorizationMachines, rows: Any) -> Any:
    """Return the scores by the definition: a sum over all pairs."""
    products = model.factors_ @ model.factors_.T
    upper = np.triu(products, 1)
    return model.bias_ + rows @ model.coef_ + np.einsum("ni,ij,nj->n", rows, upper, rows)


@pytest.mark.parametrize("n_factors", [1, 8, 11])
def test_scores_are_those_of_the_definition(n_factors: int) -> None:
    rows = RNG.standard_normal((20, 6)).astype(np.float32)
    model = FactorizationMachines(n_factors, factors_init_sigma=1, epochs=1, linear_init_sigma=1)
    model.fit(rows, rows[:, 0])
    np.testing.assert_allclose(model.predict(rows), naive(model, rows), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.predict(csr_matrix(rows)), model.predict(rows), rtol=1e-6)
    assert model.factors_.shape == (6, n_factors)


@pytest.mark.parametrize("binary", [False, True])
def test_gradients_are_those_of_differences(binary: bool) -> None:
    n, d, k = 12, 5, 8
    rows = rows_of(
        csr_matrix(RNG.standard_normal((n, d)) * (RNG.random((n, d)) < 0.6), dtype=np.float32), None, d
    )
    labels = RNG.integers(0, 2, n).astype(np.float32)
    weights, factors = (
        RNG.standard_normal(shape).astype(np.float32) * np.float32(0.3) for shape in ((d,), (d, k))
    )
    slots, touched = np.full(d, -1, np.int32), np.empty(d, np.int32)
    slopes, factor_slopes = np.empty(d, np.float32), np.empty((d, k), np.float32)
    sums = np.zeros(kernels.N_SUMS + 1)
    found = kernels.gradients(
        rows.indptr, rows.indices, rows.values, labels, np.arange(n), weights, factors, 0.25, binary,
        slots, touched, slopes, factor_slopes, sums,
    )  # fmt: skip

    def loss(bias: float, w: Any, v: Any) -> float:
        dense = csr_matrix((rows.values, rows.indices, rows.indptr), (n, d)).toarray().astype(float)
        s = bias + dense @ w + 0.5 * (((dense @ v) ** 2).sum(1) - (dense**2 @ v**2).sum(1))
        return float((np.logaddexp(0, s) - s * labels).sum() if binary else ((s - labels) ** 2).sum() / 2)

    w, v, step = weights.astype(float), factors.astype(float), 1e-5
    assert sums[8] == pytest.approx(
        (loss(0.25 + step, w, v) - loss(0.25 - step, w, v)) / (2 * step), rel=1e-4
    )
    assert (sums[3] if binary else sums[1] / 2) == pytest.approx(loss(0.25, w, v), rel=1e-5)
    for place in range(found):
        feature = touched[place]
        for target, slope in ((w, slopes[place]), (v[:, 3], factor_slopes[place, 3])):
            old = target[feature]
            target[feature] = old + step
            above = loss(0.25, w, v)
            target[feature] = old - step
            assert slope == pytest.approx((above - loss(0.25, w, v)) / (2 * step), rel=1e-3, abs=1e-4)
            target[feature] = old


def test_a_step_worked_by_hand() -> None:
    # One row, x = 2, y = 1, everything begins with 0: the error is -1, and Adam's first step is as long as its rate.
    options: dict[str, Any] = {f"{part}_init_method": "constant" for part in ("bias", "linear", "factors")}
    options |= {f"{part}_init_value": 0 for part in ("bias", "linear", "factors")}
    model = FactorizationMachines(2, bias_lr=0.1, linear_lr=0.2, factors_lr=0.3, **options)
    model.fit([[2.0]], [1.0])
    assert model.bias_ == pytest.approx(0.1, rel=1e-5)
    assert model.coef_.tolist() == pytest.approx([0.2], rel=1e-5)
    assert model.factors_.tolist() == [[0.0, 0.0]]  # x_i x_i is no pair


class TestQuality:
    def test_pairs_are_learned_up_to_the_noise(self) -> None:
        rows, y = pairs(20000)
        test, test_y = pairs(4000)
        assert np.std(test_y) > 1.5
        for seed in range(2):
            model = FactorizationMachines(6, epochs=15, mini_batch_size=200, seed=seed, **QUICK).fit(rows, y)
            assert rmse(model, test, test_y) < 0.13
        linear = Ridge(1.0).fit(rows, y)
        assert np.sqrt(np.mean((linear.predict(test) - test_y) ** 2)) > 1.0

    def test_digits_are_told_apart_better_than_by_a_linear_model(self) -> None:
        model = FactorizationMachines(16, "binary_classifier", epochs=60, mini_batch_size=100, **QUICK)
        found = (model.fit(TRAIN, TRAIN_Y).predict(TEST) == TEST_Y).mean()
        linear = LogisticRegression(max_iter=1000).fit(TRAIN, TRAIN_Y).score(TEST, TEST_Y)
        assert found >= linear + 0.04
        chances = model.predict_proba(TEST)
        np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-6)
        np.testing.assert_array_equal(chances[:, 1] >= 0.5, model.predict(TEST) == 1)

    def test_equal_seeds_give_equal_models(self) -> None:
        rows, y = pairs(3000)
        first, second, other = (
            FactorizationMachines(4, epochs=2, seed=s, **QUICK).fit(rows, y) for s in (3, 3, 4)
        )
        np.testing.assert_array_equal(first.factors_, second.factors_)
        assert not np.array_equal(first.factors_, other.factors_)

    def test_rows_may_come_in_windows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from sagesmith_algorithms.factorization_machines import rows as module

        monkeypatch.setattr(module, "_KEPT_BYTES", 100_000)
        monkeypatch.setattr(module, "_WINDOW_BYTES", 50_000)
        monkeypatch.setattr(module, "_ALONE", 100)
        rows, y = pairs(20000)
        test, test_y = pairs(4000)
        passes = []

        def one_pass(number: int) -> Any:
            passes.append(number)
            for start in range(0, 20000, 700):
                yield Batch(rows[start : start + 700], y[start : start + 700])

        from sagesmith_algorithms.factorization_machines.trainer import Trainer

        model = FactorizationMachines(6, feature_dim=100, mini_batch_size=200, **QUICK)
        windows = module.Windows(one_pass, model.rows_of, [0])
        given = {name: value for name, value in model.get_params().items() if name != "seed"}
        trainer = Trainer(model.begin(), model.hyperparameters.parse(given))
        for epoch in range(15):
            *_, sums = trainer.epoch(windows(epoch), np.random.default_rng(epoch))
            assert sums[0] == 20000
        assert passes == list(range(15))
        assert rmse(model, test, test_y) < 0.14

    @pytest.mark.parametrize("ragged", [False, True])
    def test_rows_of_a_window_are_mixed_and_stay_whole(self, ragged: bool) -> None:
        from sagesmith_algorithms.factorization_machines.rows import Rows

        dense = np.arange(1, 61, dtype=np.float32).reshape(12, 5)
        if ragged:
            dense[np.tril_indices(12, 0, 5)] = 0
        parts = [
            rows_of(csr_matrix(dense[a:b]), dense[a:b].sum(axis=1), 5) for a, b in ((0, 4), (4, 5), (5, 12))
        ]
        mixed = Rows.mixed(parts, np.random.default_rng(0))
        assert not parts
        found = csr_matrix((mixed.values, mixed.indices, mixed.indptr), (12, 5)).toarray()
        np.testing.assert_array_equal(found.sum(axis=1), mixed.labels)
        assert sorted(found.tolist()) == sorted(dense.tolist()) != found.tolist()

    def test_hosts_are_merged_by_what_each_saw(self) -> None:
        rows, y = pairs(3000)
        options: dict[str, Any] = {"feature_dim": 100, **QUICK}
        hosts = [FactorizationMachines(4, **options) for _ in range(2)]
        for host, part in zip(hosts, (slice(0, 1000), slice(1000, None)), strict=True):
            host.update(Batch(rows[part], y[part]))
        states = [host.state() for host in hosts]
        merged = [FactorizationMachines(4, **options) for _ in range(2)]
        for one, order in zip(merged, (states, states[::-1]), strict=True):
            for state in order:
                one.merge(state)
            one.finalize()
        np.testing.assert_allclose(merged[0].coef_, merged[1].coef_, rtol=1e-5)
        expected = (1000 * hosts[0].bias_ + 2000 * hosts[1].bias_) / 3000
        assert merged[0].bias_ == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "x", "y", "message"),
    [
        ({"num_factors": 0}, [[1.0]], [1], "'num_factors': expected an integer at least 1"),
        ({"predictor_type": "ranker"}, [[1.0]], [1], "one of binary_classifier, regressor"),
        ({"bias_init_method": "uniform"}, [[1.0]], [1], "'bias_init_scale' is required with bias_init_method=uniform"),
        ({"factors_init_method": "constant"}, [[1.0]], [1], "'factors_init_value' is required"),
        ({"clip_gradient": 0}, [[1.0]], [1], "'clip_gradient': expected a number above 0"),
        ({"learning_rate": 1}, [[1.0]], [1], "'learning_rate' is not known"),
        ({}, [[1.0], [np.nan]], [1, 2], "feature 1 is missing or infinite"),
        ({}, [[1.0]], [np.inf], "the label inf is not allowed; it must be a finite number"),
        ({"predictor_type": "binary_classifier"}, [[1.0]], [2], "the label 2 is not allowed; it must be 0 or 1"),
        ({"linear_lr": 1e30, "linear_wd": 1e30, "epochs": 3}, [[1e9], [2e9]], [1, 2], "the loss became infinite"),
    ],
)  # fmt: skip
def test_refusals(options: dict[str, Any], x: Any, y: Any, message: str) -> None:
    with pytest.raises(CustomerError, match=re.escape(message)):
        FactorizationMachines(**options).fit(x, y)


@pytest.mark.parametrize(
    ("options", "same"),
    [
        ({"clip_gradient": 1e-9, "eps": 1.0}, False),
        ({"rescale_grad": 1e-9, "eps": 1.0}, False),
        ({"rescale_grad": 1 / 500, "mini_batch_size": 500}, True),
        ({"clip_gradient": 1e9}, True),
        ({"bias_init_method": "uniform", "bias_init_scale": 3}, False),
        ({"linear_wd": 0.5}, False),
    ],
)
def test_what_hyperparameters_change(options: dict[str, Any], same: bool) -> None:
    rows, y = pairs(2000)
    size = {"mini_batch_size": 500}
    plain = FactorizationMachines(4, **{**QUICK, **size}).fit(rows, y)
    other = FactorizationMachines(4, **{**QUICK, **size, **options}).fit(rows, y)
    assert np.allclose(plain.coef_, other.coef_, atol=1e-6) == same


class TestServing:
    @pytest.fixture
    def model(self, tmp_path: Path) -> FactorizationMachines:
        model = FactorizationMachines(5, "binary_classifier", epochs=5, **QUICK).fit(TRAIN, TRAIN_Y)
        model.save(tmp_path)
        return model

    def test_every_form_in_and_out(self, model: FactorizationMachines, tmp_path: Path) -> None:
        predictor = FactorizationMachines.load_predictor(tmp_path, {})
        scores = model.predict_proba(TEST[:4])[:, 1]
        bodies = serving.bodies(TEST[:4])
        instances = []
        for row in TEST[:4]:
            keys = np.flatnonzero(row)
            features = {"keys": keys.tolist(), "shape": [64], "values": row[keys].tolist()}
            instances.append({"data": {"features": features}})
        bodies["application/json; sparse"] = json.dumps({"instances": instances}).encode()
        bodies["application/jsonlines; sparse"] = b"\n".join(json.dumps(i).encode() for i in instances)
        bodies["application/x-recordio-protobuf; sparse"] = recordio.encode(csr_matrix(TEST[:4]))
        del bodies[serving.CSV]
        for content_type, body in bodies.items():
            for accept in (serving.JSON, serving.JSON_LINES, serving.RECORDIO):
                response = serving.ask(predictor, content_type, accept, body)
                assert response.content_type == accept
                found = serving.answers(response)
                np.testing.assert_allclose([np.ravel(one["score"])[0] for one in found], scores, rtol=1e-4)
                labels = [float(np.ravel(one["predicted_label"])[0]) for one in found]
                assert labels == (scores >= 0.5).astype(float).tolist()

    def test_requests_that_came_together_are_answered_each(
        self, model: FactorizationMachines, tmp_path: Path
    ) -> None:
        from sagesmith_toolkit.server import Request

        predictor = FactorizationMachines.load_predictor(tmp_path, {})
        dense, sparse = serving.bodies(TEST[:2])[serving.JSON], recordio.encode(csr_matrix(TEST[2:3]))
        requests = [
            Request("/invocations", serving.JSON, "", "", dense),
            Request("/invocations", serving.CSV, "", "", b"1,2"),
            Request("/invocations", serving.RECORDIO, "", "", sparse),
            Request("/invocations", serving.JSON, "", "", b'{"instances": [{"features": [1]}]}'),
        ]
        first, second, third, fourth = predictor.predict(requests)
        found = [one["score"] for r in (first, third) for one in serving.answers(r)]
        np.testing.assert_allclose(found, model.predict_proba(TEST[:3])[:, 1], rtol=1e-4)
        assert (second.status, fourth.status) == (415, 400)

    def test_the_artifact_can_be_read_by_others(self, model: FactorizationMachines, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "model_algo-1") as archive:
            arrays = mxnet.load_named(archive.read("params"))
            symbol = json.loads(archive.read("symbol.json"))
        assert arrays["arg:v"].shape == (64, 5)
        assert arrays["arg:w1_weight"].shape == (64, 1)
        assert arrays["arg:w0_weight"].reshape(-1)[0] == pytest.approx(model.bias_)
        assert {"out_label", "v", "w1_weight"} <= {node["name"] for node in symbol["nodes"]}
        loaded = FactorizationMachines.load(tmp_path)
        np.testing.assert_array_equal(loaded.decision_function(TEST), model.decision_function(TEST))

    def test_others_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CustomerError, match="not made by factorization machines"):
            FactorizationMachines.load(tmp_path)
        (tmp_path / "model_algo-1").write_bytes(b"x" * 100)
        with pytest.raises(DataError, match="is not an artifact"):
            FactorizationMachines.load(tmp_path)


GIVEN = {
    "feature_dim": "100", "num_factors": "6", "predictor_type": "regressor", "epochs": "15", "mini_batch_size": "200",
    **{name: str(value) for name, value in QUICK.items()},
}  # fmt: skip


def last_checkpoint(folder: Path) -> int:
    """Return after how many epochs the last checkpoint in *folder* was written; 0 if there is none."""
    found = folder.glob("factorization-machines-checkpoint.*") if folder.is_dir() else ()
    return max((int(path.name.rpartition(".")[2]) for path in found), default=0)


def in_this_process(
    base: Path, rows: Any, y: Any, checkpoints: Path | None, **given: int
) -> FactorizationMachines:
    """Run a job, and return its model."""
    train = base / "input" / "data" / "train"
    train.mkdir(parents=True)
    (train / "d").write_bytes(recordio.encode(rows, y))
    hyperparameters = {**GIVEN, **{name: str(value) for name, value in given.items()}}
    channels = {"train": Channel("train", train, serving.RECORDIO)}
    environment = Environment(base, hyperparameters, channels, checkpoint_dir=checkpoints)
    FactorizationMachines.train(environment)
    return FactorizationMachines.load(environment.model_dir)


class TestJob:
    def test_two_hosts_make_the_steps_of_one(self, tmp_path: Path) -> None:
        rows, y = pairs(20000)
        test, test_y = pairs(4000)
        hosts = ("127.0.1.1", "127.0.1.2")
        started = [
            jobs.start(
                tmp_path / host, "factorization-machines", GIVEN,
                {
                    "train": (serving.RECORDIO, {"part": recordio.encode(rows[part], y[part])}),
                    "test": (serving.RECORDIO, {"t": recordio.encode(test, test_y)}),
                },
                hosts=hosts, host=host, replicated=("test",),
            )
            for host, part in zip(hosts, (slice(9000), slice(9000, None)), strict=True)
        ]  # fmt: skip
        ended = [job.wait() for job in started]
        assert [code for code, _ in ended] == [0, 0], ended
        model = FactorizationMachines.load(started[0].model_dir)
        found = rmse(model, test, test_y)
        assert found < 0.15
        assert not list(started[1].model_dir.iterdir())
        log = ended[0][1]
        said = re.search(r"#quality_metric: host=\S+, test rmse <loss>=(\S+)", log)
        assert said
        assert float(said[1]) == pytest.approx(found, rel=1e-5)
        assert len(re.findall(r"#quality_metric: host=\S+, epoch=\d+, train rmse <loss>=", log)) == 15
        assert "epoch=0, batch=0 train mse <loss>=" in log
        assert "#test_score (127.0.1.1) : ('rmse', 0.1" in log

    def test_a_killed_job_ends_with_the_model_of_one_that_ran_through(self, tmp_path: Path) -> None:
        rows, y = pairs(3000)
        channels = {"train": (serving.RECORDIO, {"d": recordio.encode(rows, y)})}
        endless = {**GIVEN, "epochs": "1000000"}
        job = jobs.start(tmp_path / "ml", "factorization-machines", endless, channels, checkpoints=True)
        kept = tmp_path / "ml" / "checkpoints"
        until = time.monotonic() + 60
        while (done := last_checkpoint(kept)) < 3:
            assert time.monotonic() < until, job.log
            time.sleep(0.01)
        job.signal(signal.SIGKILL)
        job.wait()
        done = last_checkpoint(kept)
        assert len(list(kept.glob("factorization-*"))) <= 2
        through, on = (
            in_this_process(tmp_path / name, rows, y, folder, epochs=done + 2)
            for name, folder in (("through", None), ("on", kept))
        )
        np.testing.assert_array_equal(on.factors_, through.factors_)
        assert on.bias_ == through.bias_
        assert last_checkpoint(kept) == done + 2

    def test_hosts_go_on_from_the_checkpoint_of_the_first(self, tmp_path: Path) -> None:
        rows, y = pairs(2000)
        hosts, channels = (
            ("127.0.1.3", "127.0.1.4"),
            {"train": (serving.RECORDIO, {"d": recordio.encode(rows, y)})},
        )
        in_this_process(tmp_path / "one", rows, y, tmp_path / hosts[0] / "checkpoints", epochs=4)
        given = {**GIVEN, "epochs": "6"}
        started = [
            jobs.start(
                tmp_path / host, "factorization-machines", given, channels, hosts=hosts, host=host, checkpoints=True
            )
            for host in hosts
        ]  # fmt: skip
        ended = [job.wait() for job in started]
        assert [code for code, _ in ended] == [0, 0], ended
        assert re.findall(r"epoch=(\d+), train rmse", ended[0][1]) == ["4", "5"]
        assert "4 epochs are done" in ended[1][1]

    def test_a_checkpoint_of_another_model_is_refused(self, tmp_path: Path) -> None:
        rows, y = pairs(300)
        in_this_process(tmp_path / "a", rows, y, tmp_path / "kept", epochs=1)
        with pytest.raises(CustomerError, match="num_factors=6 instead of 7"):
            in_this_process(tmp_path / "b", rows, y, tmp_path / "kept", num_factors=7)
        (tmp_path / "kept" / "factorization-machines-checkpoint.1").write_bytes(b"no archive")
        with pytest.raises(CustomerError, match=r"checkpoint.1 cannot be read .* another S3Uri"):
            in_this_process(tmp_path / "c", rows, y, tmp_path / "kept")

    def test_a_classifier_logs_its_metrics(self, tmp_path: Path) -> None:
        given = {**GIVEN, "predictor_type": "binary_classifier", "feature_dim": "64", "epochs": "2"}
        data = (serving.RECORDIO, {"d.pbr": recordio.encode(TRAIN, TRAIN_Y)})
        job = jobs.start(tmp_path / "ml", "factorization-machines", given, {"train": data, "test": data})
        code, log = job.wait()
        assert code == 0, log
        for metric in FactorizationMachines.metrics[1:]:
            assert re.search(metric.regex, log), metric
        assert "epoch=1, train binary_classification_cross_entropy <loss>=" in log

    @pytest.mark.parametrize(
        ("content_type", "content", "message"),
        [
            (serving.RECORDIO, b"", "there is no row in the channel 'train'"),
            (serving.CSV, b"1,2\n", "has the content type 'text/csv': expected application/x-recordio-protobuf"),
            (serving.RECORDIO, recordio.encode(np.ones((3, 2), np.float32)), "d, record 1: rows have no label"),
            (serving.RECORDIO, recordio.encode(np.ones((3, 3), np.float32), np.ones(3, np.float32)),
             "d, record 1: rows have 3 features, but feature_dim is 2"),
            (serving.RECORDIO, recordio.encode(csr_matrix([[1.0, 0, 0], [0, 0, 1.0]], dtype=np.float32), np.ones(2, np.float32)),
             "d, record 2: there is a feature of number 2, counted from 0, but feature_dim is 2"),
            (serving.RECORDIO, recordio.encode(csr_matrix([[1.0, 0], [0, np.nan]], dtype=np.float32), np.ones(2, np.float32)),
             "d, record 2: there is a missing or infinite value"),
            (serving.RECORDIO, recordio.encode(np.ones((2, 2), np.float32), np.array([1, 3], np.float32)),
             "d, record 2: the label 3 is not allowed; it must be 0 or 1"),
            (serving.RECORDIO, recordio.encode(np.ones((2, 2), np.float32), np.ones(2, np.float32))[:-8],
             "is cut short"),
        ],
    )  # fmt: skip
    def test_bad_data_fail_it_with_a_sentence(
        self, tmp_path: Path, content_type: str, content: bytes, message: str
    ) -> None:
        given = {"feature_dim": "2", "num_factors": "2", "predictor_type": "binary_classifier"}
        job = jobs.start(
            tmp_path / "ml", "factorization-machines", given, {"train": (content_type, {"d": content})}
        )
        assert job.wait()[0] == 1
        assert job.failure.startswith("Customer Error: ")
        assert message in job.failure
