"""The metric definitions that SageMaker adds to training jobs of built-in algorithms.

They are applied to log lines in which a TAB reads ``#011``, as in CloudWatch Logs.
"""

from __future__ import annotations

from typing import Final

__all__ = ["KMEANS_METRICS", "PCA_METRICS", "XGBOOST_METRICS"]

# The evaluation metrics that the open XGBoost container lists for tuning.
_XGBOOST_NAMES: Final = (
    "accuracy", "auc", "aucpr", "balanced_accuracy", "error", "f1", "f1_binary", "f1_macro", "gamma-deviance",
    "gamma-nloglik", "logloss", "mae", "map", "mape", "merror", "mlogloss", "mphe", "mse", "ndcg",
    "poisson-nloglik", "precision", "precision_macro", "precision_micro", "r2", "recall", "recall_macro",
    "recall_micro", "rmse", "rmsle", "tweedie-nloglik",
)  # fmt: skip

# Not (\S+): a line has several values, and the TAB between them is visible text.
_NUMBER: Final = r"([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)"

XGBOOST_METRICS: Final[tuple[tuple[str, str], ...]] = tuple(
    (f"{channel}:{name}", rf".*\[[0-9]+\].*#011{channel}-{name}:{_NUMBER}.*")
    for channel in ("train", "validation")
    for name in _XGBOOST_NAMES
)

PCA_METRICS: Final[tuple[tuple[str, str], ...]] = (
    ("train:progress", r"#progress_metric: host=\S+, completed (\S+) %"),
    ("train:throughput", r"#throughput_metric: host=\S+, train throughput=(\S+) records/second"),
)

KMEANS_METRICS: Final[tuple[tuple[str, str], ...]] = (
    *PCA_METRICS,
    ("train:msd", r"#quality_metric: host=\S+, epoch=\S+, train msd <loss>=(\S+)"),
    ("train:ssd", r"#quality_metric: host=\S+, epoch=\S+, train ssd <loss>=(\S+)"),
    ("test:msd", r"#quality_metric: host=\S+, test msd <loss>=(\S+)"),
    ("test:ssd", r"#quality_metric: host=\S+, test ssd <loss>=(\S+)"),
)
