"""k-NN, PERFORMANCE B.6: 200,000 x 64 in 500 clusters, 10,000 queries, k = 10, seed 9; recall of the true neighbors."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from bench.algorithms.entry import N_THREADS, Comparison, Contender, Entry, Run
from bench.algorithms.jobs import channel, loaded, trained
from bench.algorithms.measures import recall

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
    true = (
        NearestNeighbors(n_neighbors=K, algorithm="brute").fit(x).kneighbors(queries, return_distance=False)
    )
    np.save(folder / "x.npy", x)
    np.save(folder / "queries.npy", queries)
    np.save(
        folder / "true.npy", x[true].sum(axis=2)
    )  # rows are told apart by their sum: a sample has its own order
    (folder / "x.pbr").write_bytes(recordio.encode(x, y))


def ours(run: Run, index_type: str = "faiss.Flat", times: int = 1) -> None:
    from sagesmith_algorithms import KNN

    x = np.load(run.folder / "x.npy")
    n = len(x)
    del x
    algorithm = loaded("knn")
    train = channel(run.folder, "train", [run.folder / "x.pbr"], times)
    given = {
        "k": K, "feature_dim": D, "predictor_type": "classifier", "sample_size": n, "index_type": index_type,
    }  # fmt: skip
    with run.timed():
        model_dir = trained(algorithm, given, {"train": train})
        model = KNN.load(model_dir)
    queries = np.load(run.folder / "queries.npy")
    model.kneighbors(queries[:64])
    began = time.perf_counter()
    _, found = model.kneighbors(queries)
    run.say(queries_per_s=len(queries) / (time.perf_counter() - began))
    rows = model._arrays["rows"]
    _judge(run, rows[found].sum(axis=2))


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
    queries = np.load(run.folder / "queries.npy")
    index.search(queries[:64], K)
    began = time.perf_counter()
    _, found = index.search(queries, K)
    run.say(queries_per_s=len(queries) / (time.perf_counter() - began))
    _judge(run, x[found].sum(axis=2))


def _judge(run: Run, sums: np.ndarray) -> None:
    run.say(recall=recall(np.round(sums, 3), np.round(np.load(run.folder / "true.npy"), 3)))


ENTRY = Entry(
    "k-NN, 200,000 x 64",
    prepare,
    (
        Contender("Sagesmith", ours),
        Contender("faiss Flat", faiss_index, "faiss"),
        Contender("IVFFlat", lambda run: ours(run, "faiss.IVFFlat")),
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
