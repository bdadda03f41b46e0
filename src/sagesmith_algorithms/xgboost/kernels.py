"""The walk from the roots of all trees to their leaves."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.compiled import compiled

__all__ = ["EXP", "LOGISTIC", "SAME", "predict"]

Floats = npt.NDArray[np.float32]
Whole = npt.NDArray[np.int32]

SAME, LOGISTIC, EXP = 0, 1, 2
"""What `predict` makes of a margin: itself, a probability, a power of e."""

_LANES = 8
_DEEPEST = 16


@compiled("(f4[:,::1], i8, i4[:,::1], i4[:,::1], f4[::1], f4[::1], i8, f4[:,::1])")
def predict(
    rows: Floats, n: int, trees: Whole, nodes: Whole, values: Floats, base: Floats, kind: int, out: Floats
) -> None:
    """Write the predictions for the first *n* of *rows* to *out*, (n, n_groups).

    Trees are added one after the other in float32, as XGBoost does. Rows without a missing value go through a tree of
    moderate depth eight at a time, each as many steps as the tree is deep, so that nothing is to be foreseen by the
    processor and the steps of one row do not wait for those of another.

    Args:
        rows: (n_rows, n_features), NaN for missing.
        trees: (n_trees, 3): a tree's first node, its depth, and the column of *out* that it belongs to.
        nodes: (n_nodes, 4): where a row goes whose feature is not below the node's value, where if it is, that feature,
            and which of both (0 or 1) takes what is missing. A leaf leads to itself.
        values: the nodes' thresholds; of a leaf, what it adds.
        base: (n_groups,): the margins to begin with.
        kind: `SAME`, `LOGISTIC` or `EXP`. Exponentials are rounded from float64.
    """
    for i in range(n):
        out[i] = base
    at = 0
    places = np.empty(_LANES, np.int64)
    while at < n:
        count = min(_LANES, n - at)
        whole = count == _LANES
        for i in range(at, at + count):
            for j in range(rows.shape[1]):
                whole &= rows[i, j] == rows[i, j]
        for tree in range(len(trees)):
            root, depth, group = trees[tree]
            if whole and depth <= _DEEPEST:
                for lane in range(_LANES):
                    places[lane] = root
                for _ in range(depth):
                    for lane in range(_LANES):
                        node = places[lane]
                        below = rows[at + lane, nodes[node, 2]] < values[node]
                        places[lane] = nodes[node, 1 if below else 0]
                for lane in range(_LANES):
                    out[at + lane, group] += values[places[lane]]
                continue
            for i in range(at, at + count):
                node = np.int64(root)
                while nodes[node, 0] != node:
                    value = rows[i, nodes[node, 2]]
                    if value != value:  # noqa: PLR0124 (NaN)
                        node = np.int64(nodes[node, nodes[node, 3]])
                    else:
                        node = np.int64(nodes[node, 1 if value < values[node] else 0])
                out[i, group] += values[node]
        at += count
    if kind == SAME:
        return
    one = np.float32(1)
    for i in range(n):
        for group in range(out.shape[1]):
            if kind == LOGISTIC:
                out[i, group] = one / (one + np.float32(math.exp(np.float64(-out[i, group]))))
            else:
                out[i, group] = np.float32(math.exp(np.float64(out[i, group])))
