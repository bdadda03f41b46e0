"""Steps of sgd, adam, rmsprop and adagrad on mini-batches, for many models at once.

All models see the same batch: one product of its rows with all models' weights, and one back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.linear_learner.newton import Blocks, Objective

__all__ = ["MiniBatches", "Settings"]

Array = npt.NDArray[Any]
_TINY: Final = np.float32(1e-8)


@dataclass(frozen=True, slots=True)
class Settings:
    """How an optimizer moves.

    Attributes:
        optimizer: sgd, adam, rmsprop or adagrad.
        learning_rate: (n_models,).
        momentum: of sgd and rmsprop.
        beta_1: decay of adam's first moment.
        beta_2: decay of the second moment, of adam and rmsprop.
        bias_lr_mult: learning rate of the intercept, relative to the others'.
        decay_step: batches after which the learning rate becomes smaller; 0 for never.
        decay_factor: by what it is multiplied then.
        least_rate: its least value.
    """

    optimizer: str
    learning_rate: Array
    momentum: float
    beta_1: float
    beta_2: float
    bias_lr_mult: float
    decay_step: int
    decay_factor: float
    least_rate: float


class MiniBatches:
    """The state of all models. `weights` is float32 (n_features + 1, n_models, n_outputs)."""

    def __init__(self, objective: Objective, settings: Settings, weights: Array, *, use_bias: bool) -> None:
        self.objective = objective
        self.weights = weights.astype(np.float32)
        self._settings = settings
        self._first = np.zeros_like(self.weights)
        self._second = np.zeros_like(self.weights)
        self._n_steps = 0
        self._rate_of_row = np.ones((len(weights), 1, 1), np.float32)
        self._rate_of_row[-1] = settings.bias_lr_mult if use_bias else 0.0
        l2 = np.repeat(objective.l2[None, :, None], len(weights), axis=0)
        l2[-1] = objective.bias_l2[:, None]
        self._l2 = l2.astype(np.float32)

    def epoch(self, batches: Blocks) -> Array:
        """Take one pass; return the models' sums of losses over it, each batch before its step."""
        losses = np.zeros(self.objective.n_models)
        shape = self.weights.shape
        for rows, labels in batches:
            scores = np.asarray(rows @ self.weights.reshape(shape[0], -1))
            value, slope = self.objective.parts(scores, labels)
            losses += value.sum(axis=0, dtype=np.float64)
            mean = (np.asarray(rows.T @ slope) / np.float32(len(labels))).reshape(shape)
            self._move(mean + self._l2 * self.weights)
        return losses

    def state(self) -> list[Array]:
        """Return what hosts average after each pass."""
        return [self.weights, self._first, self._second]

    def set_state(self, arrays: list[Array]) -> None:
        """Go on from *arrays*, which are like those of `state`."""
        self.weights, self._first, self._second = (a.astype(np.float32) for a in arrays)

    def rates(self) -> Array:
        """Return the present learning rates, (n_models,)."""
        s = self._settings
        rate = s.learning_rate.astype(np.float64)
        if s.decay_step:
            rate = np.maximum(
                rate * s.decay_factor ** (self._n_steps // s.decay_step), np.minimum(s.least_rate, rate)
            )
        return rate

    def _move(self, slope: Array) -> None:
        s = self._settings
        rate = self.rates().astype(np.float32)[None, :, None] * self._rate_of_row
        self._n_steps += 1
        if s.optimizer == "adam":
            self._first += np.float32(1 - s.beta_1) * (slope - self._first)
            self._second += np.float32(1 - s.beta_2) * (slope * slope - self._second)
            correction = np.sqrt(1 - s.beta_2**self._n_steps) / (1 - s.beta_1**self._n_steps)
            scale: Array = np.float32(correction) / (np.sqrt(self._second) + _TINY)
            move = rate * scale * self._first
        elif s.optimizer == "rmsprop":
            self._second += np.float32(1 - s.beta_2) * (slope * slope - self._second)
            scale = 1 / (np.sqrt(self._second) + _TINY)
            self._first *= np.float32(s.momentum)
            self._first += scale * slope
            move = rate * self._first
        elif s.optimizer == "adagrad":
            self._second += slope * slope
            scale = 1 / (np.sqrt(self._second) + _TINY)
            move = rate * scale * slope
        else:
            self._first *= np.float32(s.momentum)
            self._first += slope
            scale = np.ones((1, 1, 1), np.float32)
            move = rate * self._first
        self.weights -= move
        if self.objective.l1.any():  # the part of the step that L1 takes, towards 0 and not beyond
            limit = rate * scale * self.objective.l1.astype(np.float32)[None, :, None]
            inner = self.weights[:-1]
            np.copyto(inner, np.sign(inner) * np.maximum(np.abs(inner) - limit[:-1], 0))
