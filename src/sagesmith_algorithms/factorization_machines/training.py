"""A training job of factorization machines: its channels, its log lines, its artifact."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from sagesmith_algorithms.errors import DataError
from sagesmith_algorithms.factorization_machines.checkpoints import Checkpoints
from sagesmith_algorithms.factorization_machines.metrics import NAMES, metrics_of
from sagesmith_algorithms.factorization_machines.rows import Windows
from sagesmith_algorithms.factorization_machines.trainer import Trainer
from sagesmith_algorithms.logs import MetricsLog, info
from sagesmith_algorithms.training import batches_of, measure_test, meeting

if TYPE_CHECKING:
    from sagesmith_algorithms.factorization_machines import FactorizationMachines
    from sagesmith_algorithms.formats.batch import Batch
    from sagesmith_toolkit.environment import Environment

__all__ = ["run_job"]

_BLOCK = 65536


def run_job(cls: type[FactorizationMachines], environment: Environment) -> None:
    """Train as *environment* says and leave the model in its model folder, on the first host.

    Raises:
        CustomerError: hyperparameters or data are wrong.
        RendezvousError: another host did not come, or went away.
    """
    started = time.time()
    values = cls.check(environment.hyperparameters)
    cls.check_channels(environment)
    info(f"Final configuration: {json.dumps(values)}")
    given: dict[str, Any] = {n: v for n, v in environment.hyperparameters.items() if n in cls.hyperparameters}
    model = cls(**given)
    host = environment.current_host
    log = MetricsLog(cls.title, host)
    kind, epochs = values["predictor_type"], values["epochs"]
    rank, first = environment.rank, 0

    def one_pass(epoch: int) -> Iterator[Batch]:
        # A job that goes on finds the first of its pipes, not that of the epoch it goes on with.
        return batches_of(cls, environment, "train", epoch - first, _BLOCK)

    windows = Windows(one_pass, model.rows_of, model.order(rank))
    checkpoints = Checkpoints(environment.checkpoint_dir, values)
    with meeting(environment) as hosts:
        trainer = Trainer(model.begin(), values, hosts)
        first = checkpoints.restore(trainer, hosts, leads=environment.is_leader)
        for epoch in range(first, epochs):
            began, rng = time.time(), np.random.default_rng(model.order(rank, epoch))
            words = (f"epoch={epoch}, batch=0 train", f"epoch={epoch}, train")
            n_rows = 0
            for words_of, sums in zip(words, trainer.epoch(windows(epoch), rng), strict=False):
                named = dict(zip(NAMES, sums.tolist(), strict=True))
                n_rows = int(named["rows"])
                if environment.is_leader and n_rows:
                    for name, value in metrics_of(named, kind).items():
                        info(f"#quality_metric: host={host}, {words_of} {name}={value:.12g}")
            if not n_rows:
                raise DataError("there is no row in the channel 'train'; check its S3Uri")
            model.check_finite()
            if environment.is_leader:
                checkpoints.save(trainer, epoch + 1, last=epoch + 1 == epochs)
            seconds = max(time.time() - began, 1e-9)
            log.progress(100.0 * (epoch + 1) / epochs)
            log.write(
                {"Total Records Seen": n_rows * (epoch + 1), "Records Since Last Reset": n_rows},
                began,
                epoch=epoch,
            )
            info(f"#throughput_metric: host={host}, train throughput={n_rows / seconds} records/second")
        measure_test(model, environment, hosts, values, log)
    if environment.is_leader:
        environment.model_dir.mkdir(parents=True, exist_ok=True)
        model.save(environment.model_dir)
    log.write({"totaltime": 1000.0 * (time.time() - started)}, started)
