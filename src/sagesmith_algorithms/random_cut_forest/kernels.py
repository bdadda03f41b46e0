"""Growing random cut trees, and scoring rows with them.

A tree of n points has at most 2 n - 1 nodes, kept in arrays: node 0 is the root, the children of a node stand side by
side, the left one at `child`, which is 0 for a leaf. Each node knows the box around its points: of the least and the
largest values, (2, width). The width is the number of features, filled up with zeros to a multiple of `LANES`, so
that comparing with a box is a few instructions on vectors.

Source: Guha, Mishra, Roy and Schrijvers, "Robust Random Cut Forest Based Anomaly Detection on Streams", ICML 2016.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sagesmith_algorithms.compiled import compiled

__all__ = ["LANES", "grow", "score"]

LANES = 8
_BLOCK_VALUES = 1 << 16  # of the rows that go down a tree together: they stay in the cache
_NOTHING = 1e-7  # a probability that no score shows


@compiled(
    "void(f4[:,::1], i8, f8[::1], i4[::1], i4[::1], f4[::1], i4[::1], f4[::1], f4[:,:,::1])",
    error_model="numpy",
)
def grow(
    points: Any, n_features: int, draws: Any,
    child: Any, feature: Any, cut: Any, mass: Any, extent: Any, boxes: Any,
) -> None:  # fmt: skip
    """Grow a tree: cut a feature drawn by how far the points spread in it, at a place drawn uniformly, and so on.

    Args:
        points: float32 (n_points, width), finite.
        n_features: of them; the other columns are 0.
        draws: float64 (2 n_points,), uniform from 0 to 1.
        child: int32 (2 n_points - 1,), set to the left child of each node, or 0.
        feature: int32, as many; set to the feature that is cut.
        cut: float32, as many; a point goes left if its value is at most this.
        mass: int32, as many; set to the number of points.
        extent: float32, as many; set to the sum of the box's sides.
        boxes: float32 (as many, 2, width); set to the least and largest values.

    Leaves hold one point, or several equal ones.
    """
    n_points, width = points.shape
    order = np.arange(n_points)
    first, last = np.empty(2 * n_points, np.int64), np.empty(2 * n_points, np.int64)
    first[0], last[0] = 0, n_points
    n_nodes, node = 1, 0
    while node < n_nodes:  # children come after their parent
        start, end = first[node], last[node]
        low, high = boxes[node, 0], boxes[node, 1]
        low[:] = points[order[start]]
        high[:] = points[order[start]]
        for i in range(start + 1, end):
            point = points[order[i]]
            for j in range(width):
                low[j] = min(low[j], point[j])
                high[j] = max(high[j], point[j])
        total = 0.0
        for j in range(n_features):
            total += float(high[j]) - float(low[j])
        mass[node], extent[node], child[node] = end - start, total, 0
        if total > 0:
            rest, chosen = draws[node] * total, -1
            for j in range(n_features):
                side = float(high[j]) - float(low[j])
                if side > 0:
                    chosen = j
                    if rest < side:
                        break
                    rest -= side
            place = np.float32(min(float(low[chosen]) + rest, float(high[chosen])))
            if place >= high[chosen]:  # rounding: both sides get points
                place = low[chosen]
            left, right = start, end - 1
            while left <= right:
                if points[order[left], chosen] <= place:
                    left += 1
                else:
                    order[left], order[right] = order[right], order[left]
                    right -= 1
            child[node], feature[node], cut[node] = n_nodes, chosen, place
            first[n_nodes], last[n_nodes] = start, left
            first[n_nodes + 1], last[n_nodes + 1] = left, end
            n_nodes += 2
        node += 1


@compiled(
    "void(f4[:,::1], i4[:,::1], i4[:,::1], f4[:,::1], i4[:,::1], f4[:,::1], f4[:,:,:,::1], f4[::1])",
    fastmath=True, error_model="numpy",
)  # fmt: skip
def score(
    rows: Any, child: Any, feature: Any, cut: Any, mass: Any, extent: Any, boxes: Any, out: Any
) -> None:
    """Write the mean of all trees' anomaly scores of each row to *out*, float32 (n_samples,).

    A tree's score is the expectation, over the cuts that adding the row could make, of 1 / (1 + depth) of its leaf,
    times log2 of the tree's mass plus one: about 1 for rows like those it was grown from, more for others. A row that
    is a point of the tree counts half of that, less the rarer the point.

    All rows of a block go down a tree together, and part at each node: that takes a third of the time of one row after
    the other, which must wait at each node to know the next.

    Args:
        rows: float32 (n_samples, width), finite.
        child: (n_trees, n_nodes), as `grow` makes them, with the others.
        feature: see *child*.
        cut: see *child*.
        mass: see *child*.
        extent: see *child*.
        boxes: see *child*.
        out: see above.

    Source: the scoring functions of Amazon's open random cut forest library (scoreSeen, scoreUnseen, damp,
    normalizer).
    """
    n_rows, width, n_trees = np.uint64(len(rows)), np.uint64(rows.shape[1]), np.uint64(len(child))
    zero, one, lanes = np.uint64(0), np.uint64(1), np.uint64(LANES)
    block = min(max(np.uint64(_BLOCK_VALUES) // width, np.uint64(64)), np.uint64(4096), max(n_rows, one))
    n_nodes = child.shape[1]
    unseen = np.empty(n_nodes + 1, np.float32)
    for level in range(n_nodes + 1):
        unseen[level] = 1.0 / (1.0 + level)
    order, aside = np.empty(block, np.uint32), np.empty(block, np.uint32)
    share = np.empty(block, np.float32)  # of each row: how likely it is that no cut has parted it yet
    waiting = np.empty((n_nodes, 4), np.uint32)  # node, its first and last row in `order`, depth
    enough, nothing = np.float32(3e38), np.float32(_NOTHING)
    out[:] = 0
    for start in range(zero, n_rows, block):
        n_here = min(start + block, n_rows) - start
        for tree in range(zero, n_trees):
            n_points = float(mass[tree, zero])
            factor = np.float32(math.log2(n_points + 1.0) / len(child))
            for i in range(n_here):
                order[i] = np.uint32(i)
                share[i] = factor
            waiting[0, 0], waiting[0, 1], waiting[0, 2], waiting[0, 3] = 0, 0, n_here, 0
            n_waiting = 1
            while n_waiting > 0:
                n_waiting -= 1
                node, depth = np.uint64(waiting[n_waiting, 0]), np.uint64(waiting[n_waiting, 3])
                first, last = np.uint64(waiting[n_waiting, 1]), np.uint64(waiting[n_waiting, 2])
                below, here = child[tree, node], unseen[depth]
                if below == 0:
                    weight = float(mass[tree, node])
                    seen = np.float32(
                        (1.0 - weight / (2.0 * n_points)) / (float(depth) + math.log2(weight + 1.0))
                    )
                    for i in range(first, last):
                        place = np.uint64(order[i])
                        row = start + place
                        same = True
                        for column in range(width):
                            if rows[row, column] != boxes[tree, node, zero, column]:
                                same = False
                                break
                        out[row] += share[place] * (seen if same else here)
                    continue
                chosen, value = np.uint64(feature[tree, node]), cut[tree, node]
                inside = extent[tree, node]
                n_left, n_right = first, zero
                for i in range(first, last):
                    place = np.uint64(order[i])
                    row = start + place
                    outside = np.float32(0)
                    for group in range(zero, width, lanes):
                        for lane in range(LANES):
                            j = group + np.uint64(lane)
                            x = rows[row, j]
                            under = boxes[tree, node, zero, j] - x
                            over = x - boxes[tree, node, one, j]
                            farther = under if under > over else over
                            outside += farther if farther > 0 else np.float32(0)
                        if outside > enough:  # never; without it groups would be made vectors of, not lanes
                            break
                    parted = share[place] * (outside / (outside + inside))
                    out[row] += parted * here
                    rest = share[place] - parted
                    share[place] = rest
                    stays, right = np.uint64(rest > nothing), np.uint64(rows[row, chosen] > value)
                    order[n_left] = np.uint32(place)
                    aside[n_right] = np.uint32(place)
                    n_left += stays & (one - right)
                    n_right += stays & right
                for i in range(n_right):
                    order[n_left + i] = aside[i]
                deeper = depth + one
                if n_left > first:
                    waiting[n_waiting, 0], waiting[n_waiting, 1] = below, first
                    waiting[n_waiting, 2], waiting[n_waiting, 3] = n_left, deeper
                    n_waiting += 1
                if n_right > zero:
                    waiting[n_waiting, 0], waiting[n_waiting, 1] = below + 1, n_left
                    waiting[n_waiting, 2], waiting[n_waiting, 3] = n_left + n_right, deeper
                    n_waiting += 1
