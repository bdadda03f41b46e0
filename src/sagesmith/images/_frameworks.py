"""The frameworks whose images Sagesmith runs: which environment each tag of theirs means.

A tag names a version, such as ``1.2-1`` or ``2.8.0-cpu-py312``. That version is installed on the Python that runs
Sagesmith; where no release of it exists for this Python, the nearest one that does, and jobs are told so.
What stands beside the framework is of its time: an old scikit-learn does not work with NumPy 2.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from sagesmith.images._environments import PythonEnvironment

__all__ = ["FRAMEWORKS", "Framework", "framework_of"]

_Version = tuple[int, ...]
_COMMON: Final = ("boto3", "pip")


@dataclass(frozen=True, slots=True)
class Framework:
    """One framework: its name, its repositories, an example of a tag, and the environment of a version."""

    name: str
    label: str
    repository: re.Pattern[str]
    tag: re.Pattern[str]
    example: str
    environment: Callable[[_Version], PythonEnvironment]

    def environment_of(self, tag: str) -> PythonEnvironment | None:
        """Return the environment that *tag* means; None if no image ever had such a tag."""
        match = self.tag.fullmatch(tag)
        return self.environment(tuple(int(part) for part in match[1].split("."))) if match else None


_OLDEST_SKLEARN: Final[Mapping[int, _Version]] = {11: (1, 1), 12: (1, 3), 13: (1, 5), 14: (1, 7)}
"""The first release of scikit-learn with binaries for Python 3.N."""

_SKLEARN_MODULES: Final = (
    "boto3", "joblib", "pandas", "sklearn.cluster", "sklearn.compose", "sklearn.datasets", "sklearn.decomposition",
    "sklearn.ensemble", "sklearn.linear_model", "sklearn.metrics", "sklearn.model_selection", "sklearn.neighbors",
    "sklearn.neural_network", "sklearn.pipeline", "sklearn.preprocessing", "sklearn.svm", "sklearn.tree",
)  # fmt: skip


def _sklearn(wanted: _Version) -> PythonEnvironment:
    oldest = _OLDEST_SKLEARN.get(sys.version_info.minor, max(_OLDEST_SKLEARN.values()))
    version = max(wanted[:2], oldest)
    text = f"{version[0]}.{version[1]}"
    return PythonEnvironment(
        name=f"scikit-learn-{text}",
        requirements=(f"scikit-learn=={text}.*", *_of_their_time(version), "joblib", "six", *_COMMON),
        modules=_SKLEARN_MODULES,
        note=_nearest("scikit-learn", wanted, text) if version != wanted[:2] else "",
    )


def _of_their_time(sklearn: _Version) -> tuple[str, ...]:
    """NumPy, SciPy and pandas for a version of scikit-learn."""
    if sklearn < (1, 3):
        return ("numpy<2", "scipy<1.12", "pandas<2")
    if sklearn < (1, 5):
        return ("numpy<2", "scipy<1.14", "pandas<2.3")
    return ("numpy", "scipy", "pandas")


def _xgboost(wanted: _Version) -> PythonEnvironment:
    version = wanted[:2]
    text = f"{version[0]}.{version[1]}"
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


def _nearest(name: str, wanted: _Version, given: str) -> str:
    version = ".".join(map(str, wanted))
    return (
        f"{name} {version} has no release for Python {sys.version_info.major}.{sys.version_info.minor}; "
        f"this job runs with the nearest that has, {given}."
    )


_SUFFIX: Final = r"(?:-[A-Za-z0-9_.]+)*"

FRAMEWORKS: Final[tuple[Framework, ...]] = (
    Framework(
        "scikit-learn",
        "scikit-learn",
        re.compile(r"sagemaker-scikit-learn"),
        re.compile(rf"(\d+\.\d+(?:\.\d+)?){_SUFFIX}"),
        "1.2-1-cpu-py3",
        _sklearn,
    ),
    Framework(
        "xgboost",
        "XGBoost",
        re.compile(r"sagemaker-xgboost"),
        re.compile(rf"(\d+\.\d+){_SUFFIX}"),
        "1.7-1",
        _xgboost,
    ),
)


def framework_of(repository: str) -> Framework | None:
    """Return the framework whose images are in *repository*."""
    return next((f for f in FRAMEWORKS if f.repository.fullmatch(repository)), None)
