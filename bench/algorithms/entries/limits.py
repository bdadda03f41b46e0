"""What a job may take: with one vCPU never more than one core, and the same memory for ten times the data.

The data are small, so that all of it takes a minute; what an algorithm keeps in memory on purpose (a sample, a window, the
rows that several passes read) is small in proportion.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.algorithms.entries.factorization_machines import one_hot
from bench.algorithms.entry import Comparison, Contender, Entry, Run
from bench.algorithms.jobs import channel, loaded, trained

D = 50
N_VCPUS = 1
VCPUS = f"{N_VCPUS} vCPU"
WORDS, USERS, ITEMS = 200, 5000, 5000
LDA_DOCUMENTS = 1000
KEPT_BYTES = 16 << 20


@dataclass(frozen=True)
class Case:
    """An algorithm's job: its data, its hyperparameters, and what is lessened of what it keeps (module: name: value)."""

    algorithm: str
    file: str
    hyperparameters: Mapping[str, Any]
    lessened: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    streams: bool = True


CASES = {
    "k-means": Case("kmeans", "x.pbr", {"k": 10, "feature_dim": D}),
    "k-NN": Case(
        "knn", "xy.pbr", {"k": 5, "feature_dim": D, "predictor_type": "classifier", "sample_size": 20_000}
    ),
    "PCA": Case("pca", "x.pbr", {"num_components": 5, "feature_dim": D, "mini_batch_size": 1000}),
    "random cut forest": Case("randomcutforest", "x.pbr", {"feature_dim": D, "num_trees": 50}),
    "factorization machines": Case(
        "factorization-machines", "pairs.pbr",
        {"feature_dim": USERS + ITEMS, "num_factors": 8, "predictor_type": "regressor", "epochs": 2},
        {"factorization_machines.rows": {"_KEPT_BYTES": 8 << 20, "_WINDOW_BYTES": 4 << 20}},
    ),
    "linear learner": Case(
        "linear-learner", "xy.pbr", {"predictor_type": "binary_classifier"}, {"linear_learner.data": {"KEPT_BYTES": KEPT_BYTES}}
    ),
    "LDA": Case("lda", "words.pbr", {"num_topics": 5, "feature_dim": WORDS, "mini_batch_size": LDA_DOCUMENTS}),
    "XGBoost": Case("xgboost", "xy.pbr", {"num_round": 20, "objective": "binary:logistic"}, streams=False),
}  # fmt: skip


def prepare(folder: Path, quick: bool) -> None:
    from scipy.sparse import csr_matrix

    from sagesmith_algorithms.formats import recordio

    rng = np.random.default_rng(0)
    n = 20_000 if quick else 100_000
    x = (rng.standard_normal((10, D))[rng.integers(0, 10, n)] + rng.standard_normal((n, D))).astype(
        np.float32
    )
    y = (x[:, 0] * x[:, 1] + x[:, 2] + rng.standard_normal(n) > 0).astype(np.float32)
    (folder / "x.pbr").write_bytes(recordio.encode(x))
    (folder / "xy.pbr").write_bytes(recordio.encode(x, y))
    pairs = one_hot(rng.integers(0, USERS, 2 * n), rng.integers(0, ITEMS, 2 * n), USERS, ITEMS)
    (folder / "pairs.pbr").write_bytes(recordio.encode(pairs, rng.standard_normal(2 * n).astype(np.float32)))
    words = csr_matrix(rng.poisson(0.2, (LDA_DOCUMENTS, WORDS)).astype(np.float32))
    (folder / "words.pbr").write_bytes(recordio.encode(words))


def job(run: Run, case: Case, times: int) -> None:
    algorithm = loaded(case.algorithm)
    for module, values in case.lessened.items():
        found = importlib.import_module(f"sagesmith_algorithms.{module}")
        for name, value in values.items():
            if not hasattr(found, name):
                raise AttributeError(f"{module} has no {name}; the benchmark must know its new name")
            setattr(found, name, value)
    train = channel(run.folder, "train", [run.folder / case.file], times)
    with run.timed():
        trained(algorithm, case.hyperparameters, {"train": train})
    run.say(cores=run.measures["cpu_seconds"] / run.measures["seconds"])


def _contenders() -> list[Contender]:
    found = [Contender(VCPUS, lambda run: run.say(cores=N_VCPUS))]
    for name, case in CASES.items():
        found.append(Contender(name, partial(job, case=case, times=1), n_threads=N_VCPUS))
        if case.streams:
            found.append(
                Contender(f"{name}, tenfold data", partial(job, case=case, times=10), n_threads=N_VCPUS)
            )
    return found


ENTRY = Entry(
    "limits of a job",
    prepare,
    tuple(_contenders()),
    tuple(
        comparison
        for name, case in CASES.items()
        for largest in [f"{name}, tenfold data" if case.streams else name]
        for comparison in [
            *([Comparison("peak_mb", largest, name, most=1.1)] if case.streams else []),
            Comparison("cores", largest, VCPUS, most=1.05, note="cores kept busy"),
        ]
    ),
)
