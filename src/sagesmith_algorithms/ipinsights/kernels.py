"""Rows of large tables, compiled: gathering them, gathering gradients for them, and Adam on those that have some.

A batch touches few rows of a table. Its gradients are added in a table of their own, with a list of the rows touched, so
that nothing is sorted and nothing untouched is looked at.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sagesmith_algorithms.compiled import compiled

__all__ = ["adam", "gather", "scatter"]


@compiled("void(float32[:,::1], int64[:,::1], float32[:,::1])", fastmath=True)
def gather(table: Any, rows: Any, out: Any) -> None:
    """Write to *out* (n, dim) the sums of the rows of *table* that *rows* (n, n_summed) names."""
    for i in range(rows.shape[0]):
        into = out[i]
        into[:] = table[rows[i, 0]]
        for j in range(1, rows.shape[1]):
            row = table[rows[i, j]]
            for k in range(into.shape[0]):
                into[k] += row[k]


@compiled(
    "int64(float32[:,::1], uint32[::1], int64[::1], int64, int64[:,::1], float32[:,::1])", fastmath=True
)
def scatter(gradients: Any, touches: Any, touched: Any, n_touched: Any, rows: Any, more: Any) -> Any:
    """Add *more* (n, dim) to the rows of *gradients* that *rows* (n, n_summed) names.

    A row touched for the first time (`touches` is 0) is added to the list *touched*, whose new length is returned.
    """
    for i in range(rows.shape[0]):
        source = more[i]
        for j in range(rows.shape[1]):
            row = rows[i, j]
            if touches[row] == 0:
                touched[n_touched] = row
                n_touched += 1
            touches[row] += np.uint32(1)
            into = gradients[row]
            for k in range(into.shape[0]):
                into[k] += source[k]
    return n_touched


@compiled(
    "void(float32[:,::1], float32[:,::1], float32[:,::1], float32[:,::1], int64[::1], float32, float32, float32)",
    fastmath=True,
)
def adam(
    table: Any, gradients: Any, means: Any, squares: Any, touched: Any, rate: Any, decay: Any, floor: Any
) -> None:
    """Make one step of Adam on the rows *touched*, and set their gradients to 0.

    Args:
        table: the parameters (n_rows, dim).
        gradients: of the same shape, as are `means` and `squares`, Adam's moving averages.
        means: of gradients.
        squares: of squared gradients.
        touched: the rows.
        rate: the learning rate, corrected for the averages' beginning at 0.
        decay: the weight decay: so many times the parameter is added to its gradient.
        floor: added to the root of the squares.
    """
    keep1, new1 = np.float32(0.9), np.float32(0.1)
    keep2, new2 = np.float32(0.999), np.float32(0.001)
    for i in range(touched.shape[0]):
        row = touched[i]
        for k in range(table.shape[1]):
            gradient = gradients[row, k] + decay * table[row, k]
            gradients[row, k] = 0.0
            mean = keep1 * means[row, k] + new1 * gradient
            square = keep2 * squares[row, k] + new2 * gradient * gradient
            means[row, k] = mean
            squares[row, k] = square
            table[row, k] -= rate * mean / (math.sqrt(square) + floor)
