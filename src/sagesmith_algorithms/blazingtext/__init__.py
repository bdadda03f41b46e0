"""BlazingText: vectors of words (skipgram, cbow, batch_skipgram) and classification of text (supervised).

The files it writes are fastText's and word2vec's: ``vectors.txt`` and ``vectors.bin``, or ``model.bin``.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sagesmith_algorithms.base import Algorithm, ChannelKind, Metric
from sagesmith_algorithms.errors import CustomerError
from sagesmith_algorithms.formats import content_type as types
from sagesmith_algorithms.formats.batch import Floats
from sagesmith_algorithms.hyperparameters import Flag, Hyperparameters, Number, Text

if TYPE_CHECKING:
    from sagesmith_algorithms.blazingtext.fasttext import Model
    from sagesmith_toolkit.environment import Environment
    from sagesmith_toolkit.server import Predictor

__all__ = ["BlazingText"]

SUPERVISED = "supervised"
_MODES = ("batch_skipgram", "skipgram", "cbow", SUPERVISED)
_WORDS_ONLY = (
    "batch_size", "evaluation", "max_char", "min_char", "negative_samples", "sampling_threshold", "subwords", "window_size",
)  # fmt: skip
_LABELS_ONLY = ("early_stopping", "min_epochs", "patience", "word_ngrams")
_FORMATS = ("text/plain", types.RECORDIO, types.JSON_LINES)
_VECTORS, _BINARY, _CLASSIFIER = "vectors.txt", "vectors.bin", "model.bin"


def _parts_are_possible(values: Mapping[str, Any]) -> Iterable[str]:
    if values["subwords"] and values["mode"] == "batch_skipgram":
        yield "subwords=true is learned by the modes skipgram and cbow, as on SageMaker, not by batch_skipgram"
    if values["min_char"] > values["max_char"]:
        yield f"min_char={values['min_char']} is more than max_char={values['max_char']}"


class BlazingText(Algorithm):
    """BlazingText with SageMaker's hyperparameters.

    `seed` is the one argument that is no hyperparameter. Equal seeds give equal models where one thread works; several
    threads change the vectors as they come.
    """

    name = "blazingtext"
    fitted = "_model"
    title = "AWS/BlazingText"
    hyperparameters = Hyperparameters(
        Text(name="mode", required=True, choices=_MODES, tunable=True, doc="What is learned, and how."),
        Number(name="batch_size", default=11, integer=True, low=1, tunable=True,
               doc="Words around a word that batch_skipgram looks at in one product."),
        Number(name="buckets", default=2_000_000, integer=True, low=1, tunable=True,
               doc="Buckets that parts of words, or runs of words, are hashed to."),
        Flag(name="early_stopping", default=False, doc="Stop when accuracy on the validation channel gets no better."),
        Number(name="epochs", default=5, integer=True, low=1, tunable=True, doc="Passes over the text."),
        Flag(name="evaluation", default=True, doc="Compare the vectors to people's word pairs in the validation channel."),
        Number(name="learning_rate", default=0.05, above=0, tunable=True, doc="Learning rate at the beginning."),
        Number(name="max_char", default=6, integer=True, low=1, tunable=True, doc="Letters of the longest parts of words."),
        Number(name="min_char", default=3, integer=True, low=1, tunable=True, doc="Letters of the shortest."),
        Number(name="min_count", default=5, integer=True, low=0, tunable=True, doc="Words that occur less often are left out."),
        Number(name="min_epochs", default=5, integer=True, low=1, tunable=True, doc="Epochs before stopping early."),
        Number(name="negative_samples", default=5, integer=True, low=0, tunable=True, doc="Negative samples for each word."),
        Number(name="patience", default=4, integer=True, low=1, tunable=True,
               doc="Epochs without improvement after which to stop early."),
        Number(name="sampling_threshold", default=0.0001, low=0, tunable=True,
               doc="Words with a greater share of the text are often left out."),
        Flag(name="subwords", default=False, tunable=True, doc="Learn vectors of parts of words, too."),
        Number(name="vector_dim", default=100, integer=True, low=1, tunable=True, doc="Length of vectors."),
        Number(name="window_size", default=5, integer=True, low=1, tunable=True, doc="Words looked at on each side."),
        Number(name="word_ngrams", default=2, integer=True, low=1, tunable=True, doc="Words of the longest runs of words."),
        rules=(_parts_are_possible,),
        ignored=("_num_kv_servers", "_kvstore", "_num_gpus", "_log_level", "_enable_profiler"),
    )  # fmt: skip
    channels = (ChannelKind("train", _FORMATS, required=True), ChannelKind("validation", _FORMATS))
    request_types = (types.JSON, types.JSON_LINES)
    response_types = (types.JSON, types.JSON_LINES)
    compiles = True
    metrics = (
        Metric("train:mean_rho", r"#mean_rho: (\S+)", "Maximize"),
        Metric("train:accuracy", r"#train_accuracy: (\S+)", "Maximize"),
        Metric("validation:accuracy", r"#validation_accuracy: (\S+)", "Maximize"),
    )

    def __init__(self, mode: str = "batch_skipgram", *, seed: int = 0, **hyperparameters: Any) -> None:
        super().__init__(mode=mode, **hyperparameters)
        self.seed = seed
        self._model: Model | None = None

    # ---- the estimator ----

    def fit(self, X: Iterable[str], y: Iterable[Any] | None = None) -> Self:  # noqa: N803 - scikit-learn's name
        """Learn from the sentences *X*: words separated by spaces; mode supervised needs their labels *y*, one each or lists.

        Raises:
            HyperparameterError: a hyperparameter is wrong.
            CustomerError: there are too few words or labels.
        """
        from sagesmith_algorithms.blazingtext.classifier import learn_labels
        from sagesmith_algorithms.blazingtext.text import Text
        from sagesmith_algorithms.blazingtext.words import learn_vectors, vocabulary
        from sagesmith_toolkit.environment import cpu_count

        values = self.parsed()
        text = Text.of([_lines(X, y)])
        if values["mode"] == SUPERVISED:
            self.adopt(learn_labels(text, values, n_threads=cpu_count(), seed=self.seed))
        else:
            words = vocabulary(dict(zip(text.words, text.counts.tolist(), strict=True)), values["min_count"])
            self.adopt(learn_vectors(text, words, values, n_threads=cpu_count(), seed=self.seed))
        return self

    def predict(self, X: Sequence[str]) -> list[str]:  # noqa: N803
        """Return the most likely label of each sentence, as it was given to `fit`."""
        labels = [label.removeprefix("__label__") for label in self.model.labels]
        return [labels[i] for i in self.predict_proba(X).argmax(axis=1)]

    def predict_proba(self, X: Sequence[str]) -> Floats:  # noqa: N803
        """Return the probability of each of `classes_` for each sentence, (n, n_labels)."""
        from sagesmith_algorithms.blazingtext.classifier import probabilities

        return probabilities(self.model, X)

    def transform(self, X: Sequence[str]) -> Floats:  # noqa: N803
        """Return the vector of each word of *X*, (n, vector_dim); 0 for words that are not known and have no known parts."""
        return np.stack([self.vector(word) for word in X])

    def vector(self, word: str) -> Floats:
        """Return the vector of *word*, (vector_dim,)."""
        from sagesmith_algorithms.blazingtext.fasttext import subword_buckets

        model = self.model
        rows = [model.index[word]] if word in model.index else []
        buckets = subword_buckets(word, model.shortest, model.longest, model.n_buckets)
        if model.used is not None and len(model.used):
            place = np.minimum(np.searchsorted(model.used, buckets), len(model.used) - 1)
            found = [int(p) for p, b in zip(place, buckets, strict=True) if model.used[p] == b]
            rows += [len(model.words) + p for p in found]
            n_rows = len(rows) + len(buckets) - len(found)
        else:
            rows += [len(model.words) + b for b in buckets]
            n_rows = len(rows)
        vector: Floats = model.inputs[rows].sum(axis=0) / np.float32(max(n_rows, 1))
        return vector

    @property
    def classes_(self) -> list[str]:
        """The labels, in the order of `predict_proba`."""
        return [label.removeprefix("__label__") for label in self.model.labels]

    @property
    def model(self) -> Model:
        """The trained model."""
        model: Model = self._fitted_part()
        return model

    # ---- model and job ----

    def adopt(self, model: Model) -> None:
        """Become the model that training found."""
        self._model = model

    def parsed(self) -> dict[str, Any]:
        """Return the hyperparameters' values."""
        return self.check(self._all_given())

    @classmethod
    def check(cls, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of *hyperparameters*; those of another mode have no effect, and are refused.

        Raises:
            HyperparameterError: lists all faults.
        """
        from sagesmith_algorithms.errors import HyperparameterError

        values = cls.hyperparameters.parse(hyperparameters)
        others = _WORDS_ONLY if values["mode"] == SUPERVISED else _LABELS_ONLY
        faults = [
            f"The hyperparameter {name!r} has no effect with mode={values['mode']}: leave it out"
            for name in others
            if name in hyperparameters
        ]
        if faults:
            raise HyperparameterError(faults)
        return values

    def save(self, folder: Path) -> None:
        """Write ``model.bin`` (supervised), or ``vectors.txt`` and ``vectors.bin``.

        ``vectors.txt`` is word2vec's text: the number of words and the length of vectors, then a word and its vector on
        each line, the most frequent word first. The ``.bin`` files are fastText's: ``fasttext.load_model``.
        """
        from sagesmith_algorithms.blazingtext import fasttext

        model = self.model
        if model.kind == fasttext.SUPERVISED:
            fasttext.dump(model, folder / _CLASSIFIER)
            return
        fasttext.dump(model, folder / _BINARY)
        with (folder / _VECTORS).open("w", encoding="utf-8") as file:
            file.write(f"{len(model.words)} {model.dim}\n")
            for number, word in enumerate(model.words):
                row = self.vector(word) if model.n_buckets else model.inputs[number]
                file.write(f"{word} {' '.join(map('%.6g'.__mod__, row.tolist()))}\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the model that `save`, or fastText, wrote into *folder*.

        Raises:
            CustomerError: there is none, or it cannot be read.
        """
        from sagesmith_algorithms.blazingtext import fasttext

        known = [folder / name for name in (_CLASSIFIER, _BINARY)]
        path = next((p for p in [*known, *sorted(folder.glob("*.bin"))] if p.exists()), None)
        if path is None:
            raise CustomerError(
                f"There is no {_CLASSIFIER} and no {_BINARY} in the model artifact; it was not made by BlazingText."
            )
        found = fasttext.load(path)
        model = cls({fasttext.SUPERVISED: SUPERVISED, fasttext.CBOW: "cbow"}.get(found.kind, "skipgram"))
        model.adopt(found)
        return model

    @classmethod
    def load_libraries(cls) -> None:
        """Import the libraries of a job or model server."""
        for module in ("scipy.sparse", "sagesmith_algorithms.blazingtext.training"):
            importlib.import_module(module)

    @classmethod
    def train(cls, environment: Environment) -> None:
        """Run a training job (see `training`)."""
        from sagesmith_algorithms.blazingtext.training import run_job

        run_job(cls, environment)

    @classmethod
    def load_predictor(cls, model_dir: Path, environ: Mapping[str, str]) -> Predictor:
        """Return what answers requests with the model in *model_dir*."""
        from sagesmith_algorithms.blazingtext.serving import TextPredictor

        return TextPredictor(cls.load(model_dir), environ or os.environ)


def _lines(sentences: Iterable[str], labels: Iterable[Any] | None) -> bytes:
    texts = [" ".join(str(sentence).split()) for sentence in sentences]
    if labels is not None:
        given = [one if isinstance(one, (list, tuple, set)) else [one] for one in labels]
        if len(given) != len(texts):
            raise ValueError(
                f"y must have a label for each of the {len(texts)} sentences of X, not {len(given)}"
            )
        texts = [
            " ".join([*(f"__label__{str(one).removeprefix('__label__')}" for one in own), text])
            for own, text in zip(given, texts, strict=True)
        ]
    return "".join(text + "\n" for text in texts).encode()
