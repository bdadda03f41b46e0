"""Word vectors: which words there are, and the threads that learn their vectors."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.blazingtext import fasttext, kernels
from sagesmith_algorithms.blazingtext.text import Text
from sagesmith_algorithms.errors import CustomerError
from sagesmith_algorithms.formats.batch import Floats

if TYPE_CHECKING:
    from sagesmith_toolkit.rendezvous import Rendezvous

__all__ = ["Vocabulary", "check_finite", "learn_vectors", "vocabulary"]

_NEGATIVES = 1 << 20
_MEETINGS = 8
_MOST_DONE = 20_000_000

Ints = npt.NDArray[np.int64]
Progress = Callable[[float, float, float], None]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words that are learned, the most frequent first, and how often each occurs."""

    words: list[str]
    counts: Ints


def vocabulary(counts: Mapping[bytes, int], min_count: int) -> Vocabulary:
    """Return the words that occur *min_count* times and more.

    Raises:
        CustomerError: there is none.
    """
    kept = sorted(((-n, word) for word, n in counts.items() if n >= min_count))
    if not kept:
        total = len(counts)
        raise CustomerError(
            "There is no row in the channel 'train'; check its S3Uri."
            if not total
            else f"None of the {total} words of the channel 'train' occurs min_count={min_count} times. Give more text, "
            "one sentence a line with words separated by spaces, or a smaller min_count."
        )
    return Vocabulary([word.decode() for _, word in kept], np.array([-n for n, _ in kept], np.int64))


def learn_vectors(
    text: Text,
    words: Vocabulary,
    values: Mapping[str, Any],
    *,
    n_threads: int,
    seed: int = 0,
    hosts: Rendezvous | None = None,
    progress: Progress = lambda rate, share, speed: None,
) -> fasttext.Model:
    """Return the vectors of *words*, learned from *text* under the hyperparameters *values*.

    Several *hosts*, each with its own text, give each other their vectors some times in each epoch, and go on with the mean.
    *progress* is told the learning rate, the share that is done, and words per second.
    """
    dim, n_words = values["vector_dim"], len(words.words)
    number = {word: i for i, word in enumerate(words.words)}
    new = np.array([number.get(word.decode(), -2) for word in text.words], np.int32)
    ids = text.renumbered(new) if len(new) else text.ids
    starts, pieces, used = _pieces(words, values)
    rng = np.random.default_rng(seed)
    inputs = np.zeros((n_words + len(used), dim), np.float32)
    inputs[:n_words] = (rng.random((n_words, dim), np.float32) * 2 - 1) / np.float32(dim)
    outputs = np.zeros((n_words, dim), np.float32)
    keep, table = _keep(words.counts, values["sampling_threshold"]), _negatives(words.counts)
    settings = values["window_size"], values["negative_samples"]
    n_rounds = _MEETINGS if hosts is not None else max(1, -(-len(ids) // _MOST_DONE))
    done, total = np.zeros(n_threads), float(max(len(ids), 1) * values["epochs"])
    started, seeds = time.perf_counter(), rng.integers(0, 1 << 62, (values["epochs"], n_rounds, n_threads))
    cuts = _line_cuts(ids, n_rounds * n_threads)

    def work(epoch: int, part: int, thread: int) -> None:
        at, end = (int(cut) for cut in cuts[part * n_threads + thread : part * n_threads + thread + 2])
        last = done, thread, total, np.float32(values["learning_rate"]), np.uint64(seeds[epoch, part, thread])
        if values["mode"] == "batch_skipgram":
            kernels.batch_skipgram(
                inputs, outputs, values["batch_size"], ids, at, end, keep, table, *settings, *last
            )
        else:
            learn = kernels.cbow if values["mode"] == "cbow" else kernels.skipgram
            learn(inputs, outputs, starts, pieces, ids, at, end, keep, table, *settings, *last)

    with ThreadPoolExecutor(n_threads, "words") as pool:
        for epoch in range(values["epochs"]):
            for part in range(n_rounds):
                list(pool.map(lambda thread, e=epoch, p=part: work(e, p, thread), range(n_threads)))
                check_finite(inputs, outputs, values["learning_rate"])
                if hosts is not None:
                    inputs[:], outputs[:] = _mean(hosts, inputs, outputs, len(ids))
                share = float(done.sum()) / total
                speed = done.sum() / max(time.perf_counter() - started, 1e-9)
                progress(values["learning_rate"] * (1 - share), share, speed)
    return fasttext.Model(
        fasttext.CBOW if values["mode"] == "cbow" else fasttext.SKIPGRAM,
        words.words,
        words.counts.tolist(),
        [],
        inputs,
        outputs,
        n_buckets=values["buckets"] if len(used) else 0,
        used=used if len(used) else None,
        shortest=values["min_char"] if len(used) else 0,
        longest=values["max_char"] if len(used) else 0,
        settings=(values["window_size"], values["epochs"], values["min_count"], values["negative_samples"]),
        threshold=values["sampling_threshold"],
        index=number,
    )


def _pieces(words: Vocabulary, values: Mapping[str, Any]) -> tuple[Ints, npt.NDArray[np.int32], Ints]:
    """Return the rows that each word's vector is the mean of, as starts and rows, and the buckets that are used."""
    n = len(words.words)
    if not values["subwords"]:
        return np.arange(n + 1), np.arange(n, dtype=np.int32), np.empty(0, np.int64)
    of_word = [
        fasttext.subword_buckets(word, values["min_char"], values["max_char"], values["buckets"])
        for word in words.words
    ]
    used, rows = np.unique(
        np.array([b for buckets in of_word for b in buckets], np.int64), return_inverse=True
    )
    lengths = np.array([len(buckets) for buckets in of_word])
    starts = np.concatenate([[0], np.cumsum(lengths + 1)]).astype(np.int64)
    pieces = np.empty(int(starts[-1]), np.int32)
    own = np.zeros(len(pieces), bool)
    own[starts[:-1]] = True
    pieces[own], pieces[~own] = np.arange(n), rows + n
    return starts, pieces, used


def check_finite(inputs: Floats, outputs: Floats, learning_rate: float) -> None:
    """Raise `CustomerError` if vectors have left the range of numbers."""
    if not (np.isfinite(inputs).all() and np.isfinite(outputs).all()):
        raise CustomerError(
            f"The vectors became infinite with learning_rate={learning_rate:g}; choose a smaller one."
        )


def _keep(counts: Ints, threshold: float) -> Floats:
    """Return how likely each word is looked at: frequent ones are often left out."""
    if not threshold:
        return np.ones(len(counts), np.float32)
    share = counts / counts.sum() / threshold
    result: Floats = np.minimum((np.sqrt(share) + 1) / share, 1).astype(np.float32)
    return result


def _negatives(counts: Ints) -> npt.NDArray[np.int32]:
    """Return words, each as often as it is to be a negative sample: its count to the power of 3/4."""
    weights = counts**0.75
    size = max(_NEGATIVES, 4 * len(counts))
    ends = np.rint(np.cumsum(weights) / weights.sum() * size).astype(np.int64)
    return np.repeat(np.arange(len(counts), dtype=np.int32), np.diff(ends, prepend=0))


def _line_cuts(ids: npt.NDArray[np.int32], n_parts: int) -> Ints:
    """Return where parts of about equal length begin and end; a part begins after the end of a line, if there is one."""
    cuts = np.linspace(0, len(ids), n_parts + 1).astype(np.int64)
    for i in range(1, n_parts):
        after = np.flatnonzero(ids[cuts[i] : cuts[i] + 10_000] < 0)
        if len(after):
            cuts[i] += after[0] + 1
    return np.maximum.accumulate(cuts)


def _mean(hosts: Rendezvous, inputs: Floats, outputs: Floats, n_ids: int) -> tuple[Floats, Floats]:
    """Return the mean of all hosts' matrices, weighted by how much text each has."""
    message = np.float64(n_ids).tobytes() + inputs.tobytes() + outputs.tobytes()
    parts = [
        (float(np.frombuffer(m, np.float64, 1)[0]), np.frombuffer(m, np.float32, offset=8))
        for m in hosts.exchange(message)
    ]
    whole = sum(weight for weight, _ in parts) or 1.0
    mean = np.zeros(inputs.size + outputs.size, np.float32)
    for weight, values in parts:
        mean += np.float32(weight / whole) * values
    return mean[: inputs.size].reshape(inputs.shape), mean[inputs.size :].reshape(outputs.shape)
