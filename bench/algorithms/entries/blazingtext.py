"""BlazingText, PERFORMANCE B.9: 10 million words in sentences of 200 topics, seed 23; 100 dimensions, one epoch.

Quality is the share of the ten nearest words that are of the same topic. And text classification of generated lines.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.algorithms.entry import Comparison, Contender, Entry, Run
from bench.algorithms.jobs import channel, loaded, trained

N_TOPICS, PER_TOPIC, V, LENGTH = 200, 200, 50_000, 20
TEXT = "text/plain"
N_WORDS = {True: 500_000, False: 10_000_000}


def prepare(folder: Path, quick: bool) -> None:
    rng = np.random.default_rng(23)
    base = 500
    common = np.cumsum(1 / np.arange(1, V + 1))
    own = np.cumsum(1 / np.arange(1, PER_TOPIC + 1) ** 0.7)
    common, own = common / common[-1], own / own[-1]
    step = 2500 if quick else 25_000
    with (
        (folder / "text").open("w") as text,
        (folder / "train").open("w") as train,
        (folder / "held").open("w") as held,
    ):
        for number in range(N_WORDS[quick] // LENGTH // step):
            topic = rng.integers(0, N_TOPICS, step)
            from_topic = rng.random((step, LENGTH)) < 0.7
            other = np.minimum(np.searchsorted(common, rng.random((step, LENGTH))), V - 1)
            mine = np.minimum(np.searchsorted(own, rng.random((step, LENGTH))), PER_TOPIC - 1)
            words = np.where(from_topic, base + topic[:, None] * PER_TOPIC + mine, other)
            lines = [" ".join(f"w{word}" for word in row) for row in words.tolist()]
            text.write("\n".join(lines) + "\n")
            into = held if number == 0 else train
            if number < 5:  # half of the words, so that it is not too easy
                labelled = [
                    f"__label__{t} {' '.join(line.split()[:6])}" for t, line in zip(topic, lines, strict=True)
                ]
                into.write("\n".join(labelled[: step if number else step // 5]) + "\n")


def ours(run: Run, mode: str) -> None:
    from sagesmith_algorithms import BlazingText

    algorithm = loaded("blazingtext")
    train = channel(run.folder, "train", [run.folder / "text"])
    given = {"mode": mode, "vector_dim": 100, "epochs": 1, "sampling_threshold": 0.001, "evaluation": False}
    with run.timed():
        model_dir = trained(algorithm, given, {"train": train}, TEXT)
    model = BlazingText.load(model_dir)
    _judge(run, model.model.words, model.model.inputs)


def gensim(run: Run, skipgram: int) -> None:
    from gensim.models import Word2Vec

    with run.timed():
        model = Word2Vec(
            corpus_file=str(run.folder / "text"), vector_size=100, window=5, negative=5, sample=1e-3, min_count=5,
            sg=skipgram, workers=2, epochs=1, seed=1,
        )  # fmt: skip
    _judge(run, list(model.wv.index_to_key), model.wv.vectors)


def _judge(run: Run, words: list[str], vectors: np.ndarray) -> None:
    run.say(words_per_s=N_WORDS[run.quick] / run.measures["seconds"])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.maximum(lengths, 1e-12)
    numbers = np.array([int(word[1:]) for word in words])
    topics = np.where(
        (numbers >= 500) & (numbers < 500 + N_TOPICS * PER_TOPIC), (numbers - 500) // PER_TOPIC, -1
    )
    chosen = np.random.default_rng(0).choice(np.flatnonzero(topics >= 0), 500, replace=False)
    products = unit[chosen] @ unit.T
    products[np.arange(len(chosen)), chosen] = -9
    near = np.argpartition(-products, 10, axis=1)[:, :10]
    run.say(neighbors=(topics[near] == topics[chosen][:, None]).mean())


LABELS = {"learning_rate": 0.5, "epochs": 5, "word_ngrams": 2, "vector_dim": 50, "buckets": 200_000}


def labels(run: Run) -> None:
    from sagesmith_algorithms import BlazingText

    algorithm = loaded("blazingtext")
    train = channel(run.folder, "train", [run.folder / "train"])
    with run.timed():
        model_dir = trained(algorithm, {"mode": "supervised", **LABELS}, {"train": train}, TEXT)
    given = [line.split(" ", 1) for line in (run.folder / "held").read_text().splitlines()]
    found = BlazingText.load(model_dir).predict([line for _, line in given])
    run.say(
        accuracy=np.mean([f"__label__{one}" == label for one, (label, _) in zip(found, given, strict=True)])
    )


def fasttext(run: Run) -> None:
    import fasttext

    with run.timed():
        model = fasttext.train_supervised(
            str(run.folder / "train"), lr=0.5, epoch=5, wordNgrams=2, dim=50, bucket=200_000, minCount=5, thread=2,
            verbose=0,
        )  # fmt: skip
        model.save_model(str(run.folder / "peer.bin"))
    run.say(accuracy=model.test(str(run.folder / "held"))[1])


ENTRY = Entry(
    "BlazingText, 10 million words",
    prepare,
    (
        Contender("batch_skipgram", lambda run: ours(run, "batch_skipgram")),
        Contender("gensim skip-gram", lambda run: gensim(run, 1), "gensim"),
        Contender("cbow", lambda run: ours(run, "cbow")),
        Contender("gensim cbow", lambda run: gensim(run, 0), "gensim"),
        Contender("supervised", labels),
        Contender("fastText supervised", fasttext, "fasttext"),
    ),
    (
        Comparison(
            "words_per_s", "batch_skipgram", "gensim skip-gram", least=2.0, quality="neighbors", worse_by=0.01
        ),
        Comparison("words_per_s", "cbow", "gensim cbow", quality="neighbors", worse_by=0.01),
        Comparison(
            "seconds", "supervised", "fastText supervised", most=1.0, quality="accuracy", worse_by=0.005
        ),
    ),
)
