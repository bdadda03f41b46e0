"""The inner loops of BlazingText: cutting text into words, word vectors in three ways, and text classification.

Several threads run the training loops on the same matrices at once, without locks, each on its part of the text: updates
that meet are rare and do no harm (Recht et al., "Hogwild", NIPS 2011). The text is numbers: words, and -1 where a line ends.

Where training diverges, values become infinite or no numbers; whoever calls looks for that afterwards.

Source: Mikolov et al., "Distributed Representations of Words and Phrases", NIPS 2013; Ji et al., "Parallelizing Word2Vec
in Shared and Distributed Memory", 2016 (the batches that share their negative samples); Joulin et al., "Bag of Tricks
for Efficient Text Classification", EACL 2017.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sagesmith_algorithms.compiled import compiled

__all__ = ["batch_skipgram", "cbow", "classify", "cut", "hash_words", "ngrams", "regrown", "skipgram"]

_FNV, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_SENTENCE = 1000
_SHARE = 10_000
_OWN = 1 << 18  # floats of a matrix that threads may have copies of
_CHANGES = 8  # lines that they learn from before they exchange what they changed
_TEXT = "int32[::1], int64, int64, float32[::1], int32[::1], int64, int64"
_RUN = "float64[::1], int64, float64, float32, uint64"


@compiled("void(uint64[::1], int32[::1], uint64[::1], int32[::1])")
def regrown(keys: Any, places: Any, new_keys: Any, new_places: Any) -> None:
    """Move the entries of a hash table into a larger one; both sizes are powers of two, places of -1 are empty."""
    mask = np.uint64(new_keys.shape[0] - 1)
    for i in range(keys.shape[0]):
        if places[i] >= 0:
            at = keys[i] & mask
            while new_places[at] >= 0:
                at = (at + np.uint64(1)) & mask
            new_keys[at] = keys[i]
            new_places[at] = places[i]


@compiled(
    "Tuple((int64, int64, int64))(uint8[::1], int64, int64, uint64[::1], int32[::1], int64[:,::1], int32[::1], int64)"
)
def cut(text: Any, start: Any, n_known: Any, keys: Any, places: Any, spans: Any, ids: Any, limit: Any) -> Any:
    """Cut *text* from *start* on into words and give them numbers, new ones from *n_known* on.

    Args:
        text: the bytes; it ends where a word or line ends.
        start: where to begin.
        n_known: the number of words known.
        keys: hash table: the words' hashes.
        places: hash table: their numbers, -1 where it is empty.
        spans: start and end of each new word are written there, from row 0 on.
        ids: the numbers of the words are written there, and -1 where a line ends.
        limit: known words at which to stop, as the table gets too full.

    Returns:
        where it stopped, the number of words known, the length of *ids* that was written.
    """
    mask = np.uint64(keys.shape[0] - 1)
    n_ids, first_new, at, end = 0, n_known, start, text.shape[0]
    while at < end:
        c = text[at]
        if c == 10:
            ids[n_ids] = -1
            n_ids += 1
            at += 1
            continue
        if c == 32 or (9 <= c <= 13) or c == 0:
            at += 1
            continue
        if n_known >= limit:
            break
        h, begin = _FNV, at
        while at < end:
            c = text[at]
            if c == 32 or (9 <= c <= 13) or c == 0:
                break
            h = (h ^ np.uint64(c)) * _PRIME
            at += 1
        h ^= h >> np.uint64(29)
        slot = h & mask
        while places[slot] >= 0 and keys[slot] != h:
            slot = (slot + np.uint64(1)) & mask
        if places[slot] < 0:
            keys[slot] = h
            places[slot] = n_known
            spans[n_known - first_new, 0] = begin
            spans[n_known - first_new, 1] = at
            n_known += 1
        ids[n_ids] = places[slot]
        n_ids += 1
    return at, n_known, n_ids


@compiled("void(uint8[::1], int64[::1], uint32[::1])")
def hash_words(text: Any, ends: Any, out: Any) -> None:
    """Write fastText's hash of each word; word i ends at ends[i] of *text*, where the next begins."""
    start = 0
    for i in range(ends.shape[0]):
        h = np.uint32(2166136261)
        for at in range(start, ends[i]):
            h = (h ^ np.uint32(np.int8(text[at]))) * np.uint32(16777619)
        out[i] = h
        start = ends[i]


@compiled("void(uint32[::1], int64[::1], int64, int64, int64[::1])")
def ngrams(hashes: Any, ends: Any, longest: Any, buckets: Any, out: Any) -> None:
    """Write fastText's bucket of each run of 2 to *longest* words of each line; line i ends at ends[i] of *hashes*."""
    start, n = 0, 0
    for i in range(ends.shape[0]):
        for first in range(start, ends[i]):
            h = np.uint64(np.int64(np.int32(hashes[first])))
            for last in range(first + 1, min(ends[i], first + longest)):
                h = h * np.uint64(116049371) + np.uint64(np.int64(np.int32(hashes[last])))
                out[n] = np.int64(h % np.uint64(buckets))
                n += 1
        start = ends[i]


@compiled("uint64(uint64)", inline="always")
def _next(state: Any) -> Any:
    return state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)


@compiled("float32(float32)", fastmath=True, error_model="numpy", inline="always")
def _sigmoid(x: Any) -> Any:
    """Return 1 / (1 + exp(-x)), to some five digits, by vector instructions."""
    x = min(max(x, np.float32(-15.0)), np.float32(15.0))
    return np.float32(1.0) / (np.float32(1.0) + math.exp(-x))


@compiled("Tuple((int64, int64, uint64))(int32[::1], int64, int64, float32[::1], int32[::1], uint64)")
def _sentence(text: Any, at: Any, end: Any, keep: Any, words: Any, state: Any) -> Any:
    """Read the words of the next line, leaving frequent ones out by chance; return where it ends, and the number of words."""
    n = 0
    while at < end and n < _SENTENCE:
        word = text[at]
        at += 1
        if word < 0:
            break
        state = _next(state)
        if np.float32(state >> np.uint64(40)) * np.float32(1.0 / (1 << 24)) < keep[word]:
            words[n] = word
            n += 1
    return at, n, state


@compiled("uint64(float32[::1], float32[:,::1], int64, int32[::1], int64, float32, uint64, float32[::1])",
          fastmath=True, error_model="numpy")  # fmt: skip
def _predict(
    hidden: Any,
    outputs: Any,
    target: Any,
    table: Any,
    negatives: Any,
    rate: Any,
    state: Any,
    gradient: Any,
) -> Any:
    """Let *hidden* predict *target* and not the negative samples; update *outputs*, add to the *gradient* of hidden.

    Returns:
        the state of the random numbers.
    """
    dim = hidden.shape[0]
    for number in range(negatives + 1):
        word, label = target, np.float32(1.0)
        if number:
            state = _next(state)
            word, label = (
                np.int64(table[(state >> np.uint64(33)) % np.uint64(table.shape[0])]),
                np.float32(0.0),
            )
            if word == target:
                continue
        row = outputs[word]
        product = np.float32(0.0)
        for k in range(dim):
            product += hidden[k] * row[k]
        step = rate * (label - _sigmoid(product))
        for k in range(dim):
            gradient[k] += step * row[k]
            row[k] += step * hidden[k]
    return state


@compiled(
    f"void(float32[:,::1], float32[:,::1], int64[::1], int32[::1], {_TEXT}, {_RUN})",
    fastmath=True,
    error_model="numpy",
)
def skipgram(
    inputs: Any, outputs: Any, starts: Any, pieces: Any, text: Any, at: Any, end: Any, keep: Any, table: Any, window: Any,
    negatives: Any, done: Any, mine: Any, total: Any, rate: Any, state: Any,
) -> None:  # fmt: skip
    """Learn from text[at:end] to predict the words around a word.

    Args:
        inputs: float32 (n_rows, dim), vectors of words and of parts of words.
        outputs: float32 (n_words, dim).
        starts: int64 (n_words + 1,): a word's vector is the mean of inputs[pieces[starts[w]:starts[w + 1]]].
        pieces: int32, rows of *inputs*.
        text: int32, words, -1 where a line ends.
        at: where to begin.
        end: where to end.
        keep: float32 (n_words,): how likely a word is looked at.
        table: int32, words as often as they are to be negative samples.
        window: words looked at on each side, at most.
        negatives: negative samples for each word.
        done: float64 (n_threads,), how much of the text the threads have done, in all epochs.
        mine: this thread's place in it.
        total: how much there is to do.
        rate: the learning rate at the beginning, which falls to 0.
        state: of the random numbers.
    """
    dim = inputs.shape[1]
    words = np.empty(_SENTENCE, np.int32)
    hidden, gradient = np.empty(dim, np.float32), np.empty(dim, np.float32)
    since, now = at, rate * np.float32(max(1e-4, 1.0 - done.sum() / total))
    while at < end:
        at, n, state = _sentence(text, at, end, keep, words, state)
        if at - since > _SHARE:
            done[mine] += at - since
            since, now = at, rate * np.float32(max(1e-4, 1.0 - done.sum() / total))
        for i in range(n):
            state = _next(state)
            width = np.int64(1) + np.int64((state >> np.uint64(33)) % np.uint64(window))
            first, last = starts[words[i]], starts[words[i] + 1]
            share = np.float32(1.0) / np.float32(last - first)
            low: Any = max(0, i - width)
            high: Any = min(n, i + width + 1)
            for j in range(low, high):
                if j == i:
                    continue
                for k in range(dim):
                    hidden[k] = 0.0
                    gradient[k] = 0.0
                for p in range(first, last):
                    row = inputs[pieces[p]]
                    for k in range(dim):
                        hidden[k] += share * row[k]
                state = _predict(hidden, outputs, np.int64(words[j]), table, negatives, now, state, gradient)
                for p in range(first, last):
                    row = inputs[pieces[p]]
                    for k in range(dim):
                        row[k] += share * gradient[k]
    done[mine] += at - since


@compiled(
    f"void(float32[:,::1], float32[:,::1], int64[::1], int32[::1], {_TEXT}, {_RUN})",
    fastmath=True,
    error_model="numpy",
)
def cbow(
    inputs: Any, outputs: Any, starts: Any, pieces: Any, text: Any, at: Any, end: Any, keep: Any, table: Any, window: Any,
    negatives: Any, done: Any, mine: Any, total: Any, rate: Any, state: Any,
) -> None:  # fmt: skip
    """Learn from text[at:end] to predict a word from the mean of those around it (arguments as `skipgram`)."""
    dim = inputs.shape[1]
    words = np.empty(_SENTENCE, np.int32)
    hidden, gradient = np.empty(dim, np.float32), np.empty(dim, np.float32)
    since, now = at, rate * np.float32(max(1e-4, 1.0 - done.sum() / total))
    while at < end:
        at, n, state = _sentence(text, at, end, keep, words, state)
        if at - since > _SHARE:
            done[mine] += at - since
            since, now = at, rate * np.float32(max(1e-4, 1.0 - done.sum() / total))
        for i in range(n):
            state = _next(state)
            width = np.int64(1) + np.int64((state >> np.uint64(33)) % np.uint64(window))
            low: Any = max(0, i - width)
            high: Any = min(n, i + width + 1)
            n_rows = 0
            for k in range(dim):
                hidden[k] = 0.0
                gradient[k] = 0.0
            for j in range(low, high):
                if j != i:
                    for p in range(starts[words[j]], starts[words[j] + 1]):
                        row = inputs[pieces[p]]
                        n_rows += 1
                        for k in range(dim):
                            hidden[k] += row[k]
            if not n_rows:
                continue
            share = np.float32(1.0) / np.float32(n_rows)
            for k in range(dim):
                hidden[k] *= share
            state = _predict(hidden, outputs, np.int64(words[i]), table, negatives, now, state, gradient)
            for j in range(low, high):
                if j != i:
                    for p in range(starts[words[j]], starts[words[j] + 1]):
                        row = inputs[pieces[p]]
                        for k in range(dim):
                            row[k] += gradient[k]
    done[mine] += at - since


@compiled(f"void(float32[:,::1], float32[:,::1], int64, {_TEXT}, {_RUN})", fastmath=True, error_model="numpy")
def batch_skipgram(
    inputs: Any, outputs: Any, batch: Any, text: Any, at: Any, end: Any, keep: Any, table: Any, window: Any, negatives: Any,
    done: Any, mine: Any, total: Any, rate: Any, state: Any,
) -> None:  # fmt: skip
    """Learn from text[at:end] to predict a word from each of those around it, up to *batch* of them at once.

    They share the negative samples, so that all is products of small matrices, which stay in the fastest memory
    (other arguments as `skipgram`). Rows are worked on two by two.
    """
    dim = inputs.shape[1]
    words = np.empty(_SENTENCE, np.int32)
    n_left, n_right = batch + batch % 2, negatives + 1 + (negatives + 1) % 2
    left, right = np.zeros((n_left, dim), np.float32), np.zeros((n_right, dim), np.float32)
    steps = np.zeros((n_left, n_right), np.float32)
    chosen, sampled = np.empty(n_left, np.int64), np.empty(n_right, np.int64)
    since, now = at, rate * np.float32(max(1e-4, 1.0 - done.sum() / total))
    while at < end:
        at, n, state = _sentence(text, at, end, keep, words, state)
        if at - since > _SHARE:
            done[mine] += at - since
            since, now = at, rate * np.float32(max(1e-4, 1.0 - done.sum() / total))
        for i in range(n):
            state = _next(state)
            width = np.int64(1) + np.int64((state >> np.uint64(33)) % np.uint64(window))
            target = np.int64(words[i])
            position: Any = max(0, i - width)
            high: Any = min(n, i + width + 1)
            while position < high:
                rows = 0
                while position < high and rows < batch:
                    if position != i:
                        chosen[rows] = words[position]
                        rows += 1
                    position += 1
                if not rows:
                    break
                sampled[0], columns = target, 1
                for _ in range(negatives):
                    state = _next(state)
                    word = np.int64(table[(state >> np.uint64(33)) % np.uint64(table.shape[0])])
                    if word != target:
                        sampled[columns] = word
                        columns += 1
                for r in range(rows):
                    left[r] = inputs[chosen[r]]
                for c in range(columns):
                    right[c] = outputs[sampled[c]]
                if rows % 2:
                    left[rows] = 0.0
                if columns % 2:
                    right[columns] = 0.0
                for r in range(0, rows, 2):
                    a, b = left[r], left[r + 1]
                    for c in range(0, columns, 2):
                        x, y = right[c], right[c + 1]
                        ax = ay = bx = by = np.float32(0.0)
                        for k in range(dim):
                            ax += a[k] * x[k]
                            ay += a[k] * y[k]
                            bx += b[k] * x[k]
                            by += b[k] * y[k]
                        steps[r, c] = ax
                        steps[r, c + 1] = ay
                        steps[r + 1, c] = bx
                        steps[r + 1, c + 1] = by
                for r in range(rows):
                    for c in range(columns):
                        label = np.float32(1.0) if c == 0 else np.float32(0.0)
                        steps[r, c] = now * (label - _sigmoid(steps[r, c]))
                    if columns % 2:
                        steps[r, columns] = 0.0
                if rows % 2:
                    steps[rows] = 0.0
                for r in range(rows):
                    row = inputs[chosen[r]]
                    for c in range(0, columns, 2):
                        s, t, x, y = steps[r, c], steps[r, c + 1], right[c], right[c + 1]
                        for k in range(dim):
                            row[k] += s * x[k] + t * y[k]
                for c in range(columns):
                    row = outputs[sampled[c]]
                    for r in range(0, rows, 2):
                        s, t, a, b = steps[r, c], steps[r + 1, c], left[r], left[r + 1]
                        for k in range(dim):
                            row[k] += s * a[k] + t * b[k]
    done[mine] += at - since


@compiled("void(float32[:,::1], float32[:,::1], float32[:,::1])", error_model="numpy")
def _exchange(shared: Any, own: Any, known: Any) -> None:
    """Add to *shared* what *own* changed since it was *known*, and make both what is shared now."""
    for c in range(shared.shape[0]):
        for k in range(shared.shape[1]):
            now = shared[c, k] + (own[c, k] - known[c, k])
            shared[c, k] = now
            own[c, k] = now
            known[c, k] = now


@compiled(
    f"void(float32[:,::1], float32[:,::1], int64[::1], int32[::1], int64[::1], int32[::1], int64[::1], {_RUN}, float64[::1])",
    fastmath=True,
    error_model="numpy",
)
def classify(
    inputs: Any, outputs: Any, starts: Any, features: Any, label_starts: Any, labels: Any, lines: Any, done: Any, mine: Any,
    total: Any, rate: Any, state: Any, loss: Any,
) -> None:  # fmt: skip
    """Learn to predict the labels of *lines* by softmax; of several labels of a line one is taken by chance.

    Each line changes the vectors of all labels. Threads that did so in one place would wait for each other's cache lines: with 200
    labels of 50 floats, two of them took four times as long in all. So each changes a copy of its own, and what it changed is added to *outputs* after some lines.

    Args:
        inputs: float32 (n_features, dim).
        outputs: float32 (n_labels, dim).
        starts: int64 (n_lines + 1,): a line's vector is the mean of inputs[features[starts[i]:starts[i + 1]]].
        features: int32, rows of *inputs*.
        label_starts: as *starts*, for *labels*.
        labels: int32, rows of *outputs*.
        lines: int64, the lines to look at, in this order.
        done: as in `skipgram`, in lines.
        mine: this thread's place there.
        total: lines in all epochs.
        rate: the learning rate at the beginning.
        state: of the random numbers.
        loss: float64 (n_threads,): the sum of the lines' losses is added there.
    """
    dim, n_labels = inputs.shape[1], outputs.shape[0]
    hidden, gradient = np.empty(dim, np.float32), np.empty(dim, np.float32)
    scores = np.empty(n_labels, np.float32)
    shares = done.shape[0] > 1 and outputs.size <= _OWN
    vectors, known = outputs, outputs
    if shares:
        vectors, known = outputs.copy(), outputs.copy()
    n_changes = 0
    since, now = 0, rate * np.float32(max(1e-4, 1.0 - done.sum() / total))
    for at in range(lines.shape[0]):
        if at - since > 100:
            done[mine] += at - since
            since, now = at, rate * np.float32(max(1e-4, 1.0 - done.sum() / total))
        line = lines[at]
        first, last = starts[line], starts[line + 1]
        n_own = label_starts[line + 1] - label_starts[line]
        if first == last or not n_own:
            continue
        state = _next(state)
        target = labels[label_starts[line] + np.int64((state >> np.uint64(33)) % np.uint64(n_own))]
        share = np.float32(1.0) / np.float32(last - first)
        for k in range(dim):
            hidden[k] = 0.0
            gradient[k] = 0.0
        for p in range(first, last):
            row = inputs[features[p]]
            for k in range(dim):
                hidden[k] += row[k]
        for k in range(dim):
            hidden[k] *= share
        most = np.float32(-1e30)
        for c in range(n_labels):
            row = vectors[c]
            product = np.float32(0.0)
            for k in range(dim):
                product += hidden[k] * row[k]
            scores[c] = product
            most = max(most, product)
        whole = np.float32(0.0)
        for c in range(n_labels):
            scores[c] = math.exp(scores[c] - most)
            whole += scores[c]
        loss[mine] -= math.log(max(scores[target] / whole, np.float32(1e-10)))
        for c in range(n_labels):
            label = np.float32(1.0) if c == target else np.float32(0.0)
            step = now * (label - scores[c] / whole)
            row = vectors[c]
            for k in range(dim):
                gradient[k] += step * row[k]
                row[k] += step * hidden[k]
        for p in range(first, last):
            row = inputs[features[p]]
            for k in range(dim):
                row[k] += share * gradient[k]
        n_changes += 1
        if shares and n_changes == _CHANGES:
            _exchange(outputs, vectors, known)
            n_changes = 0
    if shares:
        _exchange(outputs, vectors, known)
    done[mine] += lines.shape[0] - since
