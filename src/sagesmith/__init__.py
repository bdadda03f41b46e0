"""Sagesmith: a machine-learning platform that people run themselves and that speaks the AWS SageMaker API.

The names of the Python interface, `sagesmith.sdk`, can be imported from here; none is before it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sagesmith.sdk import (
        KNN,
        LDA,
        PCA,
        BlazingText,
        Channel,
        Estimator,
        FactorizationMachines,
        HuggingFace,
        IPInsights,
        KMeans,
        LinearLearner,
        Model,
        MXNet,
        Predictor,
        PyTorch,
        RandomCutForest,
        Session,
        SKLearn,
        TensorFlow,
        TrainingJob,
        Transformer,
        TransformJob,
        XGBoost,
        XGBoostScript,
    )

__all__ = [
    "KNN",
    "LDA",
    "PCA",
    "BlazingText",
    "Channel",
    "Estimator",
    "FactorizationMachines",
    "HuggingFace",
    "IPInsights",
    "KMeans",
    "LinearLearner",
    "MXNet",
    "Model",
    "Predictor",
    "PyTorch",
    "RandomCutForest",
    "SKLearn",
    "Session",
    "TensorFlow",
    "TrainingJob",
    "TransformJob",
    "Transformer",
    "XGBoost",
    "XGBoostScript",
    "__version__",
]

__version__: Final = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import a name of the Python interface now that it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module("sagesmith.sdk"), name)
    globals()[name] = value
    return value
