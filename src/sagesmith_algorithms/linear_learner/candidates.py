"""The models that are trained side by side: one as the hyperparameters say, the others near it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sagesmith_algorithms.linear_learner import newton
from sagesmith_algorithms.linear_learner.hyperparameters import BINARY, MINI_BATCH_SETTINGS

__all__ = ["Candidate", "candidates", "optimizer_of"]

_MOST_MODELS: Final = 32
_RATES: Final = {"sgd": 0.1, "adam": 0.01, "rmsprop": 0.005, "adagrad": 0.1}
_WIDEST: Final = 1 << 26  # weights of all models


@dataclass(frozen=True, slots=True)
class Candidate:
    """One model's settings."""

    wd: float
    l1: float
    learning_rate: float
    positive_weight: float


def optimizer_of(values: Mapping[str, Any], n_features: int, n_outputs: int) -> str:
    """Return the optimizer meant: with ``auto`` newton, unless something is set that concerns mini-batches."""
    if values["optimizer"] != "auto":
        return str(values["optimizer"])
    if any(values[name] != "auto" for name in MINI_BATCH_SETTINGS) or not values["use_lr_scheduler"]:
        return "adam"
    return "newton" if newton.fits(n_features, n_outputs) else "adam"


def candidates(
    values: Mapping[str, Any],
    optimizer: str,
    n_features: int,
    n_outputs: int,
    n_rows: int,
    balanced: float,
    *,
    validated: bool,
) -> list[Candidate]:
    """Return the models to train; the first has the hyperparameters as they are given.

    Without a validation channel the training loss decides, which more regularization never lowers: then only what
    can lower it is tried.

    Args:
        values: the hyperparameters.
        optimizer: see `optimizer_of`.
        n_features: of a row.
        n_outputs: scores of a model.
        n_rows: of all training data.
        balanced: weight of rows labelled 1 that gives both labels the same weight in all.
        validated: whether there is a validation channel.
    """
    auto_wd, auto_l1 = values["wd"] == "auto", values["l1"] == "auto"
    wd = 1.0 / max(n_rows, 1) if auto_wd else values["wd"]
    l1 = 0.0 if auto_l1 else values["l1"]
    rate = values["learning_rate"]
    rates = [0.0] if optimizer == "newton" else [rate]
    if optimizer != "newton" and rate == "auto":
        base = _RATES[optimizer]
        rates = [base, base * 5, base / 5]
    weight = values["positive_example_weight_mult"] if values["predictor_type"] == BINARY else 1.0
    weights = [1.0, balanced] if weight == "auto" else [balanced] if weight == "balanced" else [weight]
    wds = (
        [wd, *(wd * 10**j for j in (1, -1, 2, 3, -2, 4, -3))]
        if auto_wd
        else [wd, wd * 3, wd / 3, wd * 10, wd / 10]
    )
    l1s = [0.0, 1e-4, 1e-3, 1e-2] if auto_l1 else [l1, l1 * 3, l1 / 3, l1 * 10, l1 / 10]
    number = values["num_models"]
    if number == "auto":
        number = _MOST_MODELS if validated else len(rates) * len(weights)
        if optimizer == "newton":
            while number > 1 and not newton.fits(n_features, number * n_outputs):
                number //= 2
        number = max(1, min(number, _WIDEST // ((n_features + 1) * n_outputs)))
        if not validated:
            wds, l1s = [wd], [l1]
    grid = sorted(
        itertools.product(enumerate(rates), enumerate(weights), enumerate(wds), enumerate(l1s)),
        key=lambda point: sum(index for index, _ in point),
    )
    found: list[Candidate] = []
    for point in grid:
        (_, a), (_, b), (_, c), (_, d) = point
        one = Candidate(c, d, a, b)
        if one not in found:
            found.append(one)
    return found[:number]
