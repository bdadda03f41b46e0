"""Topics of 20 newsgroups: the perplexity of the held-out half of new documents' words, 20 topics, five splits.

The data are looked for below `SAGESMITH_BENCH_DATA`: 20newsgroups-subset/20news-bydate-subset.tar.gz, 5,000 documents with
their headers cut off. The mixture of a new document is found from one half of its words alike for all contenders.
"""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.algorithms.entry import Comparison, Contender, Entry, Run, data_folder
from bench.algorithms.jobs import loaded

K, ALPHA, MOST_WORDS = 20, 0.1, 5000


def prepare(folder: Path, quick: bool) -> None:
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    file = "20newsgroups-subset/20news-bydate-subset.tar.gz"
    with tarfile.open(data_folder(file) / file) as tar:
        members = sorted((m for m in tar.getmembers() if m.isfile()), key=lambda m: m.name)
        texts = [tar.extractfile(m).read().decode("latin-1").partition("\n\n")[2] for m in members]  # type: ignore[union-attr]
    documents = [
        [w for w in re.findall(r"[a-z]{3,}", text.lower()) if w not in ENGLISH_STOP_WORDS]
        for text in (texts[::5] if quick else texts)
    ]
    documents = [words for words in documents if len(words) >= 20]
    counts = Counter(word for words in documents for word in set(words))
    number = {word: i for i, (word, n) in enumerate(counts.most_common(MOST_WORDS)) if n >= 5}
    rows = np.concatenate([np.full(len(words), i) for i, words in enumerate(documents)])
    columns = np.array([number.get(word, -1) for words in documents for word in words])
    known = columns >= 0
    matrix = csr_matrix(
        (np.ones(known.sum(), np.float32), (rows[known], columns[known])), (len(documents), len(number))
    )
    matrix.sum_duplicates()
    np.savez(
        folder / "counts.npz",
        data=matrix.data,
        indices=matrix.indices,
        indptr=matrix.indptr,
        width=len(number),
    )


def judge(run: Run, learn: Callable[[Any, int], np.ndarray]) -> None:
    """Note how well the topics that *learn* finds in the training documents foretell words of others."""
    from scipy.sparse import csr_matrix

    parts = np.load(run.folder / "counts.npz")
    matrix = csr_matrix(
        (parts["data"], parts["indices"], parts["indptr"]), (len(parts["indptr"]) - 1, int(parts["width"]))
    )
    found = []
    with run.timed():
        for seed in run.seeds:
            rng = np.random.default_rng(seed)
            order = rng.permutation(matrix.shape[0])
            n_held = len(order) // 5
            topics = learn(matrix[order[n_held:]], seed).astype(np.float64)
            topics /= topics.sum(axis=1, keepdims=True)
            held = matrix[order[:n_held]]
            first = held.copy()
            first.data = rng.binomial(held.data.astype(int), 0.5).astype(np.float32)
            found.append(float(np.exp(-_likelihood(first, held - first, topics))))
    run.say_seeds(perplexity=found)


def _likelihood(first: Any, second: Any, topics: np.ndarray) -> float:
    """Return the mean log-likelihood of a word of *second* under the mixtures that *first* makes likeliest."""
    total = n = 0.0
    topics = 0.999 * topics + 0.001 / topics.shape[1]  # what no topic knows must not be impossible
    for i in range(first.shape[0]):
        known, asked = first[i], second[i]
        if not known.nnz or not asked.nnz:
            continue
        words = topics[:, known.indices]
        mixture = np.full(len(topics), 1 / len(topics))
        for _ in range(50):
            share = words * mixture[:, None]
            mixture = (share / share.sum(axis=0)) @ known.data + ALPHA
            mixture /= mixture.sum()
        total += float(asked.data @ np.log(mixture @ topics[:, asked.indices]))
        n += float(asked.data.sum())
    return total / n


def ours(run: Run) -> None:
    from sagesmith_algorithms import LDA

    loaded("lda")
    judge(run, lambda counts, seed: LDA(K, alpha0=K * ALPHA, seed=seed).fit(counts).components_)


def scikit_learn(run: Run) -> None:
    from sklearn.decomposition import LatentDirichletAllocation

    def learn(counts: Any, seed: int) -> np.ndarray:
        model = LatentDirichletAllocation(
            K, learning_method="batch", max_iter=20, n_jobs=1, random_state=seed, doc_topic_prior=ALPHA,
            topic_word_prior=0.02,
        )  # fmt: skip
        found: np.ndarray = model.fit(counts).components_
        return found

    judge(run, learn)


def gensim(run: Run) -> None:
    from gensim.models import LdaModel

    def learn(counts: Any, seed: int) -> np.ndarray:
        spans = zip(counts.indptr[:-1].tolist(), counts.indptr[1:].tolist(), strict=True)
        corpus = [
            list(zip(counts.indices[i:j].tolist(), counts.data[i:j].tolist(), strict=True)) for i, j in spans
        ]
        model = LdaModel(
            corpus, id2word={i: str(i) for i in range(counts.shape[1])}, num_topics=K, passes=10, chunksize=1024,
            eta=0.02, alpha=[ALPHA] * K, random_state=seed, eval_every=None,
        )  # fmt: skip
        found: np.ndarray = model.get_topics()
        return found

    judge(run, learn)


ENTRY = Entry(
    "LDA, 20 newsgroups",
    prepare,
    (
        Contender("Sagesmith", ours),
        Contender("scikit-learn batch", scikit_learn),
        Contender("gensim", gensim, "gensim"),
    ),
    (
        Comparison("perplexity", "Sagesmith", "scikit-learn batch", most=1.0, seeded=True),
        Comparison("perplexity", "Sagesmith", "gensim", most=1.0, seeded=True),
        Comparison("seconds", "Sagesmith", "gensim", most=1.0),
    ),
)
