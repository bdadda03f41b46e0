"""A forest of random cut trees: grown from samples, scored with, kept as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.formats.batch import Floats
from sagesmith_algorithms.random_cut_forest import kernels
from sagesmith_toolkit.environment import cpu_count

__all__ = ["Forest"]

Array = npt.NDArray[Any]
_ROWS_FOR_THREADS: Final = 256
_PARTS_FOR_EACH: Final = 4


class Forest:
    """The trees.

    Attributes:
        n_features: of a row.
        child: int32 (n_trees, n_nodes), the left child of each node, whose right child is the next; 0 for leaves.
        feature: int32 (n_trees, n_nodes), the feature that is cut.
        cut: float32 (n_trees, n_nodes); at most this goes left.
        mass: int32 (n_trees, n_nodes), the number of points; 0 for nodes that a tree does not have.
        extent: float32 (n_trees, n_nodes), the sum of the box's sides.
        boxes: float32 (n_trees, n_nodes, 2, width), the least and the largest values.
    """

    def __init__(self, n_features: int, n_trees: int, n_nodes: int) -> None:
        width = _width(n_features)
        shape = (n_trees, n_nodes)
        self.n_features = n_features
        self.child, self.feature, self.mass = (np.zeros(shape, np.int32) for _ in range(3))
        self.cut, self.extent = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.boxes = np.zeros((*shape, 2, width), np.float32)

    @classmethod
    def grown(cls, samples: Sequence[Floats], rng: np.random.Generator) -> Self:
        """Return a forest of one tree for each of *samples*, float32 (n_points, n_features) each."""
        largest = max(map(len, samples))
        forest = cls(samples[0].shape[1], len(samples), 2 * largest - 1)
        for tree, sample in enumerate(samples):
            one = slice(0, 2 * len(sample) - 1)
            kernels.grow(
                forest.padded(sample), forest.n_features, rng.random(2 * len(sample)),
                forest.child[tree, one], forest.feature[tree, one], forest.cut[tree, one], forest.mass[tree, one],
                forest.extent[tree, one], forest.boxes[tree, one],
            )  # fmt: skip
        return forest

    def padded(self, rows: Array) -> Floats:
        """Return *rows* with zeros up to the width that the kernels want."""
        out = np.zeros((len(rows), self.boxes.shape[3]), np.float32)
        out[:, : self.n_features] = rows
        return out

    def scores(self, rows: Floats) -> Floats:
        """Return the anomaly score of each row, float32 (n_samples,)."""
        out = np.empty(len(rows), np.float32)
        n_threads = cpu_count() if len(rows) >= _ROWS_FOR_THREADS else 1
        n_parts = 1 if n_threads == 1 else max(_PARTS_FOR_EACH * n_threads, len(rows) // 65536)
        bounds = np.linspace(0, len(rows), n_parts + 1).astype(int)

        def part(i: int) -> None:
            span = slice(bounds[i], bounds[i + 1])
            kernels.score(
                self.padded(rows[span]), self.child, self.feature, self.cut, self.mass, self.extent, self.boxes,
                out[span],
            )  # fmt: skip

        if n_threads == 1:
            part(0)
        else:
            with ThreadPoolExecutor(n_threads) as pool:
                list(pool.map(part, range(n_parts)))
        return out

    def arrays(self) -> dict[str, Array]:
        """Return what is kept of the forest; boxes of inner nodes are made again from those of the leaves."""
        leaves = np.flatnonzero((self.mass > 0) & (self.child == 0))
        points = self.boxes.reshape(-1, 2, self.boxes.shape[3])[leaves, 0, : self.n_features]
        return {
            "child": self.child,
            "feature": self.feature,
            "cut": self.cut,
            "mass": self.mass,
            "points": points,
        }

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> Self:
        """Return the forest of which `arrays` are.

        Raises:
            ValueError: they do not fit each other.
            KeyError: one is missing.
        """
        child, points = arrays["child"], arrays["points"]
        forest = cls(points.shape[1], *child.shape)
        for name in ("child", "feature", "cut", "mass"):
            getattr(forest, name)[:] = arrays[name]
        _check(forest)
        flat = forest.boxes.reshape(-1, 2, forest.boxes.shape[3])
        leaves = np.flatnonzero((forest.mass > 0) & (forest.child == 0))
        flat[leaves, :, : forest.n_features] = points[:, None, :]
        for node in range(child.shape[1] - 1, -1, -1):  # children come after their parent
            trees = np.flatnonzero(forest.child[:, node] > 0)
            left = forest.child[trees, node]
            one, other = forest.boxes[trees, left], forest.boxes[trees, left + 1]
            forest.boxes[trees, node, 0] = np.minimum(one[:, 0], other[:, 0])
            forest.boxes[trees, node, 1] = np.maximum(one[:, 1], other[:, 1])
        sides = forest.boxes[:, :, 1].astype(np.float64) - forest.boxes[:, :, 0]
        forest.extent[:] = sides.sum(axis=2)
        return forest


def _check(forest: Forest) -> None:
    """Raise ValueError for trees that the kernels could not walk through."""
    nodes, inner = np.arange(forest.child.shape[1]), forest.child > 0
    after = (forest.child > nodes) & (forest.child < len(nodes) - 1)
    known = (forest.feature >= 0) & (forest.feature < forest.n_features)
    if not (after & known)[inner].all() or (forest.child < 0).any() or (forest.mass[:, 0] < 1).any():
        raise ValueError("its trees are broken")


def _width(n_features: int) -> int:
    return -(-n_features // kernels.LANES) * kernels.LANES
