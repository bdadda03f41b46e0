"""Newton steps for many regularized linear models at once.

Each pass over the data gives every model its exact loss and slope, from one product of the rows with all models'
weights and one back. The matrix of second derivatives is taken from a sample of the rows, which is enough to
know where to go; L1 regularization is part of the step (a small problem that needs no data). A step that does
not lower a model's objective is halved and tried again on the next pass, so that every pass serves all models.

Source: Lee, Sun and Saunders, "Proximal Newton-Type Methods for Minimizing Composite Functions", SIAM J. Optim.
2014; Roosta-Khorasani and Mahoney, "Sub-Sampled Newton Methods", Math. Programming 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.linear_learner.losses import Loss

__all__ = ["Newton", "Objective", "fits"]

Array = npt.NDArray[Any]
Blocks = Iterator[tuple[Any, Array]]
_MOST_OPERATIONS: Final = 3e10  # of the second derivatives of one pass
_SAMPLE_ROWS: Final = 16384
_LEAST_GAIN: Final = 1e-6  # of a step, relative to the objective: what is left is less


@dataclass(frozen=True, slots=True)
class Objective:
    """What the models minimize: mean of weight x loss, plus regularization.

    Attributes:
        loss: of one row.
        n_outputs: scores of each model; the number of classes, or 1.
        l1: (n_models,).
        l2: (n_models,).
        bias_l2: (n_models,), of the last weight, the intercept.
        positive_weight: (n_models,) weight of rows whose label is 1, or None.
        class_weight: (n_classes,), or None.
    """

    loss: Loss
    n_outputs: int
    l1: Array
    l2: Array
    bias_l2: Array
    positive_weight: Array | None = None
    class_weight: Array | None = None

    @property
    def n_models(self) -> int:
        """The number of models."""
        return len(self.l1)

    def row_weights(self, labels: Array) -> Array | None:
        """Return the rows' weights, (n_samples, n_models) or (n_samples, 1), or None for ones."""
        if self.positive_weight is not None:
            result: Array = 1 + labels[:, None] * (self.positive_weight - 1).astype(np.float32)
            return result
        if self.class_weight is not None:
            return self.class_weight.astype(np.float32)[labels.astype(np.intp)][:, None]
        return None

    def parts(self, scores: Array, labels: Array) -> tuple[Array, Array]:
        """Return the weighted losses, (n_samples, n_models), and slopes, of the shape of *scores*."""
        value, slope = self.loss.parts(scores, labels)
        weights = self.row_weights(labels)
        if weights is not None:
            value = value * weights
            slope = slope * self._for_outputs(weights)
        return value, slope

    def curvature(self, scores: Array, labels: Array) -> Array:
        """Return the weighted curvatures, of the shape of *scores*."""
        result = self.loss.curvature(scores, labels)
        weights = self.row_weights(labels)
        return result if weights is None else result * self._for_outputs(weights)

    def penalty(self, weights: Array) -> Array:
        """Return the regularization of *weights* (n_features + 1, n_models, n_outputs), one for each model."""
        inner = weights[:-1]
        result: Array = self.l1 * np.abs(inner).sum(axis=(0, 2)) + 0.5 * self.l2 * (inner**2).sum(axis=(0, 2))
        result += 0.5 * self.bias_l2 * (weights[-1] ** 2).sum(axis=1)
        return result

    def pass_over(self, blocks: Blocks, weights: Array) -> tuple[Array, Array]:
        """Return the sums of losses (n_models,) and slopes (n_features + 1, n_models, n_outputs)."""
        flat = np.ascontiguousarray(weights.reshape(len(weights), -1), np.float32)
        loss, slopes = np.zeros(self.n_models), np.zeros(flat.shape)
        for rows, labels in blocks:
            value, slope = self.parts(np.asarray(rows @ flat), labels)
            loss += np.ones(len(value), np.float32) @ value
            slopes += np.asarray(rows.T @ slope)
        return loss, slopes.reshape(weights.shape)

    def of(self, models: Array) -> Objective:
        """Return the objective of some of the models."""
        positive = None if self.positive_weight is None else self.positive_weight[models]
        return replace(
            self,
            l1=self.l1[models],
            l2=self.l2[models],
            bias_l2=self.bias_l2[models],
            positive_weight=positive,
        )

    def _for_outputs(self, weights: Array) -> Array:
        if self.n_outputs == 1 or weights.shape[1] == 1:
            return weights
        return np.repeat(weights, self.n_outputs, axis=1)


def fits(n_features: int, n_columns: int) -> bool:
    """Whether Newton steps of so many features and scores take little time and memory."""
    width = n_features + 1
    return width <= 2048 and _rows_for(width, n_columns) >= 3 * width and n_columns * width * width <= 1 << 24


def _rows_for(width: int, n_columns: int) -> int:
    # A step misses by the square root of width / rows; many models rather make one pass more.
    most = _SAMPLE_ROWS if n_columns <= 4 else max(4096, 40 * width)
    return int(min(most, _MOST_OPERATIONS / (2.0 * n_columns * width * width)))


class Newton:
    """Newton steps of all models of *objective*.

    Args:
        objective: what to minimize.
        weights: float64 (n_features + 1, n_models, n_outputs) to begin with.
        sample: scaled rows with their labels, for the second derivatives.
        use_bias: whether the last weight moves.
    """

    def __init__(
        self, objective: Objective, weights: Array, sample: tuple[Any, Array], *, use_bias: bool
    ) -> None:
        self.objective = objective
        self.weights = weights
        self.best = weights.copy()
        self.best_value = np.full(objective.n_models, np.inf)
        self.done = np.zeros(objective.n_models, bool)
        self._use_bias = use_bias
        self._sample = sample
        self._step = np.zeros_like(weights)
        self._length = np.ones(objective.n_models)

    @staticmethod
    def sample_size(n_features: int, n_columns: int) -> int:
        """Return the rows that the second derivatives are taken from."""
        return _rows_for(n_features + 1, n_columns)

    def take(self, loss: Array, slopes: Array) -> None:
        """Judge the present weights by the mean *loss* and *slopes*, and move to the next."""
        value = loss + self.objective.penalty(self.weights)
        better = ~self.done & (value < self.best_value)
        gain = np.where(np.isfinite(self.best_value), self.best_value - value, np.inf)
        stalls = better & (gain <= _LEAST_GAIN * np.abs(value))
        self.best[:, better] = self.weights[:, better]
        self.best_value[better] = value[better]
        worse = ~self.done & ~better
        self._length[worse] *= 0.5
        self.done |= stalls | (worse & (self._length < 1e-3))
        moving = np.flatnonzero(better & ~self.done)
        if len(moving):
            self._step[:, moving] = self._steps(moving, slopes[:, moving])
            self._length[moving] = np.minimum(1.0, 2 * self._length[moving])
        self.weights = self.best + self._step * self._length[None, :, None]
        self.weights[:, self.done] = self.best[:, self.done]

    def evaluated(self, evaluate: Callable[[Objective, Array], tuple[Array, Array]]) -> tuple[Array, Array]:
        """Return what *evaluate* says of the models that still move, and nothing new of the others."""
        loss, slopes = np.zeros(self.objective.n_models), np.zeros_like(self.weights)
        moving = np.flatnonzero(~self.done)
        loss[moving], slopes[:, moving] = evaluate(self.objective.of(moving), self.weights[:, moving])
        return loss, slopes

    def _steps(self, models: Array, slopes: Array) -> Array:
        """Return the Newton steps of *models*, (n_features + 1, n_moving, n_outputs)."""
        objective, c = self.objective, self.objective.n_outputs
        rows, labels = self._sample
        base = self.best[:, models]
        flat = np.ascontiguousarray(self.best.reshape(len(base), -1), np.float32)
        curvature = objective.curvature(np.asarray(rows @ flat), labels)
        curvature = curvature.reshape(len(labels), -1, c)[:, models].reshape(len(labels), -1)
        width, n_columns = len(base), len(models) * c
        second = np.empty((n_columns, width, width))
        for j in range(n_columns):
            second[j] = _gram(rows, curvature[:, j]) / len(labels)
        l1, l2 = np.repeat(objective.l1[models], c), np.repeat(objective.l2[models], c)
        bias_l2 = np.repeat(objective.bias_l2[models], c)
        diagonal = np.arange(width - 1)
        # The first term keeps the matrix invertible when features depend on one another.
        ridge = 1e-6 * np.trace(second, axis1=1, axis2=2) / width + 1e-12
        second[:, diagonal, diagonal] += (l2 + ridge)[:, None]
        second[:, -1, -1] += bias_l2 + ridge
        start = base.reshape(width, n_columns).T
        penalty = np.concatenate([np.repeat(l2[:, None], width - 1, axis=1), bias_l2[:, None]], axis=1)
        slope = slopes.reshape(width, n_columns).T + penalty * start
        if not self._use_bias:
            second[:, -1, :-1] = second[:, :-1, -1] = 0.0
            second[:, -1, -1] = 1.0
            slope[:, -1] = 0.0
        steps = -np.linalg.solve(second, slope[:, :, None])[:, :, 0]
        chosen = np.flatnonzero(l1 > 0)
        if len(chosen):
            bounds = np.repeat(l1[chosen, None], width, axis=1)
            bounds[:, -1] = 0.0
            steps[chosen] = _sparse_steps(second[chosen], slope[chosen], start[chosen], bounds)
        return steps.T.reshape(width, len(models), c)


def _gram(rows: Any, weights: Array) -> Array:
    """Return rows' (weights rows)."""
    if isinstance(rows, np.ndarray):
        scaled = rows * np.sqrt(weights)[:, None]
        product: Array = scaled.T @ scaled
        return product
    return np.asarray((rows.T @ rows.multiply(weights[:, None]).tocsr()).toarray())


def _sparse_steps(second: Array, slope: Array, start: Array, l1: Array) -> Array:
    """Return the steps p, a row each, that minimize slope p + p second p / 2 + sum l1 |start + p|.

    By coordinates in turn, for all models at once.
    """
    step, product = np.zeros_like(start), np.zeros_like(start)  # product: second @ step
    diagonal = np.ascontiguousarray(np.diagonal(second, axis1=1, axis2=2))
    limits = l1 / diagonal
    for _ in range(50):
        largest = 0.0
        for i in range(step.shape[1]):
            here = start[:, i] + step[:, i]
            target = here - (slope[:, i] + product[:, i]) / diagonal[:, i]
            there = np.sign(target) * np.maximum(np.abs(target) - limits[:, i], 0.0)
            move = there - here
            if move.any():
                step[:, i] += move
                product += second[:, i] * move[:, None]
                largest = max(largest, float((move * move * diagonal[:, i]).max()))
        if largest < 1e-9:
            break
    return step
