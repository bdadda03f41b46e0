"""LDA: topics that documents are mixtures of, found from moments of the word counts and polished by inference.

The spectral method needs no guess to begin with and does not end in a bad local optimum; a few variational passes from
there make the topics as good as the data allow. SageMaker trains LDA on one instance; so does this.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.base import Algorithm, ChannelKind, Metric
from sagesmith_algorithms.errors import CustomerError, DataError
from sagesmith_algorithms.formats import content_type as types
from sagesmith_algorithms.formats import mxnet
from sagesmith_algorithms.formats.batch import Batch, Floats, Origin, located
from sagesmith_algorithms.hyperparameters import Hyperparameters, Number

if TYPE_CHECKING:
    from sagesmith_algorithms.lda.corpus import Corpus
    from sagesmith_algorithms.lda.model import Fitted
    from sagesmith_toolkit.environment import Environment
    from sagesmith_toolkit.server import Predictor

__all__ = ["LDA"]

_FORMATS = (types.RECORDIO, types.CSV)
_MODEL_FILE = "model_algo-1"


class LDA(Algorithm):
    """LDA with SageMaker's hyperparameters.

    `seed` is the one argument that is no hyperparameter: equal seeds and data give equal topics.

    Attributes (after `fit`):
        components_: float32 (num_topics, n_features), each topic's distribution of words.
        alpha_: float32 (num_topics,), the Dirichlet prior of the mixtures.
    """

    name = "lda"
    kind = "transformer"
    fitted = "components_"
    title = "AWS/LDA"
    hyperparameters = Hyperparameters(
        Number(name="num_topics", required=True, integer=True, low=1, tunable=True, doc="Topics to find."),
        Number(name="feature_dim", required=True, integer=True, low=1, doc="Words in the vocabulary."),
        Number(name="mini_batch_size", required=True, integer=True, low=1,
               doc="Documents in the corpus: so many are kept in memory; of more, every pass reads the files again."),
        Number(name="alpha0", default=1.0, above=0, tunable=True,
               doc="Sum of the prior of the mixtures; small values make documents of few topics."),
        Number(name="max_restarts", default=10, integer=True, low=1,
               doc="Beginnings of the tensor decomposition, of which the best is kept."),
        Number(name="max_iterations", default=1000, integer=True, low=1, doc="Steps of each."),
        Number(name="tol", default=1e-8, above=0, doc="Change of its error at which the decomposition ends."),
        ignored=("_num_kv_servers", "_kvstore", "_num_gpus", "_log_level", "_enable_profiler", "_disable_wait_to_read"),
    )  # fmt: skip
    channels = (ChannelKind("train", _FORMATS, required=True), ChannelKind("test", _FORMATS))
    request_types = (types.CSV, types.JSON, types.JSON_LINES, types.RECORDIO)
    response_types = (types.JSON, types.JSON_LINES, types.CSV, types.RECORDIO)
    compiles = True
    metrics = (Metric("test:pwll", r"#quality_metric: host=\S+, test pwll <score>=(\S+)", "Maximize"),)

    components_: Floats
    alpha_: Floats

    def __init__(self, num_topics: int | str = 10, *, seed: int = 0, **hyperparameters: Any) -> None:
        super().__init__(num_topics=num_topics, **hyperparameters)
        self.seed = seed

    # ---- the estimator ----

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803 - scikit-learn's name
        """Find the topics of the documents *X*: counts (n_documents, n_words), dense or sparse. *y* is ignored.

        Raises:
            HyperparameterError: a hyperparameter is wrong.
            DataError: *X* holds values that are negative, missing or infinite, or no word.
        """
        from sagesmith_algorithms.lda.model import fit

        del y
        counts = _counts(X)
        self._of_data = {"feature_dim": counts.shape[1], "mini_batch_size": max(counts.shape[0], 1)}
        self.adopt(fit(_corpus(counts), self.parsed(), np.random.default_rng(self.seed)))
        return self

    def transform(self, X: Any) -> Floats:  # noqa: N803
        """Return the mixture of topics of each document, (n_documents, num_topics); rows sum to 1."""
        from sagesmith_algorithms.lda.model import mixtures

        return mixtures(_counts(X, self.n_features_in_), self.alpha_, self.components_)

    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803
        """Return the log-likelihood of *X* for each of its words: a lower bound, as in scikit-learn."""
        del y
        return self.pwll(_corpus(_counts(X, self.n_features_in_)))

    def perplexity(self, X: Any) -> float:  # noqa: N803
        """Return exp(-score)."""
        return float(np.exp(-self.score(X)))

    @property
    def n_features_in_(self) -> int:
        """The number of words of the model."""
        return int(self.components_.shape[1])

    def infer(self, features: Any, options: Mapping[str, str]) -> dict[str, npt.NDArray[Any]]:
        """Return the column of a response, ``topic_mixture``."""
        del options
        return {"topic_mixture": self.transform(features)}

    # ---- model and job ----

    def adopt(self, fitted: Fitted) -> None:
        """Become the model that training found."""
        self.components_, self.alpha_ = fitted.beta, fitted.alpha

    def pwll(self, corpus: Corpus) -> float:
        """Return the log-likelihood of a word of *corpus*.

        Raises:
            DataError: there is none.
        """
        from sagesmith_algorithms.lda.model import word_log_likelihood

        total = word_log_likelihood(corpus, self.alpha_, self.components_)
        if not corpus.n_words_read:
            raise DataError("there is no word in it")
        return total / corpus.n_words_read

    def parsed(self) -> dict[str, Any]:
        """Return the hyperparameters' values."""
        return self.hyperparameters.parse(self._all_given())

    def save(self, folder: Path) -> None:
        """Write ``model_algo-1``: alpha and beta as an MXNet file of arrays, as AWS's algorithm does.

        ``alpha, beta = mxnet.nd.load("model_algo-1")``; beta is (num_topics, feature_dim).
        """
        (folder / _MODEL_FILE).write_bytes(mxnet.dump([self.alpha_, self.components_]))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the model that `save`, or AWS's algorithm, wrote into *folder*.

        Raises:
            CustomerError: there is none, or it cannot be read.
        """
        path = next(iter(sorted(folder.glob("model_algo-*"))), None)
        if path is None:
            raise CustomerError(f"There is no {_MODEL_FILE} in the model artifact; it was not made by LDA.")
        arrays = mxnet.load(path.read_bytes(), path.name)
        if len(arrays) != 2 or arrays[1].ndim != 2 or arrays[0].size != len(arrays[1]):
            raise DataError("does not hold alpha and beta that fit each other", path.name)
        model = cls(num_topics=len(arrays[1]), feature_dim=arrays[1].shape[1], mini_batch_size=1)
        model.alpha_ = arrays[0].astype(np.float32).ravel()
        model.components_ = np.ascontiguousarray(arrays[1], np.float32)
        return model

    @classmethod
    def load_libraries(cls) -> None:
        """Import the libraries of a job or model server."""
        for module in ("scipy.sparse", "sagesmith_algorithms.lda.model"):
            importlib.import_module(module)

    @classmethod
    def train(cls, environment: Environment) -> None:
        """Run a training job (see `training`)."""
        from sagesmith_algorithms.lda.training import run_job

        run_job(cls, environment)

    @classmethod
    def load_predictor(cls, model_dir: Path, environ: Mapping[str, str]) -> Predictor:
        """Return what answers requests with the model in *model_dir*."""
        from sagesmith_algorithms.lda.training import LDAPredictor

        return LDAPredictor(cls.load(model_dir), environ)


def _counts(values: Any, feature_dim: int = 0) -> Any:
    from sagesmith_algorithms.lda.corpus import as_counts

    matrix = values if hasattr(values, "tocsr") else np.asarray(values, np.float32)
    if matrix.ndim != 2:
        raise ValueError(f"X must be two-dimensional (n_documents, n_words), not of shape {matrix.shape}")
    batch = Batch(matrix, origins=(Origin("X", 1, matrix.shape[0]),))
    with located(batch):
        return as_counts(batch, feature_dim or matrix.shape[1])


def _corpus(counts: Any) -> Corpus:
    from sagesmith_algorithms.lda.corpus import Corpus
    from sagesmith_toolkit.environment import cpu_count

    def passes(number: int) -> Iterator[Any]:
        del number
        yield counts

    return Corpus(passes, limit=max(counts.shape[0], 1), n_threads=cpu_count())
