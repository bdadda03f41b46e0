"""A few rows at a time without the library, whose call takes longer than the walk through all trees.

A `Walker` has the trees of a model as arrays, walks them with compiled code, and does what the objective does then. It is
made only of models that it knows how to walk, and used only if it gives the library's predictions, to the last bits of
float32, for rows at and around the trees' thresholds, with values missing; otherwise the library goes on predicting.

Making one loads Numba. So `WalkerInTime` makes it for a model that is asked often, in a thread beside the answers.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, Final

import numpy as np

from sagesmith_algorithms.formats.batch import Floats

__all__ = ["Walker", "WalkerInTime"]

_CALLS: Final = 50
_MOST_BYTES: Final = 8 << 20  # of the model as JSON: larger ones would hold up answers while they are read
_CHECKED_ROWS: Final = 256
_TWO_BITS: Final = 2.0**-22  # exponentials of the C library are not always rounded correctly


_ROUNDS: Final = 3
"""So often each is timed to learn which is quicker."""


def _softmax(margins: Floats) -> Floats:
    # e to the power of what is rounded from float64, as the C library's function for float32 does.
    powers = np.exp((margins - margins.max(axis=1, keepdims=True)).astype(np.float64)).astype(np.float32)
    total = np.zeros(len(powers))
    for column in powers.T:
        total += column
    result: Floats = powers / total.astype(np.float32)[:, None]
    return result


def _winner(margins: Floats) -> Floats:
    result: Floats = margins.argmax(axis=1)[:, None].astype(np.float32)
    return result


def _itself(base: np.float32) -> float:
    return float(base)


def _log(base: np.float32) -> float:
    return math.log(base)


def _logit(base: np.float32) -> float:
    one = np.float32(1)
    return -math.log(one / base - one)  # in float32 up to the logarithm, as the library does


_OBJECTIVES: Final[Mapping[str, tuple[Callable[[np.float32], float], str | Callable[[Floats], Floats]]]] = {
    "reg:squarederror": (_itself, "SAME"),
    "reg:squaredlogerror": (_itself, "SAME"),
    "reg:absoluteerror": (_itself, "SAME"),
    "reg:pseudohubererror": (_itself, "SAME"),
    "reg:logistic": (_logit, "LOGISTIC"),
    "binary:logistic": (_logit, "LOGISTIC"),
    "binary:logitraw": (_itself, "SAME"),
    "count:poisson": (_log, "EXP"),
    "reg:gamma": (_log, "EXP"),
    "reg:tweedie": (_log, "EXP"),
    "rank:pairwise": (_itself, "SAME"),
    "rank:ndcg": (_itself, "SAME"),
    "rank:map": (_itself, "SAME"),
    "multi:softprob": (_itself, _softmax),
    "multi:softmax": (_itself, _winner),
}
"""Of each objective, what makes a margin of the base score, and predictions of margins: a name in `kernels` or a function."""


class Walker:
    """The trees of one model. Not thread-safe.

    Args:
        model: the booster as JSON.
        end: how many of its rounds predict; 0: all.

    Attributes:
        most_rows: up to so many rows at a time `predict` is quicker than the library; see `measure`.

    Raises:
        ValueError, KeyError, IndexError, TypeError, ArithmeticError: the model is none that can be walked.
    """

    def __init__(self, model: Mapping[str, Any], end: int) -> None:
        from sagesmith_algorithms.xgboost import kernels

        learner = model["learner"]
        booster, objective = learner["gradient_booster"], learner["objective"]["name"]
        if booster["name"] != "gbtree" or objective not in _OBJECTIVES:
            raise ValueError(f"its booster is {booster['name']}, its objective {objective}")
        parts = booster["model"]
        trees, groups = parts["trees"], parts["tree_info"]
        if end:
            count = parts["iteration_indptr"][end]
            trees, groups = trees[:count], groups[:count]
        if not trees or any(tree["categories"] for tree in trees):
            raise ValueError("it has no trees, or trees with categorical splits")
        if any(len(tree["base_weights"]) != len(tree["left_children"]) for tree in trees):
            raise ValueError("its leaves are vectors")
        to_margin, kind = _OBJECTIVES[objective]
        self._kind = int(getattr(kernels, kind)) if isinstance(kind, str) else kernels.SAME
        self._transform = None if isinstance(kind, str) else kind
        n_groups = max(1, int(learner["learner_model_param"]["num_class"]))
        base = map(np.float32, learner["learner_model_param"]["base_score"].strip("[]").split(","))
        margins = np.array([to_margin(score) for score in base], np.float32)
        self._base = np.array(np.broadcast_to(margins, n_groups))
        self._n_features = int(learner["learner_model_param"]["num_feature"])
        sizes = [len(tree["left_children"]) for tree in trees]
        roots = np.cumsum([0, *sizes[:-1]])
        left, right, features = (
            _joined(trees, name, np.int64) for name in ("left_children", "right_children", "split_indices")
        )
        is_leaf, itself = left < 0, np.arange(sum(sizes))
        start = np.repeat(roots, sizes)
        nodes = np.stack(
            (
                np.where(is_leaf, itself, right + start),
                np.where(is_leaf, itself, left + start),
                np.where(is_leaf, 0, features),
                _joined(trees, "default_left", np.int64),
            ),
            axis=1,
        )
        self._nodes = np.ascontiguousarray(nodes, np.int32)
        self._trees = np.ascontiguousarray(
            np.stack((roots, _depths(self._nodes, roots), groups), axis=1), np.int32
        )
        self._values = _joined(trees, "split_conditions", np.float32)
        self._predict = kernels.predict
        self.most_rows = 0
        self.predict(np.zeros((1, self._n_features), np.float32), 1)  # loads the machine code

    def predict(self, rows: Floats, n: int) -> Floats:
        """Return the predictions of the first *n* of *rows*, float32 and C-contiguous: (n,), or (n, n_classes)."""
        found = np.empty((n, len(self._base)), np.float32)
        self._predict(rows, n, self._trees, self._nodes, self._values, self._base, self._kind, found)
        if self._transform is not None:
            found = self._transform(found)
        return found[:, 0] if found.shape[1] == 1 else found

    def agrees(self, library: Callable[[Floats], Floats]) -> bool:
        """Return whether *library* predicts the same, but for the last two bits, for rows at, just below and just above thresholds."""
        inner = np.flatnonzero(self._nodes[:, 0] != np.arange(len(self._nodes)))
        features, values = self._nodes[:, 2], self._values
        rng = np.random.default_rng(0)
        rows = np.full((_CHECKED_ROWS, self._n_features), np.nan, np.float32)
        for feature in np.unique(features[inner]):
            of_feature = values[inner[features[inner] == feature]]
            chosen = rng.choice(of_feature, _CHECKED_ROWS)
            toward = rng.choice(np.array([-np.inf, np.inf], np.float32), _CHECKED_ROWS)
            rows[:, feature] = np.where(rng.random(_CHECKED_ROWS) < 0.5, chosen, np.nextafter(chosen, toward))
        rows[rng.random(rows.shape) < 0.1] = np.nan
        found, expected = self.predict(rows, len(rows)), library(rows)
        return found.shape == expected.shape and np.allclose(found, expected, rtol=_TWO_BITS, atol=0)

    def measure(self, library: Callable[[Floats], Floats]) -> None:
        """Set `most_rows`: a call of *library* takes a while in any case, but then it may take less for each row."""
        rows = np.zeros((_CHECKED_ROWS, self._n_features), np.float32)
        rows[:] = np.linspace(-1, 1, _CHECKED_ROWS, dtype=np.float32)[:, None]
        once, all_ = (_seconds(library, rows[:n]) for n in (1, _CHECKED_ROWS))
        walked = _seconds(lambda some: self.predict(some, len(some)), rows) / _CHECKED_ROWS
        saved = walked - max(0.0, all_ - once) / _CHECKED_ROWS  # by the library, for each row
        self.most_rows = _CHECKED_ROWS if saved <= once / _CHECKED_ROWS else int(once / saved)


class WalkerInTime:
    """The walker of a model that is asked often.

    Args:
        as_json: returns the model; called by `get`, not in the thread.
        end: see `Walker`.
        library: what predicts otherwise, and what the walker is checked against.
    """

    def __init__(self, as_json: Callable[[], bytes], end: int, library: Callable[[Floats], Floats]) -> None:
        self._as_json = as_json
        self._end = end
        self._library = library
        self._calls = 0
        self._made: list[Walker] = []
        self._walker: Walker | None = None

    def get(self) -> Walker | None:
        """Return the walker, once there is one. Call this whenever a few rows are to be predicted."""
        if self._walker is None:
            self._calls += 1
            if self._calls == _CALLS:
                model = self._as_json()
                if len(model) <= _MOST_BYTES:
                    threading.Thread(target=self._make, args=(model,), name="walker", daemon=True).start()
            elif self._made:
                walker = self._made.pop()
                if walker.agrees(self._library):
                    walker.measure(self._library)
                    self._walker = walker
        return self._walker

    def _make(self, model: bytes) -> None:
        try:
            self._made.append(Walker(json.loads(model), self._end))
        except (ImportError, OSError, ValueError, KeyError, IndexError, TypeError, ArithmeticError):
            return  # it is of a kind that only the library knows


def _joined(trees: Sequence[Mapping[str, Any]], name: str, dtype: Any) -> Any:
    return np.concatenate([np.asarray(tree[name], dtype) for tree in trees])


def _depths(nodes: Any, roots: Any) -> Any:
    """Return how many steps lead from each of *roots* to its deepest leaf."""
    depths = np.zeros(len(roots), np.int64)
    places, of = roots, np.arange(len(roots))
    while True:
        inner = nodes[places, 0] != places
        if not inner.any():
            return depths
        places, of = nodes[places[inner], :2].ravel(), np.repeat(of[inner], 2)
        depths[of] += 1


def _seconds(predict: Callable[[Floats], Floats], rows: Floats) -> float:
    best = math.inf
    for _ in range(_ROUNDS):
        began = perf_counter()
        predict(rows)
        best = min(best, perf_counter() - began)
    return best
