"""Write the types of the built-in algorithms' hyperparameters from their declarations.

The Python interface may not import the algorithms, since it is installed without them. So their declarations are
written out as types: `python -m tests.sdk.declarations` does, and a test compares. Algorithms that are declared
below are those which SageMaker has and this platform not yet.
"""

from __future__ import annotations

import keyword
from pathlib import Path
from typing import Final

from sagesmith.sdk._catalog import ALGORITHMS
from sagesmith_algorithms import registry
from sagesmith_algorithms.hyperparameters import Flag, Hyperparameter, Number, Text, Words

PLACE: Final = Path(__file__).resolve().parents[2] / "src" / "sagesmith" / "sdk" / "_hyperparameters.py"
CLASSES: Final = {
    "blazingtext": "BlazingText",
    "factorization-machines": "FactorizationMachines",
    "ipinsights": "IPInsights",
    "kmeans": "KMeans",
    "knn": "KNN",
    "lda": "LDA",
    "linear-learner": "LinearLearner",
    "pca": "PCA",
    "randomcutforest": "RandomCutForest",
    "xgboost": "XGBoost",
}


def _initial(prefix: str) -> list[Hyperparameter]:
    return [
        Text(name=f"{prefix}_init_method", default="normal", choices=("normal", "uniform", "constant"),
             doc="How the weights begin."),
        Number(name=f"{prefix}_init_scale", low=0, doc="Range of weights that begin uniformly."),
        Number(name=f"{prefix}_init_sigma", default=0.01, low=0, doc="Standard deviation of weights that begin normally."),
        Number(name=f"{prefix}_init_value", doc="Value of weights that begin constant."),
        Number(name=f"{prefix}_lr", default=0.1, low=0, doc="Learning rate."),
        Number(name=f"{prefix}_wd", default=0.01, low=0, doc="Weight decay."),
    ]  # fmt: skip


def _whole(name: str, doc: str, *, required: bool = False, default: int | None = None) -> Number:
    return Number(name=name, integer=True, low=0, required=required, default=default, doc=doc)


DECLARED: Final[dict[str, list[Hyperparameter]]] = {
    "factorization-machines": [
        _whole("num_factors", "Dimensions of the factorization.", required=True),
        Text(name="predictor_type", required=True, choices=("binary_classifier", "regressor"), doc="What is predicted."),
        _whole("feature_dim", "Number of features.", required=True),
        _whole("mini_batch_size", "Rows in a batch.", default=1000),
        _whole("epochs", "Passes over the data.", default=1),
        Number(name="clip_gradient", doc="Gradients are clipped to plus and minus this."),
        Number(name="eps", doc="Added to denominators."),
        Number(name="rescale_grad", doc="Gradients are multiplied by this."),
        *_initial("bias"), *_initial("linear"), *_initial("factors"),
    ],
    "randomcutforest": [
        _whole("feature_dim", "Number of features.", required=True),
        _whole("num_trees", "Trees in the forest.", default=100),
        _whole("num_samples_per_tree", "Random rows for each tree.", default=256),
        Words(name="eval_metrics", default=("accuracy", "precision_recall_fscore"),
              choices=("accuracy", "precision_recall_fscore"), doc="Measures of labelled test data."),
    ],
    "lda": [
        _whole("num_topics", "Number of topics.", required=True),
        _whole("feature_dim", "Size of the vocabulary.", required=True),
        _whole("mini_batch_size", "Number of documents.", required=True),
        Number(name="alpha0", default=1.0, low=0, doc="Concentration of the mixtures."),
        _whole("max_restarts", "Restarts of the decomposition.", default=10),
        _whole("max_iterations", "Iterations of the decomposition.", default=1000),
        Number(name="tol", default=1e-8, low=0, doc="Tolerance of the decomposition."),
    ],
    "ipinsights": [
        _whole("num_entity_vectors", "Embeddings of entities, twice as many as there are entities.", required=True),
        _whole("vector_dim", "Size of an embedding.", required=True),
        _whole("batch_metrics_publish_interval", "Batches between two reports.", default=1000),
        _whole("epochs", "Passes over the data.", default=10),
        Number(name="learning_rate", default=0.001, low=0, doc="Learning rate."),
        _whole("mini_batch_size", "Rows in a batch.", default=10000),
        _whole("num_ip_encoder_layers", "Layers of the encoder of addresses.", default=1),
        _whole("random_negative_sampling_rate", "Random negatives for each row.", default=1),
        _whole("shuffled_negative_sampling_rate", "Shuffled negatives for each row.", default=1),
        Number(name="weight_decay", default=0.00001, low=0, doc="Weight decay."),
    ],
    "blazingtext": [
        Text(name="mode", required=True, choices=("batch_skipgram", "skipgram", "cbow", "supervised"),
             doc="Word vectors by one of three architectures, or a classifier of texts."),
        _whole("batch_size", "Words in a batch of batch_skipgram.", default=11),
        _whole("buckets", "Hash buckets of subwords and word n-grams.", default=2000000),
        Flag(name="early_stopping", default=False, doc="Stop when the validation accuracy no longer grows."),
        _whole("epochs", "Passes over the data.", default=5),
        Number(name="learning_rate", default=0.05, low=0, doc="Learning rate."),
        _whole("max_char", "Longest subword.", default=6),
        _whole("min_char", "Shortest subword.", default=3),
        _whole("min_count", "Rarer words are left out.", default=5),
        _whole("min_epochs", "Passes before early stopping.", default=5),
        _whole("negative_samples", "Negatives for each word.", default=5),
        _whole("patience", "Passes without progress before early stopping.", default=4),
        Number(name="sampling_threshold", default=0.0001, low=0, doc="More frequent words are left out at random."),
        Flag(name="subwords", default=False, doc="Learn vectors of subwords too."),
        _whole("vector_dim", "Size of a vector.", default=100),
        _whole("window_size", "Words of context on either side.", default=5),
        _whole("word_ngrams", "Longest n-gram of words.", default=2),
    ],
}  # fmt: skip
"""What SageMaker's documentation lists, for algorithms that are not in the registry."""


def declared(name: str) -> list[Hyperparameter]:
    """Return the hyperparameters of algorithm *name*."""
    if name in registry.names():
        return list(registry.algorithm(name).hyperparameters.values())
    return DECLARED[name]


def _type(parameter: Hyperparameter) -> str:
    if isinstance(parameter, Number):
        kind = "int" if parameter.integer else "float"
    elif isinstance(parameter, Flag):
        kind = "bool"
    elif isinstance(parameter, Words):
        kind = "str | Sequence[str]"
    elif isinstance(parameter, Text) and parameter.choices:
        kind = f"Literal[{', '.join(repr(choice) for choice in parameter.choices)}]"
    else:
        kind = "str"
    if parameter.auto and kind != "str":
        kind += ' | Literal["auto"]'
    return kind


def _class(name: str) -> str:
    return CLASSES[name]


def _required() -> dict[str, tuple[str, ...]]:
    told = {name: {*a.counted, *(default for default, _ in a.defaults)} for name, a in ALGORITHMS.items()}
    return {
        name: tuple(p.name for p in declared(name) if p.required and p.name not in told[name])
        for name in CLASSES
    }


def text() -> str:
    """Return the module's text."""
    parts = [
        '"""The hyperparameters of the built-in algorithms as types: names, kinds and what each does.\n\n'
        "Written from the algorithms' declarations by `python -m tests.sdk.declarations`; not to be edited.\n"
        '"""\n\nfrom __future__ import annotations\n\n'
        "from collections.abc import Sequence\nfrom typing import Final, Literal, Required\n\n"
        "from sagesmith.sdk._settings import EstimatorSettings\n\n"
        f"__all__ = {['REQUIRED', *(f'{CLASSES[name]}Arguments' for name in sorted(CLASSES, key=_class))]!r}\n\n"
        f"REQUIRED: Final = {_required()!r}\n"
        '"""The hyperparameters without a default that the data does not tell, by algorithm."""\n',
    ]
    for name in sorted(CLASSES, key=_class):
        parameters = declared(name)
        lines = [f"\n\nclass {CLASSES[name]}Arguments(EstimatorSettings, total=False):",
                 f'    """Settings, and the hyperparameters of {name}."""\n']  # fmt: skip
        for parameter in parameters:
            attribute = parameter.name + "_" * keyword.iskeyword(parameter.name)
            kind = (
                f"Required[{_type(parameter)}]" if parameter.name in _required()[name] else _type(parameter)
            )
            lines.append(f"    {attribute}: {kind}")
            default = "" if parameter.default is None else f" Default: {_default(parameter.default)}."
            needed = " Required." if parameter.required else ""
            lines.append(f'    """{parameter.doc.replace(chr(34), chr(39))}{needed}{default}"""')
        parts.append("\n".join(lines) + "\n")
    return "".join(parts)


def _default(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value).replace('"', "'")


if __name__ == "__main__":
    import subprocess
    import sys

    PLACE.write_text(text(), "utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", str(PLACE)], check=True)
