"""The hyperparameters of `sagemaker-xgboost` (1.x to 3.x) and of the legacy `xgboost:1`, as data.

Source: the hyperparameter table of AWS's XGBoost page and aws/sagemaker-xgboost-container.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sagesmith_algorithms.hyperparameters import Flag, Hyperparameters, Number, Text, Words

__all__ = ["CUSTOM_METRICS", "HYPERPARAMETERS", "NOT_PASSED", "OBJECTIVES", "is_maximized"]

OBJECTIVES: Final = (
    "reg:squarederror", "reg:linear", "reg:squaredlogerror", "reg:logistic", "reg:pseudohubererror",
    "reg:absoluteerror", "reg:quantileerror", "reg:gamma", "reg:tweedie", "binary:logistic", "binary:logitraw",
    "binary:hinge", "count:poisson", "survival:cox", "survival:aft", "multi:softmax", "multi:softprob",
    "rank:pairwise", "rank:ndcg", "rank:map",
)  # fmt: skip

NATIVE_METRICS: Final = (
    "rmse", "rmsle", "mae", "mape", "mphe", "logloss", "error", "merror", "mlogloss", "auc", "aucpr", "pre", "ndcg",
    "map", "ndcg-", "map-", "poisson-nloglik", "gamma-nloglik", "cox-nloglik", "gamma-deviance", "tweedie-nloglik",
    "aft-nloglik", "interval-regression-accuracy", "quantile",
)  # fmt: skip
CUSTOM_METRICS: Final = (
    "accuracy", "balanced_accuracy", "f1", "f1_binary", "f1_macro", "mse", "precision", "precision_macro",
    "precision_micro", "r2", "recall", "recall_macro", "recall_micro",
)  # fmt: skip
_MAXIMIZED: Final = (
    *(m for m in CUSTOM_METRICS if m != "mse"), "auc", "aucpr", "map", "ndcg", "pre", "interval-regression-accuracy",
)  # fmt: skip
_WITH_NUMBER = re.compile(r"(error|ndcg|map|pre|tweedie-nloglik|quantile)@[\d.]+-?\Z")

NOT_PASSED: Final = (
    "num_round", "csv_weights", "early_stopping_rounds", "save_model_on_termination", "eval_metric", "_kfold",
    "_num_cv_round", "use_dask_gpu_training", "nthread", "silent",
)  # fmt: skip
"""Hyperparameters that are this container's, and not parameters of `xgboost.train`."""

_DART: Final = {"booster": ("dart",)}
_LINEAR: Final = {"booster": ("gblinear",)}
_RANKING: Final = {"objective": ("rank:pairwise", "rank:ndcg", "rank:map")}
_AFT: Final = {"objective": ("survival:aft",)}


def is_maximized(metric: str) -> bool:
    """Return whether more of *metric* is better."""
    return metric.partition("@")[0].rstrip("-") in _MAXIMIZED


def _list_of(kind: type, shape: str) -> Any:
    def check(text: str) -> None:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            raise ValueError(f"expected {shape}") from None
        if not isinstance(value, (list, tuple, dict)) or not all(isinstance(item, kind) for item in value):
            raise ValueError(f"expected {shape}")

    return check


def _rules(values: Mapping[str, Any]) -> Iterator[str]:
    objective = values["objective"]
    metrics = values.get("eval_metric", ())
    if objective.startswith("multi:") and "num_class" not in values:
        yield f"The objective {objective!r} needs the hyperparameter 'num_class', the number of classes"
    if not objective.startswith("multi:") and values.get("num_class", 1) > 1:
        yield f"The hyperparameter 'num_class' is for multi:softmax and multi:softprob, not for {objective!r}"
    if "auc" in metrics and objective.startswith("reg:") and objective != "reg:logistic":
        yield f"The eval_metric 'auc' is for classification and ranking, not for {objective!r}"
    if values.get("tree_method") == "gpu_hist" or str(values.get("device", "")).startswith(("cuda", "gpu")):
        from xgboost import build_info

        if not build_info().get("USE_CUDA"):
            yield "Training on a GPU needs an XGBoost built for it; use tree_method hist"
    if "_num_cv_round" in values and "_kfold" not in values:
        yield "The hyperparameter '_num_cv_round' needs '_kfold'"
    if objective == "reg:quantileerror" and "quantile_alpha" not in values:
        yield "The objective 'reg:quantileerror' needs the hyperparameter 'quantile_alpha'"


def _check_device(text: str) -> None:
    if not re.fullmatch(r"(cpu|cuda|gpu)(:\d+)?", text):
        raise ValueError("expected cpu or cuda, perhaps with a number, as cuda:0")


HYPERPARAMETERS: Final = Hyperparameters(
    Number(name="num_round", required=True, integer=True, low=1, tunable=True, doc="Number of boosting rounds."),
    Number(name="num_class", integer=True, low=2, doc="Number of classes, for multi:softmax and multi:softprob."),
    Text(name="objective", default="reg:squarederror", choices=OBJECTIVES, doc="What is learned."),
    Words(name="eval_metric", choices=(*NATIVE_METRICS, *CUSTOM_METRICS),
          matches=lambda word: bool(_WITH_NUMBER.match(word)), doc="Metrics logged after each round."),
    Number(name="early_stopping_rounds", integer=True, low=1, doc="Rounds without progress after which to stop."),
    Text(name="booster", default="gbtree", choices=("gbtree", "gblinear", "dart"), doc="The kind of model."),
    Number(name="verbosity", default=1, integer=True, low=0, high=3, doc="How much the library prints."),
    Number(name="nthread", integer=True, low=1, doc="Threads; all of the instance's by default."),
    Number(name="eta", low=0, high=1, tunable=True, doc="Step size."),
    Number(name="gamma", low=0, tunable=True, doc="Least loss reduction of a split."),
    Number(name="max_depth", integer=True, low=0, tunable=True, doc="Depth of a tree; 0 for no limit."),
    Number(name="min_child_weight", low=0, tunable=True, doc="Least weight in a leaf."),
    Number(name="max_delta_step", low=0, tunable=True, doc="Largest step of a leaf's weight."),
    Number(name="subsample", above=0, high=1, tunable=True, doc="Share of rows for a tree."),
    Number(name="colsample_bytree", above=0, high=1, tunable=True, doc="Share of columns for a tree."),
    Number(name="colsample_bylevel", above=0, high=1, tunable=True, doc="Share of columns for a level."),
    Number(name="colsample_bynode", above=0, high=1, tunable=True, doc="Share of columns for a split."),
    Number(name="lambda", low=0, tunable=True, doc="L2 regularization."),
    Number(name="alpha", low=0, tunable=True, doc="L1 regularization."),
    Text(name="tree_method", choices=("auto", "exact", "approx", "hist", "gpu_hist"), doc="How splits are found."),
    Text(name="device", check=_check_device, doc="cpu or cuda."),
    Number(name="sketch_eps", above=0, below=1, idle="XGBoost dropped it in 1.6", doc="Fineness of the sketch of approx."),
    Number(name="scale_pos_weight", above=0, doc="Weight of the positive class."),
    Text(name="updater", doc="Tree updaters, separated by commas."),
    Text(name="dsplit", choices=("row", "col"), idle="instances always hold rows", doc="What instances hold."),
    Number(name="refresh_leaf", integer=True, low=0, high=1, idle="trees are grown here, not updated",
           doc="Whether the refresh updater changes leaves."),
    Text(name="process_type", choices=("default", "update"), doc="Build trees, or update given ones."),
    Text(name="grow_policy", choices=("depthwise", "lossguide"), doc="Which node is split next."),
    Number(name="max_leaves", integer=True, low=0, doc="Most leaves of a tree; 0 for no limit."),
    Number(name="max_bin", integer=True, low=2, doc="Bins of a feature."),
    Text(name="predictor", choices=("auto", "cpu_predictor", "gpu_predictor"), idle="XGBoost dropped it in 2.0", doc="What predicts."),
    Text(name="sample_type", choices=("uniform", "weighted"), needs=_DART, doc="How trees are dropped."),
    Text(name="normalize_type", choices=("tree", "forest"), needs=_DART, doc="How dropped trees count."),
    Number(name="rate_drop", low=0, high=1, needs=_DART, doc="Share of trees dropped."),
    Number(name="one_drop", integer=True, low=0, high=1, needs=_DART, doc="Drop at least one tree."),
    Number(name="skip_drop", low=0, high=1, needs=_DART, doc="Chance of dropping none."),
    Number(name="lambda_bias", low=0, high=1, idle="XGBoost dropped it", doc="L2 regularization of the bias."),
    Text(name="feature_selector", choices=("cyclic", "shuffle", "random", "greedy", "thrifty"),
         needs=_LINEAR, doc="The order of features."),
    Number(name="top_k", integer=True, low=0, needs=_LINEAR, doc="Features to select."),
    Number(name="tweedie_variance_power", above=1, below=2, needs={"objective": ("reg:tweedie",)}, doc="Power of the variance."),
    Number(name="huber_slope", above=0, needs={"objective": ("reg:pseudohubererror",)}, doc="Slope of the loss."),
    Text(name="quantile_alpha", needs={"objective": ("reg:quantileerror",)}, doc="Quantile, or a list."),
    Number(name="base_score", doc="The prediction before the first round."),
    Number(name="seed", default=0, integer=True, doc="Seed of all randomness."),
    Number(name="num_parallel_tree", integer=True, low=1, doc="Trees built in each round."),
    Text(name="monotone_constraints", doc="Direction of each feature, as (1,0,-1)."),
    Text(name="interaction_constraints", check=_list_of(list, "lists of feature numbers, as [[0, 1], [2, 3]]"),
         doc="Features that may stand together."),
    Text(name="aft_loss_distribution", choices=("normal", "logistic", "extreme"), needs=_AFT, doc="Distribution of the noise."),
    Number(name="aft_loss_distribution_scale", above=0, needs=_AFT, doc="Scale of the distribution."),
    Text(name="sampling_method", choices=("uniform", "gradient_based"), doc="How rows are sampled (GPU)."),
    Number(name="max_cat_to_onehot", integer=True, low=1, idle="no content type has columns of categories",
           doc="Categories that are split one by one."),
    Number(name="max_cached_hist_node", integer=True, low=1, doc="Histograms kept."),
    Text(name="lambdarank_pair_method", choices=("mean", "topk"), needs=_RANKING, doc="How pairs are chosen."),
    Number(name="lambdarank_num_pair_per_sample", integer=True, low=1, needs=_RANKING, doc="Pairs of each row."),
    Flag(name="deterministic_histogram", idle="it always is", doc="Whether equal runs give equal trees."),
    Flag(name="single_precision_histogram", idle="XGBoost dropped it in 1.6", doc="Histograms of float32."),
    Number(name="prob_buffer_row", above=0, high=1, idle="XGBoost dropped it", doc="Size of a buffer."),
    Number(name="csv_weights", default=0, integer=True, low=0, high=1, doc="1: the second CSV column holds weights."),
    Flag(name="save_model_on_termination", default=False, doc="Keep the model so far when the job is stopped."),
    Number(name="_kfold", integer=True, low=2, doc="Folds of a cross-validation; one model for each."),
    Number(name="_num_cv_round", integer=True, low=1, doc="Repetitions of the cross-validation."),
    Flag(name="use_dask_gpu_training", default=False, idle="instances share the work without Dask", doc="Several GPUs by Dask."),
    Number(name="silent", integer=True, low=0, high=1, doc="Legacy: 1 prints nothing."),
    rules=(_rules,),
)  # fmt: skip
