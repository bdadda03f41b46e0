"""PCA, PERFORMANCE B.5: 1,000,000 x 100 to 10 components, a signal of rank 20, seed 5; the share of variance held."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.algorithms.entry import Comparison, Contender, Entry, Run
from bench.algorithms.jobs import channel, loaded, trained
from bench.algorithms.measures import explained_variance

D = 100


def prepare(folder: Path, quick: bool) -> None:
    from sagesmith_algorithms.formats import recordio

    rng = np.random.default_rng(5)
    n, rank = (50_000 if quick else 1_000_000), 20
    scales = np.linspace(4, 0.5, rank)[:, None].astype(np.float32)
    directions = rng.standard_normal((rank, D)).astype(np.float32) * scales
    x = rng.standard_normal((n, rank), dtype=np.float32) @ directions
    x += rng.standard_normal((n, D), dtype=np.float32) + np.float32(1.5)
    np.save(folder / "x.npy", x)
    (folder / "x.pbr").write_bytes(recordio.encode(x))


def ours(run: Run, times: int = 1, mode: str = "regular") -> None:
    from sagesmith_algorithms import PCA

    algorithm = loaded("pca")
    train = channel(run.folder, "train", [run.folder / "x.pbr"], times)
    given = {"num_components": 10, "feature_dim": D, "mini_batch_size": 5000, "algorithm_mode": mode}
    with run.timed():
        model_dir = trained(algorithm, given, {"train": train})
    _judge(run, PCA.load(model_dir).components_)


def covariance_eigh(run: Run, solver: str = "covariance_eigh") -> None:
    from sklearn.decomposition import PCA

    with run.timed():
        model = PCA(10, svd_solver=solver, random_state=1).fit(np.load(run.folder / "x.npy"))
    _judge(run, model.components_)


def _judge(run: Run, components: np.ndarray) -> None:
    run.say(variance=explained_variance(np.load(run.folder / "x.npy", mmap_mode="r")[:200_000], components))


ENTRY = Entry(
    "PCA, 1,000,000 x 100 to 10",
    prepare,
    (
        Contender("Sagesmith", ours),
        Contender("scikit-learn covariance_eigh", covariance_eigh),
        Contender("randomized", lambda run: ours(run, mode="randomized")),
        Contender("scikit-learn randomized", lambda run: covariance_eigh(run, "randomized")),
        Contender("tenfold data", lambda run: ours(run, 10)),
    ),
    (
        Comparison(
            "seconds",
            "Sagesmith",
            "scikit-learn covariance_eigh",
            most=1.0,
            quality="variance",
            worse_by=1e-4,
        ),
        Comparison("peak_mb", "Sagesmith", "scikit-learn covariance_eigh"),
        Comparison(
            "seconds", "randomized", "scikit-learn randomized", most=1.0, quality="variance", worse_by=1e-3
        ),
        Comparison("peak_mb", "tenfold data", "Sagesmith", most=1.1),
    ),
)
