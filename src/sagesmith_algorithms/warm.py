"""Importing this module loads what the built-in algorithms' jobs and model servers import, all of it.

It is for a process that then waits for its work (see `sagesmith_toolkit.warm`), so that the work starts at once.
"""

from __future__ import annotations

import importlib
from typing import Final

from sagesmith_algorithms.registry import algorithm, names

__all__: list[str] = []

_MODULES: Final = (
    "orjson",
    "pyarrow.csv",
    "scipy.sparse",
    "threadpoolctl",
    "sagesmith_algorithms.serving",
    "sagesmith_algorithms.training",
    "sagesmith_algorithms.xgboost.serving",
    "sagesmith_algorithms.xgboost.training",
    "sagesmith_toolkit.rendezvous",
    "sagesmith_toolkit.server",
)

for _name in names():
    algorithm(_name).load_libraries()
for _name in _MODULES:
    importlib.import_module(_name)
