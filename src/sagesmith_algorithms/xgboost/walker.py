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
from typing import Any, Final

import numpy as np

from sagesmith_algorithms.formats.batch import Floats

__all__ = ["MOST_ROWS", "Walker", "WalkerInTime"]

MOST_ROWS: Final = 16
"""Of more rows at a time the library takes no longer: it walks a tree with many rows at once."""

_CALLS: Final = 50
_MOST_BYTES: Final = 8 << 20  # of the model as JSON: larger ones would hold up answers while they are read
_CHECKED_ROWS: Final = 256
_TWO_BITS: Final = 2.0**-22  # exponentials of the C library are not always rounded correctly


def _exp(values: Floats) -> Floats:
    """Return e to the power of *values* rounded from float64, as the C library's function for float32 does."""
    with np.errstate(over="ignore"):
        result: Floats = np.exp(values.astype(np.float64)).astype(np.float32)
    return result


def _same(margins: Floats) -> Floats:
    return margins.copy()


def _logistic(margins: Floats) -> Floats:
    one = np.float32(1)
    result: Floats = one / (one + _exp(-margins))
    return result


def _softmax(margins: Floats) -> Floats:
    powers = _exp(margins - margins.max(axis=1, keepdims=True))
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


_OBJECTIVES: Final[Mapping[str, tuple[Callable[[np.float32], float], Callable[[Floats], Floats]]]] = {
    "reg:squarederror": (_itself, _same),
    "reg:squaredlogerror": (_itself, _same),
    "reg:absoluteerror": (_itself, _same),
    "reg:pseudohubererror": (_itself, _same),
    "reg:logistic": (_logit, _logistic),
    "binary:logistic": (_logit, _logistic),
    "binary:logitraw": (_itself, _same),
    "count:poisson": (_log, _exp),
    "reg:gamma": (_log, _exp),
    "reg:tweedie": (_log, _exp),
    "rank:pairwise": (_itself, _same),
    "rank:ndcg": (_itself, _same),
    "rank:map": (_itself, _same),
    "multi:softprob": (_itself, _softmax),
    "multi:softmax": (_itself, _winner),
}
"""Of each objective, what makes a margin of the base score, and predictions of margins."""


class Walker:
    """The trees of one model. Not thread-safe.

    Args:
        model: the booster as JSON.
        end: how many of its rounds predict; 0: all.

    Raises:
        ValueError, KeyError, IndexError, TypeError, ArithmeticError: the model is none that can be walked.
    """

    def __init__(self, model: Mapping[str, Any], end: int) -> None:
        from sagesmith_algorithms.xgboost.kernels import add_leaves

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
        to_margin, self._transform = _OBJECTIVES[objective]
        n_groups = max(1, int(learner["learner_model_param"]["num_class"]))
        base = map(np.float32, learner["learner_model_param"]["base_score"].strip("[]").split(","))
        self._base = np.array([to_margin(score) for score in base], np.float32)
        self._n_features = int(learner["learner_model_param"]["num_feature"])
        sizes = [len(tree["left_children"]) for tree in trees]
        starts = np.cumsum([0, *sizes[:-1]])
        left, right = (_joined(trees, name, np.int64) for name in ("left_children", "right_children"))
        shift = np.where(left < 0, 0, np.repeat(starts, sizes))
        self._arrays = (
            starts.astype(np.int32),
            np.array(groups, np.int32),
            np.ascontiguousarray(np.stack((right + shift, left + shift), axis=1), np.int32),
            _joined(trees, "split_indices", np.int32),
            _joined(trees, "split_conditions", np.float32),
            _joined(trees, "default_left", np.int8),
        )
        self._margins = np.empty((_CHECKED_ROWS, n_groups), np.float32)
        self._add_leaves = add_leaves
        self.predict(np.zeros((1, self._n_features), np.float32), 1)  # loads the machine code

    def predict(self, rows: Floats, n: int) -> Floats:
        """Return the predictions of the first *n* of *rows*, float32 and C-contiguous: (n,), or (n, n_classes).

        n <= 256.
        """
        margins = self._margins[:n]
        margins[:] = self._base
        self._add_leaves(rows, n, *self._arrays, margins)
        found = self._transform(margins)
        return found[:, 0] if found.shape[1] == 1 else found

    def agrees(self, library: Callable[[Floats], Floats]) -> bool:
        """Return whether *library* predicts the same, but for the last two bits, for rows at, just below and just above thresholds."""
        _, _, children, features, values, _ = self._arrays
        inner = np.flatnonzero(children[:, 0] >= 0)
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
                self._walker = walker if walker.agrees(self._library) else None
        return self._walker

    def _make(self, model: bytes) -> None:
        try:
            self._made.append(Walker(json.loads(model), self._end))
        except (ImportError, OSError, ValueError, KeyError, IndexError, TypeError, ArithmeticError):
            return  # it is of a kind that only the library knows


def _joined(trees: Sequence[Mapping[str, Any]], name: str, dtype: Any) -> Any:
    return np.concatenate([np.asarray(tree[name], dtype) for tree in trees])
