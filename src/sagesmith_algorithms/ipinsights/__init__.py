"""IP Insights: how usual it is for an entity (a user, an account) to be met at an IPv4 address.

See `network` for the model and `training` for how several instances share the work.
"""

from __future__ import annotations

import importlib
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.base import Algorithm, ChannelKind, Metric
from sagesmith_algorithms.errors import CustomerError, DataError
from sagesmith_algorithms.formats import content_type as types
from sagesmith_algorithms.formats.batch import Floats
from sagesmith_algorithms.hyperparameters import Hyperparameters, Number

if TYPE_CHECKING:
    from sagesmith_algorithms.ipinsights.network import Network
    from sagesmith_toolkit.environment import Environment
    from sagesmith_toolkit.server import Predictor

__all__ = ["IPInsights"]

_MODEL_FILE = "model_algo-1"


def _some_negatives(values: Mapping[str, Any]) -> Iterable[str]:
    rates = values["random_negative_sampling_rate"] + values["shuffled_negative_sampling_rate"]
    if not 1 <= rates <= 500:
        yield (
            "random_negative_sampling_rate + shuffled_negative_sampling_rate must be from 1 to 500, "
            f"not {rates}"
        )


class IPInsights(Algorithm):
    """IP Insights with SageMaker's hyperparameters.

    `seed` is the one argument that is no hyperparameter: equal seeds and data give equal models.
    """

    name = "ipinsights"
    kind = "outlier_detector"
    fitted = "_network"
    title = "AWS/IPInsights"
    hyperparameters = Hyperparameters(
        Number(name="num_entity_vectors", required=True, integer=True, low=1, high=250_000_000, tunable=True,
               doc="Vectors that the entities' names are hashed to; twice the number of entities is enough."),
        Number(name="vector_dim", required=True, integer=True, low=4, high=4096, tunable=True, doc="Length of vectors."),
        Number(name="batch_metrics_publish_interval", default=1000, integer=True, low=1,
               doc="Batches after which speed and loss are logged."),
        Number(name="epochs", default=10, integer=True, low=1, tunable=True, doc="Passes over the data."),
        Number(name="learning_rate", default=0.001, low=1e-6, high=10.0, tunable=True, doc="Adam's learning rate."),
        Number(name="mini_batch_size", default=10_000, integer=True, low=1, high=500_000, tunable=True,
               doc="Pairs in a batch."),
        Number(name="num_ip_encoder_layers", default=1, integer=True, low=0, high=100, tunable=True,
               doc="Fully connected layers that an address's vector goes through."),
        Number(name="random_negative_sampling_rate", default=1, integer=True, low=0, high=500, tunable=True,
               doc="Random addresses that each pair is held against."),
        Number(name="shuffled_negative_sampling_rate", default=1, integer=True, low=0, high=500, tunable=True,
               doc="Addresses of other pairs of the batch that each pair is held against."),
        Number(name="weight_decay", default=0.00001, low=0.0, high=10.0, tunable=True, doc="L2 regularization."),
        rules=(_some_negatives,),
        ignored=("feature_dim", "_num_kv_servers", "_kvstore", "_num_gpus", "_log_level", "_enable_profiler"),
    )  # fmt: skip
    channels = (ChannelKind("train", (types.CSV,), required=True), ChannelKind("validation", (types.CSV,)))
    request_types = (types.CSV, types.JSON, types.JSON_LINES)
    response_types = (types.JSON, types.JSON_LINES)
    compiles = True
    metrics = (
        Metric(
            "validation:discriminator_auc",
            r"#quality_metric: host=\S+, validation discriminator_auc <score>=(\S+)",
            "Maximize",
        ),
    )

    def __init__(
        self,
        num_entity_vectors: int | str = 10_000,
        vector_dim: int | str = 128,
        *,
        seed: int = 0,
        **hyperparameters: Any,
    ) -> None:
        super().__init__(num_entity_vectors=num_entity_vectors, vector_dim=vector_dim, **hyperparameters)
        self.seed = seed
        self._network: Network | None = None

    # ---- the estimator ----

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803 - scikit-learn's name
        """Learn which entities are met at which addresses. *X*: rows of (entity, IPv4 address), texts. *y* is ignored.

        Raises:
            HyperparameterError: a hyperparameter is wrong.
            DataError: a row is no such pair.
        """
        from sagesmith_algorithms.ipinsights import network, pairs, training

        del y
        values = self.parsed()
        training.check_memory(values)
        rows = pairs.encoded(X, values["num_entity_vectors"], "X")

        def passes(number: int) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]]:
            del number
            yield rows

        net = network.Network(values, np.random.default_rng(self.seed))
        for _ in training.epochs(net, pairs.Pairs(passes), values, np.random.default_rng([self.seed, 0])):
            pass
        self.adopt(net)
        return self

    def score_samples(self, X: Any) -> Floats:  # noqa: N803
        """Return for each row (entity, address) of *X* how usual it is: the product of their vectors."""
        from sagesmith_algorithms.ipinsights.pairs import encoded

        entities, addresses = encoded(X, self.n_vectors, "X")
        return self.network.scores(entities, addresses)

    @property
    def network(self) -> Network:
        """The trained network."""
        network: Network = self._fitted_part()
        return network

    @property
    def n_vectors(self) -> int:
        """The number of entity vectors of the model."""
        return self.network.n_vectors

    def columns(
        self, entities: npt.NDArray[np.int64], addresses: npt.NDArray[np.uint32]
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the columns of a verbose response."""
        left, right = self.network.entity_vectors(entities), self.network.address_vectors(addresses)
        return {
            "ip_embedding": right,
            "entity_embedding": left,
            "dot_product": np.einsum("ij,ij->i", left, right),
        }

    # ---- model and job ----

    def adopt(self, network: Network) -> None:
        """Become the model that training found."""
        self._network = network

    def parsed(self) -> dict[str, Any]:
        """Return the hyperparameters' values."""
        return self.hyperparameters.parse(self._all_given())

    def save(self, folder: Path) -> None:
        """Write ``model_algo-1``, a NumPy archive: ``numpy.load("model_algo-1")``.

        ``entity_vectors`` (num_entity_vectors, dim), ``prefix_vectors`` (n, dim), ``layers`` (n_layers, dim + 1, dim), the
        last row of each being the bias, and ``hyperparameters`` as JSON.
        """
        network, dim = self.network, int(self.parsed()["vector_dim"])
        layers = [layer.values for layer in network.layers]
        with (folder / _MODEL_FILE).open("wb") as file:
            np.savez(
                file,
                allow_pickle=False,
                entity_vectors=network.entities.values,
                prefix_vectors=network.prefixes.values,
                layers=np.stack(layers) if layers else np.empty((0, dim + 1, dim), np.float32),
                hyperparameters=np.frombuffer(json.dumps(self.parsed()).encode(), np.uint8),
            )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the model that `save` wrote into *folder*.

        Raises:
            CustomerError: there is none, or it cannot be read.
        """
        from sagesmith_algorithms.ipinsights.network import Network

        path = folder / _MODEL_FILE
        if not path.exists():
            raise CustomerError(
                f"There is no {_MODEL_FILE} in the model artifact; it was not made by IP Insights."
            )
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            model = cls(**json.loads(arrays["hyperparameters"].tobytes()))
            model.adopt(
                Network.of(
                    model.parsed(), arrays["entity_vectors"], arrays["prefix_vectors"], arrays["layers"]
                )
            )
        except (
            ValueError,
            KeyError,
            TypeError,
            OSError,
            EOFError,
            AttributeError,
            zipfile.BadZipFile,
        ) as error:
            raise DataError(f"is not an artifact of IP Insights: {error}", path.name) from error
        return model

    @classmethod
    def load_libraries(cls) -> None:
        """Import the libraries of a job or model server."""
        for module in (
            "psutil",
            "pyarrow.csv",
            "sagesmith_algorithms.ipinsights.training",
        ):
            importlib.import_module(module)

    @classmethod
    def train(cls, environment: Environment) -> None:
        """Run a training job (see `training`)."""
        from sagesmith_algorithms.ipinsights.training import run_job

        run_job(cls, environment)

    @classmethod
    def load_predictor(cls, model_dir: Path, environ: Mapping[str, str]) -> Predictor:
        """Return what answers requests with the model in *model_dir*."""
        from sagesmith_algorithms.ipinsights.serving import PairPredictor

        return PairPredictor(cls.load(model_dir), environ)
