"""k-means for data of any size: one pass, many centers, then few.

The data are read once (or `epochs` times). K = k x `extra_center_factor` centers follow them: every batch is
assigned to its nearest centers, and each center becomes the mean of all it was given. What is left of the data
is K weighted points, on which k-means++ and Lloyd's algorithm run several times; the best result is the model.
Small data are also kept as they are, and the last Lloyd runs on them. States of several hosts are put side by
side: the reduction takes any number of weighted points.

Source: Liberty et al., "Elastic Machine Learning Algorithms in Amazon SageMaker", SIGMOD 2020, section on k-means.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms import clustering
from sagesmith_algorithms.base import ChannelKind, Metric, StreamingAlgorithm, as_features, check_features
from sagesmith_algorithms.errors import CustomerError, DataError
from sagesmith_algorithms.formats import content_type as types
from sagesmith_algorithms.formats import mxnet
from sagesmith_algorithms.formats.batch import Batch, Floats
from sagesmith_algorithms.hyperparameters import Flag, Hyperparameters, Number, Text, Words
from sagesmith_algorithms.threads import side_by_side

__all__ = ["KMeans"]

_KEPT_ROWS = 1 << 16
_KEPT_BYTES = 64 * 1024 * 1024
_DIRECT_POINTS = 4096
_MODEL_FILE = "model_algo-1"
_FORMATS = (types.RECORDIO, types.CSV)


class KMeans(StreamingAlgorithm):
    """k-means with SageMaker's hyperparameters.

    `seed` is the one argument that is no hyperparameter: equal seeds and data give equal centers.

    Attributes (after `fit`):
        cluster_centers_: float32 (k, n_features).
        labels_: the cluster of each row given to `fit`.
        inertia_: sum of squared distances of those rows to their centers.
    """

    name = "kmeans"
    kind = "clusterer"
    fitted = "cluster_centers_"
    title = "AWS/KMeansWebscale"
    hyperparameters = Hyperparameters(
        Number(name="k", required=True, integer=True, low=1, tunable=False, doc="Number of clusters."),
        Number(name="feature_dim", required=True, integer=True, low=1, doc="Number of features."),
        Number(name="mini_batch_size", default=5000, integer=True, low=1, tunable=True, doc="Rows in a batch."),
        Number(name="epochs", default=1, integer=True, low=1, doc="Passes over the data."),
        Text(name="init_method", default="random", choices=("random", "kmeans++"), tunable=True,
             doc="How the first centers are chosen."),
        Number(name="extra_center_factor", default="auto", integer=True, low=1, auto=True, tunable=True,
               doc="Centers that follow the data, for each of the k."),
        Number(name="half_life_time_size", default=0, integer=True, low=0,
               doc="Rows after which a row counts half; 0 for never."),
        Text(name="local_lloyd_init_method", default="kmeans++", choices=("kmeans++", "random"),
             doc="How the reduction to k centers begins."),
        Number(name="local_lloyd_max_iter", default=300, integer=True, low=1, doc="Steps of each reduction."),
        Number(name="local_lloyd_num_trials", default="auto", integer=True, low=1, auto=True,
               doc="Reductions, of which the best is kept."),
        Number(name="local_lloyd_tol", default=0.0001, low=0, doc="Movement at which a reduction stops."),
        Words(name="eval_metrics", default=("msd",), choices=("msd", "ssd"), doc="Metrics of the test channel."),
        Flag(name="force_dense", default=True, idle="rows are always dense here",
             doc="Whether sparse rows are made dense."),
        ignored=("_num_kv_servers", "_kvstore", "_num_gpus", "_log_level", "_num_slices", "_enable_profiler",
                 "_disable_wait_to_read", "_data_format"),
    )  # fmt: skip
    channels = (ChannelKind("train", _FORMATS, required=True), ChannelKind("test", _FORMATS))
    request_types = (types.CSV, types.JSON, types.JSON_LINES, types.RECORDIO)
    response_types = (types.JSON, types.JSON_LINES, types.CSV, types.RECORDIO)
    metrics = tuple(
        Metric(f"test:{name}", rf"#quality_metric: host=\S+, test {name} <loss>=(\S+)", "Minimize")
        for name in ("msd", "ssd")
    )

    cluster_centers_: Floats
    labels_: npt.NDArray[np.intp]
    inertia_: float

    def __init__(self, k: int | str = 8, *, seed: int = 0, **hyperparameters: Any) -> None:
        super().__init__(k=k, **hyperparameters)
        self._n_rows = 0
        self._kept: list[Floats] = []
        self.seed = seed
        self._values: dict[str, Any] = {}
        self._reset()

    # ---- the estimator ----

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803 - scikit-learn's name
        """Cluster the rows of *X*, float (n_samples, n_features), finite. *y* is ignored.

        Raises:
            HyperparameterError: a hyperparameter is wrong.
            DataError: *X* holds values that are not finite, or fewer rows than k.
        """
        del y
        features = as_features(X)
        self._reset()
        self._values, self._of_data = {}, {"feature_dim": features.shape[1]}
        size = self._parsed()["mini_batch_size"]
        for _ in range(self._parsed()["epochs"]):
            self.take(features, size=size)
        self.finalize()
        self.labels_, distances = self._assign(features)
        self.inertia_ = float(distances.sum(dtype=np.float64))
        return self

    def predict(self, X: Any) -> npt.NDArray[np.intp]:  # noqa: N803
        """Return the cluster of each row of *X*."""
        return self._assign(self._features(X))[0]

    def transform(self, X: Any) -> Floats:  # noqa: N803
        """Return the distances of each row of *X* to all centers, (n_samples, k)."""
        features = self._features(X)
        squared = [((features - center) ** 2).sum(axis=1) for center in self.cluster_centers_]
        distances: Floats = np.sqrt(np.stack(squared, axis=1))
        return distances

    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803
        """Return the negative sum of squared distances of the rows of *X* to their centers."""
        del y
        return -float(self._assign(self._features(X))[1].sum(dtype=np.float64))

    @property
    def n_features_in_(self) -> int:
        """The number of features of the model."""
        return int(self.cluster_centers_.shape[1])

    # ---- streaming ----

    def update(self, batch: Batch) -> None:
        """Take in *batch*."""
        values = self._parsed()
        features = np.ascontiguousarray(batch.dense())
        check_features(features, values["feature_dim"], "k-means")
        self._n_rows += len(features)
        self._keep(features)
        if self._centers is not None:
            self._follow(features, self._centers)
            return
        self._waiting.append(features)
        if sum(map(len, self._waiting)) >= max(self._n_extra_centers(), values["mini_batch_size"]):
            self._begin()

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the weighted points, and the rows themselves while they are few."""
        points, weights = self._summary()
        empty = np.empty((0, points.shape[1]), np.float32)
        return {
            "points": points,
            "weights": weights,
            "rows": np.concatenate(self._kept) if self._kept else empty,
            "n_rows": np.array(self._n_rows),
        }

    def merge(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take in the `state` of another host."""
        if len(state["points"]):
            self._merged.append((state["points"], state["weights"]))
        n_rows = int(state["n_rows"])
        self._n_rows += n_rows
        if n_rows and not len(state["rows"]):
            self._keeps = False
            self._kept = []
        elif n_rows:
            self._keep(state["rows"])

    def finalize(self) -> None:
        """Reduce the weighted points to k centers."""
        values = self._parsed()
        k = values["k"]
        points, weights = self._summary()
        for more_points, more_weights in self._merged:
            points = np.concatenate([points, more_points])
            weights = np.concatenate([weights, more_weights])
        rows = np.concatenate(self._kept) if self._kept else None
        n_known = self._n_rows if rows is None else len(rows)
        if n_known < k:
            raise DataError(
                f"{n_known} rows cannot be put into k={k} clusters; give more rows or a smaller k"
            )
        if rows is not None and (len(rows) <= _DIRECT_POINTS or len(points) < k):
            points, weights = rows, np.ones(len(rows))
        # Lloyd's distances are products of float32; around the mean they lose no digits.
        middle = (weights @ points / weights.sum()).astype(np.float32)
        centers = self._reduced(points - middle, weights, k)
        if rows is not None and points is not rows:
            centers, _ = clustering.lloyd(
                rows - middle, None, centers,
                max_iter=values["local_lloyd_max_iter"], tol=values["local_lloyd_tol"],
            )  # fmt: skip
        self.cluster_centers_ = centers + middle
        self._reset()

    def infer(self, features: Floats, options: Mapping[str, str]) -> dict[str, npt.NDArray[Any]]:
        """Return the nearest cluster and the (Euclidean) distance to its center."""
        del options
        labels, distances = self._assign(features)
        return {"closest_cluster": labels.astype(np.float32), "distance_to_cluster": np.sqrt(distances)}

    def measure(self, batch: Batch) -> dict[str, float]:
        """Return the number of rows and the sum of squared distances."""
        features = np.ascontiguousarray(batch.dense())
        check_features(features, self.n_features_in_, "k-means")
        _, distances = self._assign(features)
        return {"rows": float(len(features)), "ssd": float(distances.sum(dtype=np.float64))}

    def quality(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Return the mean (msd) and the sum (ssd) of squared distances, as `eval_metrics` asks for."""
        values = {"msd": sums["ssd"] / max(sums["rows"], 1.0), "ssd": sums["ssd"]}
        return {f"{name} <loss>": values[name] for name in self._parsed()["eval_metrics"]}

    def save(self, folder: Path) -> None:
        """Write ``model_algo-1``: the centers as an MXNet file of arrays, as AWS's algorithm does.

        ``mxnet.nd.load("model_algo-1")[0]`` gives them; without MXNet, they are the float32 values that begin
        at byte 64 of the file.
        """
        (folder / _MODEL_FILE).write_bytes(mxnet.dump([self.cluster_centers_]))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the model that `save`, or AWS's algorithm, wrote into *folder*."""
        path = next(iter(sorted(folder.glob("model_algo-*"))), None)
        if path is None:
            raise CustomerError(
                f"There is no {_MODEL_FILE} in the model artifact; it was not made by k-means."
            )
        arrays = mxnet.load(path.read_bytes(), path.name)
        if not arrays or arrays[0].ndim != 2:
            raise DataError("does not hold a matrix of centers", path.name)
        model = cls(k=len(arrays[0]), feature_dim=arrays[0].shape[1])
        model.cluster_centers_ = arrays[0].astype(np.float32)
        return model

    # ---- inside ----

    def _reset(self) -> None:
        self._rng: np.random.Generator | None = None
        self._centers: Floats | None = None
        self._weights: npt.NDArray[np.float64] = np.empty(0)
        self._shift: Floats = np.empty(0, np.float32)
        self._waiting: list[Floats] = []
        self._kept = []
        self._keeps = True
        self._n_rows = 0
        self._merged: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = []

    def _parsed(self) -> dict[str, Any]:
        if not self._values:
            self._values = self.hyperparameters.parse(self._all_given())
        return self._values

    def _random(self) -> np.random.Generator:
        if self._rng is None:
            self._rng = np.random.default_rng(self.seed)
        return self._rng

    def _n_extra_centers(self) -> int:
        values = self._parsed()
        factor = values["extra_center_factor"]
        return int(values["k"] * (_auto_factor(values["k"]) if factor == "auto" else factor))

    def _keep(self, rows: Floats) -> None:
        """Remember *rows* while all rows together are few, and none is to be forgotten."""
        if not self._keeps:
            return
        if self._parsed()["half_life_time_size"]:
            self._keeps = False
            return
        self._kept.append(rows)
        n_kept = sum(map(len, self._kept))
        if n_kept > _KEPT_ROWS or n_kept * rows.shape[1] * 4 > _KEPT_BYTES:
            self._keeps = False
            self._kept = []

    def _begin(self) -> None:
        """Choose the first centers among the rows that wait, and let them follow these."""
        features = np.concatenate(self._waiting)
        self._waiting = []
        n_centers = min(self._n_extra_centers(), len(features))
        self._shift = features.mean(axis=0, dtype=np.float64).astype(np.float32)
        shifted = features - self._shift
        if self._parsed()["init_method"] == "kmeans++":
            centers = clustering.kmeans_plus_plus(
                shifted, np.ones(len(shifted)), n_centers, rng=self._random()
            )
        else:
            centers = shifted[self._random().choice(len(shifted), n_centers, replace=False)]
        self._centers = centers
        self._weights = np.zeros(n_centers)
        self._follow(features, centers)

    def _follow(self, features: Floats, centers: Floats) -> None:
        shifted = features - self._shift
        labels = clustering.nearest(shifted, centers)
        sums, counts = clustering.cluster_sums(shifted, labels, len(centers))
        half_life = self._parsed()["half_life_time_size"]
        if half_life:
            self._weights *= 0.5 ** (len(features) / half_life)
        hit = counts > 0
        total = self._weights[hit] + counts[hit]
        centers[hit] = (centers[hit] * self._weights[hit, None] + sums[hit]) / total[:, None]
        self._weights[hit] = total

    def _summary(self) -> tuple[Floats, npt.NDArray[np.float64]]:
        if self._waiting:
            self._begin()
        if self._centers is None:
            return np.empty((0, self._parsed()["feature_dim"]), np.float32), np.empty(0)
        used = self._weights > 0
        return self._centers[used] + self._shift, self._weights[used]

    def _reduced(self, points: Floats, weights: npt.NDArray[np.float64], k: int) -> Floats:
        """Return the best of several reductions of the weighted *points* to *k* centers."""
        values = self._parsed()
        trials = values["local_lloyd_num_trials"]
        n_trials = _auto_trials(k) if trials == "auto" else int(trials)
        if len(points) < k:
            raise DataError(f"only {len(points)} distinct centers were found for k={k}; choose a smaller k")

        def reduce(rng: np.random.Generator) -> tuple[Floats, float]:
            if values["local_lloyd_init_method"] == "kmeans++":
                start = clustering.kmeans_plus_plus(points, weights, k, rng=rng)
            else:
                start = points[rng.choice(len(points), k, replace=False)]
            return clustering.lloyd(
                points,
                weights,
                start,
                max_iter=values["local_lloyd_max_iter"],
                tol=values["local_lloyd_tol"],
            )

        results = side_by_side(reduce, self._random().spawn(n_trials))
        return min(results, key=lambda result: result[1])[0]

    def _assign(self, features: Floats) -> tuple[npt.NDArray[np.intp], Floats]:
        """Return the nearest center of each row, and the squared distance to it."""
        middle = self.cluster_centers_.mean(axis=0)
        labels = clustering.nearest(np.ascontiguousarray(features) - middle, self.cluster_centers_ - middle)
        return labels, clustering.squared_distances_to(features, self.cluster_centers_, labels)


def _auto_factor(k: int) -> int:
    """Centers that follow the data for each of the k: fewer for many clusters, of which each costs time."""
    return max(4, min(10, 600 // k))


def _auto_trials(k: int) -> int:
    return max(4, min(16, 1600 // k))
