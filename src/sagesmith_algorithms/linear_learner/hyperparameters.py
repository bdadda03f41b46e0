"""The hyperparameters of linear learner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sagesmith_algorithms.hyperparameters import Flag, Hyperparameter, Hyperparameters, Number, Text

__all__ = ["HYPERPARAMETERS", "MINI_BATCH_SETTINGS"]

BINARY: Final = "binary_classifier"
MULTICLASS: Final = "multiclass_classifier"
REGRESSOR: Final = "regressor"

_REGRESSION_LOSSES = ("squared_loss", "absolute_loss", "eps_insensitive_squared_loss",
                      "eps_insensitive_absolute_loss", "quantile_loss", "huber_loss")  # fmt: skip
LOSSES: Final[Mapping[str, tuple[str, ...]]] = {
    BINARY: ("logistic", "hinge_loss"),
    MULTICLASS: ("softmax_loss",),
    REGRESSOR: _REGRESSION_LOSSES,
}

MINI_BATCH_SETTINGS: Final = (
    "learning_rate", "momentum", "beta_1", "beta_2", "bias_lr_mult", "lr_scheduler_step", "lr_scheduler_factor",
    "lr_scheduler_minimum_lr",
)  # fmt: skip
"""What means something to an optimizer that takes the data in mini-batches, and to no other."""

_INSENSITIVE: Final = ("eps_insensitive_squared_loss", "eps_insensitive_absolute_loss")
_BINARY: Final = {"predictor_type": (BINARY,)}
_MULTICLASS: Final = {"predictor_type": (MULTICLASS,)}
_REGRESSION: Final = {"predictor_type": (REGRESSOR,)}
_WITH_BIAS: Final = {"use_bias": (True,)}
_SCHEDULED: Final = {"use_lr_scheduler": (True,)}


def _chosen_by(criterion: str) -> dict[str, tuple[str, ...]]:
    return {"binary_classifier_model_selection_criteria": (criterion,)}


def _loss_fits(values: Mapping[str, Any]) -> Iterable[str]:
    known = LOSSES[values["predictor_type"]]
    if values["loss"] not in ("auto", *known):
        yield (
            f"loss={values['loss']} is not for predictor_type={values['predictor_type']}: "
            f"expected auto, {', '.join(known)}"
        )


def _classes_are_given(values: Mapping[str, Any]) -> Iterable[str]:
    if values["predictor_type"] == MULTICLASS and values.get("num_classes", 1) < 3:
        yield "num_classes is required for predictor_type=multiclass_classifier: an integer at least 3"


def _momentum_is_for_sgd(values: Mapping[str, Any]) -> Iterable[str]:
    optimizer = values["optimizer"]
    if values["momentum"] != "auto" and optimizer in ("adam", "adagrad"):
        yield f"momentum is for optimizer=sgd or rmsprop, not {optimizer}; leave it out"
    if optimizer not in ("adam", "auto"):
        for name in ("beta_1", "beta_2"):
            if values[name] != "auto":
                yield f"{name} is for optimizer=adam, not {optimizer}; leave it out"


def _share(name: str, default: Any, doc: str, **more: Any) -> Number:
    return Number(name=name, default=default, above=0.0, below=1.0, doc=doc, **more)


class _Weight(Hyperparameter):
    """A positive number, auto or balanced."""

    __slots__ = ()

    def _parse(self, text: str) -> float | str:
        if text in ("auto", "balanced"):
            return text
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0.0 < value < float("inf"):
            raise ValueError(f"expected {self.allowed()}")
        return value

    def allowed(self) -> str:
        """Return the values in words."""
        return "a number above 0, balanced, or auto"


HYPERPARAMETERS: Final = Hyperparameters(
    Text(name="predictor_type", required=True, choices=(BINARY, MULTICLASS, REGRESSOR),
         doc="What the label is: 0 or 1, a class from 0 to num_classes - 1, or a number."),
    Number(name="feature_dim", default="auto", auto=True, integer=True, low=1, doc="Number of features."),
    Number(name="num_classes", default=1, integer=True, low=1, high=1_000_000, needs=_MULTICLASS, doc="Number of classes."),
    Number(name="mini_batch_size", default=1000, integer=True, low=1, tunable=True,
           doc="Rows in a batch of the optimizers sgd, adam, rmsprop and adagrad."),
    Number(name="epochs", default=15, integer=True, low=1, doc="Most passes over the data."),
    Flag(name="use_bias", default=True, tunable=True, doc="Learn an intercept."),
    Text(name="binary_classifier_model_selection_criteria", default="accuracy",
         choices=("accuracy", "f1", "f_beta", "precision_at_target_recall", "recall_at_target_precision",
                  "cross_entropy_loss", "loss_function"),
         needs=_BINARY, doc="By what the threshold and the best of the models are chosen."),
    _share("target_recall", 0.8, "Recall for precision_at_target_recall.", needs=_chosen_by("precision_at_target_recall")),
    _share("target_precision", 0.8, "Precision for recall_at_target_precision.", needs=_chosen_by("recall_at_target_precision")),
    _Weight(name="positive_example_weight_mult", default=1.0, tunable=True, needs=_BINARY, doc="Weight of the rows of label 1."),
    Flag(name="balance_multiclass_weights", default=False, needs=_MULTICLASS, doc="Give each class the same weight in all."),
    Number(name="f_beta", default=1.0, above=0.0, needs={"predictor_type": (BINARY, MULTICLASS)}, doc="beta of the F score."),
    Number(name="accuracy_top_k", default=3, integer=True, low=1, high=1_000_000, needs=_MULTICLASS, doc="k of the top-k accuracy."),
    Number(name="num_models", default="auto", auto=True, integer=True, low=1, doc="Models trained side by side."),
    Number(name="num_calibration_samples", default="auto", auto=True, integer=True, low=1,
           needs=_BINARY, doc="Rows that the threshold is chosen on."),
    Text(name="init_method", default="uniform", choices=("uniform", "normal"), doc="First weights."),
    Number(name="init_scale", default=0.07, above=0.0, needs={"init_method": ("uniform",)}, doc="Bound of uniform first weights."),
    Number(name="init_sigma", default=0.01, above=0.0, needs={"init_method": ("normal",)}, doc="Standard deviation of normal first weights."),
    Number(name="init_bias", default=0.0, needs=_WITH_BIAS, doc="First intercept."),
    Text(name="optimizer", default="auto", choices=("auto", "sgd", "adam", "rmsprop", "adagrad"),
         doc="auto: Newton steps, or adam where they do not fit."),
    Text(name="loss", default="auto",
         choices=("auto", "logistic", "hinge_loss", "softmax_loss", *_REGRESSION_LOSSES), doc="What is minimized."),
    Number(name="wd", default="auto", auto=True, low=0.0, tunable=True, doc="L2 regularization."),
    Number(name="l1", default="auto", auto=True, low=0.0, tunable=True, doc="L1 regularization."),
    Number(name="momentum", default="auto", auto=True, low=0.0, below=1.0, doc="Momentum of sgd and rmsprop."),
    Number(name="learning_rate", default="auto", auto=True, above=0.0, tunable=True, doc="Step size."),
    Number(name="beta_1", default="auto", auto=True, low=0.0, below=1.0, doc="Decay of adam's first moment."),
    Number(name="beta_2", default="auto", auto=True, low=0.0, below=1.0, doc="Decay of adam's second moment."),
    Number(name="bias_lr_mult", default="auto", auto=True, above=0.0, needs=_WITH_BIAS, doc="Learning rate of the intercept, in all."),
    Number(name="bias_wd_mult", default="auto", auto=True, low=0.0, needs=_WITH_BIAS, doc="L2 regularization of the intercept, in wd."),
    Flag(name="use_lr_scheduler", default=True, doc="Let the learning rate become smaller."),
    Number(name="lr_scheduler_step", default="auto", auto=True, integer=True, low=1,
           needs=_SCHEDULED, doc="Batches after which it does."),
    _share("lr_scheduler_factor", "auto", "By what it is multiplied.", auto=True, needs=_SCHEDULED),
    Number(name="lr_scheduler_minimum_lr", default="auto", auto=True, above=0.0, needs=_SCHEDULED, doc="Its least value."),
    Flag(name="normalize_data", default=True, auto=True, doc="Scale features to standard deviation 1."),
    Flag(name="normalize_label", default="auto", auto=True, needs=_REGRESSION, doc="Scale a regressor's labels likewise."),
    Flag(name="unbias_data", default="auto", auto=True, doc="Shift features to mean 0."),
    Flag(name="unbias_label", default="auto", auto=True, needs=_REGRESSION, doc="Shift a regressor's labels likewise."),
    Number(name="num_point_for_scaler", default=10_000, integer=True, low=1, doc="Rows that these are taken from."),
    Number(name="margin", default=1.0, low=0.0, needs={"loss": ("hinge_loss",)}, doc="Margin of hinge_loss."),
    _share("quantile", 0.5, "Quantile of quantile_loss.", needs={"loss": ("quantile_loss",)}),
    Number(name="loss_insensitivity", default=0.01, above=0.0, needs={"loss": _INSENSITIVE}, doc="Error that eps_insensitive losses forgive."),
    Number(name="huber_delta", default=1.0, above=0.0, needs={"loss": ("huber_loss",)}, doc="Error from which huber_loss grows evenly."),
    Number(name="early_stopping_patience", default=3, integer=True, low=1,
           doc="Passes without improvement after which training ends."),
    Number(name="early_stopping_tolerance", default=0.001, above=0.0, doc="Relative improvement that counts."),
    rules=(_loss_fits, _classes_are_given, _momentum_is_for_sgd),
    ignored=("_num_kv_servers", "_kvstore", "_num_gpus", "_log_level", "_enable_profiler", "_wait_for_instances"),
)  # fmt: skip
