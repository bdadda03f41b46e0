"""What the interface knows of images: the built-in algorithms, the frameworks, and their URIs.

An algorithm is declared as data: where its image lies, in which form it takes rows, whether the rows have a label,
and what its model answers. Everything else asks this table, so that a new algorithm is one more row of it.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Final, Literal

from sagesmith.sdk._errors import SdkError
from sagesmith.sdk._registries import domain, registry

__all__ = [
    "ALGORITHMS",
    "FRAMEWORKS",
    "Algorithm",
    "Framework",
    "algorithm_of",
    "framework_image",
    "framework_of",
    "image_uri",
    "is_image",
]

Form = Literal["table", "recordio", "pairs", "text", "script"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """A built-in algorithm.

    `form` is how it takes rows: ``table`` (Parquet, CSV or LibSVM, the label first), ``recordio`` (float32),
    ``pairs`` (CSV of two texts) or ``text`` (lines). `label` says whether rows need one. `answer` is the key
    under which its JSON answer lists a result for each row, empty for CSV. `counted` are hyperparameters
    that the data tells: ``feature_dim``, ``mini_batch_size``, ``sample_size``. `test_label` says that rows of the channel
    ``test`` need a label even if others need none. `defaults` are hyperparameters that
    SageMaker demands and this interface does not.
    """

    name: str
    title: str
    group: str
    version: str = "1"
    repository: str = ""
    form: Form = "recordio"
    label: bool = False
    answer: str = "predictions"
    counted: tuple[str, ...] = ("feature_dim",)
    sharded: bool = False
    test_label: bool = False
    defaults: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Framework:
    """A framework whose images run the user's script.

    `training` and `inference` are an image's repository and tag, in which ``{version}``, ``{py}`` and ``{processor}``
    (``cpu`` or ``gpu``) are filled in. `repack` says whether the script must lie in the model's archive to serve.
    """

    name: str
    title: str
    group: str
    version: str
    py: str
    training: str
    inference: str
    repack: bool = False


_ALGORITHMS = (
    Algorithm(name="xgboost", title="XGBoost", group="open", version="1.7-1", repository="sagemaker-xgboost",
              form="table", label=True, answer="", counted=(), defaults=(("num_round", "100"),)),
    Algorithm(name="kmeans", title="k-means", group="algorithms"),
    Algorithm(name="pca", title="PCA", group="algorithms", answer="projections",
              counted=("feature_dim", "mini_batch_size")),
    Algorithm(name="linear-learner", title="Linear learner", group="algorithms", label=True),
    Algorithm(name="knn", title="k-NN", group="algorithms", label=True, counted=("feature_dim", "sample_size")),
    Algorithm(name="factorization-machines", title="Factorization machines", group="algorithms", label=True),
    Algorithm(name="randomcutforest", title="Random cut forest", group="algorithms", answer="scores", sharded=True, test_label=True),
    Algorithm(name="lda", title="LDA", group="lda", counted=("feature_dim", "mini_batch_size")),
    Algorithm(name="ipinsights", title="IP Insights", group="algorithms", form="pairs", counted=()),
    Algorithm(name="blazingtext", title="BlazingText", group="text", form="text", answer="", counted=()),
)  # fmt: skip
ALGORITHMS: Final = {algorithm.name: algorithm for algorithm in _ALGORITHMS}
_OTHER_NAMES: Final = {
    "linear": "linear-learner",
    "linearlearner": "linear-learner",
    "linear_learner": "linear-learner",
    "k-means": "kmeans",
    "k-nn": "knn",
    "factorization_machines": "factorization-machines",
    "fm": "factorization-machines",
    "rcf": "randomcutforest",
    "random-cut-forest": "randomcutforest",
    "random_cut_forest": "randomcutforest",
    "ip-insights": "ipinsights",
}

_FRAMEWORKS = (
    Framework(name="sklearn", title="scikit-learn", group="open", version="1.2-1", py="py3",
              training="sagemaker-scikit-learn:{version}-cpu-py3",
              inference="sagemaker-scikit-learn:{version}-cpu-py3"),
    Framework(name="xgboost", title="XGBoost", group="open", version="1.7-1", py="py3",
              training="sagemaker-xgboost:{version}", inference="sagemaker-xgboost:{version}"),
    Framework(name="pytorch", title="PyTorch", group="frameworks", version="2.6.0", py="py312",
              training="pytorch-training:{version}-{processor}-{py}",
              inference="pytorch-inference:{version}-{processor}-{py}", repack=True),
    Framework(name="tensorflow", title="TensorFlow", group="frameworks", version="2.18.0", py="py310",
              training="tensorflow-training:{version}-{processor}-{py}",
              inference="tensorflow-inference:{version}-{processor}"),
    Framework(name="mxnet", title="MXNet", group="frameworks", version="1.9.0", py="py38",
              training="mxnet-training:{version}-{processor}-{py}",
              inference="mxnet-inference:{version}-{processor}-{py}", repack=True),
    Framework(name="huggingface", title="Hugging Face", group="frameworks", version="4.48.0", py="py311",
              training="huggingface-pytorch-training:2.3.0-transformers{version}-gpu-{py}-cu121-ubuntu20.04",
              inference="huggingface-pytorch-inference:2.3.0-transformers{version}-{processor}-{py}-{system}",
              repack=True),
)  # fmt: skip
FRAMEWORKS: Final = {framework.name: framework for framework in _FRAMEWORKS}
_REPOSITORIES: Final = {
    "sagemaker-scikit-learn": "sklearn",
    "pytorch-training": "pytorch",
    "pytorch-inference": "pytorch",
    "tensorflow-training": "tensorflow",
    "tensorflow-inference": "tensorflow",
    "mxnet-training": "mxnet",
    "mxnet-inference": "mxnet",
    "huggingface-pytorch-training": "huggingface",
    "huggingface-pytorch-inference": "huggingface",
}
_GPU: Final = re.compile(r"ml\.(?:p\d|g\d)")


def is_image(name: str) -> bool:
    """Return whether *name* is an image's URI and not the name of an algorithm."""
    return "/" in name or ":" in name


def algorithm_of(name: str) -> Algorithm | None:
    """Return the algorithm that is called *name*, or whose image has the URI *name*; None if there is none."""
    if is_image(name):
        repository = name.rpartition("/")[2].partition(":")[0]
        return next((a for a in _ALGORITHMS if repository in (a.repository or a.name, a.name)), None)
    lowered = name.lower()
    return ALGORITHMS.get(_OTHER_NAMES.get(lowered, lowered))


def framework_of(image: str) -> Framework | None:
    """Return the framework that the image with the URI *image* is of; None if it is of none."""
    name = _REPOSITORIES.get(image.rpartition("/")[2].partition(":")[0])
    return FRAMEWORKS[name] if name else None


def image_uri(name: str, region: str, *, version: str | None = None) -> str:
    """Return the URI of the image of the built-in algorithm *name*, or *name* itself if it is a URI.

    Raises:
        SdkError: there is no such algorithm, or AWS has none in *region*.
    """
    if is_image(name):
        return name
    algorithm = algorithm_of(name)
    if algorithm is None:
        close = difflib.get_close_matches(name.lower(), [*ALGORITHMS, *_OTHER_NAMES], n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise SdkError(
            f"There is no built-in algorithm {name!r}.{hint} There are {', '.join(sorted(ALGORITHMS))}; "
            "an image of your own is named by its URI."
        )
    tag = version or algorithm.version
    return _uri(algorithm.group, f"{algorithm.repository or algorithm.name}:{tag}", region, algorithm.title)


def framework_image(
    framework: Framework,
    region: str,
    *,
    instance_type: str,
    serving: bool = False,
    version: str | None = None,
    py: str | None = None,
) -> str:
    """Return the URI of a framework's image; instance types with GPUs get the image for GPUs."""
    processor = "gpu" if _GPU.match(instance_type) else "cpu"
    system = "cu121-ubuntu22.04" if processor == "gpu" else "ubuntu22.04"
    pattern = framework.inference if serving else framework.training
    name = pattern.format(
        version=version or framework.version, py=py or framework.py, processor=processor, system=system
    )
    return _uri(framework.group, name, region, framework.title)


def _uri(group: str, name: str, region: str, title: str) -> str:
    account = registry(group, region)
    if account is None:
        raise SdkError(
            f"AWS has no image of {title} in {region}: take another region, or give the image's URI."
        )
    return f"{account}.dkr.ecr.{region}.{domain(region)}/{name}"
