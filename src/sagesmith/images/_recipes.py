"""What stands in the environment of each framework, by version.

The version wanted is installed on the Python that runs Sagesmith. Where its releases have no binaries for this
Python, it is the oldest version that does, and jobs are told so. Where a release cannot be had, which only shows
when it is built, the environment `nearest` stands in for it: the newest there is. What stands beside a framework is
of its time: an old scikit-learn does not work with NumPy 2.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from typing import Final, TypeAlias

from sagesmith.images._environments import PythonEnvironment

__all__ = ["Version", "huggingface", "mxnet", "notebook", "pytorch", "sklearn", "tensorflow", "xgboost"]

Version: TypeAlias = tuple[int, ...]
_COMMON: Final = ("boto3", "pip")

_OLDEST_SKLEARN: Final[Mapping[int, Version]] = {11: (1, 1), 12: (1, 3), 13: (1, 5), 14: (1, 7)}
"""The first release of scikit-learn with binaries for Python 3.N."""

_SKLEARN_MODULES: Final = (
    "boto3", "joblib", "pandas", "sklearn.cluster", "sklearn.compose", "sklearn.datasets", "sklearn.decomposition",
    "sklearn.ensemble", "sklearn.linear_model", "sklearn.metrics", "sklearn.model_selection", "sklearn.neighbors",
    "sklearn.neural_network", "sklearn.pipeline", "sklearn.preprocessing", "sklearn.svm", "sklearn.tree",
)  # fmt: skip


def sklearn(wanted: Version) -> PythonEnvironment:
    """Return the environment of scikit-learn *wanted*."""
    version = _possible(wanted, _OLDEST_SKLEARN)
    text, beside = _text(version), ("joblib", "six", "pandas", *_COMMON)
    return PythonEnvironment(
        name=f"scikit-learn-{text}",
        requirements=(f"scikit-learn=={text}.*", *_of_their_time(version), *beside),
        modules=_SKLEARN_MODULES,
        note=_nearest("scikit-learn", wanted, text) if version != wanted[:2] else "",
        nearest=PythonEnvironment("scikit-learn-newest", ("scikit-learn", *beside), _SKLEARN_MODULES),
    )


def _of_their_time(sklearn: Version) -> tuple[str, ...]:
    """NumPy, SciPy and pandas for a version of scikit-learn."""
    if sklearn < (1, 3):
        return ("numpy<2", "scipy<1.12", "pandas<2")
    if sklearn < (1, 5):
        return ("numpy<2", "scipy<1.14", "pandas<2.3")
    return ()


def xgboost(wanted: Version) -> PythonEnvironment:
    """Return the environment of XGBoost *wanted*."""
    version = wanted[:2]
    text = _text(version)
    # The CPU build is 5 MB instead of 200; it exists since 2.1.
    package = "xgboost-cpu" if version >= (2, 1) else "xgboost"
    if version < (1, 6):
        beside: tuple[str, ...] = ("numpy<1.24", "scipy<1.12", "pandas<2", "scikit-learn==1.1.*")
    elif version < (2, 1):
        beside = ("numpy<2", "scipy<1.14", "pandas<2.3", "scikit-learn<1.4")
    else:
        beside = ("numpy", "scipy", "pandas", "scikit-learn")
    return PythonEnvironment(
        name=f"xgboost-{text}",
        requirements=(f"{package}=={text}.*", *beside, "joblib", *_COMMON),
        modules=("boto3", "joblib", "pandas", "sklearn.datasets", "sklearn.model_selection", "xgboost"),
    )


_OLDEST_TORCH: Final[Mapping[int, Version]] = {11: (2, 0), 12: (2, 2), 13: (2, 5), 14: (2, 9)}
_OLDEST_TENSORFLOW: Final[Mapping[int, Version]] = {11: (2, 12), 12: (2, 16), 13: (2, 20)}
_OLDEST_TRANSFORMERS: Final[Mapping[int, Version]] = {11: (4, 26), 12: (4, 35), 13: (4, 46)}
_NUMBERS: Final = ("numpy", "pandas", "scipy", "scikit-learn")
_TORCH_MODULES: Final = (
    "boto3", "numpy", "pandas", "sklearn.datasets", "sklearn.metrics", "sklearn.model_selection", "torch",
    "torch._dynamo", "torch.distributed.run", "torch.nn.parallel", "torch.optim", "torch.utils.data", "torch.utils.data.distributed",
)  # fmt: skip


def pytorch(wanted: Version) -> PythonEnvironment:
    """Return the environment of PyTorch *wanted*, of the build that the setting `torch_backend` names."""
    version = _possible(wanted, _OLDEST_TORCH)
    text = _text(version)
    beside = (*_NUMBERS, "torchvision", *_COMMON)
    return PythonEnvironment(
        name=f"pytorch-{text}",
        requirements=(f"torch=={text}.*", *(("numpy<2",) if version < (2, 3) else ()), *beside),
        modules=_TORCH_MODULES,
        note=_nearest("PyTorch", wanted, text) if version != wanted[:2] else "",
        nearest=PythonEnvironment("pytorch-newest", ("torch", *beside), _TORCH_MODULES),
    )


def huggingface(torch: Version, transformers: Version) -> PythonEnvironment:
    """Return the environment of Hugging Face's *transformers* on PyTorch *torch*."""
    version, base = _possible(transformers, _OLDEST_TRANSFORMERS), _possible(torch, _OLDEST_TORCH)
    text = _text(version)
    beside = ("accelerate", "datasets", "pillow", *_NUMBERS, *_COMMON)
    modules = (*_TORCH_MODULES, "accelerate", "transformers.pipelines", "transformers.trainer")
    on_newest_torch = PythonEnvironment(
        f"transformers-{text}",
        ("torch", f"transformers=={text}.*", *_numpy_of(version < (4, 43)), *beside),
        modules,
        nearest=PythonEnvironment("transformers-newest", ("torch", "transformers", *beside), modules),
    )
    return PythonEnvironment(
        name=f"transformers-{text}-pytorch-{_text(base)}",
        requirements=(
            f"torch=={_text(base)}.*",
            f"transformers=={text}.*",
            *_numpy_of(base < (2, 3) or version < (4, 43)),
            *beside,
        ),
        modules=modules,
        note=_nearest("Transformers", transformers, text) if version != transformers[:2] else "",
        nearest=on_newest_torch,
    )


def tensorflow(wanted: Version) -> PythonEnvironment:
    """Return the environment of TensorFlow *wanted*: the build for CPUs where there is one of its own."""
    version = _possible(wanted, _OLDEST_TENSORFLOW)
    text = _text(version)
    package = "tensorflow-cpu" if (sys.platform, platform.machine()) == ("linux", "x86_64") else "tensorflow"
    beside, modules = (
        (*_NUMBERS, "requests", *_COMMON),
        ("boto3", "numpy", "pandas", "requests", "tensorflow"),
    )
    return PythonEnvironment(
        name=f"tensorflow-{text}",
        requirements=(f"{package}=={text}.*", *beside),
        modules=modules,
        note=_nearest("TensorFlow", wanted, text) if version != wanted[:2] else "",
        nearest=PythonEnvironment("tensorflow-newest", (package, *beside), modules),
    )


def mxnet(wanted: Version) -> PythonEnvironment:
    """Return the environment of MXNet 1.9.1, its last release, which names that NumPy 1.24 dropped still need."""
    beside = ("numpy==1.23.5", "pandas<2", "scipy<1.12", "scikit-learn==1.1.*")
    return PythonEnvironment(
        name="mxnet-1.9",
        requirements=("mxnet==1.9.1", *beside, *_COMMON),
        modules=("boto3", "mxnet", "numpy", "pandas"),
        note=_nearest("MXNet", wanted, "1.9") if wanted[:2] != (1, 9) else "",
    )


def notebook() -> PythonEnvironment:
    """Return the environment of notebook instances: JupyterLab, AWS's SDKs, and what notebooks mostly import."""
    return PythonEnvironment(
        name="notebook",
        requirements=(
            "jupyterlab==4.*", "ipykernel", "boto3", "sagemaker==2.257.*", "numpy", "pandas", "matplotlib",
            "scikit-learn", "rich", "pip",
        ),
        modules=(
            "IPython", "boto3", "ipykernel.kernelapp", "jupyterlab.labapp", "jupyter_server.serverapp", "matplotlib.pyplot",
            "matplotlib_inline.backend_inline", "numpy", "pandas", "rich", "sagemaker", "sklearn.cluster", "sklearn.datasets",
        ),
        compiled=True,
    )  # fmt: skip


def _possible(wanted: Version, oldest: Mapping[int, Version]) -> Version:
    """Return *wanted* (major, minor), or the first version with binaries for this Python, 3.N being *oldest*'s N."""
    return max(wanted[:2], oldest.get(sys.version_info.minor, max(oldest.values())))


def _numpy_of(before_2: bool) -> tuple[str, ...]:
    """NumPy 1 for what was built for it; of pyarrow only old releases work with it, which nothing in them says."""
    return ("numpy<2", "pyarrow<20") if before_2 else ()


def _text(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def _nearest(name: str, wanted: Version, given: str) -> str:
    """What a job is told that gets *given*."""
    version = ".".join(map(str, wanted))
    return (
        f"{name} {version} has no release for Python {sys.version_info.major}.{sys.version_info.minor}; "
        f"this job runs with the nearest that has, {given}."
    )
