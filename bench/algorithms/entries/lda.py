"""LDA, PERFORMANCE B.8: 20,000 documents of some 105 words, 5,000 words, 20 topics, seed 17.

Quality is the mean cosine of the true topics to those found that fit best.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.algorithms.entry import Comparison, Contender, Entry, Run
from bench.algorithms.jobs import channel, loaded, trained

K, V, ALPHA, ETA = 20, 5000, 0.1, 0.02


def prepare(folder: Path, quick: bool) -> None:
    from scipy.sparse import csr_matrix

    from sagesmith_algorithms.formats import recordio

    rng = np.random.default_rng(17)
    n = 2000 if quick else 20_000
    topics = rng.dirichlet(np.full(V, ETA), K)
    shares, ends = rng.dirichlet(np.full(K, ALPHA), n), np.cumsum(topics, 1)
    rows, columns = [], []
    for document in range(n):
        length = rng.poisson(100) + 5
        z, u = rng.choice(K, length, p=shares[document]), rng.random(length)
        words = np.empty(length, np.int64)
        for topic in np.unique(z):
            words[z == topic] = np.searchsorted(ends[topic], u[z == topic])
        rows.append(np.full(length, document))
        columns.append(np.minimum(words, V - 1))
    row, column = np.concatenate(rows), np.concatenate(columns)
    counts = csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=(n, V))
    counts.sum_duplicates()
    np.savez(folder / "counts.npz", data=counts.data, indices=counts.indices, indptr=counts.indptr)
    np.save(folder / "topics.npy", topics)
    (folder / "counts.pbr").write_bytes(recordio.encode(counts))


def _counts(run: Run) -> Any:
    from scipy.sparse import csr_matrix

    parts = np.load(run.folder / "counts.npz")
    n = len(parts["indptr"]) - 1
    return csr_matrix((parts["data"], parts["indices"], parts["indptr"]), shape=(n, V))


def ours(run: Run) -> None:
    from sagesmith_algorithms import LDA

    algorithm = loaded("lda")
    train = channel(run.folder, "train", [run.folder / "counts.pbr"])
    given = {"num_topics": K, "feature_dim": V, "mini_batch_size": 20_000, "alpha0": K * ALPHA}
    with run.timed():
        model_dir = trained(algorithm, given, {"train": train})
    _judge(run, LDA.load(model_dir).components_)


def online(run: Run) -> None:
    from sklearn.decomposition import LatentDirichletAllocation

    with run.timed():
        model = LatentDirichletAllocation(
            K, learning_method="online", max_iter=5, batch_size=1024, n_jobs=2, random_state=1,
            doc_topic_prior=ALPHA, topic_word_prior=ETA,
        ).fit(_counts(run))  # fmt: skip
    _judge(run, model.components_)


def gensim(run: Run) -> None:
    from gensim.models import LdaModel

    with run.timed():
        counts = _counts(run)
        spans = zip(counts.indptr[:-1].tolist(), counts.indptr[1:].tolist(), strict=True)
        corpus = [
            list(zip(counts.indices[i:j].tolist(), counts.data[i:j].tolist(), strict=True)) for i, j in spans
        ]
        model = LdaModel(
            corpus, id2word={i: str(i) for i in range(V)}, num_topics=K, passes=5, chunksize=1024, eta=ETA,
            alpha=[ALPHA] * K, random_state=1, eval_every=None,
        )  # fmt: skip
    _judge(run, model.get_topics())


def _judge(run: Run, found: np.ndarray) -> None:
    from scipy.optimize import linear_sum_assignment

    true = np.load(run.folder / "topics.npy")
    a, b = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in (true, found))
    cosines = a @ b.T
    run.say(cosine=cosines[linear_sum_assignment(-cosines)].mean())


ENTRY = Entry(
    "LDA, 20,000 documents, 20 topics",
    prepare,
    (
        Contender("Sagesmith", ours),
        Contender("scikit-learn online", online),
        Contender("gensim", gensim, "gensim"),
    ),
    (
        Comparison("seconds", "Sagesmith", "gensim", most=1.0, quality="cosine"),
        Comparison("seconds", "Sagesmith", "scikit-learn online", most=1.0, quality="cosine"),
        Comparison("peak_mb", "Sagesmith", "gensim"),
    ),
)
