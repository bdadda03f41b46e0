"""Whether an image runs a script of the user's, and where that script is.

The image of the built-in XGBoost is also the one of the framework XGBoost; what a job or model says decides.
A hyperparameter is text that is JSON (the SDKs write ``"\\"train.py\\""``) or plain (tuning jobs write ``train.py``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from sagesmith.images._catalog import TOOLKIT, Image

__all__ = ["code_uri", "for_serving", "for_training"]

PROGRAM: Final = "sagemaker_program"
SOURCE: Final = "sagemaker_submit_directory"
CODE_CHANNEL: Final = "code"


def for_training(image: Image, hyperparameters: Mapping[str, str], channels: Iterable[str]) -> Image:
    """Return *image* as a training job with these hyperparameters and names of channels runs it."""
    if PROGRAM in hyperparameters or SOURCE in hyperparameters or CODE_CHANNEL in channels:
        return _as_framework(image)
    return image


def for_serving(image: Image, environment: Mapping[str, str]) -> Image:
    """Return *image* as a model with this environment runs it."""
    if environment.get(PROGRAM.upper()) or environment.get(SOURCE.upper()):
        return _as_framework(image)
    return image


def code_uri(named: Mapping[str, str]) -> str:
    """Return the ``s3://`` archive of the code that hyperparameters or environment variables name; "" if none."""
    text = named.get(SOURCE) or named.get(SOURCE.upper()) or ""
    try:
        decoded = json.loads(text)
    except ValueError:
        decoded = text
    return decoded if isinstance(decoded, str) and decoded.startswith("s3://") else ""


def _as_framework(image: Image) -> Image:
    if image.kind != "builtin" or image.python is None:
        return image
    return replace(
        image,
        kind="framework",
        warm="",
        train_command=(*TOOLKIT, "train"),
        serve_command=(*TOOLKIT, "serve"),
        environment={"SAGESMITH_FRAMEWORK": image.framework},
    )
