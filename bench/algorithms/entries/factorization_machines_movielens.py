"""Factorization machines on MovieLens-100k, ratings of users and items alone, split ua: the mean RMSE of five seeds.

myfm's variational fit ends with one model, as ours does, and is what ours is judged by. Its MCMC predicts with the mean of
some 200 models, which nobody could deploy as one; it shows what averaging would gain.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from bench.algorithms.entries.factorization_machines import one_hot, root_mean_square
from bench.algorithms.entry import Comparison, Contender, Entry, Run, data_folder

USERS, ITEMS = 943, 1682


def prepare(folder: Path, quick: bool) -> None:
    del quick
    sources = {"train": "movielens-100k/ua.base.gz", "test": "movielens-100k/ua.test.gz"}
    place = data_folder(*sources.values())
    for name, source in sources.items():
        with gzip.open(place / source) as file:
            table = np.loadtxt(file, dtype=np.int64)
        np.savez(
            folder / f"{name}.npz", u=table[:, 0] - 1, i=table[:, 1] - 1, y=table[:, 2].astype(np.float32)
        )


def _data(run: Run, name: str) -> tuple:
    data = np.load(run.folder / f"{name}.npz")
    return one_hot(data["u"], data["i"], USERS, ITEMS), data["y"]


def ours(run: Run) -> None:
    from sagesmith_algorithms import FactorizationMachines

    (x, y), (test, test_y) = _data(run, "train"), _data(run, "test")
    found = []
    with run.timed():
        for seed in run.seeds:
            model = FactorizationMachines(
                64, seed=seed, epochs=9, mini_batch_size=500, bias_init_method="constant", bias_init_value=3.5, bias_lr=0.01, linear_lr=0.005, factors_lr=0.002,
                bias_wd=0, linear_wd=1e-4, factors_wd=2e-4, factors_init_sigma=0.01,
            )  # fmt: skip
            found.append(root_mean_square(model.fit(x, y).predict(test), test_y))
    run.say_seeds(rmse=found)


def myfm(run: Run, kind: str) -> None:
    import myfm as library

    (x, y), (test, test_y) = _data(run, "train"), _data(run, "test")
    found = []
    with run.timed():
        for seed in run.seeds:
            model = getattr(library, kind)(rank=8, random_seed=seed)
            model.fit(x.astype(np.float64), y, n_iter=200, grouping=[0] * USERS + [1] * ITEMS)
            found.append(root_mean_square(model.predict(test.astype(np.float64)), test_y))
    run.say_seeds(rmse=found)


ENTRY = Entry(
    "factorization machines, MovieLens-100k",
    prepare,
    (
        Contender("Sagesmith", ours),
        Contender("myfm, variational", lambda run: myfm(run, "VariationalFMRegressor"), "myfm"),
        Contender("myfm, MCMC", lambda run: myfm(run, "MyFMRegressor"), "myfm"),
    ),
    (
        Comparison("rmse", "Sagesmith", "myfm, variational", most=1.0, seeded=True),
        Comparison("rmse", "Sagesmith", "myfm, MCMC", seeded=True),
        Comparison("seconds", "Sagesmith", "myfm, MCMC"),
    ),
)
