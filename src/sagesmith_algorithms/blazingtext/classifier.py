"""Text classification: lines as means of the vectors of their words and runs of words, and a softmax over the labels.

Features, labels and the model are fastText's, so that its file of the model gives the same answers there. Of the buckets that
runs of words are hashed to, only those that the text touches are kept while training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.blazingtext import fasttext, kernels
from sagesmith_algorithms.blazingtext.text import LABEL, Text
from sagesmith_algorithms.blazingtext.words import check_finite
from sagesmith_algorithms.errors import CustomerError
from sagesmith_algorithms.formats.batch import Floats

__all__ = ["Lines", "accuracy", "learn_labels", "lines_of", "probabilities"]

_END = fasttext.END.encode()
_CHUNK = 4096

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Ids = npt.NDArray[np.int32]
Progress = Callable[[int, float, float, float], None]


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines as features.

    Attributes:
        starts: int64 (n_lines + 1,): line i has features[starts[i]:starts[i + 1]].
        features: int32: numbers of words, or n_words + bucket.
        label_starts: as `starts`, for `labels`.
        labels: int32, numbers of the labels.
    """

    starts: Ints
    features: npt.NDArray[np.int64]
    label_starts: Ints
    labels: Ids

    def __len__(self) -> int:
        return len(self.starts) - 1


def lines_of(text: Text, words: Sequence[str], labels: Sequence[str], longest: int, n_buckets: int) -> Lines:
    """Return the lines of *text* as features of the vocabulary *words*; labels that are not in *labels* are left out.

    Lines of no word, or without known label, are lines, too.
    """
    word_number = {word.encode(): i for i, word in enumerate(words)}
    label_number = {label.encode(): i for i, label in enumerate(labels)}
    is_label = np.array([word.startswith(LABEL) for word in text.words] + [False])
    of_word = np.array([word_number.get(word, -1) for word in text.words] + [word_number.get(_END, -1)])
    of_label = np.array([label_number.get(word, -1) for word in text.words] + [-1])
    every = [*text.words, _END]
    hashes = np.empty(len(every), np.uint32)
    ends = np.cumsum([len(word) for word in every])
    kernels.hash_words(np.frombuffer(bytearray(b"".join(every)), np.uint8), ends, hashes)
    ids = text.ids  # -1, the end of a line, stands for the last of `every`
    line: Array = np.cumsum(ids < 0) - (ids < 0)
    n_lines = int(line[-1]) + 1 if len(line) else 0
    labelled = is_label[ids]
    known_label = labelled & (of_label[ids] >= 0)
    plain = ids[~labelled]
    plain_line: Array = line[~labelled]
    known = of_word[plain] >= 0
    features: list[Array] = [of_word[plain[known]]]
    owners: list[Array] = [plain_line[known]]
    if longest > 1 and n_buckets:
        lengths = np.bincount(plain_line, minlength=n_lines)
        n_runs = sum(np.maximum(lengths - n + 1, 0) for n in range(2, longest + 1))
        buckets = np.empty(int(np.sum(n_runs)), np.int64)
        kernels.ngrams(np.ascontiguousarray(hashes[plain]), np.cumsum(lengths), longest, n_buckets, buckets)
        features.append(buckets + len(words))
        owners.append(np.repeat(np.arange(n_lines), n_runs))
    order = np.argsort(np.concatenate(owners), kind="stable")
    return Lines(
        _starts(np.concatenate(owners), n_lines),
        np.concatenate(features)[order],
        _starts(line[known_label], n_lines),
        of_label[ids[known_label]].astype(np.int32),
    )


def learn_labels(
    text: Text,
    values: Mapping[str, Any],
    *,
    validation: Text | None = None,
    n_threads: int,
    seed: int = 0,
    progress: Progress = lambda epoch, rate, loss, accuracy: None,
) -> fasttext.Model:
    """Return a classifier of lines learned from *text* under the hyperparameters *values*.

    With `early_stopping` it is the one that is best on *validation*. *progress* is told after each epoch: its number, the
    learning rate, the mean loss, and the accuracy on *validation*, NaN where that is not looked at.

    Raises:
        CustomerError: there is no text, no label, or no validation text where it is needed.
    """
    words, labels, counts = _vocabulary(text, values["min_count"])
    n_buckets = values["buckets"] if values["word_ngrams"] > 1 else 0
    lines = lines_of(text, words, labels, values["word_ngrams"], n_buckets)
    n_words = len(words)
    used = np.unique(lines.features[lines.features >= n_words]) - n_words
    features = _compact(lines.features, n_words, used)
    rng = np.random.default_rng(seed)
    dim = values["vector_dim"]
    inputs = np.zeros((n_words + len(used), dim), np.float32)
    inputs[:n_words] = (rng.random((n_words, dim), np.float32) * 2 - 1) / np.float32(dim)
    outputs = np.zeros((len(labels), dim), np.float32)
    held = None
    if validation is not None:
        held = lines_of(validation, words, labels, values["word_ngrams"], n_buckets)
    done, total = np.zeros(n_threads), float(len(lines) * values["epochs"])
    best: tuple[float, int, Floats, Floats] | None = None
    with ThreadPoolExecutor(n_threads, "labels") as pool:
        for epoch in range(values["epochs"]):
            loss, order = np.zeros(n_threads), rng.permutation(len(lines))
            states = rng.integers(0, 1 << 62, n_threads)

            def work(thread: int, loss: Any = loss, order: Any = order, states: Any = states) -> None:
                part = np.ascontiguousarray(np.array_split(order, n_threads)[thread])
                kernels.classify(
                    inputs, outputs, lines.starts, features, lines.label_starts, lines.labels, part, done, thread, total,
                    np.float32(values["learning_rate"]), np.uint64(states[thread]), loss,
                )  # fmt: skip

            list(pool.map(work, range(n_threads)))
            check_finite(inputs, outputs, values["learning_rate"])
            found = float("nan")
            if held is not None and values["early_stopping"]:
                found = _accuracy(inputs, outputs, held, _compact(held.features, n_words, used))
            rate = values["learning_rate"] * (1 - (epoch + 1) / values["epochs"])
            progress(epoch, rate, float(loss.sum()) / max(len(lines), 1), found)
            if held is None or not values["early_stopping"]:
                continue
            if best is None or found > best[0]:
                best = found, epoch, inputs.copy(), outputs.copy()
            elif epoch + 1 >= values["min_epochs"] and epoch - best[1] >= values["patience"]:
                break
    if best is not None:
        inputs, outputs = best[2:]
    return fasttext.Model(
        fasttext.SUPERVISED, words, counts, labels, inputs, outputs, n_buckets=n_buckets,
        used=used if n_buckets else None, word_ngrams=values["word_ngrams"], loss=3,
        settings=(5, values["epochs"], values["min_count"], 5),
        index={word: i for i, word in enumerate(words)},
    )  # fmt: skip


def accuracy(model: fasttext.Model, text: Text) -> tuple[float, int]:
    """Return the share of lines of *text* whose most likely label is one of theirs, and the number of lines with labels.

    A line whose labels the model does not know counts as wrong.
    """
    lines = lines_of(text, model.words, model.labels, model.word_ngrams, model.n_buckets)
    features: Array = lines.features
    if model.used is not None:
        features = _compact(features, len(model.words), model.used)
    is_label = np.array([word.startswith(LABEL) for word in text.words] + [False])
    labelled = is_label[text.ids]
    line: Array = np.cumsum(text.ids < 0) - (text.ids < 0)
    n_examples = len(np.unique(line[labelled]))
    right = _accuracy(model.inputs, model.outputs, lines, features) * int(
        (np.diff(lines.label_starts) > 0).sum()
    )
    return right / max(n_examples, 1), n_examples


def probabilities(model: fasttext.Model, sentences: Sequence[str]) -> Floats:
    """Return the probability of each label for each sentence, (n, n_labels); 0 for all if no word of it is known."""
    joined = b"".join(b" ".join(sentence.encode().split()) + b"\n" for sentence in sentences)
    lines = lines_of(Text.of([joined]), model.words, model.labels, model.word_ngrams, model.n_buckets)
    features: Array = lines.features
    if model.used is not None:
        features = _compact(features, len(model.words), model.used)
    hidden = _hidden(model.inputs, lines.starts, features)
    scores = _softmax(hidden @ model.outputs.T)
    scores[np.diff(lines.starts) == 0] = 0
    return scores


def _vocabulary(text: Text, min_count: int) -> tuple[list[str], list[str], list[int]]:
    counts = text.counts
    n_lines = int((text.ids < 0).sum())
    found = [(-int(n), word) for word, n in zip(text.words, counts, strict=True)]
    labels = sorted(one for one in found if one[1].startswith(LABEL))
    words = [one for one in found if one[1].startswith(LABEL) is False and -one[0] >= min_count]
    if not found:
        raise CustomerError("There is no row in the channel 'train'; check its S3Uri.")
    if len(labels) < 2:
        raise CustomerError(
            f"The channel 'train' has {len(labels)} labels; at least 2 are needed. Each line must begin with its labels, "
            "such as __label__4 linux ready for prime time."
        )
    if n_lines >= min_count:
        words.append((-n_lines, _END))
    words.sort()
    if not words:
        raise CustomerError(
            f"No word of the channel 'train' occurs min_count={min_count} times; set a smaller min_count."
        )
    return (
        [word.decode() for _, word in words],
        [label.decode() for _, label in labels],
        [-n for n, _ in [*words, *labels]],
    )


def _starts(owners: Ints, n_lines: int) -> Ints:
    return np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=n_lines))]).astype(np.int64)


def _compact(features: Ints, n_words: int, used: Ints) -> Ids:
    """Return *features* as rows of the matrix that holds only the buckets *used*; others get the row -1."""
    rows = features.copy()
    hashed = np.flatnonzero(features >= n_words)
    buckets = features[hashed] - n_words
    if len(used):
        place = np.minimum(np.searchsorted(used, buckets), len(used) - 1)
        rows[hashed] = np.where(used[place] == buckets, place + n_words, -1)
    else:
        rows[hashed] = -1
    return rows.astype(np.int32)


def _hidden(inputs: Floats, starts: Ints, features: npt.NDArray[Any]) -> Floats:
    """Return the mean of each line's features, (n_lines, dim); a feature of -1 counts, with a vector of 0."""
    from scipy.sparse import csr_matrix

    rows, columns = np.unique(features, return_inverse=True)
    vectors = np.where((rows >= 0)[:, None], inputs[np.maximum(rows, 0)], np.float32(0))
    shape = (len(starts) - 1, len(rows))
    sums = csr_matrix((np.ones(len(columns), np.float32), columns, starts), shape=shape) @ vectors
    return np.asarray(sums / np.maximum(np.diff(starts), 1)[:, None], np.float32)


def _softmax(scores: Floats) -> Floats:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Floats = powers / powers.sum(axis=1, keepdims=True)
    return result


def _accuracy(inputs: Floats, outputs: Floats, lines: Lines, features: Array) -> float:
    right = n = 0
    for first in range(0, len(lines), _CHUNK):
        last = min(first + _CHUNK, len(lines))
        starts = lines.starts[first : last + 1]
        hidden = _hidden(inputs, starts - starts[0], features[starts[0] : starts[-1]])
        chosen = (hidden @ outputs.T).argmax(axis=1)
        label_starts = lines.label_starts[first : last + 1]
        lengths = np.diff(label_starts)
        own = lines.labels[label_starts[0] : label_starts[-1]]
        hits = own == np.repeat(chosen, lengths)
        right += len(np.unique(np.repeat(np.arange(last - first), lengths)[hits]))
        n += int((lengths > 0).sum())
    return right / max(n, 1)
