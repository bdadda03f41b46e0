from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans as Reference
from sklearn.datasets import load_iris, make_blobs

from sagesmith_algorithms import CustomerError, DataError, HyperparameterError, KMeans, clustering
from sagesmith_algorithms.formats import mxnet, recordio
from sagesmith_algorithms.formats.batch import Batch
from sagesmith_toolkit.server import Request
from tests.algorithms import jobs

CORNERS = np.array([[0, 0], [0, 2], [10, 0], [10, 2]], np.float32)


def test_four_corners_worked_by_hand() -> None:
    model = KMeans(k=2).fit(CORNERS)
    np.testing.assert_allclose(sorted(model.cluster_centers_.tolist()), [[0, 1], [10, 1]])
    assert model.inertia_ == pytest.approx(4.0)
    np.testing.assert_allclose(model.transform(np.array([[10, 1]])).min(axis=1), [0], atol=1e-6)
    assert model.get_params() == {"k": 2, "seed": 0}


def test_inertia_on_iris_is_that_of_scikit_learn() -> None:
    data = load_iris().data
    reference = Reference(3, n_init=10, random_state=0).fit(data)
    assert KMeans(k=3).fit(data).inertia_ == pytest.approx(reference.inertia_, rel=1e-4)


@pytest.mark.parametrize(
    "options", [{}, {"init_method": "kmeans++"}, {"epochs": 2}, {"half_life_time_size": 20000}]
)
def test_inertia_of_streamed_blobs_is_that_of_scikit_learn(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sagesmith_algorithms import kmeans

    monkeypatch.setattr(kmeans, "_KEPT_ROWS", 1000)  # as if the data did not fit
    data, _ = make_blobs(20000, 10, centers=20, cluster_std=2.0, random_state=3)
    reference = Reference(20, n_init=5, random_state=0).fit(data.astype(np.float32))
    model = KMeans(k=20, mini_batch_size=1000, **options).fit(data)
    assert model.inertia_ <= 1.01 * reference.inertia_


def test_data_far_from_the_origin_lose_no_digits() -> None:
    data, _ = make_blobs(3000, 3, centers=5, cluster_std=0.5, random_state=3)
    near, far = KMeans(k=5).fit(data), KMeans(k=5).fit(data + 10000.0)
    assert far.inertia_ == pytest.approx(near.inertia_, rel=1e-2)


def test_equal_seeds_give_equal_centers() -> None:
    data, _ = make_blobs(5000, 4, centers=7, random_state=1)
    a, b = (KMeans(k=7, seed=5).fit(data) for _ in range(2))
    np.testing.assert_array_equal(a.cluster_centers_, b.cluster_centers_)


@pytest.mark.parametrize("kept", [10, 1 << 16])
def test_merged_states_are_as_good_as_one(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from sagesmith_algorithms import kmeans

    monkeypatch.setattr(kmeans, "_KEPT_ROWS", kept)
    data = make_blobs(6000, 5, centers=8, random_state=2)[0].astype(np.float32)
    merged = KMeans(k=8, feature_dim=5)
    for part in np.array_split(data, 3):
        host = KMeans(k=8, feature_dim=5, mini_batch_size=500)
        host.update(Batch(part))
        merged.merge(host.state())
    merged.merge(KMeans(k=8, feature_dim=5).state())  # a host without data
    merged.finalize()
    alone = KMeans(k=8).fit(data)
    assert merged.measure(Batch(data))["ssd"] == pytest.approx(alone.inertia_, rel=0.01)


def test_fewer_distinct_points_than_centers() -> None:
    assert KMeans(k=3).fit(np.array([[1.0], [1.0], [2.0]])).inertia_ == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        ({"k": 5}, np.zeros((3, 2)), "3 rows cannot be put into k=5"),
        ({"k": 1}, np.array([[1.0, np.nan]]), "missing or infinite"),
        ({"k": 0}, np.zeros((3, 2)), "'k': expected an integer at least 1"),
    ],
)
def test_refusals(options: dict[str, Any], data: Any, message: str) -> None:
    with pytest.raises(CustomerError, match=message):
        KMeans(**options).fit(data)


def test_kmeans_plus_plus_chooses_far_points_and_needs_k_in_range() -> None:
    rng = np.random.default_rng(0)
    chosen = clustering.kmeans_plus_plus(CORNERS, np.ones(4), 4, rng=rng)
    np.testing.assert_array_equal(np.sort(chosen, axis=0), np.sort(CORNERS, axis=0))
    with pytest.raises(ValueError, match="k must be from 1"):
        clustering.kmeans_plus_plus(CORNERS, np.ones(4), 5, rng=rng)


def test_an_empty_cluster_moves_to_the_farthest_point() -> None:
    start = np.array([[0, 1], [5, 1], [1000, 1000]], np.float32)
    centers, loss = clustering.lloyd(CORNERS, None, start, max_iter=100, tol=0.0)
    assert loss == pytest.approx(2.0)
    assert len(np.unique(centers, axis=0)) == 3


class TestArtifact:
    def test_it_is_an_mxnet_file(self, tmp_path: Path) -> None:
        model = KMeans(k=2).fit(CORNERS)
        model.save(tmp_path)
        data = (tmp_path / "model_algo-1").read_bytes()
        np.testing.assert_array_equal(
            np.frombuffer(data, np.float32, 4, 64).reshape(2, 2), model.cluster_centers_
        )
        np.testing.assert_array_equal(KMeans.load(tmp_path).cluster_centers_, model.cluster_centers_)

    def test_the_bytes_worked_by_hand(self) -> None:
        assert mxnet.dump([np.array([[1.0]], np.float32)], ["c"]).hex() == "".join(
            "1201000000000000 0000000000000000 0100000000000000"  # magic, reserved, one array
            "c9fa93f9 00000000 02000000 0100000000000000 0100000000000000"  # version 2, dense, shape (1, 1)
            "01000000 00000000 00000000 0000803f"  # on the CPU, float32, 1.0
            "0100000000000000 0100000000000000 63"  # one name: c
        ).replace(" ", "")

    def test_older_versions_are_read(self) -> None:
        v2 = mxnet.dump([np.array([[1.0, 2.0]], np.float32)])
        oldest = v2[:24] + bytes.fromhex("020000000100000002000000") + v2[24 + 28 :]
        np.testing.assert_array_equal(mxnet.load(oldest)[0], [[1, 2]])

    @pytest.mark.parametrize("data", [b"", b"x" * 100, mxnet.dump([np.ones((2, 2), np.float32)])[:-20]])
    def test_others_are_refused(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "model_algo-1").write_bytes(data)
        with pytest.raises(DataError, match="model_algo-1"):
            KMeans.load(tmp_path)


class TestServing:
    @pytest.fixture
    def predict(self, tmp_path: Path) -> Any:
        folder = tmp_path
        model = KMeans(k=2)
        model.cluster_centers_ = np.array([[0, 0], [10, 0]], np.float32)
        model.save(folder)
        predictor = KMeans.load_predictor(folder, {})

        def predict(*requests: tuple[str, str, bytes]) -> Any:
            return predictor.predict(
                [Request("/invocations", content, accept, "", body) for content, accept, body in requests]
            )

        return predict

    def test_every_form_in_and_out(self, predict: Any) -> None:
        row = np.array([[3, 4]], np.float32)
        bodies = {
            "text/csv": b"3,4",
            "application/json": b'{"instances": [{"features": [3, 4]}]}',
            "application/jsonlines": b'{"features": [3, 4]}\n',
            "application/x-recordio-protobuf": recordio.encode(row),
        }
        answers = {
            "application/json": b'{"predictions":[{"closest_cluster":0.0,"distance_to_cluster":5.0}]}',
            "application/jsonlines": b'{"closest_cluster":0.0,"distance_to_cluster":5.0}\n',
            "text/csv": b"0.0,5.0",
            "application/x-recordio-protobuf": recordio.encode_columns(
                {"closest_cluster": np.zeros(1, np.float32), "distance_to_cluster": np.full(1, 5, np.float32)}
            ),
        }
        combinations = [(content, accept, body) for content, body in bodies.items() for accept in answers]
        responses = predict(*combinations)
        assert [(r.status, r.content_type, r.body) for r in responses] == [
            (200, accept, answers[accept]) for _, accept, _ in combinations
        ]

    def test_bad_requests_among_good_ones(self, predict: Any) -> None:
        good = ("text/csv", "", b"9,0\n1,0")
        responses = predict(
            good, ("text/csv", "", b"1,2,3"), ("image/png", "", b"x"), ("text/csv", "image/png", b"1,2"),
            ("text/csv", "", b""), ("text/csv", "", b"1,a"), ("text/csv", "", b"1,"), good,
        )  # fmt: skip
        assert [r.status for r in responses] == [200, 400, 415, 406, 204, 400, 400, 200]
        assert json.loads(responses[0].body)["predictions"][1] == {
            "closest_cluster": 0.0,
            "distance_to_cluster": 1.0,
        }
        assert responses[0] == responses[-1]
        assert (
            responses[1].body == b"Each row must have 2 features, as the model was trained with, but has 3."
        )

    def test_response_records_are_labels(self, predict: Any) -> None:
        (response,) = predict(("text/csv", "application/x-recordio-protobuf", b"9,0\n0,0"))
        from sagesmith_algorithms.formats.protobuf import parse_record

        length = int.from_bytes(response.body[4:8], "little")
        label = parse_record(response.body, 8, 8 + length).label
        assert {name: t.values.tolist() for name, t in label.items()} == {
            "closest_cluster": [1.0], "distance_to_cluster": [1.0],
        }  # fmt: skip


def quality(log: str, name: str, host: str = "algo-1") -> float:
    """Return the value AWS's metric definition finds."""
    found = re.findall(rf"#quality_metric: host={host}, test {name} <loss>=(\S+)", log)
    assert len(found) == 1, log
    return float(found[0])


class TestJob:
    def test_log_and_artifact(self, tmp_path: Path) -> None:
        data = load_iris().data.astype(np.float32)
        content = recordio.encode(data)
        given = {"k": "3", "feature_dim": "4", "mini_batch_size": "100", "eval_metrics": '["msd","ssd"]'}
        channels = {
            "train": ("application/x-recordio-protobuf", {"matrix_0.pbr": content}),
            "test": (
                "text/csv;label_size=0",
                {"a.csv": b"\n".join(b"%f,%f,%f,%f" % tuple(r) for r in data.tolist())},
            ),
        }
        job = jobs.start(tmp_path / "ml", "kmeans", given, channels)
        code, log = job.wait()
        assert code == 0, log
        model = KMeans.load(job.model_dir)
        ssd = model.measure(Batch(data))["ssd"]
        assert ssd == pytest.approx(78.85, rel=1e-3)
        assert log.startswith("Docker entrypoint called with argument(s): train\n")
        assert "#progress_metric: host=algo-1, completed 100.0 % of epochs\n" in log
        assert quality(log, "msd") == pytest.approx(ssd / 150, rel=1e-5)
        assert quality(log, "ssd") == pytest.approx(ssd, rel=1e-5)
        metrics = [
            json.loads(line.partition(" ")[2]) for line in log.splitlines() if line.startswith("#metrics ")
        ]
        assert metrics[0]["Dimensions"] == {
            "Algorithm": "AWS/KMeansWebscale", "Host": "algo-1", "Operation": "training", "epoch": 0,
        }  # fmt: skip

    def test_customer_errors_reach_the_failure_file(self, tmp_path: Path) -> None:
        job = jobs.start(
            tmp_path / "ml", "kmeans", {"k": "x", "feature_dims": "4"}, {"train": ("text/csv", {})}
        )
        code, _ = job.wait()
        assert code == 1
        assert job.failure.startswith("Customer Error: ")
        for words in ("Did you mean 'feature_dim'?", "'x' is not valid for the hyperparameter 'k'"):
            assert words in job.failure

    def test_two_hosts_make_the_model_of_one(self, tmp_path: Path) -> None:
        data = make_blobs(4000, 3, centers=6, random_state=4)[0].astype(np.float32)
        given = {"k": "6", "feature_dim": "3"}
        hosts = ("127.0.1.1", "127.0.1.2")
        started = [
            jobs.start(
                tmp_path / host, "kmeans", given,
                {
                    "train": ("application/x-recordio-protobuf", {"part": recordio.encode(part)}),
                    "test": ("application/x-recordio-protobuf", {"part": recordio.encode(part)}),
                },
                hosts=hosts, host=host,
            )
            for host, part in zip(hosts, (data[:2500], data[2500:]), strict=True)
        ]  # fmt: skip
        ended = [job.wait() for job in started]
        assert [code for code, _ in ended] == [0, 0], ended
        model = KMeans.load(started[0].model_dir)
        alone = KMeans(k=6).fit(data)
        assert model.measure(Batch(data))["ssd"] == pytest.approx(alone.inertia_, rel=0.01)
        assert quality(ended[0][1], "msd", "127.0.1.1") == pytest.approx(alone.inertia_ / 4000, rel=0.01)
        assert not list(started[1].model_dir.iterdir())

    def test_a_host_that_fails_ends_the_other_with_a_reason(self, tmp_path: Path) -> None:
        hosts = ("127.0.1.1", "127.0.1.2")
        good = ("text/csv", {"a.csv": b"1,1,2\n1,3,4\n"})
        started = [
            jobs.start(
                tmp_path / host,
                "kmeans",
                {"k": "1", "feature_dim": "2"},
                {"train": channel},
                hosts=hosts,
                host=host,
            )
            for host, channel in zip(hosts, (good, ("text/csv", {"a.csv": b"1,x,2\n"})), strict=True)
        ]
        assert [job.wait()[0] for job in started] == [1, 1]
        assert "127.0.1.2 went away" in started[0].failure
        assert "'x' is not a number" in started[1].failure


def test_unknown_hyperparameters_are_refused() -> None:
    with pytest.raises(HyperparameterError, match="'kk' is not known"):
        KMeans(k=1, kk=2).fit(CORNERS)
