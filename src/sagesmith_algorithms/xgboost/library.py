"""The library, loaded without what it does not need here."""

from __future__ import annotations

import importlib
import sys
from typing import Any

__all__ = ["load_without_sklearn"]


def load_without_sklearn() -> None:
    """Import `xgboost` as if scikit-learn were not installed, in a process that has imported neither.

    `xgboost` imports scikit-learn if there is one, and with it pandas, for estimator classes that no job and no
    model server uses. That is four fifths of the time and two thirds of the memory of the import. Afterwards
    scikit-learn can be imported as usual; only `xgboost.XGBClassifier` and its like do not know of it.
    """
    if "xgboost" in sys.modules or "sklearn" in sys.modules:
        return
    modules: dict[str, Any] = sys.modules
    modules["sklearn"] = None  # Python's word for: this cannot be imported
    try:
        importlib.import_module("xgboost")
    finally:
        del modules["sklearn"]
