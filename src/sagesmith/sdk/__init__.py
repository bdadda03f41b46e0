"""The Python interface: estimators, models, endpoints and jobs as objects, for Sagesmith and for AWS alike.

It speaks the public AWS API alone and needs boto3, numpy, pandas and rich; each is imported where it is used, so that
importing this package takes some milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sagesmith.sdk._algorithms import (
        KNN,
        LDA,
        PCA,
        BlazingText,
        FactorizationMachines,
        IPInsights,
        KMeans,
        LinearLearner,
        RandomCutForest,
        XGBoost,
    )
    from sagesmith.sdk._channels import Channel
    from sagesmith.sdk._chart import Chart
    from sagesmith.sdk._errors import (
        ApiError,
        CredentialsRefused,
        DataMismatch,
        EndpointFailed,
        HyperparameterUnknown,
        JobFailed,
        NameInUse,
        NotFound,
        SdkError,
        ServerUnreachable,
    )
    from sagesmith.sdk._estimator import Estimator
    from sagesmith.sdk._frameworks import (
        HuggingFace,
        MXNet,
        PyTorch,
        ScriptModel,
        SKLearn,
        TensorFlow,
        XGBoostScript,
    )
    from sagesmith.sdk._model import Model
    from sagesmith.sdk._predictor import Predictor
    from sagesmith.sdk._session import Session, default_session
    from sagesmith.sdk._training_job import TrainingJob, curves
    from sagesmith.sdk._transform_job import TransformJob
    from sagesmith.sdk._transformer import Transformer

__all__ = [
    "KNN",
    "LDA",
    "PCA",
    "ApiError",
    "BlazingText",
    "Channel",
    "Chart",
    "CredentialsRefused",
    "DataMismatch",
    "EndpointFailed",
    "Estimator",
    "FactorizationMachines",
    "HuggingFace",
    "HyperparameterUnknown",
    "IPInsights",
    "JobFailed",
    "KMeans",
    "LinearLearner",
    "MXNet",
    "Model",
    "NameInUse",
    "NotFound",
    "Predictor",
    "PyTorch",
    "RandomCutForest",
    "SKLearn",
    "ScriptModel",
    "SdkError",
    "ServerUnreachable",
    "Session",
    "TensorFlow",
    "TrainingJob",
    "TransformJob",
    "Transformer",
    "XGBoost",
    "XGBoostScript",
    "curves",
    "default_session",
]

_MODULES = {
    "_algorithms": (
        "KNN",
        "LDA",
        "PCA",
        "BlazingText",
        "FactorizationMachines",
        "IPInsights",
        "KMeans",
        "LinearLearner",
        "RandomCutForest",
        "XGBoost",
    ),
    "_channels": ("Channel",),
    "_chart": ("Chart",),
    "_errors": (
        "ApiError",
        "CredentialsRefused",
        "DataMismatch",
        "EndpointFailed",
        "HyperparameterUnknown",
        "JobFailed",
        "NameInUse",
        "NotFound",
        "SdkError",
        "ServerUnreachable",
    ),
    "_estimator": ("Estimator",),
    "_frameworks": (
        "HuggingFace",
        "MXNet",
        "PyTorch",
        "ScriptModel",
        "SKLearn",
        "TensorFlow",
        "XGBoostScript",
    ),
    "_training_job": ("TrainingJob", "curves"),
    "_model": ("Model",),
    "_predictor": ("Predictor",),
    "_session": ("Session", "default_session"),
    "_transform_job": ("TransformJob",),
    "_transformer": ("Transformer",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import what is asked for now."""
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
