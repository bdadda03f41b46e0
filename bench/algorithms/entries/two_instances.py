"""Sharded input on two instances: the CPU time of an instance, in shares of what one alone takes, and the model's worth.

Each instance is a process with one thread, and half of the files. What all must do (agree, grow the trees of the whole
sample, ...) is in its time, too; loading libraries is not. What trains alone has another job of its kind beside it: two
busy cores of one machine are slower than one, and it is not the machine that is measured. Generated rows, seed 31: two
classes that a bent border parts.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.algorithms.entry import Comparison, Contender, Entry, Run
from bench.algorithms.jobs import RECORDIO, loaded
from bench.algorithms.measures import area_under_roc, explained_variance, inertia

D = 20
HOSTS = ("127.0.1.1", "127.0.1.2")
GIVEN: Mapping[str, Mapping[str, Any]] = {
    "factorization-machines": {"num_factors": 8, "predictor_type": "binary_classifier", "epochs": 5,
                               "factors_lr": 0.01, "linear_lr": 0.01, "factors_wd": 0, "feature_dim": D},
    "ipinsights": {"num_entity_vectors": 4000, "vector_dim": 32, "epochs": 5, "mini_batch_size": 1000,
                   "learning_rate": 0.01},
    "kmeans": {"k": 50, "feature_dim": D},
    "knn": {"k": 10, "predictor_type": "classifier", "sample_size": 20_000, "feature_dim": D},
    "linear-learner": {"predictor_type": "binary_classifier", "feature_dim": D, "num_models": 8},
    "pca": {"num_components": 5, "feature_dim": D, "mini_batch_size": 5000},
    "randomcutforest": {"feature_dim": D},
    "xgboost": {"num_round": 50, "objective": "binary:logistic", "max_depth": 5},
}  # fmt: skip
TIMES: Final = {"kmeans": 4, "knn": 4, "linear-learner": 4, "pca": 8, "randomcutforest": 4}
"""Some need a second for a million rows. These get each file so often: then what all must do is little beside it."""


def _rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, D), dtype=np.float32) * np.linspace(2, 0.5, D, dtype=np.float32)
    border = x[:, 0] + 0.5 * x[:, 1] * x[:, 2] - 0.3 * x[:, 3]
    return x, (border + rng.standard_normal(n, dtype=np.float32) > 0).astype(np.float32)


def _logins(n: int, seed: int) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    users, home = rng.integers(0, 2000, n), rng.integers(0, 3, n)
    network = (users * 7919 + home * 104_729) % 65_536
    return [
        (f"u{u}", f"10.{a >> 8}.{a & 255}.{b}")
        for u, a, b in zip(users, network, rng.integers(0, 256, n), strict=True)
    ]


def prepare(folder: Path, quick: bool) -> None:
    from sagesmith_algorithms.formats import recordio

    n, n_logins = (20_000, 10_000) if quick else (1_000_000, 300_000)
    x, y = _rows(n, 31)
    logins = _logins(n_logins, 31)
    for kind in ("rows", "logins"):
        for part in range(2):
            (folder / kind / str(part)).mkdir(parents=True)
    for part in range(2):
        half = slice(part, None, 2)
        (folder / "rows" / str(part) / "a").write_bytes(recordio.encode(x[half], y[half]))
        text = "".join(f"{user},{address}\n" for user, address in logins[half])
        (folder / "logins" / str(part) / "a").write_text(text)


def _instance(name: str, base: str, files: list[str], host: str, n_hosts: int, pipe: Any) -> None:
    """Be one instance of a job: train, and send the CPU time that it took."""
    from sagesmith_toolkit.environment import Channel, Environment

    algorithm = loaded(name)
    folder = Path(base, host, "train")
    folder.mkdir(parents=True)
    for number, file in enumerate(files * TIMES.get(name, 1)):
        (folder / str(number)).symlink_to(file)
    content_type = "text/csv" if name == "ipinsights" else RECORDIO
    environment = Environment(
        base_dir=Path(base, host),
        hyperparameters={key: str(value) for key, value in GIVEN[name].items()},
        channels={"train": Channel("train", folder, content_type, distribution="ShardedByS3Key")},
        hosts=HOSTS[:n_hosts],
        current_host=host,
        checkpoint_dir=Path(base, "checkpoints"),
        job_name=base,
    )
    began = time.process_time()
    algorithm.train(environment)
    pipe.send(time.process_time() - began)


def trained(run: Run, name: str, n_hosts: int) -> None:
    """Train on two instances, or twice on one; note the CPU time of the busiest, and what the model is worth."""
    os.environ.update(
        dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "SM_NUM_CPUS"), "1")
    )
    bases = [tempfile.mkdtemp(dir=run.folder) for _ in range(2 // n_hosts)] * n_hosts
    shards = [
        str(run.folder / ("logins" if name == "ipinsights" else "rows") / str(part) / "a")
        for part in range(2)
    ]
    context, started = multiprocessing.get_context("spawn"), []
    with run.timed():
        for rank, base in enumerate(bases):
            here, there = context.Pipe(duplex=False)
            host, files = (HOSTS[0], shards) if n_hosts == 1 else (HOSTS[rank], [shards[rank]])
            process = context.Process(target=_instance, args=(name, base, files, host, n_hosts, there))
            process.start()
            there.close()
            started.append((process, here))
        times = [here.recv() for _, here in started]
        for process, _ in started:
            process.join()
    run.say(cpu_s=max(times), worth=_worth(name, Path(bases[0], HOSTS[0], "model")))


def _worth(name: str, folder: Path) -> float:
    import sagesmith_algorithms as library

    x, y = _rows(20_000, 32)
    if name == "ipinsights":
        met = _logins(5000, 32)
        wrong = [
            (user, met[i][1])
            for (user, _), i in zip(met, np.random.default_rng(0).permutation(len(met)), strict=True)
        ]
        scores = library.IPInsights.load(folder).score_samples([*met, *wrong])
        return area_under_roc(np.repeat([1, 0], len(met)), scores)
    if name == "kmeans":
        return -inertia(x, library.KMeans.load(folder).cluster_centers_)
    if name == "pca":
        return explained_variance(x, library.PCA.load(folder).components_)
    if name == "knn":
        return float((library.KNN.load(folder).predict(x[:5000]) == y[:5000]).mean())
    if name == "randomcutforest":
        odd = np.random.default_rng(5).uniform(-6, 6, (200, D)).astype(np.float32)
        scores = -library.RandomCutForest.load(folder).score_samples(np.concatenate([x[:5000], odd]))
        return area_under_roc(np.repeat([0, 1], (5000, 200)), scores)
    if name == "xgboost":
        import xgboost

        booster = xgboost.Booster()
        booster.load_model(folder / "xgboost-model")
        return area_under_roc(y, booster.predict(xgboost.DMatrix(x)))
    model: Any = (library.LinearLearner if name == "linear-learner" else library.FactorizationMachines).load(
        folder
    )
    return area_under_roc(y, model.decision_function(x))


def _contender(name: str, n_hosts: int) -> Callable[[Run], None]:
    return lambda run: trained(run, name, n_hosts)


ENTRY = Entry(
    "sharded input, 1,000,000 x 20",
    prepare,
    tuple(
        Contender(f"{name}, {words}", _contender(name, n_hosts))
        for name in GIVEN
        for words, n_hosts in (("two instances", 2), ("one instance", 1))
    ),
    tuple(
        Comparison(
            "cpu_s", f"{name}, two instances", f"{name}, one instance", most=0.65, quality="worth",
            worse_by=0.3 if name == "kmeans" else 0.005,
        )
        for name in GIVEN
    ),
)  # fmt: skip
