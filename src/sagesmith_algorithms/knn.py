"""k-nearest neighbors: a sample of the rows, perhaps of fewer dimensions, and an index of it.

Each row gets a random number, and the rows with the least numbers are the sample: so that it is uniform, has a
fixed size, and the samples of several hosts make one again. Dimension reduction is one product with a matrix that is
the same on all hosts.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.base import ChannelKind, Metric, StreamingAlgorithm, as_features, check_features
from sagesmith_algorithms.errors import CustomerError, DataError
from sagesmith_algorithms.formats import content_type as types
from sagesmith_algorithms.formats.batch import Batch, Floats
from sagesmith_algorithms.hyperparameters import Hyperparameters, Number, Text
from sagesmith_algorithms.neighbors import CODES, FLAT, LISTS, Index

__all__ = ["KNN"]

_FORMATS = (types.RECORDIO, types.CSV)
_MODEL_FILE = "model_algo-1"
_PARTS = (1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96)
_CLASSIFIER = "classifier"


def _reduction_is_whole(values: Mapping[str, Any]) -> Iterable[str]:
    kind, target = values.get("dimension_reduction_type"), values.get("dimension_reduction_target")
    if kind and not target:
        yield "dimension_reduction_target is required with dimension_reduction_type"
    if target and not kind:
        yield "dimension_reduction_target means nothing without dimension_reduction_type: sign or fjlt"
    if target and target >= values["feature_dim"]:
        yield f"dimension_reduction_target={target} must be less than feature_dim={values['feature_dim']}"


def _parts_are_known(values: Mapping[str, Any]) -> Iterable[str]:
    m = values.get("faiss_index_pq_m")
    if m is not None and m not in _PARTS:
        yield f"faiss_index_pq_m={m}: expected one of {', '.join(map(str, _PARTS))}"
    if values["index_type"] == CODES:
        if m is None:
            yield "faiss_index_pq_m is required for index_type=faiss.IVFPQ"
        if values["index_metric"] != "L2":
            yield f"index_metric={values['index_metric']} cannot be had with index_type=faiss.IVFPQ; use L2"


def _sample_holds_neighbors(values: Mapping[str, Any]) -> Iterable[str]:
    if values["k"] > values["sample_size"]:
        yield f"k={values['k']} is more than sample_size={values['sample_size']}"


class KNN(StreamingAlgorithm):
    """k-nearest neighbors with SageMaker's hyperparameters.

    `seed` is the one argument that is no hyperparameter.
    """

    name = "knn"
    fitted = "_index"
    title = "AWS/KNN"
    hyperparameters = Hyperparameters(
        Number(name="feature_dim", required=True, integer=True, low=1, doc="Number of features."),
        Number(name="k", required=True, integer=True, low=1, tunable=True, doc="Number of neighbors."),
        Text(name="predictor_type", required=True, choices=(_CLASSIFIER, "regressor"),
             doc="Whether the neighbors' labels vote or are averaged."),
        Number(name="sample_size", required=True, integer=True, low=1, tunable=True, doc="Rows to keep."),
        Text(name="dimension_reduction_type", choices=("sign", "fjlt"), doc="Random projection to fewer features."),
        Number(name="dimension_reduction_target", integer=True, low=1, doc="Features to project to."),
        Text(name="index_type", default=FLAT, choices=(FLAT, LISTS, CODES),
             doc="All rows compared, those of the nearest lists, or these in compressed form."),
        Text(name="index_metric", default="L2", choices=("L2", "INNER_PRODUCT", "COSINE"), doc="What near means."),
        Number(name="faiss_index_ivf_nlists", default="auto", auto=True, integer=True, low=1,
               needs={"index_type": (LISTS, CODES)},
               doc="Lists of the index; the square root of sample_size."),
        Number(name="faiss_index_pq_m", integer=True, low=1, needs={"index_type": (CODES,)}, doc="Bytes that a row is compressed to."),
        Number(name="mini_batch_size", default=5000, integer=True, low=1, doc="Rows in a batch."),
        rules=(_reduction_is_whole, _parts_are_known, _sample_holds_neighbors),
        ignored=("_num_kv_servers", "_kvstore", "_num_gpus", "_log_level", "_enable_profiler", "_faiss_index_nprobe"),
    )  # fmt: skip
    channels = (ChannelKind("train", _FORMATS, required=True), ChannelKind("test", _FORMATS))
    request_types = (types.CSV, types.JSON, types.JSON_LINES, types.RECORDIO)
    response_types = (types.JSON, types.JSON_LINES, types.CSV, types.RECORDIO)
    metrics = (
        Metric("test:accuracy", r"#quality_metric: host=\S+, test accuracy <score>=(\S+)", "Maximize"),
        Metric("test:mse", r"#quality_metric: host=\S+, test mse <loss>=(\S+)", "Minimize"),
    )

    def __init__(
        self,
        k: int | str = 5,
        predictor_type: str = _CLASSIFIER,
        *,
        seed: int = 0,
        **hyperparameters: Any,
    ) -> None:
        super().__init__(k=k, predictor_type=predictor_type, **hyperparameters)
        self.seed = seed
        self._values: dict[str, Any] = {}
        self._rng: np.random.Generator | None = None
        self._limit = np.inf
        self._reset()

    # ---- the estimator ----

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803 - scikit-learn's name
        """Take the rows of *X*, float (n_samples, n_features), finite, with their labels *y*.

        Raises:
            HyperparameterError: a hyperparameter is wrong.
            DataError: *X* or *y* hold values that are not finite, or fewer rows than k.
        """
        features = as_features(X)
        self._reset()
        self._values = {}
        self._of_data = {"feature_dim": features.shape[1], "sample_size": max(len(features), 1)}
        self.take(features, y)
        self.finalize()
        return self

    def kneighbors(self, X: Any) -> tuple[Floats, npt.NDArray[np.intp]]:  # noqa: N803
        """Return the distances of the neighbors of each row of *X*, (n_samples, k), and their indices in the sample."""
        return self._neighbors(self._features(X))

    def predict(self, X: Any) -> Floats:  # noqa: N803
        """Return the label of each row of *X*."""
        labels: Floats = self.infer(self._features(X), {})["predicted_label"]
        return labels

    def score(self, X: Any, y: Any) -> float:  # noqa: N803
        """Return the accuracy of a classifier on *X* with the labels *y*, R squared of a regressor."""
        return self._score(X, y)

    @property
    def classes_(self) -> Floats:
        """The labels of the rows that are kept."""
        self.check_fitted()
        classes: Floats = np.unique(self._labels)
        return classes

    @property
    def n_features_in_(self) -> int:
        """The number of features of the model."""
        self.check_fitted()
        return int(self._parsed()["feature_dim"])

    # ---- streaming ----

    def update(self, batch: Batch) -> None:
        """Take in *batch*."""
        values = self._parsed()
        features, labels = batch.dense(), _labels_of(batch)
        check_features(features, values["feature_dim"], "k-NN")
        if self._rng is None:  # hosts draw other numbers than one another, and the same in each run
            self._rng = np.random.default_rng(
                [self.seed, zlib.crc32(np.ascontiguousarray(features[:64]).tobytes())]
            )
        keys = self._rng.random(len(features))
        keep = np.flatnonzero(keys < self._limit)
        self._add(self._reduced(features[keep]), labels[keep], keys[keep])

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the sample, with the numbers it was drawn by."""
        rows, labels, keys = self._sample()
        return {"rows": rows, "labels": labels, "keys": keys}

    def merge(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take in the `state` of another host."""
        self._add(state["rows"], state["labels"], state["keys"])

    def finalize(self) -> None:
        """Build the index."""
        values = self._parsed()
        rows, labels, _ = self._sample()
        if len(rows) < values["k"]:
            raise DataError(
                f"{len(rows)} rows have no k={values['k']} neighbors; give more rows or a smaller k"
            )
        rows = self._normalized(rows)
        self._labels = labels
        given = values["faiss_index_ivf_nlists"]
        self._index = Index.of(
            rows,
            values["index_type"],
            inner_product=values["index_metric"] != "L2",
            n_lists=max(1, round(values["sample_size"] ** 0.5)) if given == "auto" else given,
            n_parts=values.get("faiss_index_pq_m") or 1,
            seed=self.seed,
        )
        self._reset()

    def infer(self, features: Floats, options: Mapping[str, str]) -> dict[str, npt.NDArray[Any]]:
        """Return the labels; with ``verbose=true``, also the neighbors' distances and labels."""
        distances, found = self._neighbors(features)
        labels = self._labels[found]
        columns: dict[str, npt.NDArray[Any]] = {"predicted_label": self._answers(labels)}
        if options.get("verbose", "").lower() == "true":
            columns |= {"distances": distances, "labels": labels}
        return columns

    def measure(self, batch: Batch) -> dict[str, float]:
        """Return the number of rows, of right answers, and the sum of squared errors."""
        features, labels = batch.dense(), _labels_of(batch)
        check_features(features, self.n_features_in_, "k-NN")
        error = self.predict(features).astype(np.float64) - labels
        return {
            "rows": float(len(error)),
            "right": float((error == 0).sum()),
            "squares": float(error @ error),
        }

    def quality(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Return the accuracy of a classifier, the mean squared error of a regressor."""
        rows = max(sums["rows"], 1.0)
        if self._parsed()["predictor_type"] == _CLASSIFIER:
            return {"accuracy <score>": sums["right"] / rows}
        return {"mse <loss>": sums["squares"] / rows}

    def score_lines(self, host: str, metrics: Mapping[str, float]) -> list[str]:
        """Return the line of the older log form, which notebooks show."""
        return [f"#test_score ({host}) : ('{name.split()[0]}', {value!r})" for name, value in metrics.items()]

    def save(self, folder: Path) -> None:
        """Write ``model_algo-1``, a NumPy archive: ``numpy.load("model_algo-1")``.

        ``labels`` (n_rows,); ``index``, which ``faiss.deserialize_index`` reads, of the rows around ``middle``;
        ``hyperparameters`` as JSON.
        """
        known = {name: value for name, value in self._parsed().items() if value is not None}
        text = np.frombuffer(json.dumps({**known, "seed": self.seed}).encode(), np.uint8)
        arrays = self._index.arrays()
        with (folder / _MODEL_FILE).open("wb") as file:
            np.savez(file, allow_pickle=False, labels=self._labels, hyperparameters=text, **arrays)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the model that `save` wrote into *folder*."""
        path = folder / _MODEL_FILE
        if not path.exists():
            raise CustomerError(f"There is no {_MODEL_FILE} in the model artifact; it was not made by k-NN.")
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            given = json.loads(arrays.pop("hyperparameters").tobytes())
            model = cls(**given)
            model._labels = arrays["labels"]
            inner = model._parsed()["index_metric"] != "L2"
            model._index = Index.from_arrays(arrays, inner_product=inner)
        except (ValueError, KeyError, TypeError, OSError, EOFError, AttributeError) as error:
            raise DataError(f"is not an artifact of k-NN: {error}", path.name) from error
        return model

    # ---- inside ----

    def _reset(self) -> None:
        self._rng = None
        self._parts: list[tuple[Floats, Floats, npt.NDArray[np.float64]]] = []
        self._n_kept = 0
        self._limit = np.inf
        self._matrix: Floats | None = None

    def _parsed(self) -> dict[str, Any]:
        if not self._values:
            self._values = self.hyperparameters.parse(self._all_given())
        return self._values

    def _add(self, rows: Floats, labels: Floats, keys: npt.NDArray[np.float64]) -> None:
        self._parts.append((rows, labels, keys))
        self._n_kept += len(keys)
        if self._n_kept > 2 * self._parsed()["sample_size"]:
            self._parts = [self._sample()]
            self._n_kept = len(self._parts[0][2])
            self._limit = float(self._parts[0][2].max())

    def _sample(self) -> tuple[Floats, Floats, npt.NDArray[np.float64]]:
        """Return the rows with the least numbers, in the order of these: the same for every order of merging."""
        if not self._parts:
            width = self._width()
            return np.empty((0, width), np.float32), np.empty(0, np.float32), np.empty(0)
        rows, labels, keys = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        size = self._parsed()["sample_size"]
        if len(keys) <= size:
            return rows, labels, keys
        chosen = np.sort(np.argpartition(keys, size - 1)[:size])
        return rows[chosen], labels[chosen], keys[chosen]

    def _width(self) -> int:
        """Return the number of features after reduction: a multiple of the parts that a row is compressed to."""
        values = self._parsed()
        width = int(values.get("dimension_reduction_target") or values["feature_dim"])
        parts = values.get("faiss_index_pq_m") if values["index_type"] == CODES else None
        return -(-width // parts) * parts if parts else width

    def _reduced(self, features: Floats) -> Floats:
        values, width = self._parsed(), self._width()
        kind = values.get("dimension_reduction_type")
        if not kind:
            missing = width - features.shape[1]
            return np.pad(features, ((0, 0), (0, missing))) if missing else features
        if self._matrix is None:
            self._matrix = _projection(kind, features.shape[1], width, self.seed)
        reduced: Floats = features @ self._matrix
        return reduced

    def _normalized(self, rows: Floats) -> Floats:
        if self._parsed()["index_metric"] != "COSINE":
            return rows
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        return np.asarray(rows / np.where(lengths > 0, lengths, 1.0)[:, None], np.float32)

    def _moved(self, features: Floats) -> Floats:
        return self._normalized(self._reduced(np.ascontiguousarray(features)))

    def _neighbors(self, features: Floats) -> tuple[Floats, npt.NDArray[np.intp]]:
        found, distances = self._index.search(self._moved(features), self._parsed()["k"])
        return distances, found

    def _answers(self, labels: Floats) -> Floats:
        """Return the mean of the neighbors' *labels* (n_samples, k), or the most frequent; of several, the nearest's."""
        if self._parsed()["predictor_type"] != _CLASSIFIER:
            mean: Floats = labels.mean(axis=1, dtype=np.float64).astype(np.float32)
            return mean
        votes = np.zeros(labels.shape, np.int32)
        for column in range(labels.shape[1]):
            votes += labels == labels[:, column, None]
        winners: Floats = np.take_along_axis(labels, votes.argmax(axis=1)[:, None], axis=1)[:, 0]
        return winners


def _labels_of(batch: Batch) -> Floats:
    labels = batch.labels
    if labels is None or labels.ndim != 1:
        raise DataError(
            "rows have no label; the first column of CSV, or the label of a record, must be one number", row=0
        )
    wrong = ~np.isfinite(labels)
    if wrong.any():
        raise DataError(
            "the label is missing or infinite; k-NN needs a number for every row", row=int(wrong.argmax())
        )
    return labels


def _projection(kind: str, n_features: int, n_target: int, seed: int) -> Floats:
    """Return a matrix (n_features, n_target) that keeps distances nearly.

    sign: random signs. fjlt: some columns of a Hadamard matrix whose rows have random signs, as one matrix: a
    product is quicker than the fast transform up to thousands of features.

    Source: Achlioptas, "Database-friendly Random Projections", 2003; Ailon and Chazelle, "The Fast
    Johnson-Lindenstrauss Transform", 2009.
    """
    rng = np.random.default_rng(seed)
    if kind == "sign":
        signs = rng.integers(0, 2, (n_features, n_target)) * 2 - 1
    else:
        size = 1 << (max(n_features, n_target) - 1).bit_length()
        columns = np.sort(rng.choice(size, n_target, replace=False))
        both = np.arange(n_features)[:, None] & columns
        for shift in (16, 8, 4, 2, 1):  # the parity of the bits that both have
            both ^= both >> shift
        signs = (1 - 2 * (both & 1)) * (rng.integers(0, 2, n_features) * 2 - 1)[:, None]
    projection: Floats = (signs / np.sqrt(n_target)).astype(np.float32)
    return projection
