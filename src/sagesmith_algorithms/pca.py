"""Principal component analysis for data of any size, in one pass.

*regular*: the sums of rows and of their outer products are all that is kept, d x d numbers; the components are
the eigenvectors of the covariance that these come to, exact up to rounding. *randomized*, for rows too long for
that (up to two thousand features it is the same as regular, which is then quicker, too): `num_components` + `extra_components` directions follow the data, each group of rows is put below them and
the stack is reduced to its leading directions again. Nothing in it is drawn at random: a sketch that keeps what
the rows say needs as much memory as one of random projections, and loses less.

Both kinds of state are kept around the mean, so that data far from the origin lose no digits, and both can be
merged: the mean of each part tells what was between the parts.

Source: Chan, Golub and LeVeque, "Updating Formulae", 1979; Ross et al., "Incremental Learning for Robust Visual
Tracking", IJCV 2008, section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.base import ChannelKind, StreamingAlgorithm, as_features, check_features
from sagesmith_algorithms.errors import CustomerError, DataError
from sagesmith_algorithms.formats import content_type as types
from sagesmith_algorithms.formats import mxnet
from sagesmith_algorithms.formats.batch import Batch, Floats, concatenated, located
from sagesmith_algorithms.hyperparameters import Flag, Hyperparameters, Number, Text
from sagesmith_algorithms.threads import side_by_side

__all__ = ["PCA"]

_MODEL_FILE = "model_algo-1"
_FORMATS = (types.RECORDIO, types.CSV)
_GROUP_ROWS = 1 << 14
_GROUP_BYTES = 16 * 1024 * 1024
_EXACT_FEATURES = 2048
_BLOCK_ELEMENTS = 1 << 18  # rows of one product: 1 MiB, which stays in the cache

Doubles = npt.NDArray[np.float64]


def _fewer_components_than_features(values: Mapping[str, Any]) -> Iterable[str]:
    if values["num_components"] > values["feature_dim"]:
        yield (
            f"num_components={values['num_components']} is more than feature_dim={values['feature_dim']}: "
            "there are no more components than features"
        )


class PCA(StreamingAlgorithm):
    """PCA with SageMaker's hyperparameters.

    Attributes (after `fit`):
        components_: float32 (num_components, n_features), those of the largest variance first.
        singular_values_: float32 (num_components,).
        mean_: float32 (n_features,); zeros where the mean is not subtracted.
        explained_variance_ratio_: share of the variance that each component holds.
    """

    name = "pca"
    kind = "transformer"
    fitted = "components_"
    title = "PCA"
    takes_any_batch = True
    hyperparameters = Hyperparameters(
        Number(name="num_components", required=True, integer=True, low=1, doc="Components to compute."),
        Number(name="feature_dim", required=True, integer=True, low=1, doc="Number of features."),
        Number(name="mini_batch_size", required=True, integer=True, low=1,
               doc="Rows in a batch; without influence on a job, which takes rows as they are read."),
        Text(name="algorithm_mode", default="regular", choices=("regular", "randomized"),
             doc="randomized for rows so long that feature_dim x feature_dim numbers are too many."),
        Number(name="extra_components", default=-1, integer=True, low=-1, needs={"algorithm_mode": ("randomized",)},
               doc="Directions followed beyond num_components, in the randomized mode; -1 for the larger of 10 and "
                   "num_components."),
        Flag(name="subtract_mean", default=True, doc="Subtract the mean, in training and in inference."),
        rules=(_fewer_components_than_features,),
        ignored=("_num_kv_servers", "_kvstore", "_num_gpus", "_log_level", "_num_slices", "_enable_profiler", "force_dense"),
    )  # fmt: skip
    channels = (ChannelKind("train", _FORMATS, required=True), ChannelKind("test", _FORMATS))
    request_types = (types.CSV, types.JSON, types.JSON_LINES, types.RECORDIO)
    response_types = (types.JSON, types.JSON_LINES, types.CSV, types.RECORDIO)
    response_key = "projections"

    components_: Floats
    singular_values_: Floats
    mean_: Floats
    explained_variance_ratio_: Floats

    def __init__(self, num_components: int | str = 2, **hyperparameters: Any) -> None:
        super().__init__(num_components=num_components, **hyperparameters)
        self._values: dict[str, Any] = {}
        self._reset()

    # ---- the estimator ----

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803 - scikit-learn's name
        """Find the components of *X*, float (n_samples, n_features), finite. *y* is ignored.

        Raises:
            HyperparameterError: a hyperparameter is wrong.
            DataError: *X* holds values that are not finite, or fewer rows than components.
        """
        del y
        features = as_features(X)
        self._reset()
        self._values = {}
        self._of_data = {"feature_dim": features.shape[1], "mini_batch_size": _GROUP_ROWS}
        size = self._parsed()["mini_batch_size"]
        self.take(features, size=size)
        self.finalize()
        return self

    def transform(self, X: Any) -> Floats:  # noqa: N803
        """Return the components of each row of *X*, (n_samples, num_components), the largest variance first."""
        return self._projected(self._features(X))

    def inverse_transform(self, X: Any) -> Floats:  # noqa: N803
        """Return the rows that `transform` made *X* of, as far as the components tell."""
        self.check_fitted()
        rows: Floats = as_features(X) @ self.components_ + self.mean_
        return rows

    @property
    def n_features_in_(self) -> int:
        """The number of features of the model."""
        return int(self.components_.shape[1])

    # ---- streaming ----

    def update(self, batch: Batch) -> None:
        """Take in *batch*."""
        features = batch.dense()
        width = self._parsed()["feature_dim"]
        if features.shape[1] != width:  # whether the values are finite shows in their sums
            check_features(features, width, "PCA")
        self._waiting.append(Batch(features, origins=batch.origins))
        self._n_waiting += len(features)
        if self._n_waiting >= _GROUP_ROWS or self._n_waiting * features.shape[1] * 4 >= _GROUP_BYTES:
            self._take_in()

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the number of rows, their mean, and the directions or outer products around it."""
        self._take_in()
        return {
            "n_rows": np.array(self._n_rows),
            "mean": self._mean,
            "spread": self._spread,
            "variance": np.array(self._variance),
        }

    def merge(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take in the `state` of another host."""
        self._take_in()
        self._join(int(state["n_rows"]), state["mean"], state["spread"], float(state["variance"]))

    def finalize(self) -> None:
        """Compute the components."""
        self._take_in()
        values = self._parsed()
        n_components = values["num_components"]
        if self._n_rows < n_components:
            raise DataError(
                f"{self._n_rows} rows have no {n_components} components; give more rows or a smaller num_components"
            )
        spread, variance = self._spread, self._variance
        if not values["subtract_mean"]:
            spread, variance = self._around_the_origin()
        if self._is_exact():
            eigenvalues, vectors = np.linalg.eigh(spread)
            order = np.argsort(eigenvalues)[::-1][:n_components]
            singular = np.sqrt(np.maximum(eigenvalues[order], 0.0))
            components = vectors[:, order].T
        else:
            directions = _leading(spread, n_components)
            singular = np.sqrt(np.einsum("ij,ij->i", directions, directions, dtype=np.float64))
            components = _orthonormal(directions)
        # Each component's sign is free: let its largest weight be positive, so that equal data give equal models.
        largest = components[np.arange(len(components)), np.abs(components).argmax(axis=1)]
        components = components * np.where(largest < 0, -1.0, 1.0)[:, None]
        self.components_ = components.astype(np.float32)
        self.singular_values_ = singular.astype(np.float32)
        kept = self._mean if values["subtract_mean"] else np.zeros_like(self._mean)
        self.mean_ = kept.astype(np.float32)
        ratio = singular**2 / variance if variance > 0 else np.zeros(len(singular))
        self.explained_variance_ratio_ = ratio.astype(np.float32)
        self._reset()

    def infer(self, features: Floats, options: Mapping[str, str]) -> dict[str, npt.NDArray[Any]]:
        """Return the projections, in the order of AWS's algorithm: the component of the largest variance last."""
        del options
        return {"projection": self._projected(features)[:, ::-1]}

    def measure(self, batch: Batch) -> dict[str, float]:
        """Return the squares of the rows around the mean, and of what the components leave of them."""
        features = batch.dense()
        check_features(features, self.n_features_in_, "PCA")
        centered = features - self.mean_
        total = float(np.einsum("ij,ij->", centered, centered, dtype=np.float64))
        held = centered @ self.components_.T
        return {
            "rows": float(len(features)),
            "total": total,
            "held": float(np.einsum("ij,ij->", held, held, dtype=np.float64)),
        }

    def quality(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Return the share of the squares that the components hold, and the mean square they leave."""
        left = max(sums["total"] - sums["held"], 0.0)
        return {
            "explained_variance_ratio <score>": sums["held"] / sums["total"] if sums["total"] else 1.0,
            "mse <loss>": left / max(sums["rows"] * self.n_features_in_, 1.0),
        }

    def save(self, folder: Path) -> None:
        """Write ``model_algo-1``: an MXNet file of arrays, as AWS's algorithm does.

        ``mxnet.nd.load("model_algo-1")`` gives ``s``, the singular values in ascending order, ``v``, of which each
        column is a component in the order of ``s``, and ``mean`` (1, n_features), if the mean is subtracted.
        """
        arrays = {
            "s": self.singular_values_[::-1].copy(),
            "v": np.ascontiguousarray(self.components_[::-1].T),
        }
        if self._parsed()["subtract_mean"]:
            arrays["mean"] = self.mean_[None, :]
        (folder / _MODEL_FILE).write_bytes(mxnet.dump(list(arrays.values()), list(arrays)))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the model that `save`, or AWS's algorithm, wrote into *folder*."""
        path = next(iter(sorted(folder.glob("model_algo-*"))), None)
        if path is None:
            raise CustomerError(f"There is no {_MODEL_FILE} in the model artifact; it was not made by PCA.")
        arrays = mxnet.load_named(path.read_bytes(), path.name)
        v, s = arrays.get("v"), arrays.get("s")
        if v is None or v.ndim != 2 or s is None or len(s.reshape(-1)) < v.shape[1]:
            raise DataError(
                "does not hold a matrix 'v' of components and their singular values 's'", path.name
            )
        mean = arrays.get("mean")
        if mean is not None and mean.size != len(v):
            raise DataError(f"has a mean of {mean.size} features for components of {len(v)}", path.name)
        n_components = v.shape[1]
        model = cls(
            num_components=n_components, feature_dim=len(v), mini_batch_size=1, subtract_mean=mean is not None
        )
        model.components_ = np.ascontiguousarray(v.T[::-1], np.float32)
        model.singular_values_ = s.reshape(-1)[-n_components:][::-1].astype(np.float32)
        model.mean_ = np.zeros(len(v), np.float32) if mean is None else mean.reshape(-1).astype(np.float32)
        return model

    # ---- inside ----

    def _reset(self) -> None:
        self._waiting: list[Batch] = []
        self._n_waiting = 0
        self._n_rows = 0
        self._mean: Doubles = np.empty(0)
        self._spread: npt.NDArray[Any] = np.empty((0, 0))
        self._variance = 0.0

    def _parsed(self) -> dict[str, Any]:
        if not self._values:
            self._values = self.hyperparameters.parse(self._all_given())
        return self._values

    def _projected(self, features: Floats) -> Floats:
        # Not the product less that of the mean, which would take digits from data far from the origin.
        projected: Floats = np.asarray(features - self.mean_, np.float32) @ self.components_.T
        return projected

    def _n_followed(self) -> int:
        values = self._parsed()
        n, extra = values["num_components"], values["extra_components"]
        return min(int(n + (max(10, n) if extra == -1 else extra)), int(values["feature_dim"]))

    def _take_in(self) -> None:
        """Make one state of the rows that wait, and join it."""
        if not self._waiting:
            if not len(self._mean):
                width = self._parsed()["feature_dim"]
                self._mean = np.zeros(width)
                self._spread = (
                    np.zeros((width, width)) if self._is_exact() else np.zeros((0, width), np.float32)
                )
            return
        blocks = list(_blocks(self._waiting))
        self._waiting, self._n_waiting = [], 0
        if not len(self._mean):
            self._take_in()
        with np.errstate(all="ignore"):
            near = np.asarray(self._mean if self._n_rows else blocks[0].features.mean(axis=0), np.float32)
        for found in side_by_side(lambda block: self._summed(block, near), blocks):
            self._join(*found)

    def _summed(self, block: Batch, near: Floats) -> tuple[int, Doubles, npt.NDArray[Any], float]:
        """Return rows, mean, spread and variance of *block*.

        Products are of float32 around *near*: the mean so far, which needs no second look at the rows.
        """
        rows: Floats = block.features
        with np.errstate(all="ignore"):
            centered = rows - near
            offset = np.ones(len(rows), np.float32) @ centered / np.float64(len(rows))
        if not np.isfinite(offset).all():
            with located(block):
                check_features(rows, rows.shape[1], "PCA")
                raise DataError("there are values too large for sums of float32", row=0)
        mean = near + offset
        if self._is_exact():
            spread: npt.NDArray[Any] = (centered.T @ centered).astype(np.float64)
            spread -= np.outer(offset, offset * len(rows))
            return len(rows), mean, spread, float(np.trace(spread))
        centered -= offset.astype(np.float32)
        return len(rows), mean, centered, float(np.einsum("ij,ij->", centered, centered, dtype=np.float64))

    def _is_exact(self) -> bool:
        """Whether outer products are summed. For rows that are not long this is the quickest in any mode."""
        values = self._parsed()
        return values["algorithm_mode"] == "regular" or int(values["feature_dim"]) <= _EXACT_FEATURES

    def _join(self, n_rows: int, mean: Doubles, spread: npt.NDArray[Any], variance: float) -> None:
        """Join another part's state to this one."""
        if not n_rows:
            return
        total = self._n_rows + n_rows
        between = mean - self._mean
        weight = self._n_rows * n_rows / total
        if self._is_exact():
            self._spread += spread
            if weight:
                self._spread += np.outer(between, between * weight)
        else:
            step = (np.sqrt(weight) * between)[None, :].astype(np.float32)
            self._spread = _leading(np.concatenate([self._spread, spread, step]), self._n_followed())
        self._variance += variance + weight * float(between @ between)
        self._mean = self._mean + between * (n_rows / total)
        self._n_rows = total

    def _around_the_origin(self) -> tuple[npt.NDArray[Any], float]:
        """Return the spread and the variance around 0 instead of the mean."""
        variance = self._variance + self._n_rows * float(self._mean @ self._mean)
        if self._is_exact():
            return self._spread + np.outer(self._mean, self._mean * self._n_rows), variance
        step = (np.sqrt(self._n_rows) * self._mean)[None, :].astype(np.float32)
        return np.concatenate([self._spread, step]), variance


def _blocks(batches: Sequence[Batch]) -> Iterator[Batch]:
    """Yield the rows of *batches* in blocks of about the size for one product; those of short batches are joined."""
    short: list[Batch] = []
    for batch in batches:
        size = max(_BLOCK_ELEMENTS // batch.n_features, 2 * batch.n_features)
        if sum(map(len, short)) + len(batch) < size:
            short.append(batch)
            continue
        whole = concatenated([*short, batch]) if short else batch
        short = []
        edges = np.linspace(0, len(whole), max(round(len(whole) / size), 1) + 1).astype(int).tolist()
        for start, end in pairwise(edges):
            yield whole.part(start, end)
    if short:
        yield concatenated(short)


def _leading(rows: npt.NDArray[Any], n: int) -> Floats:
    """Return *n* rows (or fewer) that are orthogonal and have the leading products of *rows* with itself.

    The largest comes first. Works on the smaller of the two product matrices of *rows*.
    """
    if rows.shape[0] <= rows.shape[1]:
        eigenvalues, vectors = np.linalg.eigh((rows @ rows.T).astype(np.float64))
        found: Floats = vectors[:, ::-1][:, :n].T.astype(np.float32) @ rows
        return found
    eigenvalues, vectors = np.linalg.eigh((rows.T @ rows).astype(np.float64))
    lengths = np.sqrt(np.maximum(eigenvalues[::-1][:n], 0.0))
    scaled: Floats = (vectors[:, ::-1][:, :n].T * lengths[:, None]).astype(np.float32)
    return scaled


def _orthonormal(directions: npt.NDArray[Any]) -> Doubles:
    """Return *directions* with length 1 and at right angles; what has no length gets some direction that is free."""
    q, r = np.linalg.qr(directions.T.astype(np.float64))
    signs = np.where(np.diag(r) < 0, -1.0, 1.0)
    result: Doubles = (q * signs).T
    return result
