"""k-NN, PERFORMANCE B.6: 200,000 x 64 in 500 clusters, 10,000 queries, k = 10, seed 9; recall of the true neighbors."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.algorithms.entry import N_THREADS, Comparison, Contender, Entry, Run
from bench.algorithms.jobs import channel, loaded, trained

K, D = 10, 64


def prepare(folder: Path, quick: bool) -> None:
    from sklearn.neighbors import NearestNeighbors

    from sagesmith_algorithms.formats import recordio

    rng = np.random.default_rng(9)
    centers = rng.standard_normal((500, D)).astype(np.float32)
    directions = rng.standard_normal((D, 12)).astype(np.float32)

    def sample(n: int) -> tuple[np.ndarray, np.ndarray]:
        cluster = rng.integers(0, 500, n)
        inner = 0.6 * (rng.standard_normal((n, 12), dtype=np.float32) @ directions.T) / 3.5
        x = centers[cluster] + inner + 0.15 * rng.standard_normal((n, D), dtype=np.float32)
        return x.astype(np.float32), (cluster % 10).astype(np.float32)

    n, n_queries = (20_000, 1_000) if quick else (200_000, 10_000)
    x, y = sample(n)
    queries, _ = sample(n_queries)
    true, _ = NearestNeighbors(n_neighbors=K, algorithm="brute").fit(x).kneighbors(queries)
    np.save(folder / "x.npy", x)
    np.save(folder / "queries.npy", queries)
    np.save(folder / "true.npy", true.astype(np.float32))
    (folder / "x.pbr").write_bytes(recordio.encode(x, y))


def ours(run: Run, **more: Any) -> None:
    from sagesmith_algorithms import KNN

    algorithm = loaded("knn")
    importlib.import_module("faiss")
    train = channel(run.folder, "train", [run.folder / "x.pbr"])
    n = len(np.load(run.folder / "x.npy", mmap_mode="r"))
    given = {"k": K, "feature_dim": D, "predictor_type": "classifier", "sample_size": n, **more}
    with run.timed():
        model = KNN.load(trained(algorithm, given, {"train": train}))
    _ask(run, lambda queries: model.kneighbors(queries)[0])


def faiss_index(run: Run, factory: str = "Flat") -> None:
    import faiss

    faiss.omp_set_num_threads(N_THREADS)
    with run.timed():
        x = np.load(run.folder / "x.npy")
        index = faiss.index_factory(D, factory)
        index.train(x)
        index.add(x)
        if factory != "Flat":
            index.nprobe = 16
    _ask(run, lambda queries: np.sqrt(index.search(queries, K)[0]))


def _ask(run: Run, search: Callable[[np.ndarray], np.ndarray]) -> None:
    """Time the queries; whoever finds neighbors as near as the true ones has found them."""
    queries, true = np.load(run.folder / "queries.npy"), np.load(run.folder / "true.npy")
    search(queries[:64])
    began = time.perf_counter()
    distances = search(queries)
    run.say(queries_per_s=len(queries) / (time.perf_counter() - began))
    run.say(recall=(distances <= true[:, -1:] * 1.0001).mean())


ENTRY = Entry(
    "k-NN, 200,000 x 64",
    prepare,
    (
        Contender("Sagesmith", ours),
        Contender("faiss Flat", faiss_index, "faiss"),
        Contender(
            "IVFFlat",
            lambda run: ours(run, index_type="faiss.IVFFlat", faiss_index_ivf_nlists=1024),
        ),
        Contender("faiss IVF1024,Flat nprobe 16", lambda run: faiss_index(run, "IVF1024,Flat"), "faiss"),
    ),
    (
        Comparison("seconds", "Sagesmith", "faiss Flat", note="load, build"),
        Comparison("queries_per_s", "Sagesmith", "faiss Flat", least=1.0, quality="recall", worse_by=0.001),
        Comparison("seconds", "IVFFlat", "faiss IVF1024,Flat nprobe 16", most=1.0, note="load, build"),
        Comparison(
            "queries_per_s",
            "IVFFlat",
            "faiss IVF1024,Flat nprobe 16",
            least=1.0,
            quality="recall",
            worse_by=0.001,
        ),
    ),
)
