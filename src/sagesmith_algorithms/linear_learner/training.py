"""A training job of linear learner: its channels, its log lines, its artifact."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sagesmith_algorithms.errors import CustomerError
from sagesmith_algorithms.formats.readers import ahead, channel_batches
from sagesmith_algorithms.linear_learner.data import Labels, Rows
from sagesmith_algorithms.linear_learner.hyperparameters import MULTICLASS
from sagesmith_algorithms.linear_learner.team import Team
from sagesmith_algorithms.linear_learner.trainer import Progress, Trainer
from sagesmith_algorithms.logs import MetricsLog, info
from sagesmith_algorithms.training import meeting

if TYPE_CHECKING:
    from sagesmith_algorithms.formats.batch import Batch
    from sagesmith_algorithms.linear_learner import LinearLearner
    from sagesmith_toolkit.environment import Environment

__all__ = ["rows_of", "run_job", "trainer_of"]


def rows_of(values: Mapping[str, Any], passes: Callable[[int], Iterator[Batch]], *, seed: int = 0) -> Rows:
    """Return the rows that *passes* yields, to be checked as *values* say."""
    kind = values["predictor_type"]
    labels = Labels(kind, values["num_classes"] if kind == MULTICLASS else 2)
    width = 0 if values["feature_dim"] == "auto" else values["feature_dim"]
    return Rows(passes, labels, width, rng=np.random.default_rng(seed))


def trainer_of(
    values: Mapping[str, Any], *, team: Team | None = None, seed: int = 0, n_threads: int = 1,
    progress: Progress | None = None,
) -> Trainer:  # fmt: skip
    """Return a trainer with the hyperparameters *values*."""
    return Trainer(
        values,
        team or Team(),
        rng=np.random.default_rng(seed),
        n_threads=n_threads,
        progress=progress or (lambda epoch, losses: None),
    )


def run_job(cls: type[LinearLearner], environment: Environment) -> None:
    """Train as *environment* says and leave the model in its model folder, on the first host.

    Raises:
        CustomerError: hyperparameters or data are wrong.
        RendezvousError: another host did not come, or went away.
    """
    started = time.time()
    cls.check(environment.hyperparameters)
    cls.check_channels(environment)
    given: dict[str, Any] = dict(environment.hyperparameters)
    model = cls(**given)
    values = model.parsed()
    info(f"Final configuration: {json.dumps(values)}")
    host = environment.current_host
    log = MetricsLog(cls.title, host)

    def progress(epoch: int, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            info(f"#quality_metric: host={host}, epoch={epoch}, {name}={value:.12g}")
        log.progress(100.0 * (epoch + 1) / values["epochs"])

    with meeting(environment) as hosts:
        team = Team(hosts)

        passes: Counter[str] = Counter()

        def one_pass(name: str) -> Iterator[Batch]:
            passes[name] += 1  # in Pipe mode each pass has a pipe of its own, read to its end or not
            return _batches(cls, environment, name, passes[name] - 1)

        def rows(name: str) -> Rows:
            return rows_of(values, lambda _: one_pass(name))

        channels = environment.channels
        train = rows("train")
        trainer = trainer_of(values, team=team, n_threads=environment.num_cpus, progress=progress)
        fitted = trainer.fit(train, rows("validation") if "validation" in channels else None)
        model.adopt(fitted)
        seconds = max(time.time() - started, 1e-9)
        info(
            f"#throughput_metric: host={host}, train throughput={train.n_rows * fitted.n_epochs / seconds} "
            "records/second"
        )
        for name in ("train", "validation", "test"):
            if name not in channels:
                continue
            data = train if name == "train" else rows(name)
            n_rows, metrics = trainer.judged(data, model.columns)
            if not n_rows:
                raise CustomerError(f"There is no row in the channel {name!r}; check its S3Uri.")
            if team.leads:
                log.quality(name, metrics)
    if fitted.settings["optimizer"] == "newton" and values["mini_batch_size"] != 1000:
        info("mini_batch_size has no effect on the model: optimizer=auto means Newton steps here", "WARNING")
    info(f"Best model found for hyperparameters: {json.dumps(fitted.settings)}")
    if "test" not in environment.channels:
        info("Test data is not provided.")
    if team.leads:
        environment.model_dir.mkdir(parents=True, exist_ok=True)
        model.save(environment.model_dir)
    log.write({"totaltime": 1000.0 * (time.time() - started), "epochs": fitted.n_epochs}, started)


def _batches(cls: type[LinearLearner], environment: Environment, name: str, epoch: int) -> Iterator[Batch]:
    kind = next(channel for channel in cls.channels if channel.name == name)
    batches = channel_batches(
        environment.channels[name], kind.content_types[0], epoch=epoch, n_threads=environment.num_cpus
    )
    return ahead(batches) if environment.num_cpus > 1 else batches
