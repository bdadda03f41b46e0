"""The frameworks whose images Sagesmith runs: which environment each tag of theirs means.

A tag names a version, such as ``1.2-1`` or ``2.8.0-cpu-py312``, or two (``2.1.0-transformers4.37.0-cpu-py310``). What
it means is told by repository and tag alone; the tags that AWS adds with each release need nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sagesmith.images import _recipes
from sagesmith.images._environments import PythonEnvironment

__all__ = ["FRAMEWORKS", "Framework", "framework_of"]


@dataclass(frozen=True, slots=True)
class Framework:
    """One framework: its name, its repositories, an example of a tag, and the environment of a version.

    `environment` takes one version for each group of `tag`.
    """

    name: str
    label: str
    repository: re.Pattern[str]
    tag: re.Pattern[str]
    example: str
    environment: Callable[..., PythonEnvironment]

    def environment_of(self, tag: str) -> PythonEnvironment | None:
        """Return the environment that *tag* means; None if no image ever had such a tag."""
        match = self.tag.fullmatch(tag)
        if match is None:
            return None
        return self.environment(
            *(tuple(int(part) for part in version.split(".")) for version in match.groups())
        )


_SUFFIX: Final = r"(?:-[A-Za-z0-9_.]+)*"
_VERSION: Final = r"(\d+\.\d+(?:\.\d+)?)"
_BUILD: Final = rf"-(?:cpu|gpu){_SUFFIX}"


def _framework(
    name: str,
    label: str,
    repository: str,
    tag: str,
    example: str,
    environment: Callable[..., PythonEnvironment],
) -> Framework:
    return Framework(name, label, re.compile(repository), re.compile(tag), example, environment)


FRAMEWORKS: Final[tuple[Framework, ...]] = (
    _framework(
        "scikit-learn",
        "scikit-learn",
        r"sagemaker-scikit-learn",
        _VERSION + _SUFFIX,
        "1.2-1-cpu-py3",
        _recipes.sklearn,
    ),
    _framework(
        "xgboost", "XGBoost", r"sagemaker-xgboost", rf"(\d+\.\d+){_SUFFIX}", "1.7-1", _recipes.xgboost
    ),
    _framework(
        "pytorch",
        "PyTorch",
        r"pytorch-(?:training|inference)(?:-graviton)?|sagemaker-pytorch",
        _VERSION + _BUILD,
        "2.6.0-cpu-py312",
        _recipes.pytorch,
    ),
    _framework(
        "tensorflow",
        "TensorFlow",
        r"tensorflow-(?:training|inference)(?:-graviton)?|sagemaker-tensorflow(?:-scriptmode|-serving)?",
        _VERSION + _BUILD,
        "2.19.0-cpu-py312",
        _recipes.tensorflow,
    ),
    _framework(
        "mxnet",
        "MXNet",
        r"mxnet-(?:training|inference)|sagemaker-mxnet(?:-serving)?",
        _VERSION + _BUILD,
        "1.9.0-cpu-py38",
        _recipes.mxnet,
    ),
    _framework(
        "huggingface",
        "Hugging Face",
        r"huggingface-pytorch-(?:training|inference)",
        rf"{_VERSION}-transformers{_VERSION}{_BUILD}",
        "2.6.0-transformers4.51.3-cpu-py312-ubuntu22.04",
        _recipes.huggingface,
    ),
)


def framework_of(repository: str) -> Framework | None:
    """Return the framework whose images are in *repository*."""
    return next((f for f in FRAMEWORKS if f.repository.fullmatch(repository)), None)
