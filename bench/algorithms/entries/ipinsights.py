"""IP Insights: generated logins, as there is no open set of useful size: 5,000 users, each in three /20 networks, seed 29.

No library one could take does this; the bound is an area under the ROC curve of 0.98 for new logins against shuffled ones.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.algorithms.entry import Comparison, Contender, Entry, Run
from bench.algorithms.jobs import channel, loaded, trained
from bench.algorithms.measures import area_under_roc

N_USERS = 5000


def prepare(folder: Path, quick: bool) -> None:
    rng = np.random.default_rng(29)
    networks = rng.integers(0, 1 << 20, 2000) << 12
    homes = rng.integers(0, len(networks), (N_USERS, 3))
    for name, n in (("train.csv", 20_000 if quick else 300_000), ("held.csv", 20_000)):
        users = rng.integers(0, N_USERS, n)
        addresses = networks[homes[users, rng.integers(0, 3, n)]] + rng.integers(0, 1 << 12, n)
        octets = [(addresses >> shift) & 255 for shift in (24, 16, 8, 0)]
        lines = [f"user-{u},{a}.{b}.{c}.{d}\n" for u, a, b, c, d in zip(users, *octets, strict=True)]
        (folder / name).write_text("".join(lines))


def ours(run: Run, times: int = 1) -> None:
    from sagesmith_algorithms import IPInsights

    algorithm = loaded("ipinsights")
    train = channel(run.folder, "train", [run.folder / "train.csv"], times)
    given = {"num_entity_vectors": 2 * N_USERS, "vector_dim": 64, "epochs": 5, "mini_batch_size": 1000,
             "learning_rate": 0.01}  # fmt: skip
    with run.timed():
        model_dir = trained(algorithm, given, {"train": train}, "text/csv")
    rows = [line.split(",") for line in (run.folder / "held.csv").read_text().splitlines()]
    others = np.random.default_rng(0).permutation(len(rows))
    wrong = [(user, rows[other][1]) for (user, _), other in zip(rows, others, strict=True)]
    scores = IPInsights.load(model_dir).score_samples([*rows, *wrong])
    run.say(auc=area_under_roc(np.repeat([1, 0], len(rows)), scores))


ENTRY = Entry(
    "IP Insights, 300,000 logins",
    prepare,
    (Contender("Sagesmith", ours), Contender("fourfold data", lambda run: ours(run, 4))),
    (
        Comparison("seconds", "fourfold data", "Sagesmith", most=4.2, quality="auc", bound=0.98),
        Comparison("peak_mb", "fourfold data", "Sagesmith"),
    ),
)
