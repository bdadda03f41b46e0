from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestNeighbors

from sagesmith_algorithms import KNN, CustomerError
from sagesmith_algorithms.formats import recordio
from sagesmith_algorithms.formats.batch import Batch
from tests.algorithms import jobs, serving

X, Y = load_digits(return_X_y=True)
TRAIN, TEST, TRAIN_Y, TEST_Y = train_test_split(X, Y, random_state=0)
LINE = np.array([[0.0], [1.0], [2.0], [10.0]])


def recall(model: KNN, reference: Any) -> float:
    _, found = model.kneighbors(TEST)
    truth = reference.kneighbors(TEST, found.shape[1], return_distance=False)
    return float(np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(found, truth, strict=True)]))


def test_votes_and_means_worked_by_hand() -> None:
    labels = np.array([5.0, 5.0, 7.0, 9.0])
    assert KNN(k=3).fit(LINE, labels).predict([[1.9]]).tolist() == [5]
    assert KNN(k=2).fit(LINE, labels).predict([[1.9]]).tolist() == [7]  # a tie goes to the nearest
    model = KNN(k=2, predictor_type="regressor").fit(LINE, labels)
    assert model.predict([[1.9]]).tolist() == [6]
    distances, found = model.kneighbors([[9.0]])
    assert (distances.tolist(), found.tolist()) == ([[1.0, 7.0]], [[3, 2]])


@pytest.mark.parametrize("k", [1, 10, 1000])
def test_neighbors_are_those_of_scikit_learn(k: int) -> None:
    offset = 1000.0  # far from the origin
    model = KNN(k=k).fit(TRAIN + offset, TRAIN_Y)
    distances, _ = model.kneighbors(TEST[:100] + offset)
    expected, _ = NearestNeighbors(n_neighbors=k).fit(TRAIN).kneighbors(TEST[:100])
    np.testing.assert_allclose(distances, expected, rtol=1e-4, atol=1e-4)


def test_accuracy_and_error_are_those_of_scikit_learn() -> None:
    reference = KNeighborsClassifier(5).fit(TRAIN, TRAIN_Y).score(TEST, TEST_Y)
    assert (KNN(k=5).fit(TRAIN, TRAIN_Y).predict(TEST) == TEST_Y).mean() >= reference - 0.005
    x, test_x, y, test_y = train_test_split(*load_diabetes(return_X_y=True), random_state=0)
    expected = KNeighborsRegressor(10).fit(x, y).predict(test_x)
    found = KNN(k=10, predictor_type="regressor").fit(x, y).predict(test_x)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    del test_y


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({"index_type": "faiss.IVFFlat"}, 0.97),
        ({"index_type": "faiss.IVFFlat", "faiss_index_ivf_nlists": 1}, 0.998),
        ({"index_type": "faiss.IVFPQ", "faiss_index_pq_m": 16}, 0.75),
        ({"index_type": "faiss.IVFPQ", "faiss_index_pq_m": 12}, 0.6),  # 64 features are filled up to 72
        ({"dimension_reduction_type": "sign", "dimension_reduction_target": 48}, 0.5),
        ({"dimension_reduction_type": "fjlt", "dimension_reduction_target": 48}, 0.5),
    ],
)
def test_what_is_approximate_finds_most_neighbors(options: dict[str, Any], least: float) -> None:
    model = KNN(k=10, **options).fit(TRAIN, TRAIN_Y)
    assert recall(model, NearestNeighbors().fit(TRAIN)) >= least
    assert (model.predict(TEST) == TEST_Y).mean() > 0.95


@pytest.mark.parametrize("index_type", ["faiss.Flat", "faiss.IVFFlat"])
def test_other_metrics(index_type: str) -> None:
    options: dict[str, Any] = {"k": 5, "index_type": index_type, "faiss_index_ivf_nlists": 2}
    distances, _ = KNN(index_metric="COSINE", **options).fit(TRAIN, TRAIN_Y).kneighbors(TEST)
    expected, _ = NearestNeighbors(n_neighbors=5, metric="cosine").fit(TRAIN).kneighbors(TEST)
    np.testing.assert_allclose(distances, 1 - expected, atol=1e-5)
    products, _ = KNN(index_metric="INNER_PRODUCT", **options).fit(TRAIN, TRAIN_Y).kneighbors(TEST)
    np.testing.assert_allclose(products, -np.sort(-(TEST @ TRAIN.T), axis=1)[:, :5], rtol=1e-5)


def test_lists_with_too_few_points_are_joined_by_others() -> None:
    model = KNN(k=20, index_type="faiss.IVFFlat", faiss_index_ivf_nlists=30).fit(TRAIN[:40], TRAIN_Y[:40])
    distances, found = model.kneighbors(TEST)
    assert all(len(set(one)) == 20 for one in found.tolist())
    assert np.isfinite(distances).all()


class TestSample:
    def test_it_has_the_size_asked_for_and_is_uniform(self) -> None:
        model = KNN(k=1, feature_dim=1, sample_size=500)
        rows = np.arange(20000, dtype=np.float32)[:, None]
        for part in np.array_split(rows, 40):
            model.update(Batch(part, part[:, 0]))
        kept = model.state()["rows"][:, 0]
        assert len(set(kept.tolist())) == 500
        counts = np.histogram(kept, 10, (0, 20000))[0]
        assert counts.min() > 25
        assert counts.max() < 80

    def test_hosts_make_one_of_theirs(self) -> None:
        options: dict[str, Any] = {"k": 3, "feature_dim": 64, "sample_size": 1000}
        merged = KNN(**options)
        for part in (slice(0, 900), slice(900, None)):
            host = KNN(**options)
            host.update(Batch(X[part].astype(np.float32), Y[part].astype(np.float32)))
            merged.merge(host.state())
        merged.merge(KNN(**options).state())  # a host without data
        merged.finalize()
        assert len(merged._labels) == 1000
        assert (merged.predict(X) == Y).mean() > 0.97


@pytest.mark.parametrize(
    ("options", "x", "y", "message"),
    [
        ({"k": 5}, LINE, np.ones(4), "4 rows have no k=5 neighbors"),
        ({"k": 1}, LINE, [1, 2, 3, np.nan], "the label is missing"),
        ({"k": 1}, [[np.inf]], [1], "missing or infinite"),
        ({"k": 1, "sample_size": 0}, LINE, np.ones(4), "'sample_size': expected an integer at least 1"),
        ({"k": 9, "sample_size": 8}, LINE, np.ones(4), "k=9 is more than sample_size=8"),
        ({"index_type": "faiss.IVFPQ"}, LINE, np.ones(4), "faiss_index_pq_m is required"),
        ({"faiss_index_pq_m": 5}, LINE, np.ones(4), "faiss_index_pq_m=5: expected one of 1, 2, 3"),
        (
            {"index_type": "faiss.IVFPQ", "faiss_index_pq_m": 1, "index_metric": "COSINE"},
            LINE,
            np.ones(4),
            "use L2",
        ),
        ({"dimension_reduction_type": "sign"}, LINE, np.ones(4), "dimension_reduction_target is required"),
        (
            {"dimension_reduction_target": 1},
            LINE,
            np.ones(4),
            "means nothing without dimension_reduction_type",
        ),
    ],
)
def test_refusals(options: dict[str, Any], x: Any, y: Any, message: str) -> None:
    with pytest.raises(CustomerError, match=re.escape(message)):
        KNN(**{"sample_size": 100, **options}).fit(x, y)


class TestServing:
    def test_every_form_in_and_out(self, tmp_path: Path) -> None:
        KNN(k=2).fit(LINE, np.array([5.0, 5, 7, 7])).save(tmp_path)
        predictor = KNN.load_predictor(tmp_path, {})
        rows = np.array([[0.0], [9.0]])
        serving.check_every_form(predictor, rows, [{"predicted_label": 5.0}, {"predicted_label": 7.0}])
        answer = serving.ask(predictor, serving.CSV, "application/json; verbose=true", b"1.25")
        assert json.loads(answer.body)["predictions"] == [
            {"predicted_label": 5.0, "distances": [0.25, 0.75], "labels": [5.0, 7.0]}
        ]
        verbose = serving.ask(predictor, serving.CSV, f"{serving.RECORDIO}; verbose=true", b"1.25")
        assert serving.answers(verbose)[0]["labels"] == [5.0, 7.0]
        assert serving.ask(predictor, serving.CSV, "", b"1,2").status == 400

    @pytest.mark.parametrize(
        "options",
        [
            {"index_type": "faiss.IVFPQ", "faiss_index_pq_m": 8},
            {
                "dimension_reduction_type": "fjlt",
                "dimension_reduction_target": 16,
                "index_type": "faiss.IVFFlat",
            },
        ],
    )
    def test_the_artifact_gives_the_same_model(self, tmp_path: Path, options: dict[str, Any]) -> None:
        model = KNN(k=3, seed=4, **options).fit(TRAIN, TRAIN_Y)
        model.save(tmp_path)
        np.testing.assert_array_equal(KNN.load(tmp_path).kneighbors(TEST)[1], model.kneighbors(TEST)[1])

    def test_others_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CustomerError, match="not made by k-NN"):
            KNN.load(tmp_path)
        (tmp_path / "model_algo-1").write_bytes(b"x" * 100)
        with pytest.raises(CustomerError, match="not an artifact"):
            KNN.load(tmp_path)


GIVEN = {"k": "3", "feature_dim": "64", "predictor_type": "classifier", "sample_size": "2000"}


class TestJob:
    def test_two_hosts(self, tmp_path: Path) -> None:
        hosts = ("127.0.1.1", "127.0.1.2")
        test = recordio.encode(TEST.astype(np.float32), TEST_Y)
        started = [
            jobs.start(
                tmp_path / host, "knn", GIVEN,
                {
                    "train": (serving.RECORDIO, {"part": recordio.encode(TRAIN[part].astype(np.float32), TRAIN_Y[part])}),
                    "test": (serving.RECORDIO, {"t": test}),
                },
                hosts=hosts, host=host, replicated=("test",),
            )
            for host, part in zip(hosts, (slice(600), slice(600, None)), strict=True)
        ]  # fmt: skip
        ended = [job.wait() for job in started]
        assert [code for code, _ in ended] == [0, 0], ended
        accuracy = (KNN.load(started[0].model_dir).predict(TEST) == TEST_Y).mean()
        assert accuracy >= KNeighborsClassifier(3).fit(TRAIN, TRAIN_Y).score(TEST, TEST_Y) - 0.005
        found = re.search(r"#quality_metric: host=\S+, test accuracy <score>=(\S+)", ended[0][1])
        assert found
        assert float(found[1]) == pytest.approx(accuracy)
        assert "#test_score (127.0.1.1) : ('accuracy', 0.9" in ended[0][1]

    @pytest.mark.parametrize(
        ("content_type", "content", "message"),
        [
            (serving.CSV, b"1,2,x\n", "'x' is not a number"),
            ("text/csv;label_size=0", b"1,2\n", "rows have no label"),
            (serving.CSV, b"1,2,3\n1,2\n", "line 2 has 2 columns"),
        ],
    )
    def test_bad_data_fail_it_with_a_sentence(
        self, tmp_path: Path, content_type: str, content: bytes, message: str
    ) -> None:
        given = {**GIVEN, "feature_dim": "2", "k": "1"}
        job = jobs.start(tmp_path / "ml", "knn", given, {"train": (content_type, {"d": content})})
        assert job.wait()[0] == 1
        assert message in job.failure
