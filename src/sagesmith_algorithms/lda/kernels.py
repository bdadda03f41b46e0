"""The inner loops of LDA: the mixtures of documents, and what these say about the topics.

They take no locks and let other Python threads run, so that documents are shared among threads by calling them
several times.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sagesmith_algorithms.compiled import compiled

__all__ = ["bound", "infer"]

_CSR = "int32[::1], int32[::1], float32[::1], "


@compiled("float32(float32)", fastmath=True, inline="always")
def _exp_digamma(x: Any) -> Any:
    """Return exp(digamma(x)) for x > 0, to some six digits."""
    shift = np.float32(0.0)
    while x < 4.0:
        shift += np.float32(1.0) / x
        x += np.float32(1.0)
    # exp(digamma(x + 1/2)) = x + 1/(24 x) - 37/(5760 x^3) + ...
    y = x - np.float32(0.5)
    r = np.float32(1.0) / y
    value = y + r * (np.float32(1 / 24) - r * r * np.float32(37 / 5760))
    return value * math.exp(-shift) if shift > 0 else value


@compiled(
    "void(" + _CSR + "float32[:,::1], float32[::1], float32[:,::1], float32[:,::1], int64, float32)",
    fastmath=True,
)
def infer(
    indptr: Any,
    words: Any,
    counts: Any,
    topics: Any,
    alpha: Any,
    gamma: Any,
    found: Any,
    steps: Any,
    tol: Any,
) -> None:
    """Fit the Dirichlet distribution over topics of each document.

    Args:
        indptr: int32 (n_docs + 1,), of a CSR matrix.
        words: int32 columns of the matrix.
        counts: float32 values of the matrix.
        topics: float32 (n_words, n_topics): how likely each topic makes each word.
        alpha: float32 (n_topics,), the prior.
        gamma: float32 (n_docs, n_topics): where to begin; the result is written there.
        found: float32 (n_words, n_topics): counts of words by topic are added there; (0, n_topics) if not wanted.
        steps: at most so many for each document.
        tol: mean change of a document's parameters, in words, that ends it sooner.
    """
    n_topics = topics.shape[1]
    weights = np.empty(n_topics, np.float32)
    new = np.empty(n_topics, np.float32)
    for doc in range(indptr.shape[0] - 1):
        start, end = indptr[doc], indptr[doc + 1]
        row = gamma[doc]
        for k in range(n_topics):
            weights[k] = _exp_digamma(row[k])
        for _ in range(steps):
            for k in range(n_topics):
                new[k] = 0.0
            for j in range(start, end):
                likely = topics[words[j]]
                total = np.float32(1e-30)
                for k in range(n_topics):
                    total += weights[k] * likely[k]
                share = counts[j] / total
                for k in range(n_topics):
                    new[k] += share * likely[k]
            change = np.float32(0.0)
            for k in range(n_topics):
                value = alpha[k] + weights[k] * new[k]
                change += abs(value - row[k])
                row[k] = value
            for k in range(n_topics):
                weights[k] = _exp_digamma(row[k])
            if change < tol * n_topics:
                break
        if found.shape[0]:
            for j in range(start, end):
                likely = topics[words[j]]
                into = found[words[j]]
                total = np.float32(1e-30)
                for k in range(n_topics):
                    total += weights[k] * likely[k]
                share = counts[j] / total
                for k in range(n_topics):
                    into[k] += share * weights[k] * likely[k]


@compiled("float64(" + _CSR + "float32[:,::1], float32[::1], float32[:,::1])")
def bound(indptr: Any, words: Any, counts: Any, topics: Any, alpha: Any, gamma: Any) -> Any:
    """Return the sum of the documents' variational lower bounds of their log-likelihood (arguments as `infer`)."""
    n_topics = topics.shape[1]
    alpha_sum, constant, result = 0.0, 0.0, 0.0
    for k in range(n_topics):
        alpha_sum += alpha[k]
        constant -= math.lgamma(alpha[k])
    constant += math.lgamma(alpha_sum)
    logs = np.empty(n_topics)
    weights = np.empty(n_topics, np.float32)
    for doc in range(indptr.shape[0] - 1):
        row = gamma[doc]
        total = 0.0
        for k in range(n_topics):
            total += row[k]
        of_total = math.log(_exp_digamma(np.float32(total)))
        result += constant - math.lgamma(total)
        for k in range(n_topics):
            weights[k] = _exp_digamma(row[k])
            logs[k] = math.log(max(weights[k], np.float32(1e-37))) - of_total
            result += math.lgamma(row[k]) + (alpha[k] - row[k]) * logs[k]
        for j in range(indptr[doc], indptr[doc + 1]):
            likely = topics[words[j]]
            value = 0.0
            for k in range(n_topics):
                value += weights[k] * likely[k]
            result += counts[j] * (math.log(max(value, 1e-37)) - of_total)
    return result
