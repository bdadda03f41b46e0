"""Quality of linear learner on real data, the mean of five splits: adult and wdbc (classes), housing (a number).

The data are looked for below `SAGESMITH_BENCH_DATA`: adult/adult-train.csv.gz, wdbc/wdbc.csv and
housing/california-housing.csv.gz, as the UCI repository and the 1990 census of California have them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.algorithms.entry import Comparison, Contender, Entry, Run, data_folder
from bench.algorithms.measures import area_under_roc


def prepare(folder: Path, quick: bool) -> None:
    import pandas as pd

    place = data_folder("adult/adult-train.csv.gz", "wdbc/wdbc.csv", "housing/california-housing.csv.gz")
    adult = pd.read_csv(place / "adult" / "adult-train.csv.gz", header=None, skipinitialspace=True)
    wdbc = pd.read_csv(place / "wdbc" / "wdbc.csv", header=None)
    housing = pd.read_csv(place / "housing" / "california-housing.csv.gz").dropna()
    tables = {
        "adult": (adult.iloc[:, :-1], adult.iloc[:, -1] == ">50K"),
        "wdbc": (wdbc.iloc[:, 2:], wdbc.iloc[:, 1] == "M"),
        "housing": (housing.drop(columns="median_house_value"), housing["median_house_value"] / 1e5),
    }
    for name, (features, target) in tables.items():
        x = pd.get_dummies(features).to_numpy(np.float32)
        rows = slice(5000) if quick else slice(None)
        np.savez(folder / name, x=x[rows], y=target.to_numpy(np.float32)[rows])


def splits(run: Run, name: str) -> Any:
    """Yield train and test rows with their labels, a fifth for the test."""
    with np.load(run.folder / f"{name}.npz") as arrays:
        x, y = arrays["x"], arrays["y"]
    for seed in run.seeds:
        order = np.random.default_rng(seed).permutation(len(y))
        test, train = order[: len(y) // 5], order[len(y) // 5 :]
        yield x[train], y[train], x[test], y[test]


def judge(run: Run, classify: Callable[..., Any], predict: Callable[..., Any]) -> None:
    with run.timed():
        for name in ("adult", "wdbc"):
            found = [area_under_roc(ty, classify(x, y, tx)) for x, y, tx, ty in splits(run, name)]
            run.say_seeds(**{f"{name}_auc": found})
        errors = [np.sqrt(np.mean((predict(x, y, tx) - ty) ** 2)) for x, y, tx, ty in splits(run, "housing")]
        run.say_seeds(housing_rmse=[float(error) for error in errors])


def ours(run: Run) -> None:
    from sagesmith_algorithms import LinearLearner

    judge(
        run,
        lambda x, y, tx: LinearLearner("binary_classifier").fit(x, y).decision_function(tx),
        lambda x, y, tx: LinearLearner("regressor").fit(x, y).predict(tx),
    )


def scikit_learn(run: Run) -> None:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    judge(
        run,
        lambda x, y, tx: (
            make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x, y).decision_function(tx)
        ),
        lambda x, y, tx: make_pipeline(StandardScaler(), Ridge()).fit(x, y).predict(tx),
    )


ENTRY = Entry(
    "linear learner on real data",
    prepare,
    (Contender("Sagesmith", ours), Contender("scikit-learn", scikit_learn)),
    (
        Comparison("adult_auc", "Sagesmith", "scikit-learn", least=1.0, seeded=True),
        Comparison("wdbc_auc", "Sagesmith", "scikit-learn", least=1.0, seeded=True),
        Comparison("housing_rmse", "Sagesmith", "scikit-learn", most=1.0, seeded=True),
    ),
)
