"""A training job of XGBoost: read, train, log a line for each round, save.

The model is what ``xgboost.Booster().load_model("xgboost-model")`` reads: UBJSON, or one file for each model of a
cross-validation. A line for each round is ``[0]<TAB>train-rmse:1.23<TAB>validation-rmse:2.34``, as AWS's metric
definitions expect. With checkpoints, `xgboost-checkpoint.{round}` in the checkpoint folder is where a restarted
job goes on.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xgboost

from sagesmith_algorithms.errors import CustomerError, DataError
from sagesmith_algorithms.formats.batch import Batch, with_n_features
from sagesmith_algorithms.logs import info, say
from sagesmith_algorithms.training import meeting
from sagesmith_algorithms.xgboost.data import check_labels, dmatrix, read_channel
from sagesmith_algorithms.xgboost.distributed import agree, collective
from sagesmith_algorithms.xgboost.hyperparameters import (
    CUSTOM_METRICS,
    HYPERPARAMETERS,
    NOT_PASSED,
    is_maximized,
)
from sagesmith_algorithms.xgboost.metrics import custom_metric
from sagesmith_toolkit.rendezvous import HostLostError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sagesmith_toolkit.environment import Environment

__all__ = ["MODEL_FILE", "boost", "train_xgboost"]

MODEL_FILE = "xgboost-model"
_CHECKPOINT = re.compile(r"xgboost-checkpoint\.(\d+)")
_KEPT_CHECKPOINTS = 5
_LOST = re.compile(r"(?i)socket|connection|rabit|collective|poll|peer")


def train_xgboost(environment: Environment, values: Mapping[str, Any]) -> None:
    """Train as *environment* says, with the hyperparameters *values*, and leave the model in its model folder.

    Raises:
        CustomerError: hyperparameters or data are wrong.
    """
    n_threads = min(int(values.get("nthread", environment.num_cpus)), max(environment.num_cpus, 1))
    with meeting(environment) as hosts:
        train, validation = _read(environment, values, n_threads)
        part = agree(hosts, _n_rows(train), _n_features(train), _n_rows(validation))
        with collective(hosts, part):
            if train is None or not part.takes_part:
                return
            objective = values["objective"]
            matrices = {"train": dmatrix(_widened(train, part.n_features), objective, n_threads)}
            if validation is not None and part.validates:
                matrices["validation"] = dmatrix(_widened(validation, part.n_features), objective, n_threads)
            info(f"Train matrix has {matrices['train'].num_row()} rows and {part.n_features} columns")
            if "validation" in matrices:
                info(f"Validation matrix has {matrices['validation'].num_row()} rows")
            environment.model_dir.mkdir(parents=True, exist_ok=True)
            if "_kfold" in values:
                if hosts is not None:
                    raise CustomerError(
                        "Cross-validation (_kfold) runs on one instance; set InstanceCount to 1."
                    )
                _cross_validate(environment, values, train, matrices, n_threads)
                return
            with _saved_on_termination(values) as stop:
                checkpoint = _last_checkpoint(environment.checkpoint_dir)
                callbacks: list[Any] = [stop] if stop else []
                if environment.checkpoint_dir is not None and part.is_first:
                    environment.checkpoint_dir.mkdir(parents=True, exist_ok=True)
                    callbacks.append(_Checkpoints(environment.checkpoint_dir))
                booster = boost(
                    values,
                    matrices,
                    n_threads,
                    callbacks=callbacks,
                    says=part.is_first,
                    checkpoint=checkpoint,
                )
            if part.is_first:
                _save(booster, environment.model_dir / MODEL_FILE)


def boost(
    values: Mapping[str, Any],
    matrices: Mapping[str, Any],
    n_threads: int,
    *,
    callbacks: Sequence[Any] = (),
    says: bool = True,
    checkpoint: Path | None = None,
    results: dict[str, Any] | None = None,
) -> Any:
    """Return a booster trained on ``matrices["train"]``, measured on all of *matrices* after each round.

    Args:
        values: parsed hyperparameters.
        matrices: by channel, in the order in which they are logged.
        n_threads: threads of the library.
        callbacks: further callbacks.
        says: whether to print a line for each round.
        checkpoint: a booster to go on from; its name ends in the round it was written after.
        results: filled with each metric's values by channel, if given.

    Raises:
        CustomerError: the library refuses the parameters or the data.
    """
    metrics = values.get("eval_metric", ())
    custom = [name for name in metrics if name in CUSTOM_METRICS]
    parameters = _parameters(
        values, n_threads, [name for name in metrics if name not in CUSTOM_METRICS], custom
    )
    done = 0 if checkpoint is None else int(checkpoint.name.rpartition(".")[2]) + 1
    all_callbacks: list[Any] = [*callbacks]
    if says:
        all_callbacks.append(_RoundLine(done))
    if "early_stopping_rounds" in values and "validation" in matrices:
        metric = ([*(m for m in metrics if m not in custom), *custom] or [None])[-1]
        all_callbacks.append(
            xgboost.callback.EarlyStopping(
                rounds=values["early_stopping_rounds"],
                metric_name=metric,
                data_name="validation",
                maximize=is_maximized(metric) if metric else None,
                save_best=values["booster"] != "gblinear",
            )
        )
    if done >= values["num_round"] and checkpoint is not None:
        return xgboost.Booster(model_file=str(checkpoint))
    try:
        return xgboost.train(
            parameters,
            matrices["train"],
            num_boost_round=values["num_round"] - done,
            evals=[(matrix, name) for name, matrix in matrices.items()],
            custom_metric=custom_metric(custom, values["objective"]),
            callbacks=all_callbacks,
            verbose_eval=False,
            xgb_model=None if checkpoint is None else str(checkpoint),
            evals_result=results,
        )
    except (xgboost.core.XGBoostError, ValueError) as error:
        reason = _reason(error)
        if xgboost.collective.is_distributed() and _LOST.search(reason):
            raise HostLostError(f"another instance ended or cannot be reached any more ({reason})") from error
        raise CustomerError(f"XGBoost refused to train: {reason}") from error


def _parameters(
    values: Mapping[str, Any], n_threads: int, metrics: list[str], custom: list[str]
) -> dict[str, Any]:
    parameters = {
        n: v for n, v in values.items() if n not in NOT_PASSED and n[0] != "_" and not HYPERPARAMETERS[n].idle
    }
    if parameters["objective"] == "reg:linear":  # its old name
        parameters["objective"] = "reg:squarederror"
    if values.get("silent") == 1:
        parameters["verbosity"] = 0
    if metrics:
        parameters["eval_metric"] = metrics
    elif custom:
        parameters["disable_default_eval_metric"] = 1
    parameters["nthread"] = n_threads
    return parameters


class _RoundLine(xgboost.callback.TrainingCallback):
    """Prints a line after each round; the library counts from 0 again when it goes on from a checkpoint."""

    def __init__(self, done: int) -> None:
        self._done = done

    def after_iteration(self, model: Any, epoch: int, evals_log: Mapping[str, Any]) -> bool:
        del model
        scores = [
            f"{channel}-{name}:{(values[-1][0] if isinstance(values[-1], tuple) else values[-1]):.5f}"
            for channel, metrics in evals_log.items()
            for name, values in metrics.items()
        ]
        say("\t".join([f"[{self._done + epoch}]", *scores]))
        return False


class _Checkpoints(xgboost.callback.TrainingCallback):
    """Writes the model after each round, aside and then renamed, and keeps the last few."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._done = 0

    def before_training(self, model: Any) -> Any:
        self._done = model.num_boosted_rounds()
        return model

    def after_iteration(self, model: Any, epoch: int, evals_log: Mapping[str, Any]) -> bool:
        del epoch, evals_log
        last = model.num_boosted_rounds() - 1
        _save(model, self._folder / f"xgboost-checkpoint.{last}")
        (self._folder / f"xgboost-checkpoint.{last - _KEPT_CHECKPOINTS}").unlink(missing_ok=True)
        return False


class _Stop(xgboost.callback.TrainingCallback):
    """Ends the training after the round in which SIGTERM came, on all hosts after the same."""

    def __init__(self) -> None:
        self.asked = threading.Event()

    def after_iteration(self, model: Any, epoch: int, evals_log: Mapping[str, Any]) -> bool:
        del model, epoch, evals_log
        asked = self.asked.is_set()
        if xgboost.collective.get_world_size() > 1:
            asked = bool(
                xgboost.collective.allreduce(np.array([asked], np.int32), xgboost.collective.Op.MAX)[0]
            )
        return asked


@contextmanager
def _saved_on_termination(values: Mapping[str, Any]) -> Iterator[_Stop | None]:
    """If asked to keep the model so far, let SIGTERM end the training after the current round instead of at once."""
    if not values["save_model_on_termination"] or threading.current_thread() is not threading.main_thread():
        yield None
        return
    stop = _Stop()

    def ask(*_: object) -> None:
        info("Stopping after this round; the model so far is saved.")
        stop.asked.set()

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def _cross_validate(
    environment: Environment,
    values: Mapping[str, Any],
    train: Batch,
    matrices: Mapping[str, Any],
    n_threads: int,
) -> None:
    """Train one model for each fold, and print the mean of each metric over the folds."""
    from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold

    classifies = values["objective"].startswith(("multi:", "binary:"))
    split = (RepeatedStratifiedKFold if classifies else RepeatedKFold)(
        n_splits=values["_kfold"], n_repeats=values.get("_num_cv_round", 1), random_state=values["seed"]
    )
    all_results: list[dict[str, Any]] = []
    try:
        folds = list(split.split(np.zeros(len(train)), train.labels))
    except ValueError as error:
        raise CustomerError(
            f"The data cannot be split into _kfold={values['_kfold']} folds: {error}."
        ) from error
    for i, (chosen, left) in enumerate(folds):
        info(f"Train cross validation fold {i % values['_kfold'] + 1}")
        fold = {"train": matrices["train"].slice(chosen), "validation": matrices["train"].slice(left)}
        results: dict[str, Any] = {}
        booster = boost(values, fold, n_threads, results=results)
        _save(booster, environment.model_dir / f"{MODEL_FILE}-{i}")
        all_results.append(results)
    last = values["num_round"] - 1
    means = [
        f"{channel}-{name}:{np.mean([result[channel][name][-1] for result in all_results]):.5f}"
        for channel in ("train", "validation")
        for name in all_results[0][channel]
    ]
    say("\t".join([f"[{last}]", *means]))


def _read(
    environment: Environment, values: Mapping[str, Any], n_threads: int
) -> tuple[Batch | None, Batch | None]:
    weighted = bool(values["csv_weights"])
    batches: list[Batch | None] = []
    for name in ("train", "validation"):
        channel = environment.channels.get(name)
        batch = None if channel is None else read_channel(channel, weighted=weighted, n_threads=n_threads)
        if batch is not None:
            check_labels(batch, values["objective"], values.get("num_class"))
            if values["objective"].startswith("rank:") and batch.groups is None:
                info(f"No query ids (qid) in channel {name!r}: all its rows are one query.", "WARNING")
        batches.append(batch)
    return batches[0], batches[1]


def _widened(batch: Batch, n_features: int) -> Batch:
    """Return *batch* with *n_features* columns; sparse data may show fewer on one host or in one channel."""
    if batch.n_features == n_features:
        return batch
    try:
        features = with_n_features(batch.features, n_features)
    except DataError as error:
        raise CustomerError(f"Channels or instances differ in their number of columns: {error}.") from error
    return Batch(features, batch.labels, batch.weights, batch.groups)


def _n_rows(batch: Batch | None) -> int:
    return 0 if batch is None else len(batch)


def _n_features(batch: Batch | None) -> int:
    return 0 if batch is None else batch.n_features


def _last_checkpoint(folder: Path | None) -> Path | None:
    if folder is None or not folder.is_dir():
        return None
    found = [path for path in folder.iterdir() if _CHECKPOINT.fullmatch(path.name)]
    last = max(found, key=lambda path: int(path.name.rpartition(".")[2]), default=None)
    if last is not None:
        info(f"Checkpoint loaded from {last}")
    return last


def _save(booster: Any, path: Path) -> None:
    """Write *booster* as UBJSON, aside and then renamed, under a name without the ending the library asks for."""
    aside = path.with_name(f".{path.name}.ubj")
    booster.save_model(aside)
    os.replace(aside, path)


def _reason(error: Exception) -> str:
    """Return the sentence of a library error without its stack."""
    text = str(error).split("Stack trace", 1)[0].strip()
    text = re.sub(r"^\[\d\d:\d\d:\d\d\] \S+?:\d+:\s*", "", text)
    return re.sub(r"\s+", " ", text)
