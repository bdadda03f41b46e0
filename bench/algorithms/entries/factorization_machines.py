"""Factorization machines, PERFORMANCE B.2: 1,000,000 ratings of 6,000 users and 4,000 items, rank 8, noise 0.5, seed 7."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.algorithms.entry import Comparison, Contender, Entry, Run
from bench.algorithms.jobs import channel, loaded, trained

USERS, ITEMS, RANK = 6000, 4000, 8
GOOD = 0.58


def prepare(folder: Path, quick: bool) -> None:
    from sagesmith_algorithms.formats import recordio

    rng = np.random.default_rng(7)
    n_train = 100_000 if quick else 1_000_000
    n = n_train * 5 // 4
    often_u, often_i = rng.zipf(1.3, 4 * n_train) - 1, rng.zipf(1.3, 4 * n_train) - 1
    often_u, often_i = often_u[often_u < USERS], often_i[often_i < ITEMS]
    users, items = rng.permutation(USERS), rng.permutation(ITEMS)
    u = np.where(
        rng.random(n) < 0.5, users[often_u[rng.integers(0, len(often_u), n)]], rng.integers(0, USERS, n)
    )
    i = np.where(
        rng.random(n) < 0.5, items[often_i[rng.integers(0, len(often_i), n)]], rng.integers(0, ITEMS, n)
    )
    of_u, of_i = 0.4 * rng.standard_normal(USERS), 0.5 * rng.standard_normal(ITEMS)
    p, q = 0.5 * rng.standard_normal((USERS, RANK)), 0.5 * rng.standard_normal((ITEMS, RANK))
    y = 3.5 + of_u[u] + of_i[i] + np.einsum("nk,nk->n", p[u], q[i]) + 0.5 * rng.standard_normal(n)
    for name, part in (("train", slice(n_train)), ("test", slice(n_train, None))):
        np.savez(folder / f"{name}.npz", u=u[part], i=i[part], y=y[part].astype(np.float32))
    rows = one_hot(u[:n_train], i[:n_train], USERS, ITEMS)
    (folder / "train.pbr").write_bytes(recordio.encode(rows, y[:n_train].astype(np.float32)))


def one_hot(u: np.ndarray, i: np.ndarray, n_users: int, n_items: int) -> Any:
    """Return a row with two ones for each pair."""
    from scipy.sparse import csr_matrix

    n = len(u)
    columns = np.column_stack([u, n_users + i]).ravel().astype(np.int32)
    pointers = np.arange(0, 2 * n + 1, 2, dtype=np.int32)
    return csr_matrix((np.ones(2 * n, np.float32), columns, pointers), shape=(n, n_users + n_items))


def root_mean_square(found: np.ndarray, y: np.ndarray) -> float:
    """Return the root of the mean squared difference."""
    return float(np.sqrt(np.mean((np.asarray(found, np.float64) - y) ** 2)))


def ours(run: Run, times: int = 1) -> None:
    from sagesmith_algorithms import FactorizationMachines

    algorithm = loaded("factorization-machines")
    train = channel(run.folder, "train", [run.folder / "train.pbr"], times)
    given = {
        "feature_dim": USERS + ITEMS, "num_factors": RANK, "predictor_type": "regressor", "epochs": 3 if times == 1 else 1,
        "linear_lr": 0.01, "factors_lr": 0.01, "bias_wd": 0, "linear_wd": 1e-5, "factors_wd": 1e-5,
        "factors_init_sigma": 0.1,
    }  # fmt: skip
    with run.timed():
        model_dir = trained(algorithm, given, {"train": train})
    test = np.load(run.folder / "test.npz")
    rows = one_hot(test["u"], test["i"], USERS, ITEMS)
    run.say(rmse=root_mean_square(FactorizationMachines.load(model_dir).predict(rows), test["y"]))


def surprise(run: Run) -> None:
    import pandas as pd
    from surprise import SVD, Dataset, Reader

    with run.timed():
        train = np.load(run.folder / "train.npz")
        table = pd.DataFrame({"u": train["u"], "i": train["i"], "r": train["y"]})
        data = Dataset.load_from_df(table, Reader(rating_scale=(-5, 12))).build_full_trainset()
        model = SVD(n_factors=RANK, n_epochs=20, random_state=1, lr_all=0.02, reg_all=0.05).fit(data)
    test = np.load(run.folder / "test.npz")
    some = slice(25_000)
    found = [model.predict(u, i).est for u, i in zip(test["u"][some], test["i"][some], strict=True)]
    run.say(rmse=root_mean_square(np.array(found), test["y"][some]))


def torch_adam(run: Run) -> None:
    import torch

    torch.set_num_threads(2)
    torch.manual_seed(1)

    def tensors(name: str) -> tuple[Any, Any]:
        data = np.load(run.folder / f"{name}.npz")
        pairs = np.column_stack([data["u"], USERS + data["i"]]).astype(np.int64)
        return torch.from_numpy(pairs), torch.from_numpy(data["y"])

    with run.timed():
        x, y = tensors("train")
        weights, factors = (
            torch.nn.Embedding(USERS + ITEMS, 1),
            torch.nn.Embedding(USERS + ITEMS, RANK),
        )
        bias = torch.nn.Parameter(y.mean().clone())
        torch.nn.init.zeros_(weights.weight)
        torch.nn.init.normal_(factors.weight, 0, 0.1)

        def score(some: Any) -> Any:
            v = factors(some)
            pairs = 0.5 * (v.sum(1) ** 2 - (v**2).sum(1)).sum(1)
            return bias + weights(some).sum((1, 2)) + pairs

        parameters = [*weights.parameters(), *factors.parameters(), bias]
        optimizer = torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.05)
        for _ in range(20 if run.quick else 5):
            order = torch.randperm(len(y))
            for start in range(0, len(y), 1024):
                some = order[start : start + 1024]
                optimizer.zero_grad()
                ((score(x[some]) - y[some]) ** 2).mean().backward()
                optimizer.step()
    x, y = tensors("test")
    with torch.no_grad():
        run.say(rmse=root_mean_square(score(x).numpy(), y.numpy()))


ENTRY = Entry(
    "factorization machines, 1,000,000 x 10,000",
    prepare,
    (
        Contender("Sagesmith", ours),
        Contender("surprise SVD", surprise, "surprise"),
        Contender("torch Adam", torch_adam, "torch"),
        Contender("tenfold data", lambda run: ours(run, 10)),
    ),
    (
        Comparison("seconds", "Sagesmith", "surprise SVD", most=0.5, quality="rmse", bound=GOOD, less_is_better=True),
        Comparison("seconds", "Sagesmith", "torch Adam", most=0.25, quality="rmse", bound=GOOD, less_is_better=True),
        Comparison("peak_mb", "Sagesmith", "surprise SVD", note="target 300 MB"),
        Comparison("peak_mb", "tenfold data", "Sagesmith", most=1.1, note="one epoch"),
    ),
)  # fmt: skip
