"""Word vectors of an extract of Wikipedia (1.7 million words), judged by people's word pairs (WordSim-353): five seeds.

The data are looked for below `SAGESMITH_BENCH_DATA`: wikipedia-extract/wiki_00-09.txt.gz and word-similarity/wordsim353.tsv.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.algorithms.entry import Comparison, Contender, Entry, Run, data_folder
from bench.algorithms.jobs import loaded

DIM, EPOCHS, RATE = 100, 5, 0.05


def prepare(folder: Path, quick: bool) -> None:
    text, pairs = "wikipedia-extract/wiki_00-09.txt.gz", "word-similarity/wordsim353.tsv"
    place = data_folder(text, pairs)
    with gzip.open(place / text, "rt", encoding="utf-8") as file:
        lines = [
            " ".join(re.findall(r"[a-z]+", line.lower()))
            for line in file
            if not line.startswith(("<doc", "</doc"))
        ]
    (folder / "text").write_text("".join(line + "\n" for line in (lines[:5000] if quick else lines) if line))
    (folder / "pairs").write_bytes((place / pairs).read_bytes())


def judge(run: Run, learn: Callable[[int], Callable[[str], np.ndarray | None]]) -> None:
    """Note the rank correlation of people's scores and the cosines of the vectors that *learn* gives for a seed."""
    rows = [line.split("\t") for line in (run.folder / "pairs").read_text().splitlines() if line[:1] != "#"]
    found = []
    with run.timed():
        for seed in run.seeds:
            vector = learn(seed)
            scores, cosines = [], []
            for a, b, score in rows:
                x, y = vector(a.lower()), vector(b.lower())
                if x is not None and y is not None:
                    scores.append(float(score))
                    cosines.append(float(x @ y / np.sqrt((x @ x) * (y @ y))))
            found.append(float(np.corrcoef(_ranks(scores), _ranks(cosines))[0, 1]))
    run.say_seeds(rho=found)


def _ranks(values: list[float]) -> np.ndarray:
    found = np.asarray(values)
    _, place, counts = np.unique(found, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[place]


def ours(run: Run, mode: str) -> None:
    from sagesmith_algorithms import BlazingText

    loaded("blazingtext")
    lines = (run.folder / "text").read_text().splitlines()

    def learn(seed: int) -> Callable[[str], np.ndarray | None]:
        model = BlazingText(
            mode, seed=seed, vector_dim=DIM, epochs=EPOCHS, learning_rate=RATE, sampling_threshold=1e-3
        )
        model.fit(lines)
        known = model.model.index
        return lambda word: model.vector(word) if word in known else None

    judge(run, learn)


def gensim(run: Run, skipgram: int) -> None:
    from gensim.models import Word2Vec

    def learn(seed: int) -> Callable[[str], np.ndarray | None]:
        model = Word2Vec(
            corpus_file=str(run.folder / "text"), vector_size=DIM, window=5, negative=5, sample=1e-3, min_count=5,
            sg=skipgram, workers=2, epochs=EPOCHS, alpha=RATE, seed=seed + 1,
        )  # fmt: skip
        vectors, number = model.wv.vectors, model.wv.key_to_index
        return lambda word: vectors[number[word]] if word in number else None

    judge(run, learn)


ENTRY = Entry(
    "BlazingText, vectors of Wikipedia's words",
    prepare,
    (
        Contender("batch_skipgram", lambda run: ours(run, "batch_skipgram")),
        Contender("skipgram", lambda run: ours(run, "skipgram")),
        Contender("gensim skip-gram", lambda run: gensim(run, 1), "gensim"),
        Contender("cbow", lambda run: ours(run, "cbow")),
        Contender("gensim cbow", lambda run: gensim(run, 0), "gensim"),
    ),
    (
        Comparison("rho", "batch_skipgram", "gensim skip-gram", least=1.0, seeded=True),
        Comparison("rho", "skipgram", "gensim skip-gram", least=1.0, seeded=True),
        Comparison("rho", "cbow", "gensim cbow", least=1.0, seeded=True),
        Comparison("seconds", "batch_skipgram", "gensim skip-gram", most=0.5),
        Comparison("seconds", "cbow", "gensim cbow"),
    ),
)
