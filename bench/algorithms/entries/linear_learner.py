"""Linear learner, PERFORMANCE B.3: 500,000 x 100, correlated features, seed 3, judged on 100,000 further rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.algorithms.entry import Comparison, Contender, Entry, Run
from bench.algorithms.jobs import channel, loaded, trained
from bench.algorithms.measures import area_under_roc


def prepare(folder: Path, quick: bool) -> None:
    from sagesmith_algorithms.formats import recordio

    rng = np.random.default_rng(3)
    n, d = (60_000 if quick else 600_000), 100
    x = rng.standard_normal((n, d), dtype=np.float32)
    x = x + 0.5 * x[:, [(j * 7 + 1) % d for j in range(d)]]
    w = (rng.standard_normal(d) * (rng.random(d) < 0.5)).astype(np.float32) * 0.4
    y = (rng.random(n) < 1 / (1 + np.exp(-(x @ w + 0.2)))).astype(np.float32)
    edge = n * 5 // 6
    for name, part in (("train", slice(edge)), ("test", slice(edge, None))):
        np.save(folder / f"{name}-x.npy", x[part])
        np.save(folder / f"{name}-y.npy", y[part])
        (folder / f"{name}.pbr").write_bytes(recordio.encode(x[part], y[part]))


def ours(run: Run, *, times: int = 1, validated: bool = False, **hyperparameters: Any) -> None:
    from sagesmith_algorithms import LinearLearner

    algorithm = loaded("linear-learner")
    channels = {"train": channel(run.folder, "train", [run.folder / "train.pbr"], times)}
    if validated:
        channels["validation"] = channel(run.folder, "validation", [run.folder / "test.pbr"])
    with run.timed():
        model_dir = trained(algorithm, {"predictor_type": "binary_classifier", **hyperparameters}, channels)
    _judge(run, LinearLearner.load(model_dir).decision_function)


def lbfgs(run: Run) -> None:
    from sklearn.linear_model import LogisticRegression

    with run.timed():
        x, y = np.load(run.folder / "train-x.npy"), np.load(run.folder / "train-y.npy")
        model = LogisticRegression(max_iter=100).fit(x, y)
    _judge(run, model.decision_function)


def _judge(run: Run, decide: Any) -> None:
    x, y = np.load(run.folder / "test-x.npy"), np.load(run.folder / "test-y.npy")
    run.say(auc=area_under_roc(y, decide(x)))


ENTRY = Entry(
    "linear learner, 500,000 x 100",
    prepare,
    (
        Contender("Sagesmith", ours),
        Contender("scikit-learn lbfgs", lbfgs),
        Contender("1 model, validated", lambda run: ours(run, validated=True, num_models=1)),
        Contender("32 models, validated", lambda run: ours(run, validated=True, num_models=32)),
    ),
    (
        Comparison("seconds", "Sagesmith", "scikit-learn lbfgs", most=1.0, quality="auc", worse_by=0.0005),
        Comparison("peak_mb", "Sagesmith", "scikit-learn lbfgs"),
        Comparison(
            "seconds", "32 models, validated", "1 model, validated", most=4.0, quality="auc", worse_by=0.0005
        ),
    ),
)
