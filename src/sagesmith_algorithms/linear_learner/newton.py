"""Newton steps for many regularized linear models at once.

Each pass over the data gives every model its exact loss and slope, from one product of the rows with all models'
weights and one back. The matrix of second derivatives is taken from a sample of the rows, which is enough to
know where to go; L1 regularization is part of the step (a small problem that needs no data). A step that does
not lower a model's objective is damped and tried again on the next pass, so that every pass serves all models. Before
the first pass the steps are made on the sample alone, so that few passes over all rows are left to make.

Source: Marquardt 1963 (the damping); Lee, Sun and Saunders, "Proximal Newton-Type Methods for Minimizing Composite Functions", SIAM J. Optim.
2014; Roosta-Khorasani and Mahoney, "Sub-Sampled Newton Methods", Math. Programming 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.linear_learner.losses import Loss
from sagesmith_algorithms.threads import side_by_side

__all__ = ["Newton", "Objective", "fits"]

Array = npt.NDArray[Any]
Blocks = Iterator[tuple[Any, Array]]
_MOST_OPERATIONS: Final = 3e10  # of the second derivatives of one pass
_SAMPLE_ROWS: Final = 16384
_BLOCK_ELEMENTS: Final = 1 << 18
_FIRST_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-3, 1e-6, 1e6
_LEAST_GAIN: Final = 1e-6  # of a step, relative to the objective: what is left is less
_STILL: Final = (
    0.05  # change of scores, as root mean square, below which second derivatives stay what they are
)
_WARM_STEPS: Final = 12


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
        mean_squares: (n_features + 1,) of all rows: a feature that the sample has too little of would else seem
            flat, and the step along it go too far.
        use_bias: whether the last weight moves.
    """

    def __init__(
        self,
        objective: Objective,
        weights: Array,
        sample: tuple[Any, Array],
        mean_squares: Array,
        *,
        use_bias: bool,
    ) -> None:
        self.objective = objective
        self.weights = weights
        self.best = weights.copy()
        self.best_value = np.full(objective.n_models, np.inf)
        self.done = np.zeros(objective.n_models, bool)
        self._use_bias = use_bias
        self._sample = sample
        rows = sample[0]
        squares = rows * rows if isinstance(rows, np.ndarray) else rows.multiply(rows)
        seen = np.asarray(squares.mean(axis=0)).reshape(-1)
        self._mean_squares = np.maximum(mean_squares, 1e-9)
        self._unseen = np.maximum(mean_squares - seen, 0.0)
        self.moved = False
        width, n_models, n_outputs = weights.shape
        self._damping = np.full(n_models, _FIRST_DAMPING)
        self._hoped = np.full(n_models, np.inf)  # what the last step should have gained
        self._second = np.zeros((n_models, n_outputs, width, width))
        self._slopes = np.zeros((n_models, n_outputs, width))
        self._scale = np.ones((n_models, n_outputs))
        self._expanded_at = np.full(weights.shape, np.nan)
        self._l2 = np.repeat(objective.l2[:, None], width, axis=1)
        self._l2[:, -1] = objective.bias_l2

    def warm_up(self) -> None:
        """Make steps on the sample alone, and begin with what they lead to."""
        rows, labels = self._sample
        step = max(256, _BLOCK_ELEMENTS // len(self.weights))

        def blocks() -> Blocks:
            return ((rows[i : i + step], labels[i : i + step]) for i in range(0, len(labels), step))

        for _ in range(_WARM_STEPS):
            loss, slopes = self.evaluated(lambda some, weights: some.pass_over(blocks(), weights))
            self.take(loss / len(labels), slopes / len(labels))
            if self.done.all():
                break
        n_models = self.objective.n_models
        self.weights = self.best.copy()
        self.best_value = np.full(n_models, np.inf)
        self.done = np.zeros(n_models, bool)
        self._damping = np.full(n_models, _FIRST_DAMPING)
        self._hoped = np.full(n_models, np.inf)

    @staticmethod
    def sample_size(n_features: int, n_columns: int) -> int:
        """Return the rows that the second derivatives are taken from."""
        return _rows_for(n_features + 1, n_columns)

    def take(self, loss: Array, slopes: Array) -> None:
        """Judge the present weights by the mean *loss* and *slopes*, and move to the next."""
        value = loss + self.objective.penalty(self.weights)
        better = ~self.done & (value < self.best_value)
        worse = ~self.done & ~better
        self.moved = bool(better.any())
        gain = np.where(np.isfinite(self.best_value), self.best_value - value, np.inf)
        self.best[:, better] = self.weights[:, better]
        self.best_value[better] = value[better]
        self._damping[better & (gain > 0.75 * self._hoped)] *= 0.2
        self._damping[better & (gain < 0.25 * self._hoped)] *= 4.0
        self._damping[worse] *= 10.0
        np.clip(self._damping, _LEAST_DAMPING, None, out=self._damping)
        stalls = (
            better & (gain <= _LEAST_GAIN * np.abs(value)) & (self._hoped <= 10 * _LEAST_GAIN * np.abs(value))
        )
        self.done |= stalls | (worse & (self._damping > _MOST_DAMPING))
        fresh = np.flatnonzero(better & ~self.done)
        if len(fresh):
            self._expand(fresh, slopes[:, fresh])
        moving = np.flatnonzero(~self.done)
        if len(moving):
            step = self._steps(moving)
            self.weights[:, moving] = self.best[:, moving] + step
            # What promises next to nothing is not worth a pass.
            self.done |= better & (self._hoped <= 0.1 * _LEAST_GAIN * np.abs(value)) & (self._damping <= 1.0)
        self.weights[:, self.done] = self.best[:, self.done]

    def evaluated(self, evaluate: Callable[[Objective, Array], tuple[Array, Array]]) -> tuple[Array, Array]:
        """Return what *evaluate* says of the models that still move, and nothing new of the others."""
        loss, slopes = np.zeros(self.objective.n_models), np.zeros_like(self.weights)
        moving = np.flatnonzero(~self.done)
        loss[moving], slopes[:, moving] = evaluate(self.objective.of(moving), self.weights[:, moving])
        return loss, slopes

    def _expand(self, models: Array, slopes: Array) -> None:
        """Keep the first and second derivatives of *models* at their best weights."""
        rows, labels = self._sample
        base = self.best[:, models]
        change = ((base - self._expanded_at[:, models]) ** 2 * self._mean_squares[:, None, None]).sum(axis=0)
        moved = models[~(np.sqrt(change).max(axis=1) < _STILL)]
        if len(moved):
            self._measure(moved, rows, labels)
        slope = slopes.transpose(1, 2, 0) + self._l2[models, None] * base.transpose(1, 2, 0)
        if not self._use_bias:
            slope[:, :, -1] = 0.0
        self._slopes[models] = slope

    def _measure(self, models: Array, rows: Any, labels: Array) -> None:
        """Take the second derivatives of *models* at their best weights."""
        c, base = self.objective.n_outputs, self.best[:, models]
        width = len(base)
        flat = np.ascontiguousarray(base.reshape(width, -1), np.float32)
        curvature = self.objective.of(models).curvature(np.asarray(rows @ flat), labels)
        scale = curvature.mean(axis=0, dtype=np.float64).reshape(-1, c)
        places = np.arange(width)
        like = _representatives(base, self._mean_squares, self.objective.positive_weight, models)

        def measure(place: tuple[int, int]) -> None:
            i, j = place
            second = _gram(rows, curvature[:, i * c + j]).astype(np.float64) / len(labels)
            second[places, places] += scale[i, j] * self._unseen
            if not self._use_bias:
                second[-1, :-1] = second[:-1, -1] = 0.0
                second[-1, -1] = 1.0
            self._second[models[i], j] = second

        side_by_side(measure, [(i, j) for i in range(len(models)) if like[i] == i for j in range(c)])
        for i, model in enumerate(models):
            self._second[model] = self._second[models[like[i]]]
        self._scale[models] = scale
        self._expanded_at[:, models] = base

    def _steps(self, models: Array) -> Array:
        """Return the damped Newton steps of *models*, (n_features + 1, n_moving, n_outputs)."""
        c, width = self.objective.n_outputs, len(self.best)
        second = self._second[models].reshape(-1, width, width)
        slope = self._slopes[models].reshape(-1, width)
        start = self.best[:, models].reshape(width, -1).T
        # Damping where a feature has its variance: directions that seem flat only because rows there are fitted
        # too well, or not at all, are walked carefully, and the others are not held back.
        damping = (self._damping[models, None] * self._scale[models]).reshape(-1, 1)
        places = np.arange(width)
        second[:, places, places] += (
            np.repeat(self._l2[models], c, axis=0) + damping * self._mean_squares + 1e-12
        )
        steps = -np.linalg.solve(second, slope[:, :, None])[:, :, 0]
        l1 = np.repeat(self.objective.l1[models], c)
        chosen = np.flatnonzero(l1 > 0)
        if len(chosen):
            from sagesmith_algorithms.linear_learner.kernels import sparse_step

            for i in chosen:
                bounds = np.full(width, l1[i])
                bounds[-1] = 0.0
                steps[i] = sparse_step(second[i], slope[i], np.ascontiguousarray(start[i]), bounds)
        change = np.einsum("ij,ij->i", slope, steps) + 0.5 * np.einsum("ij,ijk,ik->i", steps, second, steps)
        change += l1 * (np.abs(start + steps) - np.abs(start))[:, :-1].sum(axis=1)
        self._hoped[models] = -change.reshape(-1, c).sum(axis=1)
        return steps.T.reshape(width, len(models), c)


def _representatives(
    base: Array, mean_squares: Array, positive_weight: Array | None, models: Array
) -> list[int]:
    """Return for each model the first whose scores are nearly the same, so that its second derivatives will do."""
    scaled = base * np.sqrt(mean_squares)[:, None, None]
    like: list[int] = []
    for i in range(len(models)):
        for j in dict.fromkeys(like):
            same = positive_weight is None or positive_weight[models[i]] == positive_weight[models[j]]
            if same and np.sqrt(((scaled[:, i] - scaled[:, j]) ** 2).sum(axis=0)).max() < _STILL:
                like.append(j)
                break
        else:
            like.append(i)
    return like


def _gram(rows: Any, weights: Array) -> Array:
    """Return rows' (weights rows)."""
    if isinstance(rows, np.ndarray):
        scaled = rows * np.sqrt(weights)[:, None]
        product: Array = scaled.T @ scaled
        return product
    return np.asarray((rows.T @ rows.multiply(weights[:, None]).tocsr()).toarray())
