"""Topics from moments: how often words occur, in pairs and in threes, tells the topics without any guess to begin with.

Let x1, x2, x3 be three different words of a document. LDA makes the expectation of x1 (x) x2, less what alpha0 adds to
it, a sum over topics of mu (x) mu, and that of x1 (x) x2 (x) x3 the same with three factors. The pairs give a basis
in which the topics are orthogonal (found by a randomized eigendecomposition, as the matrix of all pairs of words may be too
large to write down); in it the threes are a small tensor, whose orthogonal decomposition by alternating least squares
gives the topics.

Source: Anandkumar et al., "Tensor Decompositions for Learning Latent Variable Models", JMLR 15 (2014), sections 3.2
and 4; Sharan and Valiant, "Orthogonalized ALS", ICML 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.errors import DataError
from sagesmith_algorithms.lda.corpus import Block, Corpus

__all__ = ["Topics", "decompose", "spectral_topics"]

_EXTRA = 10
_POWERS = 2
_MOST_THREES = 100_000
_CHUNK = 512

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Topics:
    """`words` (n_words, n_topics), each column a distribution, and `weights` (n_topics,), their share of the text."""

    words: Array
    weights: Array


def spectral_topics(
    corpus: Corpus,
    n_words: int,
    n_topics: int,
    *,
    alpha0: float,
    restarts: int,
    iterations: int,
    tol: float,
    rng: np.random.Generator,
) -> Topics:
    """Return topics found from the moments of *corpus*.

    Documents of fewer than three words say nothing of moments. Where the moments tell apart fewer than *n_topics*, the others are
    random mixtures of words.

    Raises:
        DataError: there is no document at all, or none has words.
    """
    first = corpus.total(_first_moments)
    if first is None or not corpus.n_documents:
        raise DataError("there is no row in the channel 'train'; check its S3Uri")
    if not corpus.n_words_read:
        raise DataError("all documents of the channel 'train' are empty: there is no word in them")
    sums, diagonal, triple, n_used = first[:-1, 0], first[:-1, 1], first[:-1, 2], first[-1, 0]
    frequency = corpus.total(lambda block: np.asarray(block.counts.sum(axis=0), np.float64).ravel())
    basis = roots = np.empty((n_words, 0))
    if n_used:
        mean, diagonal, triple = sums / n_used, diagonal / n_used, triple / n_used
        basis, roots = _whitening(corpus, mean, diagonal, n_used, n_topics, alpha0, rng)
    found = basis.shape[1]
    words, weights = np.empty((n_words, 0)), np.empty(0)
    if found:
        tensor = _whitened_threes(corpus, basis, mean, diagonal, triple, n_used, alpha0)
        vectors, values = decompose(tensor, restarts=restarts, iterations=iterations, tol=tol, rng=rng)
        words = roots @ vectors
        words = np.maximum(words * np.where(words.sum(axis=0) < 0, -1, 1), 0)
        weights = 1 / np.maximum(values, 1e-6) ** 2
    missing = n_topics - found
    if missing:
        more = frequency[:, None] * rng.gamma(1.0, size=(n_words, missing))
        words = np.concatenate([words, more], axis=1)
        weights = np.append(weights, np.full(missing, weights.mean() if found else 1.0))
    words = words / words.sum(axis=0) + 1e-3 * (frequency / frequency.sum())[:, None]
    return Topics(words / words.sum(axis=0), weights / weights.sum())


def decompose(
    tensor: Array, *, restarts: int, iterations: int, tol: float, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return orthonormal columns (k, k) and values (k,) whose cubes come closest to the symmetric *tensor* (k, k, k).

    The best of *restarts* beginnings is returned; each ends after *iterations* steps, or when the share of the tensor's
    squares that is left changes by less than *tol*.
    """
    k = len(tensor)
    flat = tensor.reshape(k, k * k)
    whole = max(float(np.einsum("ij,ij->", flat, flat)), 1e-300)
    best_error, best = np.inf, (np.eye(k), np.ones(k))
    for _ in range(restarts):
        vectors = np.linalg.qr(rng.standard_normal((k, k)))[0]
        last = np.inf
        for _ in range(iterations):
            squares = (vectors[:, None, :] * vectors[None, :, :]).reshape(k * k, k)
            product = flat @ squares
            values = np.einsum("ij,ij->j", vectors, product)
            error = 1 - float(values @ values) / whole
            if abs(last - error) < tol:
                break
            last = error
            left, _, right = np.linalg.svd(product, full_matrices=False)
            vectors = left @ right
        if error < best_error:
            best_error, best = error, (vectors * np.where(values < 0, -1, 1), np.abs(values))
    return best


def _used(block: Block) -> tuple[Any, Array]:
    """Return the documents of three words and more, and their lengths."""
    if "used" not in block.memory:
        lengths = np.asarray(block.counts.sum(axis=1), np.float64).ravel()
        block.memory["used"] = np.flatnonzero(lengths > 2.5)
        block.memory["lengths"] = lengths[block.memory["used"]]
    used = block.memory["used"]
    return (block.counts if len(used) == block.counts.shape[0] else block.counts[used]), block.memory[
        "lengths"
    ]


def _first_moments(block: Block) -> Array:
    """Return sums over documents, (n_words + 1, 3): counts over length, over pairs, over threes; and the documents."""
    counts, n = _used(block)
    weights = np.stack([1 / n, 1 / (n * (n - 1)), 1 / (n * (n - 1) * (n - 2))], axis=1)
    sums = counts.T @ weights
    return np.concatenate([sums, [[len(n), 0, 0]]])


def _whitening(
    corpus: Corpus, mean: Array, diagonal: Array, n: float, n_topics: int, alpha0: float, rng: np.random.Generator
) -> tuple[Array, Array]:  # fmt: skip
    """Return W (n_words, n_found), with W' M2 W = 1, and its pseudo-inverse's transpose."""

    def pairs_times(vectors: Array) -> Array:
        given = vectors.astype(np.float32)

        def work(block: Block) -> Array:
            counts, lengths = _used(block)
            rows = (counts @ given) / (lengths * (lengths - 1))[:, None]
            return np.asarray(counts.T @ rows.astype(np.float32), np.float64)

        product = corpus.total(work) / n - diagonal[:, None] * vectors
        return np.asarray((alpha0 + 1) * product - alpha0 * np.outer(mean, mean @ vectors))

    size = min(n_topics + _EXTRA, len(mean))
    vectors = np.linalg.qr(rng.standard_normal((len(mean), size)))[0]
    for _ in range(_POWERS):
        vectors = np.linalg.qr(pairs_times(vectors))[0]
    small = vectors.T @ pairs_times(vectors)
    values, turned = np.linalg.eigh((small + small.T) / 2)
    chosen = np.argsort(-values)[:n_topics]
    chosen = chosen[values[chosen] > 1e-7 * max(float(values.max()), 1e-12)]
    directions, scale = vectors @ turned[:, chosen], np.sqrt(values[chosen])
    return directions / scale, directions * scale


def _whitened_threes(
    corpus: Corpus, basis: Array, mean: Array, diagonal: Array, triple: Array, n: float, alpha0: float
) -> Array:
    """Return the moment of threes in the whitened space, (k, k, k)."""
    k = basis.shape[1]
    given = basis.astype(np.float32)
    share = min(1.0, _MOST_THREES / max(corpus.n_documents, 1))

    def work(block: Block) -> Array:
        counts, lengths = _used(block)
        pairs, threes = 1 / (lengths * (lengths - 1)), 1 / (lengths * (lengths - 1) * (lengths - 2))
        rows = np.asarray(counts @ given)
        tensor = np.zeros((k, k * k))
        step = max(1, round(1 / share))
        for start in range(0, len(rows), _CHUNK * step):
            some = rows[start : start + _CHUNK]
            squares = (some[:, :, None] * some[:, None, :]).reshape(len(some), k * k)
            tensor += (some * threes[start : start + _CHUNK, None].astype(np.float32)).T @ squares
        n_seen = sum(min(_CHUNK, len(rows) - start) for start in range(0, len(rows), _CHUNK * step))
        tensor *= len(rows) / max(n_seen, 1)
        mixed = np.asarray(counts.T @ (rows * threes[:, None].astype(np.float32)), np.float64)
        two = (rows * pairs[:, None]).T @ rows
        return np.concatenate([tensor.ravel(), two.ravel(), mixed.ravel()])

    sums = corpus.total(work) / n
    tensor = sums[: k**3].reshape(k, k, k)
    two = sums[k**3 : k**3 + k * k].reshape(k, k) - (basis * diagonal[:, None]).T @ basis
    mixed = sums[k**3 + k * k :].reshape(-1, k)
    squares = (basis[:, :, None] * basis[:, None, :]).reshape(len(basis), k * k)
    twice = (squares.T @ mixed).reshape(k, k, k)
    thrice = (squares.T @ (basis * triple[:, None])).reshape(k, k, k)
    tensor = tensor - twice - twice.transpose(0, 2, 1) - twice.transpose(2, 1, 0) + 2 * thrice
    one = mean @ basis
    outer = np.einsum("ab,c->abc", two, one)
    mixtures = outer + outer.transpose(0, 2, 1) + outer.transpose(2, 1, 0)
    cube = np.einsum("a,b,c->abc", one, one, one)
    result: Array = (
        (alpha0 + 1) * (alpha0 + 2) / 2 * tensor - alpha0 * (alpha0 + 1) / 2 * mixtures + alpha0**2 * cube
    )
    return result
