"""The benchmark's model in the process of any peer: XGBoost's file on one thread, or a script's ``model_fn`` and ``predict_fn``."""

import runpy
from collections.abc import Callable
from typing import Any

__all__ = ["load"]


def load(place: str) -> tuple[Callable[[Any], Any], int]:
    """Return what predicts an array of rows, and how many columns these have."""
    if place.endswith(".py"):
        script = runpy.run_path(place)
        model = script["model_fn"]("")
        return lambda rows: script["predict_fn"](rows, model), script["WIDTH"]
    import xgboost

    booster = xgboost.Booster(model_file=place)
    booster.set_param({"nthread": 1})
    return booster.inplace_predict, booster.num_features()
