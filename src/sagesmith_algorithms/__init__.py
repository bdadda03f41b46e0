"""SageMaker's built-in algorithms, as training jobs and model servers, and as a library.

``from sagesmith_algorithms import KMeans; KMeans(k=3).fit(X).predict(X)`` needs no server. Importing this package
loads none of the libraries the algorithms stand on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sagesmith_algorithms.errors import CustomerError, DataError, HyperparameterError, RequestError
from sagesmith_algorithms.registry import algorithm, names

if TYPE_CHECKING:
    from sagesmith_algorithms.blazingtext import BlazingText
    from sagesmith_algorithms.factorization_machines import FactorizationMachines
    from sagesmith_algorithms.ipinsights import IPInsights
    from sagesmith_algorithms.kmeans import KMeans
    from sagesmith_algorithms.knn import KNN
    from sagesmith_algorithms.lda import LDA
    from sagesmith_algorithms.linear_learner import LinearLearner
    from sagesmith_algorithms.pca import PCA
    from sagesmith_algorithms.random_cut_forest import RandomCutForest
    from sagesmith_algorithms.xgboost import XGBoost

__all__ = [
    "KNN",
    "LDA",
    "PCA",
    "BlazingText",
    "CustomerError",
    "DataError",
    "FactorizationMachines",
    "HyperparameterError",
    "IPInsights",
    "KMeans",
    "LinearLearner",
    "RandomCutForest",
    "RequestError",
    "XGBoost",
    "algorithm",
    "names",
]

_ESTIMATORS = {
    "BlazingText": "blazingtext",
    "FactorizationMachines": "factorization-machines",
    "IPInsights": "ipinsights",
    "KNN": "knn",
    "KMeans": "kmeans",
    "LDA": "lda",
    "LinearLearner": "linear-learner",
    "PCA": "pca",
    "RandomCutForest": "randomcutforest",
    "XGBoost": "xgboost",
}


def __getattr__(name: str) -> Any:
    if name in _ESTIMATORS:
        return algorithm(_ESTIMATORS[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
