"""Losses: value, slope and curvature of each row's error, for many models at once.

The scores of a batch are a matrix, (n_samples, n_models) or, for softmax, (n_samples, n_models x n_classes).
The curvature is the second derivative where there is one, and else that of the parabola which touches the loss at
the present score and lies above it everywhere, so that a Newton step can be made with any of them.

Source of the parabolas: Hunter and Lange, "Quantile Regression via an MM Algorithm", 2000; Boehning, 1992.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["Loss", "loss_of"]

Array = npt.NDArray[Any]
_LARGEST: Final = np.float32(80.0)
_LEAST_ERROR: Final = np.float32(1e-3)  # bounds the curvature of losses with a corner


class Loss(ABC):
    """A loss of scores and labels. Scores are never modified."""

    objective: str
    """The name of the mean loss in AWS's log lines."""
    reported: float = 1.0
    """By what the mean loss is multiplied there."""

    @abstractmethod
    def parts(self, scores: Array, labels: Array) -> tuple[Array, Array]:
        """Return the value of each row, (n_samples, n_models), and the slope, of the shape of *scores*."""

    @abstractmethod
    def curvature(self, scores: Array, labels: Array) -> Array:
        """Return the curvature, of the shape of *scores*."""


class Logistic(Loss):
    """Cross entropy of labels 0 and 1."""

    objective = "binary_classification_cross_entropy_objective"

    def parts(self, scores: Array, labels: Array) -> tuple[Array, Array]:
        """Return value and slope."""
        signs = (1 - 2 * labels)[:, None]
        wrong = scores * signs
        beyond = None
        if wrong.size and wrong.max() > _LARGEST:  # where exp(x) is too large, log(1 + exp(x)) is x
            beyond = np.maximum(wrong - _LARGEST, 0)
            np.minimum(wrong, _LARGEST, out=wrong)
        np.exp(wrong, out=wrong)
        sums = wrong + 1
        value = np.log(sums)
        if beyond is not None:
            value += beyond
        wrong /= sums
        wrong *= signs
        return value, wrong

    def curvature(self, scores: Array, labels: Array) -> Array:
        """Return p (1 - p); for rows on the wrong side, whose slope is steep, that of the touching parabola.

        There p (1 - p) vanishes with the distance, and a step would go far too far.
        """
        distance = np.maximum(np.abs(scores), np.float32(1e-3))
        small = np.exp(-distance)
        touching = 0.5 * (1 - small) / ((1 + small) * distance)
        wrong = (scores < 0) == (labels[:, None] > 0)
        result: Array = np.where(wrong, touching, small / (1 + small) ** 2)
        return result


class Hinge(Loss):
    """max(0, margin - z) for label 1, max(0, margin + z) for label 0."""

    objective = "hinge_loss_objective"

    def __init__(self, margin: float) -> None:
        self._margin = np.float32(margin)

    def parts(self, scores: Array, labels: Array) -> tuple[Array, Array]:
        """Return value and slope."""
        signs = (2 * labels - 1)[:, None]
        value = np.maximum(self._margin - signs * scores, 0)
        return value, np.where(value > 0, -signs, np.float32(0))

    def curvature(self, scores: Array, labels: Array) -> Array:
        """Return that of the touching parabola."""
        short = self._margin - (2 * labels - 1)[:, None] * scores
        return _half_corner(short)


class Softmax(Loss):
    """Cross entropy of classes."""

    objective = "multiclass_cross_entropy_objective"

    def __init__(self, n_classes: int) -> None:
        self._n_classes = n_classes

    def parts(self, scores: Array, labels: Array) -> tuple[Array, Array]:
        """Return value and slope."""
        cube = scores.reshape(len(scores), -1, self._n_classes)
        top = cube.max(axis=2, keepdims=True)
        powers = np.exp(cube - top)
        sums = powers.sum(axis=2, keepdims=True)
        rows, classes = np.arange(len(scores)), labels.astype(np.intp)
        value = np.log(sums[:, :, 0]) + top[:, :, 0] - cube[rows, :, classes]
        slope = powers / sums
        slope[rows, :, classes] -= 1
        return value, slope.reshape(scores.shape)

    def curvature(self, scores: Array, labels: Array) -> Array:
        """Return 2 p (1 - p): twice the diagonal is never below the whole matrix of second derivatives."""
        del labels
        cube = scores.reshape(len(scores), -1, self._n_classes)
        powers = np.exp(cube - cube.max(axis=2, keepdims=True))
        p = powers / powers.sum(axis=2, keepdims=True)
        result: Array = (2 * p * (1 - p)).reshape(scores.shape)
        return result


class Squared(Loss):
    """Half of the squared error beyond `insensitivity`."""

    reported = 2.0

    def __init__(self, insensitivity: float = 0.0) -> None:
        self._free = np.float32(insensitivity)
        self.objective = "eps_insensitive_squared_loss_objective" if insensitivity else "mse_objective"

    def parts(self, scores: Array, labels: Array) -> tuple[Array, Array]:
        """Return value and slope."""
        slope = scores - labels[:, None]
        if self._free:
            slope = np.sign(slope) * np.maximum(np.abs(slope) - self._free, 0)
        return 0.5 * slope * slope, slope

    def curvature(self, scores: Array, labels: Array) -> Array:
        """Return 1."""
        del labels
        return np.ones_like(scores)


class Absolute(Loss):
    """The absolute error beyond `insensitivity`."""

    def __init__(self, insensitivity: float = 0.0) -> None:
        self._free = np.float32(insensitivity)
        self.objective = (
            "eps_insensitive_absolute_loss_objective" if insensitivity else "absolute_loss_objective"
        )

    def parts(self, scores: Array, labels: Array) -> tuple[Array, Array]:
        """Return value and slope."""
        error = scores - labels[:, None]
        value = np.maximum(np.abs(error) - self._free, 0)
        return value, np.where(value > 0, np.sign(error), np.float32(0))

    def curvature(self, scores: Array, labels: Array) -> Array:
        """Return that of the touching parabola."""
        error = scores - labels[:, None]
        return _half_corner(error - self._free) + _half_corner(error + self._free)


class Quantile(Loss):
    """The error, weighed by q where the label is above the score and by 1 - q where it is below."""

    objective = "quantile_loss_objective"

    def __init__(self, quantile: float) -> None:
        self._q = np.float32(quantile)

    def parts(self, scores: Array, labels: Array) -> tuple[Array, Array]:
        """Return value and slope."""
        error = scores - labels[:, None]
        slope = np.where(error > 0, 1 - self._q, -self._q)
        return slope * error, slope

    def curvature(self, scores: Array, labels: Array) -> Array:
        """Return that of the touching parabola."""
        return _half_corner(scores - labels[:, None])


class Huber(Loss):
    """Half the squared error up to delta, and from there its tangent."""

    objective = "huber_loss_objective"

    def __init__(self, delta: float) -> None:
        self._delta = np.float32(delta)

    def parts(self, scores: Array, labels: Array) -> tuple[Array, Array]:
        """Return value and slope."""
        error = scores - labels[:, None]
        slope = np.clip(error, -self._delta, self._delta)
        return slope * (error - 0.5 * slope), slope

    def curvature(self, scores: Array, labels: Array) -> Array:
        """Return that of the touching parabola."""
        error = np.abs(scores - labels[:, None])
        result: Array = self._delta / np.maximum(error, np.maximum(self._delta, _LEAST_ERROR))
        return result


def _half_corner(distance: Array) -> Array:
    """Return the curvature of the parabola above max(0, x) that touches it at x = *distance*."""
    result: Array = 0.5 / np.maximum(np.abs(distance), _LEAST_ERROR)
    return result


def loss_of(name: str, values: Mapping[str, Any]) -> Loss:
    """Return the loss called *name*, with the parameters that the hyperparameters *values* give it."""
    insensitivity = values["loss_insensitivity"]
    made: dict[str, Loss] = {
        "logistic": Logistic(),
        "hinge_loss": Hinge(values["margin"]),
        "softmax_loss": Softmax(values["num_classes"]),
        "squared_loss": Squared(),
        "absolute_loss": Absolute(),
        "eps_insensitive_squared_loss": Squared(insensitivity),
        "eps_insensitive_absolute_loss": Absolute(insensitivity),
        "quantile_loss": Quantile(values["quantile"]),
        "huber_loss": Huber(values["huber_delta"]),
    }
    return made[name]
