"""Random cut forest, PERFORMANCE B.7: 100,000 x 10, two clouds and 1 % uniform anomalies, 100 trees of 256, seed 13."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.algorithms.entry import N_THREADS, Comparison, Contender, Entry, Run
from bench.algorithms.jobs import channel, loaded, trained
from bench.algorithms.measures import area_under_roc

TREES, SAMPLES = 100, 256


def prepare(folder: Path, quick: bool) -> None:
    from sagesmith_algorithms.formats import recordio

    rng = np.random.default_rng(13)
    n, d = (20_000 if quick else 100_000), 10
    x = rng.standard_normal((n, d))
    x[: n // 2] += 4
    y = np.zeros(n, np.int8)
    anomalies = rng.choice(n, n // 100, replace=False)
    x[anomalies] = rng.uniform(-4, 8, (len(anomalies), d))
    y[anomalies] = 1
    order = np.random.default_rng(0).permutation(n)
    x, y = x[order].astype(np.float32), y[order]
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    (folder / "x.pbr").write_bytes(recordio.encode(x))


def judge(run: Run, score: Callable[[np.ndarray], np.ndarray], n_rows: int = 0) -> None:
    """Note how many rows a second *score* judges (all, or *n_rows*), and how well."""
    x, y = np.load(run.folder / "x.npy"), np.load(run.folder / "y.npy")
    n_rows = n_rows or len(x)
    score(x[:2])
    began = time.perf_counter()
    found = score(x[:n_rows])
    run.say(rows_per_s=n_rows / (time.perf_counter() - began), auc=area_under_roc(y[:n_rows], found))


def ours(run: Run, times: int = 1) -> None:
    from sagesmith_algorithms import RandomCutForest

    algorithm = loaded("randomcutforest")
    train = channel(run.folder, "train", [run.folder / "x.pbr"], times)
    given = {"feature_dim": 10, "num_trees": TREES, "num_samples_per_tree": SAMPLES}
    with run.timed():
        model_dir = trained(algorithm, given, {"train": train})
    model = RandomCutForest.load(model_dir)
    judge(run, lambda x: -model.score_samples(x))


def isolation_forest(run: Run) -> None:
    from sklearn.ensemble import IsolationForest

    with run.timed():
        x = np.load(run.folder / "x.npy")
        model = IsolationForest(
            n_estimators=TREES, max_samples=SAMPLES, random_state=1, n_jobs=N_THREADS
        ).fit(x)
    judge(run, lambda x: -model.score_samples(x))


def rrcf(run: Run) -> None:
    import rrcf as library

    np.random.seed(1)
    with run.timed():
        x = np.load(run.folder / "x.npy").astype(np.float64)
        trees = [
            library.RCTree(
                x[np.random.choice(len(x), SAMPLES, replace=False)],
                index_labels=list(range(SAMPLES)),
                precision=9,
            )
            for _ in range(TREES)
        ]

    def score(rows: np.ndarray) -> np.ndarray:
        found = np.zeros(len(rows))
        for number, row in enumerate(rows.astype(np.float64)):
            for tree in trees:
                tree.insert_point(row, index="asked")
                found[number] += tree.codisp("asked")
                tree.forget_point("asked")
        return found

    judge(run, score, 50 if run.quick else 400)


ENTRY = Entry(
    "random cut forest, 100,000 x 10",
    prepare,
    (
        Contender("Sagesmith", ours),
        Contender("rrcf", rrcf, "rrcf"),
        Contender("IsolationForest", isolation_forest),
        Contender("tenfold data", lambda run: ours(run, 10)),
    ),
    (
        Comparison("rows_per_s", "Sagesmith", "rrcf", least=2500, quality="auc", worse_by=0.001,
                   note="scoring; target 100,000 rows/s"),
        Comparison("rows_per_s", "Sagesmith", "IsolationForest", quality="auc", worse_by=0.001, note="scoring"),
        Comparison("seconds", "Sagesmith", "rrcf", note="load, grow"),
        Comparison("peak_mb", "tenfold data", "Sagesmith", most=1.1),
    ),
)  # fmt: skip
