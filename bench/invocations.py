"""What every server of the comparison gets: one model, one request, one way to check and to load it."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.load import measure
from bench.server import Sagesmith

__all__ = ["CONNECTIONS", "Model", "check", "load", "train"]

CONNECTIONS = (1, 16, 64)


@dataclass(frozen=True, slots=True)
class Model:
    """The model, one row of its data, and what it says to that row.

    `needs` is the ending of the names of environments that hold its library as well, such as ``-torch``.
    """

    file: Path
    row: tuple[float, ...]
    expected: float
    needs: str = ""

    @property
    def csv(self) -> bytes:
        """The row as text/csv."""
        return ",".join(f"{value:.6g}" for value in self.row).encode()


def train(folder: Path) -> Model:
    """Train the model on scikit-learn's breast-cancer data and save it in *folder*."""
    import numpy as np
    import xgboost
    from sklearn.datasets import load_breast_cancer

    features, labels = load_breast_cancer(return_X_y=True)
    # What the request's text can carry is what all servers predict.
    features = np.array([[float(f"{value:.6g}") for value in row] for row in features], np.float32)
    matrix = xgboost.DMatrix(features, label=labels)
    parameters = {"objective": "binary:logistic", "max_depth": 6, "eta": 0.3, "seed": 7, "nthread": 2}
    booster = xgboost.train(parameters, matrix, 100)
    file = folder / "model.ubj"
    booster.save_model(file)
    booster.save_model(folder / "model.json")
    return Model(file, tuple(float(value) for value in features[17]), float(booster.predict(matrix)[17]))


def load(url: str, headers: Mapping[str, str], body: bytes, seconds: float) -> dict[str, float]:
    """Warm up for a second, then measure at each number of connections."""
    measure(url, headers, body, connections=4, seconds=1)
    found: dict[str, float] = {}
    for connections in CONNECTIONS:
        result = measure(url, headers, body, connections=connections, seconds=seconds)
        found[f"p50 at {connections}"] = result.p50_s
        found[f"p99 at {connections}"] = result.p99_s
        found[f"rps at {connections}"] = result.rps
        found[f"bad at {connections}"] = result.bad
    return found


def check(
    url: str, headers: Mapping[str, str], body: bytes, expected: float, server: Sagesmith | None = None
) -> None:
    """Send one request and compare the probability.

    Raises:
        RuntimeError: it is not the model's.
    """
    import ssl

    context = None
    if url.startswith("https") and server is not None:
        context = ssl.create_default_context(cafile=server.environment["AWS_CA_BUNDLE"])
    request = urllib.request.Request(url, data=body, headers=dict(headers), method="POST")
    with urllib.request.urlopen(request, timeout=30, context=context) as answer:
        text = answer.read().decode()
    numbers = [float(number) for number in re.findall(r"-?\d+\.\d+(?:[eE][-+]?\d+)?|\d[eE]-\d+", text)]
    if not any(abs(number - expected) < 1e-6 for number in numbers):
        raise RuntimeError(f"{url} answered {text[:200]!r} instead of {expected}")
