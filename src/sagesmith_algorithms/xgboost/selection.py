"""Selectable inference: `SAGEMAKER_INFERENCE_OUTPUT` names what a response holds for each row.

Source: AWS's page "Amazon SageMaker AI XGBoost: selectable inference" and aws/sagemaker-xgboost-container,
`algorithm_mode/serve_utils.py`.
"""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np
import orjson

from sagesmith_algorithms.errors import CustomerError
from sagesmith_algorithms.formats import content_type as types
from sagesmith_algorithms.formats import recordio
from sagesmith_algorithms.formats.batch import Floats

__all__ = ["selectable", "selected"]

_CLASSES: Final = ("predicted_label", "labels", "raw_score", "raw_scores")
_PROBABILITIES: Final = (*_CLASSES, "probability", "probabilities")
_BY_OBJECTIVE: Final = {
    "binary:logistic": _PROBABILITIES,
    "binary:logitraw": _CLASSES,
    "binary:hinge": _CLASSES,
    "multi:softmax": ("predicted_label", "labels", "raw_score"),
    "multi:softprob": _PROBABILITIES,
}
_VALUES: Final = ("predicted_score",)


def selectable(text: str, objective: str) -> tuple[str, ...]:
    """Return the keys *text* names, () for none.

    Raises:
        CustomerError: a key does not exist for *objective*.
    """
    keys = tuple(key.strip().lower() for key in text.split(",") if key.strip())
    offered = _BY_OBJECTIVE.get(objective, _VALUES)
    wrong = [key for key in keys if key not in offered]
    if wrong:
        raise CustomerError(
            f"SAGEMAKER_INFERENCE_OUTPUT asks for {', '.join(wrong)}, but a model with the objective "
            f"{objective!r} offers {', '.join(offered)}."
        )
    return keys


def selected(
    predictions: Floats, keys: tuple[str, ...], objective: str, n_classes: int, accept: str
) -> bytes:
    """Return a response that holds *keys* for each row of *predictions*, in the form *accept* names."""
    rows = [
        {key: _value(key, prediction, objective, n_classes) for key in keys}
        for prediction in predictions.tolist()
    ]
    if accept == types.JSON:
        return orjson.dumps({"predictions": rows})
    if accept == types.JSON_LINES:
        return b"".join(orjson.dumps(row) + b"\n" for row in rows)
    if accept == types.RECORDIO:
        return b"".join(
            recordio.encode_columns({key: np.array([row[key]], np.float32) for key in keys}) for row in rows
        )
    return "\n".join(
        ",".join(f'"{json.dumps(v)}"' if isinstance(v, list) else str(v) for v in row.values())
        for row in rows
    ).encode()


def _value(key: str, prediction: Any, objective: str, n_classes: int) -> Any:
    if key == "labels":
        return list(range(n_classes)) if objective.startswith("multi:") else [0, 1]
    if key == "predicted_label":
        if isinstance(prediction, list):
            return int(np.argmax(prediction))
        if objective in ("multi:softmax", "binary:hinge"):
            return int(prediction)
        return int(prediction > (0.0 if objective == "binary:logitraw" else 0.5))
    if key in ("probability", "raw_score"):
        return max(prediction) if isinstance(prediction, list) else prediction
    if key in ("probabilities", "raw_scores"):
        return prediction if isinstance(prediction, list) else [1.0 - prediction, prediction]
    return prediction
