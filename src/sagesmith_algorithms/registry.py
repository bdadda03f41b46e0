"""The built-in algorithms by name. A name costs nothing until its class is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from sagesmith_algorithms.errors import CustomerError

if TYPE_CHECKING:
    from sagesmith_algorithms.base import Algorithm

__all__ = ["algorithm", "names"]

_CLASSES: Final = {
    "blazingtext": ("sagesmith_algorithms.blazingtext", "BlazingText"),
    "factorization-machines": ("sagesmith_algorithms.factorization_machines", "FactorizationMachines"),
    "ipinsights": ("sagesmith_algorithms.ipinsights", "IPInsights"),
    "kmeans": ("sagesmith_algorithms.kmeans", "KMeans"),
    "knn": ("sagesmith_algorithms.knn", "KNN"),
    "lda": ("sagesmith_algorithms.lda", "LDA"),
    "linear-learner": ("sagesmith_algorithms.linear_learner", "LinearLearner"),
    "pca": ("sagesmith_algorithms.pca", "PCA"),
    "randomcutforest": ("sagesmith_algorithms.random_cut_forest", "RandomCutForest"),
    "xgboost": ("sagesmith_algorithms.xgboost", "XGBoost"),
}


def names() -> tuple[str, ...]:
    """Return the names of all built-in algorithms."""
    return tuple(sorted(_CLASSES))


def algorithm(name: str) -> type[Algorithm]:
    """Return the algorithm called *name*.

    Raises:
        CustomerError: there is none of that name.
    """
    if name not in _CLASSES:
        raise CustomerError(f"There is no built-in algorithm {name!r}; there are {', '.join(names())}.")
    module, cls = _CLASSES[name]
    found: type[Algorithm] = getattr(importlib.import_module(module), cls)
    return found
