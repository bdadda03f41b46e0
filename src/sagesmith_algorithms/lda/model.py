"""Fitting LDA: topics from the moments first, then a few passes in which documents and topics explain each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.formats.batch import Floats
from sagesmith_algorithms.lda import kernels
from sagesmith_algorithms.lda.corpus import Block, Corpus
from sagesmith_algorithms.lda.spectral import spectral_topics

__all__ = ["Fitted", "fit", "mixtures", "word_log_likelihood"]

# On 20 newsgroups and on generated text, ten passes from the spectral topics reach what more do not better, and the
# mean of the topics' distribution predicts held-out words better than exp(E[log]) (docs/algorithms.md, LDA).
_PASSES = 10
_TOPIC_PRIOR = 0.05
_STEPS, _FIRST_STEPS, _TOL = 10, 30, 1e-2
_INFERENCE_STEPS, _INFERENCE_TOL = 200, 1e-3


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was learned: `alpha` (n_topics,) and `beta` (n_topics, n_words), a distribution of words for each topic."""

    alpha: Floats
    beta: Floats


def fit(
    corpus: Corpus,
    values: Mapping[str, Any],
    rng: np.random.Generator,
    progress: Callable[[int, int, float], None] = lambda done, of, change: None,
) -> Fitted:
    """Return the model of *corpus* under the hyperparameters *values*.

    *progress* is told after each pass: passes done, of how many, the log-likelihood of a word of the text.
    """
    n_words, n_topics, alpha0 = values["feature_dim"], values["num_topics"], values["alpha0"]
    start = spectral_topics(
        corpus, n_words, n_topics, alpha0=alpha0, restarts=values["max_restarts"],
        iterations=values["max_iterations"], tol=values["tol"], rng=rng,
    )  # fmt: skip
    shares, topics = start.weights, start.words.astype(np.float32)
    for number in range(_PASSES):
        alpha = _alpha(shares, alpha0)
        found = np.asarray(corpus.total(_explaining(topics, alpha)), np.float64)
        likelihood, found = float(found[-1, 0]), found[:-1]
        progress(number + 1, _PASSES, likelihood / corpus.n_words_read)
        shares = (found.sum(axis=0) + 1e-3) / (found.sum() + 1e-3 * n_topics)
        smoothed = found + _TOPIC_PRIOR
        topics = np.ascontiguousarray(smoothed / smoothed.sum(axis=0), np.float32)
    return Fitted(_alpha(shares, alpha0), np.ascontiguousarray(topics.T))


def mixtures(counts: Any, alpha: Floats, beta: Floats) -> Floats:
    """Return the mixture of topics of each document, (n_docs, n_topics); rows sum to 1."""
    gamma = _inferred(Block(counts), alpha, np.ascontiguousarray(beta.T))
    result: Floats = gamma / gamma.sum(axis=1, keepdims=True)
    return result


def word_log_likelihood(corpus: Corpus, alpha: Floats, beta: Floats) -> float:
    """Return the sum over *corpus* of the variational lower bound of the documents' log-likelihood."""
    topics = np.ascontiguousarray(beta.T)
    return float(
        corpus.total(
            lambda block: kernels.bound(*block.arrays, topics, alpha, _inferred(block, alpha, topics))
        )
        or 0.0
    )


def _alpha(shares: npt.NDArray[Any], alpha0: float) -> Floats:
    """Return the prior of the mixtures: it sums to *alpha0*, and half of it is shared equally."""
    return (alpha0 * (0.5 * shares + 0.5 / len(shares))).astype(np.float32)


def _explaining(topics: Floats, alpha: Floats) -> Callable[[Block], Floats]:
    """Return what counts, for a block, words by topic, (n_words + 1, n_topics); the last row holds the likelihood."""

    def work(block: Block) -> Floats:
        steps = _STEPS
        if "gamma" not in block.memory:
            steps = _FIRST_STEPS
            block.memory["gamma"] = np.ones((block.counts.shape[0], len(alpha)), np.float32)
        found = np.zeros((len(topics) + 1, len(alpha)), np.float32)
        gamma = block.memory["gamma"]
        kernels.infer(*block.arrays, topics, alpha, gamma, found[:-1], steps, np.float32(_TOL))
        found[-1, 0] = kernels.bound(*block.arrays, topics, alpha, gamma)
        return found

    return work


def _inferred(block: Block, alpha: Floats, topics: Floats) -> Floats:
    gamma = np.ones((block.counts.shape[0], len(alpha)), np.float32)
    none = np.empty((0, len(alpha)), np.float32)
    kernels.infer(*block.arrays, topics, alpha, gamma, none, _INFERENCE_STEPS, np.float32(_INFERENCE_TOL))
    return gamma
