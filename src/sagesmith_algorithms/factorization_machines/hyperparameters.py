"""The hyperparameters of factorization machines, as SageMaker declares them.

Where SageMaker has no default, None stands for: no limit (`clip_gradient`), the mean over the mini-batch
(`rescale_grad`), and 1e-8 (`eps`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sagesmith_algorithms.hyperparameters import Hyperparameter, Hyperparameters, Number, Text

__all__ = ["BINARY", "HYPERPARAMETERS", "REGRESSOR"]

BINARY: Final = "binary_classifier"
REGRESSOR: Final = "regressor"
_PARTS: Final = {
    "bias": ("the bias", 0.1, 0.01, 0.01),
    "linear": ("the weights of features", 0.001, 0.001, 0.01),
    "factors": ("the factors", 0.0001, 0.00001, 0.001),
}


def _of_part(part: str) -> tuple[Hyperparameter, ...]:
    what, rate, decay, sigma = _PARTS[part]
    return (
        Text(name=f"{part}_init_method", default="normal", choices=("normal", "uniform", "constant"),
             doc=f"How {what} begin."),
        Number(name=f"{part}_init_scale", low=0, tunable=True, needs={f"{part}_init_method": ("uniform",)}, doc=f"With uniform: {what} begin between -scale and scale."),
        Number(name=f"{part}_init_sigma", default=sigma, low=0, tunable=True,
               needs={f"{part}_init_method": ("normal",)}, doc=f"With normal: the standard deviation with which {what} begin."),
        Number(name=f"{part}_init_value", tunable=True, needs={f"{part}_init_method": ("constant",)}, doc=f"With constant: what {what} begin with."),
        Number(name=f"{part}_lr", default=rate, low=0, tunable=True, doc=f"Learning rate of {what}."),
        Number(name=f"{part}_wd", default=decay, low=0, tunable=True, doc=f"Weight decay of {what}."),
    )  # fmt: skip


def _beginnings_are_whole(values: Mapping[str, Any]) -> Iterable[str]:
    for part in _PARTS:
        method = values[f"{part}_init_method"]
        needed = {"uniform": f"{part}_init_scale", "constant": f"{part}_init_value"}.get(method)
        if needed and needed not in values:
            yield f"The hyperparameter {needed!r} is required with {part}_init_method={method}"


HYPERPARAMETERS: Final = Hyperparameters(
    Number(name="feature_dim", required=True, integer=True, low=1, high=2**31 - 1, doc="Number of features."),
    Number(name="num_factors", required=True, integer=True, low=1, high=4096, doc="Factors of each feature."),
    Text(name="predictor_type", required=True, choices=(BINARY, REGRESSOR), doc="What is predicted."),
    Number(name="epochs", default=1, integer=True, low=1, doc="Passes over the data."),
    Number(name="mini_batch_size", default=1000, integer=True, low=1, tunable=True,
           doc="Rows of a step, of all instances together."),
    Number(name="clip_gradient", above=0, doc="Largest gradient; larger ones are cut."),
    Number(name="eps", low=0, doc="What keeps the optimizer from dividing by 0."),
    Number(name="rescale_grad", above=0, doc="What gradients, summed over the rows of a step, are multiplied with."),
    *_of_part("bias"),
    *_of_part("linear"),
    *_of_part("factors"),
    rules=(_beginnings_are_whole,),
    ignored=("_num_kv_servers", "_kvstore", "_num_gpus", "_log_level", "_enable_profiler", "_optimizer",
             "_wd", "_use_full_symbolic", "_use_batched_shuffle", "_learning_rate", "_data_format"),
)  # fmt: skip
