"""Random cut forest: how much a row would change trees that were grown from samples of the data.

A uniform sample of all rows is kept while they pass by; the trees are grown from parts of it. States of several hosts
are merged by keeping, of both samples, the rows that were drawn with the least numbers: the sample that one host
would have drawn.

Source: Guha, Mishra, Roy and Schrijvers, "Robust Random Cut Forest Based Anomaly Detection on Streams", ICML 2016.
"""

from __future__ import annotations

import importlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.base import ChannelKind, Metric, StreamingAlgorithm, as_features, check_features
from sagesmith_algorithms.errors import CustomerError, DataError
from sagesmith_algorithms.formats import content_type as types
from sagesmith_algorithms.formats.batch import Batch, Floats
from sagesmith_algorithms.hyperparameters import Hyperparameters, Number, Words

if TYPE_CHECKING:
    from sagesmith_algorithms.random_cut_forest.forest import Forest

__all__ = ["RandomCutForest"]

Array = npt.NDArray[Any]
_MODEL_FILE: Final = "model_algo-1"
_FORMATS: Final = (types.RECORDIO, types.CSV)
_TEST: Final = r"#quality_metric: host=\S+, test "
_BINS_OF_ONE: Final = 1024
"""Scores of the test channel are counted in bins of this fineness, so that their memory is limited."""


class RandomCutForest(StreamingAlgorithm):
    """Random cut forest with SageMaker's hyperparameters.

    `seed` is the one argument that is no hyperparameter: equal seeds and data give equal forests.

    Attributes (after `fit`):
        threshold_: the mean score of the rows given to `fit`, and three standard deviations.
    """

    name = "randomcutforest"
    kind = "outlier_detector"
    fitted = "_forest"
    title = "RandomCutForest"
    hyperparameters = Hyperparameters(
        Number(name="feature_dim", required=True, integer=True, low=1, high=10000, doc="Number of features."),
        Number(name="num_trees", default=100, integer=True, low=50, high=1000, tunable=True, doc="Trees."),
        Number(name="num_samples_per_tree", default=256, integer=True, low=1, high=2048, tunable=True,
               doc="Rows that each tree is grown from; about the inverse of the share of anomalies."),
        Words(name="eval_metrics", default=("accuracy", "precision_recall_fscore"),
              choices=("accuracy", "precision_recall_fscore"), doc="Metrics of the test channel."),
        Number(name="mini_batch_size", default=1000, integer=True, low=1, doc="Rows in a batch."),
        ignored=("_num_kv_servers", "_kvstore", "_num_gpus", "_log_level", "_tuning_objective_metric", "_ftp_port",
                 "_disable_wait_to_read", "_data_format"),
    )  # fmt: skip
    channels = (ChannelKind("train", _FORMATS, required=True), ChannelKind("test", _FORMATS))
    request_types = (types.CSV, types.JSON, types.JSON_LINES, types.RECORDIO)
    response_types = (types.JSON, types.JSON_LINES, types.CSV, types.RECORDIO)
    compiles = True
    response_key = "scores"
    metrics = tuple(
        Metric(f"test:{name}", rf"{_TEST}{name} <score>=(\S+)", "Maximize")
        for name in ("f1", "accuracy", "precision", "recall")
    )

    threshold_: float

    def __init__(
        self,
        num_trees: int | str = 100,
        num_samples_per_tree: int | str = 256,
        *,
        seed: int = 0,
        **hyperparameters: Any,
    ) -> None:
        super().__init__(num_trees=num_trees, num_samples_per_tree=num_samples_per_tree, **hyperparameters)
        self.seed = seed
        self._values: dict[str, Any] = {}
        self._forest: Forest | None = None
        self._rng: np.random.Generator | None = None
        self._limit = np.inf
        self._reset()

    @classmethod
    def load_libraries(cls) -> None:
        """Import the libraries of a job or model server."""
        for module in ("concurrent.futures", "sagesmith_algorithms.random_cut_forest.forest"):
            importlib.import_module(module)

    # ---- the estimator ----

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803 - scikit-learn's name
        """Grow a forest from the rows of *X*, float (n_samples, n_features), finite. *y* is ignored.

        Raises:
            HyperparameterError: a hyperparameter is wrong.
            DataError: *X* holds values that are not finite, or no row.
        """
        del y
        features = as_features(X)
        self._reset()
        self._values = {}
        self._of_data = {"feature_dim": features.shape[1]}
        self.take(features)
        self.finalize()
        scores = self.infer(features, {})["score"]
        self.threshold_ = float(scores.mean(dtype=np.float64) + 3 * scores.std(dtype=np.float64))
        return self

    def score_samples(self, X: Any) -> Floats:  # noqa: N803
        """Return the negative anomaly score of each row: the less, the more abnormal (scikit-learn's convention)."""
        return -self._scores(self._features(X))

    def decision_function(self, X: Any) -> Floats:  # noqa: N803
        """Return how far the anomaly score of each row is below the threshold."""
        return np.float32(self.threshold_) - self._scores(self._features(X))

    def predict(self, X: Any) -> npt.NDArray[np.int64]:  # noqa: N803
        """Return -1 for rows above the threshold, 1 for the others."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    @property
    def n_features_in_(self) -> int:
        """The number of features of the model."""
        return self._grown().n_features

    # ---- streaming ----

    def update(self, batch: Batch) -> None:
        """Take in *batch*."""
        values, features = self._parsed(), batch.dense()
        if batch.labels is not None and features.shape[1] == values["feature_dim"] - 1:
            raise DataError(
                f"rows have {features.shape[1]} features beside a label, but feature_dim is {values['feature_dim']}; "
                "where there is no label, the content type is text/csv;label_size=0",
                row=0,
            )
        check_features(features, values["feature_dim"], "random cut forest")
        if self._rng is None:  # hosts draw other numbers than one another, and the same in each run
            first = zlib.crc32(np.ascontiguousarray(features[:64]).tobytes())
            self._rng = np.random.default_rng([self.seed, first])
        keys = self._rng.random(len(features))
        keep = np.flatnonzero(keys < self._limit)
        self._add(features[keep], keys[keep])

    def state(self) -> dict[str, Array]:
        """Return the sample, with the numbers it was drawn by."""
        rows, keys = self._sample()
        return {"rows": rows, "keys": keys}

    def merge(self, state: Mapping[str, Array]) -> None:
        """Take in the `state` of another host."""
        self._add(state["rows"], state["keys"])

    def finalize(self) -> None:
        """Grow the trees: each from its own part of the sample, or, of few rows, from a draw of its own."""
        from sagesmith_algorithms.random_cut_forest.forest import Forest

        values = self._parsed()
        rows, keys = self._sample()
        n_trees, size = values["num_trees"], values["num_samples_per_tree"]
        if not len(rows):
            raise DataError("there is no row to grow trees from; check the S3Uri of the channel 'train'")
        rows = rows[np.argsort(keys)]  # the same for every order of merging
        rng = np.random.default_rng(self.seed)
        if len(rows) >= n_trees * size:
            samples = [rows[i * size : (i + 1) * size] for i in range(n_trees)]
        else:
            drawn = min(size, len(rows))
            samples = [rows[rng.choice(len(rows), drawn, replace=False)] for _ in range(n_trees)]
        self._forest = Forest.grown(samples, rng)
        self._reset()

    def infer(self, features: Floats, options: Mapping[str, str]) -> dict[str, Array]:
        """Return the anomaly score."""
        del options
        return {"score": self._scores(features)}

    def measure(self, batch: Batch) -> dict[str, float]:
        """Return the number of rows, sums of scores and their squares, and how many of each label are in which bin."""
        features = batch.dense()
        check_features(features, self.n_features_in_, "random cut forest")
        labels = _labels_of(batch)
        scores = self._scores(features).astype(np.float64)
        sums = {"rows": float(len(scores)), "scores": float(scores.sum()), "squares": float(scores @ scores)}
        for label in (0, 1):
            bins, counts = np.unique(
                (scores[labels == label] * _BINS_OF_ONE).astype(np.int64), return_counts=True
            )
            sums |= {f"{label}:{b}": float(n) for b, n in zip(bins.tolist(), counts.tolist(), strict=True)}
        return sums

    def quality(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Return what calling rows anomalies whose score is three standard deviations above the mean is worth."""
        rows = max(sums["rows"], 1.0)
        mean = sums["scores"] / rows
        limit = mean + 3 * max(sums["squares"] / rows - mean * mean, 0.0) ** 0.5
        counts = np.zeros((2, 2))  # label, called an anomaly
        for name, n in sums.items():
            label, _, place = name.partition(":")
            if place:
                counts[int(label), int((int(place) + 0.5) / _BINS_OF_ONE > limit)] += n
        right, wrong = counts[1, 1], counts[0, 1] + counts[1, 0]
        metrics = {}
        if "accuracy" in self._parsed()["eval_metrics"]:
            metrics["accuracy <score>"] = 1.0 - wrong / rows
        if "precision_recall_fscore" in self._parsed()["eval_metrics"]:
            metrics |= {
                "precision <score>": right / max(counts[:, 1].sum(), 1.0),
                "recall <score>": right / max(counts[1].sum(), 1.0),
                "f1 <score>": 2 * right / max(2 * right + wrong, 1.0),
            }
        return {name: float(value) for name, value in metrics.items()}

    def score_lines(self, host: str, metrics: Mapping[str, float]) -> list[str]:
        """Return the lines of the older log form, which notebooks show."""
        return [f"#test_score ({host}) : ('{name.split()[0]}', {value!r})" for name, value in metrics.items()]

    def save(self, folder: Path) -> None:
        """Write ``model_algo-1``, a NumPy archive: ``numpy.load("model_algo-1")``.

        ``child``, ``feature``, ``cut`` and ``mass``, (n_trees, n_nodes) each: the left child of a node (the right one
        is the next), what is cut and where, and the number of points; ``points`` (n_leaves, n_features), those of all
        leaves in their order; ``hyperparameters`` as JSON.
        """
        known = {name: value for name, value in self._parsed().items() if value is not None}
        text = np.frombuffer(json.dumps({**known, "seed": self.seed}).encode(), np.uint8)
        with (folder / _MODEL_FILE).open("wb") as file:
            np.savez(file, allow_pickle=False, hyperparameters=text, **self._grown().arrays())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the model that `save` wrote into *folder*."""
        from sagesmith_algorithms.random_cut_forest.forest import Forest

        path = folder / _MODEL_FILE
        if not path.exists():
            raise CustomerError(
                f"There is no {_MODEL_FILE} in the model artifact; it was not made by random cut forest."
            )
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            model = cls(**json.loads(arrays.pop("hyperparameters").tobytes()))
            model._forest = Forest.of(arrays)
        except (ValueError, KeyError, TypeError, OSError, EOFError, IndexError, AttributeError) as error:
            raise DataError(f"is not an artifact of random cut forest: {error}", path.name) from error
        return model

    # ---- inside ----

    def _reset(self) -> None:
        self._rng = None
        self._parts: list[tuple[Floats, npt.NDArray[np.float64]]] = []
        self._n_kept = 0
        self._limit = np.inf

    def _parsed(self) -> dict[str, Any]:
        if not self._values:
            self._values = self.hyperparameters.parse(self._all_given())
        return self._values

    def _n_samples(self) -> int:
        values = self._parsed()
        return int(values["num_trees"] * values["num_samples_per_tree"])

    def _add(self, rows: Floats, keys: npt.NDArray[np.float64]) -> None:
        self._parts.append((rows, keys))
        self._n_kept += len(keys)
        if self._n_kept > 2 * self._n_samples():
            self._parts = [self._sample()]
            self._n_kept = len(self._parts[0][1])
            self._limit = float(self._parts[0][1].max())

    def _sample(self) -> tuple[Floats, npt.NDArray[np.float64]]:
        """Return the rows with the least numbers."""
        if not self._parts:
            return np.empty((0, self._parsed()["feature_dim"]), np.float32), np.empty(0)
        rows, keys = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        size = self._n_samples()
        if len(keys) <= size:
            return rows, keys
        chosen = np.argpartition(keys, size - 1)[:size]
        return rows[chosen], keys[chosen]

    def _grown(self) -> Forest:
        forest: Forest = self._fitted_part()
        return forest

    def _scores(self, features: Floats) -> Floats:
        return self._grown().scores(features)


def _labels_of(batch: Batch) -> Floats:
    labels = batch.labels
    if labels is None or labels.ndim != 1:
        raise DataError(
            "rows of the channel 'test' need a label, 1 for anomalies and 0 for others: the first column of CSV "
            "(text/csv;label_size=1), or the label of a record",
            row=0,
        )
    wrong = (labels != 0) & (labels != 1)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"the label {labels[row]:g} is not allowed; it must be 1 for anomalies, 0 for others", row=row
        )
    return labels
