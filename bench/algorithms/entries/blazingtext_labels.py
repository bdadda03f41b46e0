"""Text classification on real lines, the mean of five splits: questions about cooking (736 labels), news of four kinds.

The data are looked for below `SAGESMITH_BENCH_DATA`: cooking-stackexchange/cooking.stackexchange.txt.gz, as fastText's
tutorial has it, and ag-news/test.csv.gz. Accuracy is the share of lines whose likeliest label is one of theirs.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.algorithms.entry import Comparison, Contender, Entry, Run, data_folder
from bench.algorithms.jobs import channel, loaded, trained

SETTINGS = {
    "cooking": {"learning_rate": 0.5, "epochs": 25, "word_ngrams": 2},
    "news": {"learning_rate": 0.5, "epochs": 10, "word_ngrams": 2},
}
COMMON = {"vector_dim": 50, "buckets": 200_000, "min_count": 1}


def prepare(folder: Path, quick: bool) -> None:
    place = data_folder("cooking-stackexchange/cooking.stackexchange.txt.gz", "ag-news/test.csv.gz")
    with gzip.open(
        place / "cooking-stackexchange" / "cooking.stackexchange.txt.gz", "rt", encoding="utf-8"
    ) as file:
        cooking = [" ".join(_words(line)) for line in file]
    with gzip.open(place / "ag-news" / "test.csv.gz", "rt", encoding="utf-8", newline="") as file:
        news = [f"__label__{kind} {' '.join(_words(' '.join(text)))}" for kind, *text in csv.reader(file)]
    for name, lines in (("cooking", cooking), ("news", news)):
        for seed in range(1 if quick else 5):
            order = np.random.default_rng(seed).permutation(len(lines))
            n_held = len(lines) // 5
            for part, chosen in (("held", order[:n_held]), ("train", order[n_held:])):
                text = "".join(lines[i] + "\n" for i in chosen)
                (folder / f"{name}-{seed}.{part}").write_text(text, encoding="utf-8")


def _words(line: str) -> list[str]:
    return [
        w if w.startswith("__label__") else w.lower() for w in re.findall(r"__label__\S+|\w+|[^\w\s]", line)
    ]


def judge(run: Run, learn: Callable[[Path, dict[str, Any], int], Callable[[list[str]], list[str]]]) -> None:
    """Note the accuracy of what *learn* makes of each split: a file, settings and a seed to a function of lines."""
    found: dict[str, list[float]] = {f"{name}_accuracy": [] for name in SETTINGS}
    with run.timed():
        for name, settings in SETTINGS.items():
            for seed in run.seeds:
                predict = learn(run.folder / f"{name}-{seed}.train", {**COMMON, **settings}, seed)
                held = [line.split() for line in _lines(run.folder / f"{name}-{seed}.held")]
                labels = [{w for w in words if w.startswith("__label__")} for words in held]
                texts = [" ".join(w for w in words if not w.startswith("__label__")) for words in held]
                right = [one in known for one, known in zip(predict(texts), labels, strict=True)]
                found[f"{name}_accuracy"].append(float(np.mean(right)))
    run.say_seeds(**found)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def ours(run: Run) -> None:
    from sagesmith_algorithms import BlazingText

    algorithm = loaded("blazingtext")

    def learn(path: Path, settings: dict[str, Any], seed: int) -> Callable[[list[str]], list[str]]:
        del seed
        train = channel(run.folder, "train", [path])
        model = BlazingText.load(
            trained(algorithm, {"mode": "supervised", **settings}, {"train": train}, "text/plain")
        )
        return lambda texts: [f"__label__{one}" for one in model.predict(texts)]

    judge(run, learn)


def fasttext(run: Run) -> None:
    import fasttext as library

    def learn(path: Path, settings: dict[str, Any], seed: int) -> Callable[[list[str]], list[str]]:
        model = library.train_supervised(
            str(path), lr=settings["learning_rate"], epoch=settings["epochs"], wordNgrams=settings["word_ngrams"],
            dim=settings["vector_dim"], bucket=settings["buckets"], minCount=settings["min_count"], thread=2, seed=seed,
            verbose=0,
        )  # fmt: skip
        model.save_model(str(run.folder / "peer.bin"))
        return lambda texts: [one[0] if one else "" for one in model.predict(texts)[0]]

    judge(run, learn)


ENTRY = Entry(
    "BlazingText, supervised, real lines",
    prepare,
    (Contender("Sagesmith", ours), Contender("fastText", fasttext, "fasttext")),
    (
        Comparison("cooking_accuracy", "Sagesmith", "fastText", least=1.0, seeded=True),
        Comparison("news_accuracy", "Sagesmith", "fastText", least=1.0, seeded=True),
        Comparison("seconds", "Sagesmith", "fastText", most=1.0),
    ),
)
