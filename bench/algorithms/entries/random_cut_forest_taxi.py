"""Random cut forest on the taxi rides of New York (NAB): shingles of 48 half hours, the five labelled windows, five seeds."""

from __future__ import annotations

import csv
import json
from datetime import datetime
from pathlib import Path

import numpy as np

from bench.algorithms.entry import N_THREADS, Comparison, Contender, Entry, Run, data_folder
from bench.algorithms.measures import area_under_roc

SHINGLE = 48
SERIES = "realKnownCause/nyc_taxi.csv"


def prepare(folder: Path, quick: bool) -> None:
    del quick
    rides, labels = "nab-nyc-taxi/nyc_taxi.csv", "nab-nyc-taxi/combined_windows.json"
    place = data_folder(rides, labels)
    with (place / rides).open() as file:
        rows = list(csv.reader(file))[1:]
    windows = json.loads((place / labels).read_text())[SERIES]
    values = np.array([float(value) for _, value in rows], np.float32)
    times = np.array([datetime.fromisoformat(time) for time, _ in rows])[SHINGLE - 1 :]
    y = np.zeros(len(times), np.int8)
    for start, end in windows:
        y[(times >= datetime.fromisoformat(start)) & (times <= datetime.fromisoformat(end))] = 1
    x = np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(values, SHINGLE))
    np.savez(folder / "taxi.npz", x=x, y=y)


def ours(run: Run) -> None:
    from sagesmith_algorithms import RandomCutForest

    _judge(run, lambda x, seed: -RandomCutForest(seed=seed).fit(x).score_samples(x))


def isolation_forest(run: Run) -> None:
    from sklearn.ensemble import IsolationForest

    def scores(x: np.ndarray, seed: int) -> np.ndarray:
        model = IsolationForest(n_estimators=100, max_samples=256, random_state=seed, n_jobs=N_THREADS)
        return -model.fit(x).score_samples(x)

    _judge(run, scores)


def rrcf(run: Run) -> None:
    """Judge every fortieth row: the library scores some ten of these in a second."""
    import rrcf as library

    def scores(x: np.ndarray, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        np.random.seed(seed)
        rows = x.astype(np.float64)
        found = np.zeros(len(rows[::40]))
        for _ in range(100):
            sample = rows[rng.choice(len(rows), 256, replace=False)]
            tree = library.RCTree(sample, index_labels=list(range(256)), precision=9)
            for number, row in enumerate(rows[::40]):
                tree.insert_point(row, index="asked")
                found[number] += tree.codisp("asked")
                tree.forget_point("asked")
        return found

    _judge(run, scores, 40)


def _judge(run: Run, scores, step: int = 1) -> None:
    """Note how well *scores* tells the windows: on all rows, unless it judges but each *step*-th, and on each fortieth."""
    data = np.load(run.folder / "taxi.npz")
    x, y = data["x"], data["y"]
    with run.timed():
        found = [scores(x, seed) for seed in run.seeds[: 2 if step > 1 else None]]
    if step == 1:
        run.say_seeds(auc=[area_under_roc(y, one) for one in found])
    run.say_seeds(auc_of_some=[area_under_roc(y[::40], one[:: 40 // step]) for one in found])


ENTRY = Entry(
    "random cut forest, taxi rides",
    prepare,
    (
        Contender("Sagesmith", ours),
        Contender("IsolationForest", isolation_forest),
        Contender("rrcf", rrcf, "rrcf"),
    ),
    (
        Comparison("auc", "Sagesmith", "IsolationForest", least=1.0, seeded=True, note="five seeds"),
        Comparison(
            "auc_of_some",
            "Sagesmith",
            "rrcf",
            least=1.0,
            seeded=True,
            note="every fortieth row; rrcf: two seeds",
        ),
    ),
)
