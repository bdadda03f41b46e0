"""The catalog: repository and tag of an image, never its account or region, say what runs.

AWS publishes its images under another account in each region, and new regions appear, so that a list of
accounts would always be old. A short reference without a registry is always the user's own image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from sagesmith.errors import validation_error
from sagesmith.images._environments import PythonEnvironment
from sagesmith.images._frameworks import FRAMEWORKS, Framework, framework_of
from sagesmith.images._metrics import (
    BLAZINGTEXT_METRICS,
    FACTORIZATION_MACHINES_METRICS,
    IPINSIGHTS_METRICS,
    KMEANS_METRICS,
    KNN_METRICS,
    LDA_METRICS,
    LINEAR_LEARNER_METRICS,
    PCA_METRICS,
    RANDOM_CUT_FOREST_METRICS,
    XGBOOST_METRICS,
)
from sagesmith.images._reference import Reference

__all__ = ["TOOLKIT", "WARM_MODULES", "Image", "metric_definitions", "resolve"]

WARM_MODULES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"algorithms": ("sagesmith_algorithms.warm",)}
)
"""For each kind of warm process: the modules that it has imported before it gets its work.

A package's ``__main__`` must not be among them: it would not run as a program any more.
"""

TOOLKIT: Final = ("python", "-m", "sagesmith_toolkit")
"""What a framework's container runs: followed by ``train``, ``serve``, or ``run`` and a command of the user's."""


@dataclass(frozen=True, slots=True)
class Image:
    """What an image URI means.

    `kind` is ``builtin``, ``framework`` or ``user``. `runtime` is ``process`` or ``docker``; the commands are
    empty for Docker, where the image has its own. `warm` names the warm process that can take the work.
    `metric_definitions` are those that SageMaker adds to a training job by itself, as (name, regex). `framework` and
    `python` are those of a framework's image, and of a built-in algorithm's that also runs scripts.
    """

    uri: str
    kind: str
    repository: str
    tag: str
    algorithm: str = ""
    runtime: str = "docker"
    warm: str = ""
    train_command: tuple[str, ...] = ()
    serve_command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    metric_definitions: tuple[tuple[str, str], ...] = ()
    framework: str = ""
    python: PythonEnvironment | None = None


@dataclass(frozen=True, slots=True)
class _Algorithm:
    name: str
    tags: re.Pattern[str]
    metrics: tuple[tuple[str, str], ...]


_FIRST_PARTY_TAGS: Final = re.compile(r"1|latest|")
_ALGORITHMS: Final[Mapping[str, _Algorithm]] = {
    "blazingtext": _Algorithm("blazingtext", _FIRST_PARTY_TAGS, BLAZINGTEXT_METRICS),
    "sagemaker-xgboost": _Algorithm("xgboost", re.compile(r"\d+\.\d+-\d+(?:-[a-z0-9-]+)?|latest|"), XGBOOST_METRICS),
    "xgboost": _Algorithm("xgboost", _FIRST_PARTY_TAGS, XGBOOST_METRICS),
    "factorization-machines": _Algorithm("factorization-machines", _FIRST_PARTY_TAGS, FACTORIZATION_MACHINES_METRICS),
    "ipinsights": _Algorithm("ipinsights", _FIRST_PARTY_TAGS, IPINSIGHTS_METRICS),
    "kmeans": _Algorithm("kmeans", _FIRST_PARTY_TAGS, KMEANS_METRICS),
    "knn": _Algorithm("knn", _FIRST_PARTY_TAGS, KNN_METRICS),
    "lda": _Algorithm("lda", _FIRST_PARTY_TAGS, LDA_METRICS),
    "linear-learner": _Algorithm("linear-learner", _FIRST_PARTY_TAGS, LINEAR_LEARNER_METRICS),
    "pca": _Algorithm("pca", _FIRST_PARTY_TAGS, PCA_METRICS),
    "randomcutforest": _Algorithm("randomcutforest", _FIRST_PARTY_TAGS, RANDOM_CUT_FOREST_METRICS),
}  # fmt: skip

_OTHER_ALGORITHMS: Final[Mapping[str, str]] = {
    "ntm": "NTM",
    "object2vec": "Object2Vec",
    "forecasting-deepar": "DeepAR",
    "seq2seq": "Sequence-to-Sequence",
    "image-classification": "Image Classification",
    "object-detection": "Object Detection",
    "semantic-segmentation": "Semantic Segmentation",
}

_FRAMEWORKS: Final[tuple[tuple[re.Pattern[str], str], ...]] = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"(?:sagemaker-)?pytorch-.+", "PyTorch on other hardware"),
        (r"(?:sagemaker-)?tensorflow-.+", "TensorFlow on other hardware"),
        (r"(?:sagemaker-)?mxnet-.+", "MXNet on other hardware"),
        (r"sagemaker-chainer", "Chainer"),
        (r"huggingface-.+", "Hugging Face on other than PyTorch, or its servers of language models"),
        (r"sagemaker-rl-.+", "Reinforcement Learning"),
        (r"sagemaker-sparkml-serving", "SparkML Serving"),
        (r"sagemaker-spark-processing", "Spark"),
        (r"autogluon-.+", "AutoGluon"),
        (r"djl-inference|djl-serving", "DJL Serving"),
        (r"sagemaker-base-python(?:-.+)?", "Base Python"),
        (r"sagemaker-distribution-.+", "SageMaker Distribution"),
        (r"sagemaker-clarify-processing", "Clarify"),
        (r"sagemaker-model-monitor-analyzer", "Model Monitor"),
        (r"sagemaker-debugger-rules", "Debugger Rules"),
        (r"sagemaker-data-wrangler-container", "Data Wrangler"),
    )
)


def resolve(image_uri: str) -> Image:
    """Return what *image_uri* means.

    Raises:
        AwsError: `ValidationException`: it is not an image reference, is an image of AWS's that Sagesmith
            knows but cannot run yet, or has a tag that this repository never had.
    """
    reference = Reference.parse(image_uri)
    name = reference.repository
    if reference.is_ecr and name in _ALGORITHMS:
        return _builtin(image_uri, reference, _ALGORITHMS[name])
    if reference.is_ecr and name in _OTHER_ALGORITHMS:
        raise validation_error(
            f'ECR image "{image_uri}" is the built-in algorithm {_OTHER_ALGORITHMS[name]}, which is not available '
            f"in Sagesmith yet. Available are: {', '.join(sorted(_ALGORITHMS))}."
        )
    framework = framework_of(name)
    if reference.is_ecr and framework:
        return _framework(image_uri, reference, framework)
    label = next((label for pattern, label in _FRAMEWORKS if pattern.fullmatch(name)), "")
    if reference.is_ecr and label:
        raise validation_error(
            f'ECR image "{image_uri}" is the framework image of {label}, which is not available in Sagesmith '
            f"yet. Available are {', '.join(f.label for f in FRAMEWORKS)}, and the built-in algorithms "
            f"{', '.join(sorted(_ALGORITHMS))}."
        )
    return Image(uri=image_uri, kind="user", repository=name, tag=reference.tag)


def metric_definitions() -> tuple[tuple[str, str], ...]:
    """Return the metric definitions of all built-in algorithms, as (name, regex)."""
    return tuple(definition for algorithm in _ALGORITHMS.values() for definition in algorithm.metrics)


def _builtin(uri: str, reference: Reference, algorithm: _Algorithm) -> Image:
    if not algorithm.tags.fullmatch(reference.tag):
        example = "1.7-1" if reference.repository == "sagemaker-xgboost" else "1"
        raise validation_error(
            f'ECR image "{uri}" is invalid: repository {reference.repository} has no tag {reference.tag!r}; '
            f"a tag there looks like {example!r}."
        )
    command = ("python", "-m", "sagesmith_algorithms")
    framework = framework_of(reference.repository)
    return Image(
        uri=uri,
        kind="builtin",
        repository=reference.repository,
        tag=reference.tag,
        algorithm=algorithm.name,
        runtime="process",
        warm="algorithms",
        train_command=(*command, "train"),
        serve_command=(*command, "serve"),
        environment={"SAGESMITH_ALGORITHM": algorithm.name, "SAGESMITH_IMAGE_REPOSITORY": reference.repository,
                     "SAGESMITH_IMAGE_TAG": reference.tag},
        metric_definitions=algorithm.metrics,
        framework=framework.name if framework else "",
        python=framework.environment_of(reference.tag) if framework else None,
    )  # fmt: skip


def _framework(uri: str, reference: Reference, framework: Framework) -> Image:
    environment = framework.environment_of(reference.tag)
    if environment is None:
        raise validation_error(
            f'ECR image "{uri}" is invalid: repository {reference.repository} has no tag {reference.tag!r}; '
            f"a tag there looks like {framework.example!r}."
        )
    return Image(
        uri=uri,
        kind="framework",
        repository=reference.repository,
        tag=reference.tag,
        runtime="process",
        train_command=(*TOOLKIT, "train"),
        serve_command=(*TOOLKIT, "serve"),
        environment={"SAGESMITH_FRAMEWORK": framework.name},
        framework=framework.name,
        python=environment,
    )
