"""The metric definitions that SageMaker adds to training jobs of built-in algorithms.

They are applied to log lines in which a TAB reads ``#011``, as in CloudWatch Logs.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "BLAZINGTEXT_METRICS",
    "FACTORIZATION_MACHINES_METRICS",
    "KMEANS_METRICS",
    "KNN_METRICS",
    "LDA_METRICS",
    "LINEAR_LEARNER_METRICS",
    "PCA_METRICS",
    "RANDOM_CUT_FOREST_METRICS",
    "XGBOOST_METRICS",
]

# The evaluation metrics that the open XGBoost container lists for tuning.
_XGBOOST_NAMES: Final = (
    "accuracy", "auc", "aucpr", "balanced_accuracy", "cox-nloglik", "error", "f1", "f1_binary", "f1_macro",
    "gamma-deviance", "gamma-nloglik", "logloss", "mae", "map", "mape", "merror", "mlogloss", "mphe", "mse",
    "ndcg", "poisson-nloglik", "precision", "precision_macro", "precision_micro", "r2", "recall",
    "recall_macro", "recall_micro", "rmse", "rmsle", "tweedie-nloglik",
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

KNN_METRICS: Final[tuple[tuple[str, str], ...]] = (
    *PCA_METRICS,
    ("test:accuracy", r"#quality_metric: host=\S+, test accuracy <score>=(\S+)"),
    ("test:mse", r"#quality_metric: host=\S+, test mse <loss>=(\S+)"),
)

BLAZINGTEXT_METRICS: Final[tuple[tuple[str, str], ...]] = (
    ("train:mean_rho", r"#mean_rho: (\S+)"),
    ("train:accuracy", r"#train_accuracy: (\S+)"),
    ("validation:accuracy", r"#validation_accuracy: (\S+)"),
)

IPINSIGHTS_METRICS: Final[tuple[tuple[str, str], ...]] = (
    *PCA_METRICS,
    (
        "train:cross_entropy",
        r"#quality_metric: host=\S+, epoch=\S+, batch=\S+, train cross_entropy <loss>=(\S+)",
    ),
    (
        "validation:discriminator_auc",
        r"#quality_metric: host=\S+, validation discriminator_auc <score>=(\S+)",
    ),
)

LDA_METRICS: Final[tuple[tuple[str, str], ...]] = (
    *PCA_METRICS,
    ("train:pwll", r"#quality_metric: host=\S+, epoch=\S+, train pwll <score>=(\S+)"),
    ("test:pwll", r"#quality_metric: host=\S+, test pwll <score>=(\S+)"),
)

_LINEAR_LEARNER_NAMES: Final = {
    "mse": r"mse <loss>", "rmse": r"rmse <loss>", "absolute_loss": r"absolute_loss <loss>",
    "binary_classification_accuracy": r"binary_classification_accuracy <score>",
    "binary_f_beta": r"binary_f_\S+ <score>", "precision": r"precision <score>", "recall": r"recall <score>",
    "roc_auc_score": r"roc_auc_score <score>", "multiclass_accuracy": r"multiclass_accuracy <score>",
    "multiclass_top_k_accuracy": r"multiclass_top_k_accuracy_\S+ <score>", "dcg": r"dcg <score>",
    "macro_recall": r"macro_recall <score>", "macro_precision": r"macro_precision <score>",
    "macro_f_beta": r"macro_f_\S+ <score>",
}  # fmt: skip

LINEAR_LEARNER_METRICS: Final[tuple[tuple[str, str], ...]] = (
    *PCA_METRICS,
    *((f"{channel}:objective_loss", rf"#quality_metric: host=\S+, epoch=\S+, {channel} \S+_objective <loss>=(\S+)")
      for channel in ("train", "validation")),
    *((f"{channel}:objective_loss:final", rf"#quality_metric: host=\S+, {channel} \S+_objective <loss>=(\S+)")
      for channel in ("train", "validation")),
    ("test:objective_loss", r"#quality_metric: host=\S+, test \S+_objective <loss>=(\S+)"),
    *((f"{channel}:{name}", rf"#quality_metric: host=\S+, {channel} {words}=(\S+)")
      for channel in ("train", "validation", "test") for name, words in _LINEAR_LEARNER_NAMES.items()),
)  # fmt: skip

KMEANS_METRICS: Final[tuple[tuple[str, str], ...]] = (
    *PCA_METRICS,
    ("train:msd", r"#quality_metric: host=\S+, epoch=\S+, train msd <loss>=(\S+)"),
    ("train:ssd", r"#quality_metric: host=\S+, epoch=\S+, train ssd <loss>=(\S+)"),
    ("test:msd", r"#quality_metric: host=\S+, test msd <loss>=(\S+)"),
    ("test:ssd", r"#quality_metric: host=\S+, test ssd <loss>=(\S+)"),
)

_FACTORIZATION_MACHINES_NAMES: Final = {
    "rmse": r"rmse <loss>", "mse": r"mse <loss>", "absolute_loss": r"absolute_loss <loss>",
    "binary_classification_accuracy": r"binary_classification_accuracy <score>",
    "binary_classification_cross_entropy": r"binary_classification_cross_entropy <loss>",
    "binary_f_beta": r"binary_f_\S+ <score>",
}  # fmt: skip

FACTORIZATION_MACHINES_METRICS: Final[tuple[tuple[str, str], ...]] = (
    *PCA_METRICS,
    *((name, rf"#quality_metric: host=\S+, {where} {words}=(\S+)")
      for metric, words in _FACTORIZATION_MACHINES_NAMES.items()
      for name, where in ((f"train:{metric}", r"epoch=\S+, batch=\S+ train"), (f"train:{metric}:epoch", r"epoch=\S+, train"),
                          (f"test:{metric}", "test"))),
)  # fmt: skip

RANDOM_CUT_FOREST_METRICS: Final[tuple[tuple[str, str], ...]] = (
    *PCA_METRICS,
    *((f"test:{name}", rf"#quality_metric: host=\S+, test {name} <score>=(\S+)")
      for name in ("f1", "accuracy", "precision", "recall")),
)  # fmt: skip
