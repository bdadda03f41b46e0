"""The shape all built-in algorithms share.

An algorithm is a class that declares, as data, its names, hyperparameters, channels, formats and metrics, and does
two things: `train` runs a training job, `load_predictor` makes a model server's predictor from an artifact. Most
are *streaming*: a state of fixed size takes batches (`update`) and other hosts' states (`merge`), and `finalize`
makes the model of it; the job around that is the same for all of them (see `training`).

Each is also an estimator in scikit-learn's sense: ``KMeans(k=3).fit(X).predict(X)`` (see `estimator`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.errors import CustomerError, DataError
from sagesmith_algorithms.estimator import Estimator, as_features, check_features
from sagesmith_algorithms.formats.batch import Batch, Floats, Origin, located

if TYPE_CHECKING:
    from sagesmith_toolkit.environment import Environment
    from sagesmith_toolkit.server import Predictor

__all__ = ["Algorithm", "ChannelKind", "Metric", "StreamingAlgorithm", "as_features", "check_features"]


@dataclass(frozen=True, slots=True)
class ChannelKind:
    """A channel an algorithm reads. The first of `content_types` is meant when the channel names none."""

    name: str
    content_types: tuple[str, ...]
    required: bool = False


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric a job logs: AWS's name and regular expression for it, and whether less or more is better."""

    name: str
    regex: str
    objective: str

    @property
    def definition(self) -> dict[str, str]:
        """The metric as in `AlgorithmSpecification.MetricDefinitions`."""
        return {"Name": self.name, "Regex": self.regex}


class Algorithm(Estimator, ABC):
    """What every built-in algorithm declares and does."""

    channels: ClassVar[tuple[ChannelKind, ...]]
    request_types: ClassVar[tuple[str, ...]]
    response_types: ClassVar[tuple[str, ...]]
    response_key: ClassVar[str] = "predictions"
    takes_sparse: ClassVar[bool] = False  # whether `infer` takes CSR as it is
    compiles: ClassVar[bool] = False  # whether its libraries include Numba
    metrics: ClassVar[tuple[Metric, ...]] = ()

    @classmethod
    @abstractmethod
    def train(cls, environment: Environment) -> None:
        """Run a training job.

        Raises:
            CustomerError: hyperparameters or data are wrong.
        """

    @classmethod
    @abstractmethod
    def load_predictor(cls, model_dir: Path, environ: Mapping[str, str]) -> Predictor:
        """Return what answers requests with the model in *model_dir*."""

    @classmethod
    def load_libraries(cls) -> None:
        """Import the libraries of a job or model server, for a process that does nothing else."""

    @classmethod
    def check(cls, hyperparameters: Mapping[str, str]) -> dict[str, Any]:
        """Return the values of a training job's *hyperparameters*.

        Raises:
            HyperparameterError: lists all faults.
        """
        return cls.hyperparameters.parse(hyperparameters)

    @classmethod
    def check_channels(cls, environment: Environment) -> None:
        """Raise `CustomerError` if a required channel is missing, or one has a content type that cannot be read."""
        from sagesmith_algorithms.formats.content_type import ContentType

        known = {channel.name: channel for channel in cls.channels}
        faults = [
            f"the channel {channel.name!r} is required"
            for channel in cls.channels
            if channel.required and channel.name not in environment.channels
        ]
        for name, given in environment.channels.items():
            kind = known.get(name)
            if kind is None:
                faults.append(f"the channel {name!r} is not known: expected {', '.join(known)}")
            elif given.content_type and ContentType.parse(given.content_type).name not in kind.content_types:
                faults.append(
                    f"the channel {name!r} has the content type {given.content_type!r}: "
                    f"expected {', '.join(kind.content_types)}"
                )
        if faults:
            text = "; ".join(faults)
            raise CustomerError(text[0].upper() + text[1:] + ".")


class StreamingAlgorithm(Algorithm):
    """An algorithm whose state has a fixed size, so that data may exceed memory and hosts can share the work."""

    title: ClassVar[str]
    """The algorithm's name in AWS's log lines, such as ``AWS/KMeansWebscale``."""
    takes_any_batch: ClassVar[bool] = False
    """Whether the model does not depend on how rows are divided into batches: then they are taken as they are read."""

    @abstractmethod
    def update(self, batch: Batch) -> None:
        """Take in *batch*.

        Raises:
            DataError: it does not fit the hyperparameters, or holds values that are not finite.
        """

    def take(self, rows: Floats, labels: Any = None, size: int = 0) -> None:
        """Take in *rows* and *labels* as batches of *size* rows, or as one. Faults name the row of X.

        Raises:
            DataError: see `update`.
        """
        y = None if labels is None else np.asarray(labels, np.float32)
        if y is not None and y.shape != (len(rows),):
            raise DataError(f"y must be of shape ({len(rows)},), a label for each row of X, not {y.shape}")
        for start in range(0, len(rows), size or max(len(rows), 1)):
            part = slice(start, start + size if size else len(rows))
            origin = Origin("X", start + 1, len(rows[part]))
            batch = Batch(rows[part], None if y is None else y[part], origins=(origin,))
            with located(batch):
                self.update(batch)

    @abstractmethod
    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return all that `update` learned, as arrays."""

    @abstractmethod
    def merge(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take in the `state` of another host. The result does not depend on the order."""

    @abstractmethod
    def finalize(self) -> None:
        """Make the model of the state. `predict`, `infer`, `measure` and `save` work from now on."""

    @abstractmethod
    def infer(self, features: Floats, options: Mapping[str, str]) -> dict[str, npt.NDArray[Any]]:
        """Return the columns of a response, (n_samples,) or (n_samples, n_values) each.

        Args:
            features: float32 (n_samples, n_features), checked.
            options: the parameters of the request's Accept, such as ``verbose``.
        """

    @abstractmethod
    def measure(self, batch: Batch) -> dict[str, float]:
        """Return sums over *batch* that `quality` makes metrics of; sums of several batches are added."""

    @abstractmethod
    def quality(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Return the metrics, in AWS's words (such as ``msd <loss>``), that *sums* come to."""

    def score_lines(self, host: str, metrics: Mapping[str, float]) -> list[str]:
        """Return further log lines about the *metrics* of the test channel."""
        del host, metrics
        return []

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the model into *folder*, in a form that can be read without Sagesmith."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self:
        """Return the model that `save`, or AWS's algorithm, wrote into *folder*.

        Raises:
            CustomerError: there is none, or it cannot be read.
        """

    @property
    @abstractmethod
    def n_features_in_(self) -> int:
        """The number of features of the model."""

    @classmethod
    def train(cls, environment: Environment) -> None:
        """Run a training job (see `training`)."""
        from sagesmith_algorithms.training import train_streaming

        train_streaming(cls, environment)

    @classmethod
    def load_predictor(cls, model_dir: Path, environ: Mapping[str, str]) -> Predictor:
        """Return what answers requests with the model in *model_dir*."""
        from sagesmith_algorithms.serving import StreamingPredictor

        return StreamingPredictor(cls.load(model_dir), environ)
