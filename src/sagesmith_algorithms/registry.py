"""The built-in algorithms by name. A name costs nothing until its class is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from sagesmith_algorithms.errors import CustomerError

if TYPE_CHECKING:
    from sagesmith_algorithms.base import Algorithm

__all__ = ["WARM_MODULES", "algorithm", "names"]

_CLASSES: Final = {
    "kmeans": ("sagesmith_algorithms.kmeans", "KMeans"),
    "xgboost": ("sagesmith_algorithms.xgboost", "XGBoost"),
}

WARM_MODULES: Final = (
    "xgboost",
    "xgboost.tracker",
    "scipy.sparse",
    "pyarrow.csv",
    "threadpoolctl",
    "orjson",
    "sagesmith_algorithms.kmeans",
    "sagesmith_algorithms.training",
    "sagesmith_algorithms.serving",
    "sagesmith_algorithms.formats.readers",
    "sagesmith_algorithms.xgboost.training",
    "sagesmith_algorithms.xgboost.serving",
    "sagesmith_toolkit.server",
    "sagesmith_toolkit.rendezvous",
)
"""What a warm process for built-in algorithms loads beforehand (see `sagesmith_toolkit.warm`)."""


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
