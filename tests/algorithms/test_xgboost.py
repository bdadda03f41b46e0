from __future__ import annotations

import json
import pickle
import re
import signal
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import xgboost
from sklearn import metrics as reference
from sklearn.datasets import load_breast_cancer, load_iris

from sagesmith_algorithms import CustomerError, HyperparameterError, XGBoost
from sagesmith_algorithms.formats import csv, recordio
from sagesmith_algorithms.xgboost.metrics import score
from sagesmith_toolkit.server import Request
from tests.algorithms import jobs

BINARY = load_breast_cancer()
IRIS = load_iris()


def booster(objective: str, data: Any = BINARY, **parameters: Any) -> Any:
    matrix = xgboost.DMatrix(data.data.astype(np.float32), data.target)
    return xgboost.train(
        {"objective": objective, "max_depth": 3, "nthread": 1, "verbosity": 0, **parameters}, matrix, 5
    )


def a_csv(features: Any, labels: Any) -> bytes:
    return csv.encode(np.column_stack([labels, features]).astype(np.float32)) + b"\n"


class TestEstimator:
    def test_the_model_is_bit_for_bit_plain_xgboost(self) -> None:
        features = BINARY.data.astype(np.float32)
        model = XGBoost(num_round=5, objective="binary:logistic", max_depth=3, lambda_=2.0, nthread=1).fit(
            features, BINARY.target
        )
        plain = booster("binary:logistic", **{"lambda": 2.0})
        np.testing.assert_array_equal(model.predict(features), plain.predict(xgboost.DMatrix(features)))
        assert model.get_params()["lambda_"] == 2.0

    def test_early_stopping_keeps_the_best_round(self) -> None:
        rng = np.random.default_rng(0)
        features, labels = rng.random((200, 4)), rng.integers(0, 2, 200)
        model = XGBoost(
            num_round=50, objective="binary:logistic", early_stopping_rounds=2, eval_metric="logloss,accuracy"
        )
        model.fit(features[:100], labels[:100], eval_set=(features[100:], labels[100:]))
        history = model.evals_result_["validation"]["accuracy"]
        assert len(history) < 50
        assert model.booster_.num_boosted_rounds() == int(np.argmax(history)) + 1

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({}, "'num_round' is required"),
            ({"num_round": 1, "objective": "multi:softprob"}, "needs the hyperparameter 'num_class'"),
            ({"num_round": 1, "eta": 1.5}, "'eta': expected a number at least 0 and at most 1"),
            ({"num_round": 1, "max_dept": 3}, "Did you mean 'max_depth'"),
            ({"num_round": 1, "eval_metric": "acuracy"}, "Did you mean 'accuracy'"),
            ({"num_round": 1, "interaction_constraints": "x"}, "expected lists of feature numbers"),
            ({"num_round": 1, "tree_method": "gpu_hist"}, "needs an XGBoost built for it"),
            ({"num_round": 1, "_num_cv_round": 2}, "needs '_kfold'"),
        ],
    )
    def test_hyperparameters_that_are_wrong(self, given: dict[str, Any], message: str) -> None:
        with pytest.raises(HyperparameterError, match=message):
            XGBoost(**given).fit(BINARY.data, BINARY.target)

    @pytest.mark.parametrize(
        ("objective", "labels", "message"),
        [
            ("binary:logistic", [0, 1, 2], "row 3: the label 2 is not allowed; .* must be from 0 to 1"),
            ("multi:softmax", [0, 1, 3], "a whole number from 0 to num_class - 1 = 2"),
            ("count:poisson", [0, -1, 3], "must be not negative"),
        ],
    )
    def test_labels_that_do_not_fit(self, objective: str, labels: list[int], message: str) -> None:
        more = {"num_class": 3} if objective.startswith("multi") else {}
        with pytest.raises(CustomerError, match=message):
            XGBoost(num_round=1, objective=objective, **more).fit(np.zeros((3, 2)), labels)


class TestMetrics:
    def test_binary_ones_are_scikit_learns(self) -> None:
        rng = np.random.default_rng(0)
        probabilities, true = rng.random(300), rng.integers(0, 2, 300)
        predicted = probabilities > 0.5
        expected = {
            "accuracy": reference.accuracy_score(true, predicted),
            "balanced_accuracy": reference.balanced_accuracy_score(true, predicted),
            "f1": reference.f1_score(true, predicted, average="macro"),
            "f1_binary": reference.f1_score(true, predicted),
            "precision": reference.precision_score(true, predicted),
            "recall": reference.recall_score(true, predicted),
            "mse": reference.mean_squared_error(true, probabilities),
            "r2": reference.r2_score(true, probabilities),
        }
        for name, value in expected.items():
            assert score(name, probabilities, true, "binary:logistic") == pytest.approx(value), name

    def test_multiclass_ones_are_scikit_learns(self) -> None:
        rng = np.random.default_rng(0)
        probabilities, true = rng.random((300, 4)), rng.integers(0, 4, 300)
        predicted = probabilities.argmax(axis=1)
        expected = {
            "accuracy": reference.accuracy_score(true, predicted),
            "f1_macro": reference.f1_score(true, predicted, average="macro"),
            "precision_macro": reference.precision_score(true, predicted, average="macro"),
            "precision_micro": reference.precision_score(true, predicted, average="micro"),
            "recall_macro": reference.recall_score(true, predicted, average="macro"),
        }
        for name, value in expected.items():
            assert score(name, probabilities, true, "multi:softprob") == pytest.approx(value), name
            assert score(name, predicted.astype(np.float32), true, "multi:softmax") == pytest.approx(value), (
                name
            )


class TestServing:
    @staticmethod
    def predictor(tmp_path: Path, *boosters: Any, **environ: str) -> Any:
        for i, model in enumerate(boosters):
            name = "xgboost-model" if len(boosters) == 1 else f"xgboost-model-{i}"
            model.save_model(tmp_path / "model.ubj")
            (tmp_path / "model.ubj").rename(tmp_path / name)
        return XGBoost.load_predictor(tmp_path, environ)

    @staticmethod
    def ask(predictor: Any, body: bytes, accept: str = "", content_type: str = "text/csv") -> Any:
        return predictor.predict([Request("/invocations", content_type, accept, "", body)])[0]

    def test_rows_that_arrive_together_and_alone_are_bit_for_bit_plain_xgboost(self, tmp_path: Path) -> None:
        plain = booster("binary:logistic")
        predictor = self.predictor(tmp_path, plain)
        rows = BINARY.data[:300].astype(np.float32)
        expected = plain.predict(xgboost.DMatrix(rows))
        requests = [Request("/invocations", "text/csv", "", "", csv.encode(row[None])) for row in rows]
        requests.insert(3, Request("/invocations", "text/csv", "", "", csv.encode(rows[:5])))
        for _ in range(2):  # the second time by the short way
            responses = predictor.predict(requests)
            assert [float(r.body) for r in responses[:3] + responses[4:]] == expected.tolist()
            assert list(map(float, responses[3].body.split(b"\n"))) == expected[:5].tolist()

    def test_many_rows_in_one_request(self, tmp_path: Path) -> None:
        plain = booster("binary:logistic")
        rows = np.tile(BINARY.data.astype(np.float32), (4, 1))
        response = self.ask(self.predictor(tmp_path, plain), csv.encode(rows))
        assert list(map(float, response.body.split(b"\n"))) == plain.predict(xgboost.DMatrix(rows)).tolist()

    def test_empty_cells_are_missing(self, tmp_path: Path) -> None:
        plain = booster("binary:logistic")
        rows = BINARY.data[:1].astype(np.float32).copy()
        rows[0, 20:] = np.nan
        body = csv.encode(rows).replace(b"nan", b"")
        expected = float(plain.predict(xgboost.DMatrix(rows))[0])
        predictor = self.predictor(tmp_path, plain)
        assert [float(self.ask(predictor, body).body) for _ in range(2)] == [expected] * 2

    def test_formats_in(self, tmp_path: Path) -> None:
        import io

        import pyarrow as pa
        from pyarrow import parquet

        plain = booster("multi:softprob", IRIS, num_class=3)
        row = IRIS.data[:1].astype(np.float32)
        buffer = io.BytesIO()
        parquet.write_table(pa.table({str(i): row[:, i] for i in range(4)}), buffer)
        predictor = self.predictor(tmp_path, plain)
        expected = csv.encode(plain.predict(xgboost.DMatrix(row)))
        bodies = {
            "text/csv": csv.encode(row),
            "text/libsvm": b" ".join(b"%d:%.9g" % (i, v) for i, v in enumerate(row[0])),
            "application/x-recordio-protobuf": recordio.encode(row),
            "application/x-parquet": buffer.getvalue(),
        }
        for content_type, body in bodies.items():
            assert self.ask(predictor, body, content_type=content_type).body == expected, content_type

    def test_formats_out(self, tmp_path: Path) -> None:
        plain = booster("reg:squarederror")
        rows = BINARY.data[:2].astype(np.float32)
        a, b = plain.predict(xgboost.DMatrix(rows)).tolist()
        predictor = self.predictor(tmp_path, plain)
        expected = {
            "*/*": f"{a}\n{b}".encode(),
            "application/json": f'{{"predictions":[{{"score":{a}}},{{"score":{b}}}]}}'.encode(),
            "application/jsonlines": f'{{"score":{a}}}\n{{"score":{b}}}\n'.encode(),
            "application/x-recordio-protobuf": recordio.encode_columns(
                {"score": np.array([a, b], np.float32)}
            ),
        }
        for accept, body in expected.items():
            assert self.ask(predictor, csv.encode(rows), accept).body == body
        legacy = self.predictor(tmp_path, plain, SAGESMITH_IMAGE_REPOSITORY="xgboost")
        assert self.ask(legacy, csv.encode(rows)).body == f"{a},{b}".encode()
        batch = self.predictor(tmp_path, plain, SAGEMAKER_BATCH="true")
        assert self.ask(batch, csv.encode(rows)).body == f"{a}\n{b}\n".encode()

    @pytest.mark.parametrize(
        ("body", "accept", "content_type", "status", "words"),
        [
            (b"1,2", "", "text/csv", 400, b"must have 30 features"),
            (b"1," * 30 + b"1", "", "text/csv", 400, b"Is the label still in it"),
            (b"a" + b",1" * 29, "", "text/csv", 400, b"'a' is not a number"),
            (b"1", "image/png", "text/csv", 406, b"not supported"),
            (b"1", "", "image/png", 415, b"not supported"),
            (b"", "", "text/csv", 204, b""),
            (b"0:1 30:2", "", "text/libsvm", 400, b"must have 30 features"),
        ],
    )
    def test_refusals(
        self, tmp_path: Path, body: bytes, accept: str, content_type: str, status: int, words: bytes
    ) -> None:
        response = self.ask(self.predictor(tmp_path, booster("binary:logistic")), body, accept, content_type)
        assert response.status == status
        assert words in response.body

    def test_selectable_content(self, tmp_path: Path) -> None:
        plain = booster("binary:logistic")
        row = BINARY.data[:1].astype(np.float32)
        p = float(plain.predict(xgboost.DMatrix(row))[0])
        keys = "predicted_label, probability,probabilities,labels"
        predictor = self.predictor(tmp_path, plain, SAGEMAKER_INFERENCE_OUTPUT=keys)
        response = self.ask(predictor, csv.encode(row), "application/json")
        assert json.loads(response.body)["predictions"] == [
            {"predicted_label": int(p > 0.5), "probability": p, "probabilities": [1 - p, p], "labels": [0, 1]}
        ]
        assert (
            self.ask(predictor, csv.encode(row)).body
            == f'{int(p > 0.5)},{p},"[{1 - p}, {p}]","[0, 1]"'.encode()
        )
        with pytest.raises(CustomerError, match="asks for predicted_score"):
            self.predictor(tmp_path, plain, SAGEMAKER_INFERENCE_OUTPUT="predicted_score")

    def test_several_models_are_averaged_or_voted_on(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        rows = IRIS.data[::10].astype(np.float32)
        models = [booster("multi:softprob", IRIS, num_class=3, seed=s, subsample=0.3) for s in range(3)]
        response = self.ask(self.predictor(tmp_path / "a", *models), csv.encode(rows))
        mean = np.mean([m.predict(xgboost.DMatrix(rows)) for m in models], axis=0)
        np.testing.assert_allclose(csv.decode(response.body), mean, rtol=1e-6)
        models = [booster("multi:softmax", IRIS, num_class=3, seed=s, subsample=0.3) for s in range(3)]
        response = self.ask(self.predictor(tmp_path / "b", *models), csv.encode(rows))
        votes = np.stack([m.predict(xgboost.DMatrix(rows)) for m in models]).astype(int)
        assert csv.decode(response.body)[:, 0].tolist() == [np.bincount(v).argmax() for v in votes.T]

    def test_linear_and_dart_models(self, tmp_path: Path) -> None:
        rows = BINARY.data[:3].astype(np.float32)
        for name, options in (("gblinear", {}), ("dart", {"rate_drop": 0.5})):
            folder = tmp_path / name
            folder.mkdir()
            plain = booster("binary:logistic", booster=name, **options)
            response = self.ask(self.predictor(folder, plain), csv.encode(rows))
            np.testing.assert_array_equal(
                csv.decode(response.body)[:, 0], plain.predict(xgboost.DMatrix(rows))
            )

    def test_pickled_boosters_are_read_and_other_pickles_refused(self, tmp_path: Path) -> None:
        plain = booster("binary:logistic")
        (tmp_path / "xgboost-model").write_bytes(pickle.dumps(plain))
        row = BINARY.data[:1].astype(np.float32)
        response = self.ask(XGBoost.load_predictor(tmp_path, {}), csv.encode(row))
        assert float(response.body) == plain.predict(xgboost.DMatrix(row))[0]

        class Evil:
            def __reduce__(self) -> Any:
                return (print, ("run",))

        (tmp_path / "xgboost-model").write_bytes(pickle.dumps(Evil()))
        with pytest.raises(CustomerError, match="print is not allowed"):
            XGBoost.load_predictor(tmp_path, {})

    @pytest.mark.parametrize("data", [b"", b"rubbish", b"{}", b"binf\x00\x00"])
    def test_broken_models_are_refused(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "xgboost-model").write_bytes(data)
        with pytest.raises(CustomerError, match="xgboost-model"):
            XGBoost.load_predictor(tmp_path, {})


class TestJob:
    given: ClassVar[dict[str, str]] = {
        "num_round": "4",
        "objective": "binary:logistic",
        "max_depth": "3",
        "eval_metric": "logloss,accuracy",
    }

    def test_lines_artifact_and_plain_xgboost(self, tmp_path: Path) -> None:
        features, labels = BINARY.data.astype(np.float32), BINARY.target
        channels = {
            "train": (
                "csv",
                {
                    "b/2.csv": a_csv(features[200:400], labels[200:400]),
                    "a.csv": a_csv(features[:200], labels[:200]),
                },
            ),
            "validation": ("text/csv", {"v.csv": a_csv(features[400:], labels[400:])}),
        }
        job = jobs.start(tmp_path / "ml", "xgboost", self.given, channels)
        code, log = job.wait()
        assert code == 0, log
        data, held_out = (
            xgboost.DMatrix(features[:400], labels[:400]),
            xgboost.DMatrix(features[400:], labels[400:]),
        )
        history: dict[str, Any] = {}
        plain = xgboost.train(
            {"objective": "binary:logistic", "max_depth": 3, "nthread": 1},
            data, 4, evals=[(data, "train"), (held_out, "validation")], evals_result=history, verbose_eval=False,
        )  # fmt: skip
        lines = [line for line in log.splitlines() if re.match(r"\[\d+\]", line)]
        assert len(lines) == 4
        accuracy = np.mean((plain.predict(held_out) > 0.5) == labels[400:])
        assert lines[-1].startswith(
            f"[3]\ttrain-logloss:{history['train']['logloss'][-1]:.5f}\ttrain-accuracy:"
        )
        assert lines[-1].endswith(f"\tvalidation-accuracy:{accuracy:.5f}")
        model = xgboost.Booster(model_file=bytearray((job.model_dir / "xgboost-model").read_bytes()))
        np.testing.assert_array_equal(model.predict(held_out), plain.predict(held_out))

    def test_two_hosts_make_the_model_of_one(self, tmp_path: Path) -> None:
        features, labels = BINARY.data.astype(np.float32), BINARY.target
        hosts = ("127.0.1.1", "127.0.1.2", "127.0.1.3")
        parts: list[dict[str, bytes]] = [
            {"a.csv": a_csv(features[:300], labels[:300])}, {"b.csv": a_csv(features[300:], labels[300:])}, {},
        ]  # fmt: skip
        started = [
            jobs.start(
                tmp_path / host, "xgboost", self.given, {"train": ("text/csv", part)}, hosts=hosts, host=host
            )
            for host, part in zip(hosts, parts, strict=True)
        ]
        ended = [job.wait() for job in started]
        assert [code for code, _ in ended] == [0, 0, 0], ended
        assert "No training data on 127.0.1.3" in ended[0][1]
        assert len([line for line in ended[0][1].splitlines() if line.startswith("[3]\t")]) == 1
        assert not list(started[1].model_dir.iterdir())
        model = xgboost.Booster(model_file=bytearray((started[0].model_dir / "xgboost-model").read_bytes()))
        predictions = model.predict(xgboost.DMatrix(features))
        alone = (
            XGBoost(num_round=4, objective="binary:logistic", max_depth=3)
            .fit(features, labels)
            .predict(features)
        )
        assert reference.log_loss(labels, predictions) == pytest.approx(
            reference.log_loss(labels, alone), rel=0.05
        )

    def test_a_host_that_is_killed_ends_the_others_with_a_reason(self, tmp_path: Path) -> None:
        hosts = ("127.0.1.1", "127.0.1.2")
        files = {"a.csv": a_csv(BINARY.data, BINARY.target)}
        started = [
            jobs.start(
                tmp_path / host, "xgboost", {**self.given, "num_round": "1000000"}, {"train": ("text/csv", files)},
                hosts=hosts, host=host,
            )
            for host in hosts
        ]  # fmt: skip
        started[0].wait_for_line("[3]\t")
        started[1].signal(signal.SIGKILL)
        asked = time.monotonic()
        code, log = started[0].wait()
        assert code == 1, log
        assert time.monotonic() - asked < 30
        assert "another instance" in started[0].failure

    def test_cross_validation_makes_a_model_for_each_fold(self, tmp_path: Path) -> None:
        given = {
            "num_round": "2",
            "objective": "multi:softprob",
            "num_class": "3",
            "_kfold": "3",
            "_num_cv_round": "2",
        }
        channels = {"train": ("text/csv", {"a.csv": a_csv(IRIS.data, IRIS.target)})}
        job = jobs.start(tmp_path / "ml", "xgboost", given, channels)
        code, log = job.wait()
        assert code == 0, log
        assert sorted(path.name for path in job.model_dir.iterdir()) == [
            f"xgboost-model-{i}" for i in range(6)
        ]
        assert len([line for line in log.splitlines() if line.startswith("[1]\ttrain-mlogloss:")]) == 7

    def test_a_restarted_job_goes_on_from_its_checkpoint(self, tmp_path: Path) -> None:
        base = tmp_path / "ml"
        (base / "checkpoints").mkdir(parents=True)
        plain = booster("binary:logistic")  # five rounds
        plain.save_model(base / "checkpoints" / "x.ubj")
        (base / "checkpoints" / "x.ubj").rename(base / "checkpoints" / "xgboost-checkpoint.4")
        channels = {"train": ("text/csv", {"a.csv": a_csv(BINARY.data, BINARY.target)})}
        job = jobs.start(base, "xgboost", {**self.given, "num_round": "7"}, channels, checkpoints=True)
        code, log = job.wait()
        assert code == 0, log
        assert [line[:3] for line in log.splitlines() if re.match(r"\[\d+\]\t", line)] == ["[5]", "[6]"]
        assert sorted(path.name for path in (base / "checkpoints").iterdir())[-1] == "xgboost-checkpoint.6"
        model = xgboost.Booster(model_file=bytearray((job.model_dir / "xgboost-model").read_bytes()))
        assert model.num_boosted_rounds() == 7

    def test_a_job_killed_on_the_way_goes_on_where_it_was(self, tmp_path: Path) -> None:
        base, given = tmp_path / "ml", {**self.given, "num_round": "400"}
        (base / "checkpoints").mkdir(parents=True)
        channels = {"train": ("text/csv", {"a.csv": a_csv(BINARY.data, BINARY.target)})}
        job = jobs.start(base, "xgboost", given, channels, checkpoints=True)
        job.wait_for_line("[3]\t")
        job.signal(signal.SIGKILL)
        job.wait()
        done = max(int(path.name.rpartition(".")[2]) for path in (base / "checkpoints").glob("xgboost-*"))
        assert 3 <= done < 399
        (base / "checkpoints").rename(tmp_path / "kept")
        again = tmp_path / "again"
        again.mkdir()
        (tmp_path / "kept").rename(again / "checkpoints")
        code, log = jobs.start(again, "xgboost", given, channels, checkpoints=True).wait()
        assert code == 0, log
        rounds = [int(found) for found in re.findall(r"(?m)^\[(\d+)\]\t", log)]
        assert rounds == list(range(done + 1, 400))
        model = xgboost.Booster(model_file=bytearray((again / "model" / "xgboost-model").read_bytes()))
        assert model.num_boosted_rounds() == 400

    def test_checkpoints_are_kept_only_if_asked(self, tmp_path: Path) -> None:
        (tmp_path / "checkpoints").mkdir()  # a container has the folder in any case
        channels = {"train": ("text/csv", {"a.csv": a_csv(BINARY.data, BINARY.target)})}
        code, log = jobs.start(tmp_path, "xgboost", {**self.given, "num_round": "2"}, channels).wait()
        assert code == 0, log
        assert not list((tmp_path / "checkpoints").iterdir())

    def test_stopping_keeps_the_model_so_far_if_asked(self, tmp_path: Path) -> None:
        given = {**self.given, "num_round": "1000000", "save_model_on_termination": "true"}
        channels = {"train": ("text/csv", {"a.csv": a_csv(BINARY.data, BINARY.target)})}
        job = jobs.start(tmp_path / "ml", "xgboost", given, channels)
        job.wait_for_line("[3]\t")
        asked = time.monotonic()
        job.signal(signal.SIGTERM)
        code, _ = job.wait()
        assert code == 0
        assert time.monotonic() - asked < 10
        model = xgboost.Booster(model_file=bytearray((job.model_dir / "xgboost-model").read_bytes()))
        assert model.num_boosted_rounds() >= 4

    def test_errors_in_the_data_name_file_and_line(self, tmp_path: Path) -> None:
        channels = {"train": ("", {"part/a.csv": b"1,2,3\n4,5,6\n"}), "tests": ("text/csv", {})}
        job = jobs.start(tmp_path / "ml", "xgboost", {"num_round": "1"}, channels)
        assert job.wait()[0] == 1
        assert "The channel 'tests' is not known: expected train, validation" in job.failure
        del channels["tests"]
        job = jobs.start(tmp_path / "again", "xgboost", {"num_round": "1"}, channels)
        assert job.wait()[0] == 1
        assert "part/a.csv: line 1 ('1,2,3') is not LibSVM" in job.failure
        assert "set the channel's content type to text/csv" in job.failure
