from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import decomposition
from sklearn.datasets import load_breast_cancer, load_digits

from sagesmith_algorithms import PCA, CustomerError, DataError, pca
from sagesmith_algorithms.formats import csv, mxnet, recordio
from sagesmith_algorithms.formats.batch import Batch
from tests.algorithms import jobs, serving

Floats = npt.NDArray[np.float32]
DIGITS: Floats = load_digits().data.astype(np.float32)
MODES = ("regular", "randomized")


@pytest.fixture(autouse=True)
def _rows_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The randomized mode would else be the regular one for rows as short as those here."""
    monkeypatch.setattr(pca, "_EXACT_FEATURES", 0)


def cosine(model: PCA, reference: Any) -> float:
    """Return the least cosine between the two spaces."""
    return float(np.linalg.svd(model.components_ @ reference.components_.T)[1].min())


@pytest.mark.parametrize("mode", MODES)
def test_a_line_worked_by_hand(mode: str) -> None:
    points = np.array([[1, 1], [2, 3], [3, 5]])  # y = 2 x - 1, around (2, 3)
    model = PCA(num_components=1, algorithm_mode=mode).fit(points)
    np.testing.assert_allclose(model.components_, [[1 / np.sqrt(5), 2 / np.sqrt(5)]], rtol=1e-5)
    np.testing.assert_allclose(model.singular_values_, [np.sqrt(10)], rtol=1e-5)
    np.testing.assert_allclose(model.transform(points), [[-np.sqrt(5)], [0], [np.sqrt(5)]], atol=1e-5)
    np.testing.assert_allclose(model.inverse_transform([[0.0]]), [[2, 3]], rtol=1e-5)
    np.testing.assert_allclose(model.explained_variance_ratio_, [1], rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("data", [DIGITS, load_breast_cancer().data / 100 + 50], ids=["digits", "cancer"])
def test_the_components_are_those_of_scikit_learn(mode: str, data: Floats) -> None:
    reference = decomposition.PCA(6, svd_solver="covariance_eigh").fit(data)
    model = PCA(num_components=6, algorithm_mode=mode, extra_components=24, mini_batch_size=100).fit(data)
    held = reference.explained_variance_ratio_
    np.testing.assert_allclose(model.explained_variance_ratio_, held, rtol=2e-3, atol=1e-5)
    np.testing.assert_allclose(model.mean_, reference.mean_, rtol=1e-5, atol=1e-6)
    if data is DIGITS:
        assert cosine(model, reference) > 0.999


@pytest.mark.parametrize("mode", MODES)
def test_the_mean_may_be_left(mode: str) -> None:
    model = PCA(num_components=5, subtract_mean=False, algorithm_mode=mode).fit(DIGITS)
    _, singular, vectors = np.linalg.svd(DIGITS.astype(float), full_matrices=False)
    np.testing.assert_allclose(model.singular_values_, singular[:5], rtol=1e-2)
    assert np.linalg.svd(model.components_ @ vectors[:5].T)[1].min() > 0.99
    assert not model.mean_.any()


@pytest.mark.parametrize("mode", MODES)
def test_parts_of_the_rows_merged_are_as_all_of_them(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from sagesmith_algorithms import pca

    monkeypatch.setattr(pca, "_GROUP_ROWS", 50)  # many groups
    options: dict[str, Any] = {
        "num_components": 8,
        "feature_dim": 64,
        "mini_batch_size": 25,
        "algorithm_mode": mode,
    }
    data = DIGITS[np.argsort(DIGITS[:, 20])] + 1000  # the parts have means of their own
    merged = PCA(**options)
    for part in np.array_split(data, 3):
        host = PCA(**options)
        host.update(Batch(part))
        merged.merge(host.state())
    merged.merge(PCA(**options).state())  # a host without data
    merged.finalize()
    reference = decomposition.PCA(8).fit(DIGITS)
    assert cosine(merged, reference) > (0.9999 if mode == "regular" else 0.99)
    held = reference.explained_variance_ratio_.sum()
    assert merged.explained_variance_ratio_.sum() == pytest.approx(
        held, rel=1e-3 if mode == "regular" else 1e-2
    )


def test_constant_rows_have_components_without_variance() -> None:
    for mode in MODES:
        model = PCA(num_components=2, algorithm_mode=mode).fit(np.full((5, 3), 7.0))
        np.testing.assert_allclose(model.transform(np.full((1, 3), 7.0)), [[0, 0]], atol=1e-5)
        np.testing.assert_allclose(model.components_ @ model.components_.T, np.eye(2), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        ({"num_components": 3}, np.zeros((9, 2)), "num_components=3 is more than feature_dim=2"),
        ({"num_components": 3}, np.zeros((2, 5)), "2 rows have no 3 components"),
        ({"num_components": 1}, np.array([[1.0, np.nan]]), "missing or infinite"),
        ({"num_components": 0}, np.zeros((3, 2)), "'num_components': expected an integer at least 1"),
        ({"algorithm_mode": "random"}, np.zeros((3, 2)), "Did you mean 'randomized'"),
        ({"extra_components": -2}, np.zeros((3, 2)), "'extra_components': expected an integer at least -1"),
    ],
)
def test_refusals(options: dict[str, Any], data: Any, message: str) -> None:
    with pytest.raises(CustomerError, match=re.escape(message)):
        PCA(**options).fit(data)


class TestArtifact:
    def test_it_has_the_arrays_of_aws(self, tmp_path: Path) -> None:
        model = PCA(num_components=4).fit(DIGITS)
        model.save(tmp_path)
        arrays = mxnet.load_named((tmp_path / "model_algo-1").read_bytes())
        assert {name: array.shape for name, array in arrays.items()} == {
            "s": (4,), "v": (64, 4), "mean": (1, 64),
        }  # fmt: skip
        assert (np.diff(arrays["s"]) > 0).all()
        loaded = PCA.load(tmp_path)
        np.testing.assert_array_equal(loaded.transform(DIGITS), model.transform(DIGITS))
        np.testing.assert_array_equal(loaded.singular_values_, model.singular_values_)

    @pytest.mark.parametrize(
        "arrays",
        [
            {},
            {"v": np.ones((3, 2), np.float32)},
            {"v": np.ones((3, 2), np.float32), "s": np.ones(2, np.float32), "mean": np.ones(4, np.float32)},
        ],
    )
    def test_others_are_refused(self, tmp_path: Path, arrays: dict[str, Floats]) -> None:
        with pytest.raises(CustomerError, match="not made by PCA"):
            PCA.load(tmp_path)
        (tmp_path / "model_algo-1").write_bytes(mxnet.dump(list(arrays.values()), list(arrays)))
        with pytest.raises(DataError, match="model_algo-1"):
            PCA.load(tmp_path)


def test_every_form_in_and_out(tmp_path: Path) -> None:
    model = PCA(num_components=2, feature_dim=3, mini_batch_size=1)
    model.components_ = np.array([[1, 0, 0], [0, 0, 1]], np.float32)
    model.singular_values_ = np.array([2, 1], np.float32)
    model.mean_ = np.array([1, 1, 1], np.float32)
    model.save(tmp_path)
    predictor = PCA.load_predictor(tmp_path, {})
    rows = np.array([[1, 2, 3], [4, 5, 6]])
    expected = [{"projection": [2.0, 0.0]}, {"projection": [5.0, 3.0]}]  # the largest variance comes last
    serving.check_every_form(predictor, rows, expected, "projections")
    assert (
        serving.ask(predictor, serving.CSV, "", b"1,2,3").body
        == b'{"projections":[{"projection":[2.0,0.0]}]}'
    )
    assert serving.ask(predictor, serving.CSV, "", b"1,2").status == 400


class TestJob:
    def test_log_and_artifact(self, tmp_path: Path) -> None:
        given = {"num_components": "10", "feature_dim": "64", "mini_batch_size": "500"}
        channels = {
            "train": (serving.RECORDIO, {"matrix_0.pbr": recordio.encode(DIGITS)}),
            "test": ("text/csv;label_size=0", {"a.csv": csv.encode(DIGITS)}),
        }
        job = jobs.start(tmp_path / "ml", "pca", given, channels)
        code, log = job.wait()
        assert code == 0, log
        reference = decomposition.PCA(10).fit(DIGITS)
        assert cosine(PCA.load(job.model_dir), reference) > 0.9999
        found = re.search(r"#quality_metric: host=algo-1, test explained_variance_ratio <score>=(\S+)", log)
        assert found
        held = reference.explained_variance_ratio_.sum()
        assert float(found[1]) == pytest.approx(held, rel=1e-4)

    def test_two_hosts_make_the_model_of_one(self, tmp_path: Path) -> None:
        given = {"num_components": "5", "feature_dim": "64", "mini_batch_size": "500"}
        hosts = ("127.0.1.1", "127.0.1.2")
        started = [
            jobs.start(
                tmp_path / host, "pca", given, {"train": (serving.RECORDIO, {"part": recordio.encode(part)})},
                hosts=hosts, host=host,
            )
            for host, part in zip(hosts, (DIGITS[:1000], DIGITS[1000:]), strict=True)
        ]  # fmt: skip
        ended = [job.wait() for job in started]
        assert [code for code, _ in ended] == [0, 0], ended
        assert cosine(PCA.load(started[0].model_dir), decomposition.PCA(5).fit(DIGITS)) > 0.9999
        assert not list(started[1].model_dir.iterdir())

    @pytest.mark.parametrize(
        ("content_type", "content", "message"),
        [
            (serving.CSV, b"1,2,3\n1,2\n", "line 2 has 2 columns"),
            (serving.CSV, b"0,1,2\n0,,4\n", "missing or infinite"),
            ("text/csv;label_size=0", b"1,2,3\n", "rows have 3 features, but feature_dim is 2"),
            (serving.RECORDIO, recordio.encode(np.ones((3, 2), np.float32))[:-5], "record 3 is cut short"),
            ("image/png", b"x", "has the content type 'image/png'"),
        ],
    )
    def test_bad_data_fail_it_with_a_sentence(
        self, tmp_path: Path, content_type: str, content: bytes, message: str
    ) -> None:
        given = {"num_components": "1", "feature_dim": "2", "mini_batch_size": "500"}
        job = jobs.start(tmp_path / "ml", "pca", given, {"train": (content_type, {"data": content})})
        assert job.wait()[0] == 1
        assert message in job.failure
