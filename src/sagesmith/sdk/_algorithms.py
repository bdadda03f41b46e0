"""The built-in algorithms as classes: an estimator each, whose hyperparameters have types.

What a class takes is written down in `_hyperparameters`; required hyperparameters that the data tells, such as
``feature_dim``, need not be given.
"""

from __future__ import annotations

from typing import Unpack

from sagesmith.sdk import _hyperparameters as declared
from sagesmith.sdk._estimator import Estimator

__all__ = [
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
]


class KMeans(Estimator):
    """k-means: `KMeans(k=3).fit(frame)`; predicts ``closest_cluster`` and ``distance_to_cluster``."""

    def __init__(self, **given: Unpack[declared.KMeansArguments]) -> None:
        super().__init__("kmeans", **given)


class PCA(Estimator):
    """Principal components: `PCA(num_components=2).fit(frame)`; predicts the projections."""

    def __init__(self, **given: Unpack[declared.PCAArguments]) -> None:
        super().__init__("pca", **given)


class LinearLearner(Estimator):
    """Linear models: `LinearLearner(predictor_type="regressor").fit(frame, target="y")`."""

    def __init__(self, **given: Unpack[declared.LinearLearnerArguments]) -> None:
        super().__init__("linear-learner", **given)


class KNN(Estimator):
    """Nearest neighbors: `KNN(k=5, predictor_type="classifier").fit(frame, target="y")`."""

    def __init__(self, **given: Unpack[declared.KNNArguments]) -> None:
        super().__init__("knn", **given)


class XGBoost(Estimator):
    """Boosted trees: `XGBoost(objective="binary:logistic").fit(frame, target="y")`; 100 rounds unless said."""

    def __init__(self, **given: Unpack[declared.XGBoostArguments]) -> None:
        super().__init__("xgboost", **given)


class FactorizationMachines(Estimator):
    """Factorization machines, for sparse rows: `fit((matrix, labels))`."""

    def __init__(self, **given: Unpack[declared.FactorizationMachinesArguments]) -> None:
        super().__init__("factorization-machines", **given)


class RandomCutForest(Estimator):
    """Anomalies: `RandomCutForest().fit(frame)`; predicts a ``score`` for each row."""

    def __init__(self, **given: Unpack[declared.RandomCutForestArguments]) -> None:
        super().__init__("randomcutforest", **given)


class LDA(Estimator):
    """Topics of word counts: `LDA(num_topics=10).fit(counts)`; predicts each row's mixture of topics."""

    def __init__(self, **given: Unpack[declared.LDAArguments]) -> None:
        super().__init__("lda", **given)


class IPInsights(Estimator):
    """Who uses which address: `fit(frame)` with the columns entity and IP address."""

    def __init__(self, **given: Unpack[declared.IPInsightsArguments]) -> None:
        super().__init__("ipinsights", **given)


class BlazingText(Estimator):
    """Word vectors, or a classifier of texts: `BlazingText(mode="supervised").fit(frame, target="label")`."""

    def __init__(self, **given: Unpack[declared.BlazingTextArguments]) -> None:
        super().__init__("blazingtext", **given)
