"""k-means, PERFORMANCE B.4: 1,000,000 x 50, 100 overlapping Gaussians, seed 11; inertia for each point, 50.0 is ideal."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.algorithms.entry import Comparison, Contender, Entry, Run
from bench.algorithms.jobs import channel, loaded, trained
from bench.algorithms.measures import inertia

K = 100


def prepare(folder: Path, quick: bool) -> None:
    from sagesmith_algorithms.formats import recordio

    rng = np.random.default_rng(11)
    n, d = (50_000 if quick else 1_000_000), 50
    centers = rng.standard_normal((K, d)).astype(np.float32) * np.float32(1.2)
    cluster = rng.integers(0, K, n)
    x = centers[cluster] + rng.standard_normal((n, d), dtype=np.float32)
    np.save(folder / "x.npy", x)
    (folder / "x.pbr").write_bytes(recordio.encode(x))


def ours(run: Run, times: int = 1) -> None:
    from sagesmith_algorithms import KMeans

    algorithm = loaded("kmeans")
    train = channel(run.folder, "train", [run.folder / "x.pbr"], times)
    with run.timed():
        model_dir = trained(algorithm, {"k": K, "feature_dim": 50}, {"train": train})
    run.say(inertia=inertia(np.load(run.folder / "x.npy"), KMeans.load(model_dir).cluster_centers_))


def minibatch(run: Run) -> None:
    from sklearn.cluster import MiniBatchKMeans

    with run.timed():
        x = np.load(run.folder / "x.npy")
        model = MiniBatchKMeans(K, n_init=1, batch_size=4096, max_iter=3, random_state=1).fit(x)
    run.say(inertia=inertia(x, model.cluster_centers_))


ENTRY = Entry(
    "k-means, 1,000,000 x 50, k = 100",
    prepare,
    (
        Contender("Sagesmith", ours),
        Contender("MiniBatchKMeans", minibatch),
        Contender("tenfold data", lambda run: ours(run, 10)),
    ),
    (
        Comparison(
            "seconds",
            "Sagesmith",
            "MiniBatchKMeans",
            most=0.5,
            quality="inertia",
            bound=51.5,
            less_is_better=True,
        ),
        Comparison("peak_mb", "tenfold data", "Sagesmith", most=1.1),
    ),
)
