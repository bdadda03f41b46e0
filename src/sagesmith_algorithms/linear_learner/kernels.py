"""The one loop of linear learner that NumPy cannot do at once: steps with L1 regularization, coordinate by coordinate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.compiled import compiled

__all__ = ["sparse_step"]

Vector = npt.NDArray[np.float64]


@compiled("(f8[:,::1], f8[::1], f8[::1], f8[::1])")
def sparse_step(second: Vector, slope: Vector, start: Vector, l1: Vector) -> Vector:
    """Return the step p that minimizes slope p + p second p / 2 + sum l1 |start + p|, all of (n_features,)."""
    width = len(start)
    step, product = np.zeros(width), np.zeros(width)  # product: second @ step
    for _ in range(100):
        largest = 0.0
        for i in range(width):
            diagonal = second[i, i]
            here = start[i] + step[i]
            target = here - (slope[i] + product[i]) / diagonal
            limit = l1[i] / diagonal
            there = max(target - limit, 0.0) if target > 0.0 else min(target + limit, 0.0)
            move = there - here
            if move != 0.0:
                step[i] += move
                for j in range(width):
                    product[j] += second[i, j] * move
                largest = max(largest, move * move * diagonal)
        if largest < 1e-9:
            break
    return step
