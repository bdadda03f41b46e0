from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

from sagesmith_algorithms import CustomerError, DataError, RandomCutForest
from sagesmith_algorithms.formats import recordio
from sagesmith_algorithms.formats.batch import Batch
from sagesmith_algorithms.random_cut_forest.forest import Forest
from tests.algorithms import jobs, serving

RNG = np.random.default_rng(0)
DIGITS = load_digits().data.astype(np.float32)


def clouds(n: int = 4000, d: int = 10, seed: int = 13) -> tuple[Any, Any]:
    """Return two clouds of points with 2 % uniform anomalies, and which these are."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, d))
    rows[: n // 2] += 4
    labels = np.zeros(n, np.float32)
    chosen = rng.choice(n, n // 50, replace=False)
    rows[chosen] = rng.uniform(-4, 8, (len(chosen), d))
    labels[chosen] = 1
    return rows.astype(np.float32), labels


def naive(forest: Forest, tree: int, x: Any, node: int = 0, depth: int = 0) -> float:
    """Return a tree's score before its normalization, by the recursion that the open library states."""
    low, high = forest.boxes[tree, node, :, : forest.n_features].astype(float)
    outside = np.maximum(low - x, 0).sum() + np.maximum(x - high, 0).sum()
    mass, n_points = int(forest.mass[tree, node]), int(forest.mass[tree, 0])
    child = int(forest.child[tree, node])
    if not child:
        if outside > 0:
            return 1 / (1 + depth)
        return (1 - mass / (2 * n_points)) / (depth + math.log2(mass + 1))
    parted = outside / (outside + (high - low).sum())
    right = x[forest.feature[tree, node]] > forest.cut[tree, node]
    deeper = naive(forest, tree, x, child + int(right), depth + 1)
    return float(parted / (1 + depth) + (1 - parted) * deeper)


@pytest.mark.parametrize("n_features", [1, 3, 8, 17])
def test_scores_are_those_of_the_recursion(n_features: int) -> None:
    samples = [RNG.standard_normal((40, n_features)).astype(np.float32) for _ in range(5)]
    samples[0][3:9] = samples[0][2]  # several equal points
    samples.append(np.ones((7, n_features), np.float32))  # a tree of one leaf
    forest = Forest.grown(samples, np.random.default_rng(1))
    rows = np.concatenate(
        [samples[0][:6], samples[5][:1], 3 * RNG.standard_normal((300, n_features))], dtype=np.float32
    )
    factors = [math.log2(len(sample) + 1) for sample in samples]
    expected = [
        np.mean([naive(forest, tree, row) * factors[tree] for tree in range(len(samples))]) for row in rows
    ]
    np.testing.assert_allclose(forest.scores(rows), expected, rtol=2e-4)


def test_trees_divide_their_points() -> None:
    sample = np.round(RNG.standard_normal((200, 4)) * 2).astype(np.float32)  # many points occur twice
    forest = Forest.grown([sample], np.random.default_rng(2))
    child, mass = forest.child[0], forest.mass[0]
    inner = np.flatnonzero(child)
    np.testing.assert_array_equal(mass[inner], mass[child[inner]] + mass[child[inner] + 1])
    leaves = np.flatnonzero((child == 0) & (mass > 0))
    assert mass[leaves].sum() == 200
    assert len(leaves) == len(np.unique(sample, axis=0))
    reached: dict[int, int] = {}
    for point in sample:
        node = 0
        while child[node]:
            node = int(child[node] + int(point[forest.feature[0, node]] > forest.cut[0, node]))
        np.testing.assert_array_equal(forest.boxes[0, node, 0, :4], point)
        reached[node] = reached.get(node, 0) + 1
    assert reached == {int(leaf): int(mass[leaf]) for leaf in leaves}


def test_kept_arrays_give_the_same_forest() -> None:
    forest = Forest.grown([RNG.standard_normal((n, 5)).astype(np.float32) for n in (1, 30, 64)], RNG)
    other = Forest.of(forest.arrays())
    np.testing.assert_array_equal(other.boxes, forest.boxes)
    np.testing.assert_allclose(other.extent, forest.extent, rtol=1e-6)


class TestQuality:
    def test_anomalies_stand_out_as_in_an_isolation_forest(self) -> None:
        rows, labels = clouds()
        for seed in range(2):
            scores = -RandomCutForest(seed=seed).fit(rows).score_samples(rows)
            assert 0.6 < np.median(scores) < 1.1
            reference = -IsolationForest(random_state=seed).fit(rows).score_samples(rows)
            assert roc_auc_score(labels, scores) >= roc_auc_score(labels, reference) - 0.002

    def test_tumors_are_told_from_healthy_tissue(self) -> None:
        rows, healthy = load_breast_cancer(return_X_y=True)
        rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)
        normal = rows[healthy == 1][:250]
        rest = np.concatenate([rows[healthy == 1][250:], rows[healthy == 0]])
        labels = np.repeat([0, 1], [(healthy == 1).sum() - 250, (healthy == 0).sum()])
        scores = -RandomCutForest().fit(normal).score_samples(rest)
        reference = -IsolationForest(random_state=0).fit(normal).score_samples(rest)
        assert roc_auc_score(labels, scores) >= roc_auc_score(labels, reference) - 0.01

    def test_what_is_beyond_the_threshold_is_an_outlier(self) -> None:
        rows, labels = clouds()
        found = RandomCutForest().fit(rows).predict(rows)
        assert set(found.tolist()) == {-1, 1}
        assert labels[found == -1].mean() > 0.9
        assert (found[labels == 1] == -1).mean() > 0.5


class TestSample:
    def test_it_is_uniform(self) -> None:
        model = RandomCutForest(50, 20, feature_dim=1)
        rows = np.arange(40000, dtype=np.float32)[:, None]
        for part in np.array_split(rows, 40):
            model.update(Batch(part))
        kept = model._sample()[0][:, 0]
        assert len(set(kept.tolist())) == 1000
        counts = np.histogram(kept, 10, (0, 40000))[0]
        assert counts.min() > 60
        assert counts.max() < 140

    def test_hosts_make_the_forest_of_one_whatever_the_order(self) -> None:
        rows, labels = clouds()
        hosts = [RandomCutForest(50, 64, feature_dim=10) for _ in range(2)]
        for host, part in zip(hosts, (slice(500), slice(500, None)), strict=True):
            host.update(Batch(rows[part]))
        states = [host.state() for host in hosts] + [RandomCutForest(50, 64, feature_dim=10).state()]
        merged = [RandomCutForest(50, 64, feature_dim=10) for _ in range(2)]
        for one, order in zip(merged, (states, states[::-1]), strict=True):
            for state in order:
                one.merge(state)
            one.finalize()
        np.testing.assert_array_equal(merged[0].score_samples(rows), merged[1].score_samples(rows))
        assert roc_auc_score(labels, -merged[0].score_samples(rows)) > 0.99

    def test_few_rows_make_small_trees(self) -> None:
        model = RandomCutForest().fit([[0.0], [1.0], [1.0]])
        assert model._grown().mass[:, 0].tolist() == [3] * 100
        assert model.score_samples([[50.0]])[0] < model.score_samples([[1.0]])[0]


@pytest.mark.parametrize(
    ("options", "x", "message"),
    [
        ({"num_trees": 49}, [[1.0]], "'num_trees': expected an integer at least 50 and at most 1000"),
        ({"num_samples_per_tree": 4096}, [[1.0]], "'num_samples_per_tree': expected an integer at least 1 and at most 2048"),
        ({"eval_metrics": "f2"}, [[1.0]], "'f2' is not known"),
        ({}, [[1.0], [np.inf]], "feature 1 is missing or infinite"),
        ({}, np.empty((0, 3)), "there is no row to grow trees from"),
    ],
)  # fmt: skip
def test_refusals(options: dict[str, Any], x: Any, message: str) -> None:
    with pytest.raises(CustomerError, match=re.escape(message)):
        RandomCutForest(**options).fit(x)


class TestServing:
    def test_every_form_in_and_out(self, tmp_path: Path) -> None:
        model = RandomCutForest(50).fit(DIGITS)
        model.save(tmp_path)
        predictor = RandomCutForest.load_predictor(tmp_path, {})
        expected = [{"score": -score} for score in model.score_samples(DIGITS[:3]).tolist()]
        serving.check_every_form(predictor, DIGITS[:3], expected, "scores")
        assert serving.ask(predictor, serving.CSV, "", b"1,2").status == 400
        labelled = b"1," + ",".join(map(str, DIGITS[0])).encode()
        answer = serving.ask(predictor, "text/csv;label_size=1", serving.JSON, labelled)
        assert serving.answers(answer, "scores")[0]["score"] == pytest.approx(expected[0]["score"], rel=1e-4)

    def test_others_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CustomerError, match="not made by random cut forest"):
            RandomCutForest.load(tmp_path)
        (tmp_path / "model_algo-1").write_bytes(b"x" * 100)
        with pytest.raises(DataError, match="is not an artifact"):
            RandomCutForest.load(tmp_path)
        model = RandomCutForest(50).fit(DIGITS[:50])
        model._grown().child[3, 0] = 10**6
        model.save(tmp_path)
        with pytest.raises(DataError, match="its trees are broken"):
            RandomCutForest.load(tmp_path)


GIVEN = {"feature_dim": "10", "num_trees": "50", "num_samples_per_tree": "128"}


class TestJob:
    def test_two_hosts(self, tmp_path: Path) -> None:
        rows, labels = clouds()
        hosts = ("127.0.1.1", "127.0.1.2")
        started = [
            jobs.start(
                tmp_path / host, "randomcutforest", GIVEN,
                {
                    "train": (serving.RECORDIO, {"part": recordio.encode(rows[part])}),
                    "test": (serving.RECORDIO, {"t": recordio.encode(rows[part], labels[part])}),
                },
                hosts=hosts, host=host,
            )
            for host, part in zip(hosts, (slice(1500), slice(1500, None)), strict=True)
        ]  # fmt: skip
        ended = [job.wait() for job in started]
        assert [code for code, _ in ended] == [0, 0], ended
        model = RandomCutForest.load(started[0].model_dir)
        scores = -model.score_samples(rows).astype(float)
        assert roc_auc_score(labels, scores) > 0.99
        called = scores > scores.mean() + 3 * scores.std()
        right = (called & (labels == 1)).sum()
        f1 = 2 * right / (called.sum() + labels.sum())
        log = ended[0][1]
        for metric in RandomCutForest.metrics:
            assert re.search(metric.regex, log), metric
        said = re.search(RandomCutForest.metrics[0].regex, log)
        assert said
        assert float(said[1]) == pytest.approx(f1, abs=0.02)
        assert "#test_score (127.0.1.1) : ('f1', 0." in log

    @pytest.mark.parametrize(
        ("channel", "content_type", "content", "message"),
        [
            ("train", "text/csv;label_size=0", b"1,2\n3\n", "line 2 has 1 columns"),
            ("train", "text/csv;label_size=0", b"1,2\n3,\n", "d, record 2: feature 2 is missing or infinite"),
            ("train", "text/csv;label_size=0", b"1,2,3\n", "rows have 3 features, but feature_dim is 2"),
            ("train", serving.CSV, b"1,2\n", "the content type is text/csv;label_size=0"),
            ("train", serving.RECORDIO, b"", "there is no row in the channel 'train'"),
            ("train", "text/plain", b"1,2\n", "has the content type 'text/plain'"),
            ("train", serving.RECORDIO, recordio.encode(np.ones((3, 2), np.float32))[:-8], "is cut short"),
            (
                "test",
                "text/csv;label_size=0",
                b"1,2\n",
                "d, record 1: rows of the channel 'test' need a label",
            ),
            ("test", "text/csv;label_size=1", b"0,1,2\n7,1,2\n", "d, record 2: the label 7 is not allowed"),
        ],
    )
    def test_bad_data_fail_it_with_a_sentence(
        self, tmp_path: Path, channel: str, content_type: str, content: bytes, message: str
    ) -> None:
        good = ("text/csv;label_size=0", {"d": b"1,2\n3,4\n"})
        channels = {"train": good, channel: (content_type, {"d": content})}
        job = jobs.start(tmp_path / "ml", "randomcutforest", {"feature_dim": "2"}, channels)
        assert job.wait()[0] == 1
        assert job.failure.startswith("Customer Error: ")
        assert message in job.failure
