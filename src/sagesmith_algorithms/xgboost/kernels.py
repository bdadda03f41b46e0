"""The walk from the roots of all trees to their leaves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.compiled import compiled

__all__ = ["add_leaves"]

Floats = npt.NDArray[np.float32]
Whole = npt.NDArray[np.int32]


@compiled("(f4[:,::1], i8, i4[::1], i4[::1], i4[:,::1], i4[::1], f4[::1], i1[::1], f4[:,::1])")
def add_leaves(
    rows: Floats,
    n: int,
    roots: Whole,
    groups: Whole,
    children: Whole,
    features: Whole,
    values: Floats,
    missing: npt.NDArray[np.int8],
    out: Floats,
) -> None:
    """Add to the first *n* rows of *out*, (n_rows, n_groups), the leaves that the same of *rows* fall into.

    Trees are added one after the other in float32, as XGBoost does.

    Args:
        rows: (n_rows, n_features), NaN for missing.
        roots, groups: of each tree, its first node and the column of *out* that it belongs to.
        children: (n_nodes, 2): where a row goes whose feature is not below the node's value, and where if it is.
            A leaf's are -1.
        features, values, missing: of each node, the feature that it asks for, the threshold (of a leaf, what it adds),
            and which of its children takes what is missing.
    """
    for i in range(n):
        for tree in range(len(roots)):
            node = roots[tree]
            while children[node, 0] >= 0:
                value = rows[i, features[node]]
                if value != value:  # noqa: PLR0124 (NaN)
                    node = children[node, missing[node]]
                else:
                    node = children[node, 1 if value < values[node] else 0]
            out[i, groups[tree]] += values[node]
