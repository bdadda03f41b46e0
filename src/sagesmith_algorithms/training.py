"""A training job of a streaming algorithm: read, update, merge what the hosts learned, measure, save."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.base import StreamingAlgorithm
from sagesmith_algorithms.errors import CustomerError, DataError
from sagesmith_algorithms.formats.batch import located
from sagesmith_algorithms.formats.readers import ahead, channel_batches, rebatched
from sagesmith_algorithms.logs import MetricsLog, info
from sagesmith_toolkit.rendezvous import Rendezvous

if TYPE_CHECKING:
    from sagesmith_algorithms.formats.batch import Batch
    from sagesmith_toolkit.environment import Environment

__all__ = ["batches_of", "measure_test", "meeting", "train_streaming"]


def train_streaming(cls: type[StreamingAlgorithm], environment: Environment) -> None:
    """Train *cls* as *environment* says and leave the model in its model folder, on the first host.

    Raises:
        CustomerError: hyperparameters or data are wrong.
        RendezvousError: another host did not come, or went away.
    """
    started = time.time()
    values = cls.check(environment.hyperparameters)
    cls.check_channels(environment)
    info(f"Final configuration: {json.dumps({n: v for n, v in values.items() if not n.startswith('_')})}")
    algorithm = cls(**{n: v for n, v in environment.hyperparameters.items() if n in cls.hyperparameters})
    log = MetricsLog(cls.title, environment.current_host)
    with meeting(environment) as hosts:
        n_rows = 0
        for epoch in range(values.get("epochs", 1)):
            epoch_started, before = time.time(), n_rows
            for batch in batches_of(cls, environment, "train", epoch, _batch_size(cls, values)):
                with located(batch):
                    algorithm.update(batch)
                n_rows += len(batch)
            log.progress(100.0 * (epoch + 1) / values.get("epochs", 1))
            seconds = max(time.time() - epoch_started, 1e-9)
            log.write(
                {"Total Records Seen": n_rows, "Records Since Last Reset": n_rows - before},
                epoch_started,
                epoch=epoch,
            )
            info(
                f"#throughput_metric: host={environment.current_host}, train throughput={(n_rows - before) / seconds} records/second"
            )
        if hosts is None:
            if not n_rows:
                raise DataError("there is no row in the channel 'train'; check its S3Uri")
            algorithm.finalize()
        else:
            _merge(algorithm, hosts)
        measure_test(algorithm, environment, hosts, values, log)
    if environment.is_leader:
        environment.model_dir.mkdir(parents=True, exist_ok=True)
        algorithm.save(environment.model_dir)
    log.write({"totaltime": 1000.0 * (time.time() - started)}, started)


class meeting:  # noqa: N801 - a context manager, used like a function
    """The hosts of a job, or None if there is but one."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._hosts: Rendezvous | None = None

    def __enter__(self) -> Rendezvous | None:
        environment = self._environment
        if len(environment.hosts) > 1:
            job = environment.job_arn or environment.job_name
            self._hosts = Rendezvous(environment.hosts, environment.current_host, job)
        return self._hosts

    def __exit__(self, *_: object) -> None:
        if self._hosts is not None:
            self._hosts.close()


def _batch_size(cls: type[StreamingAlgorithm], values: Mapping[str, Any]) -> int | None:
    return None if cls.takes_any_batch else values.get("mini_batch_size", 5000)


def batches_of(
    cls: type[StreamingAlgorithm], environment: Environment, name: str, epoch: int, size: int | None
) -> Iterator[Batch]:
    """Yield the rows of the channel called *name*, *size* at a time (None: as they come); *epoch* counts the passes over it."""
    kind = next(channel for channel in cls.channels if channel.name == name)
    batches = channel_batches(
        environment.channels[name], kind.content_types[0], epoch=epoch, n_threads=environment.num_cpus
    )
    found = batches if size is None else rebatched(batches, size)
    return ahead(found) if environment.num_cpus > 1 else found


def _merge(algorithm: StreamingAlgorithm, hosts: Rendezvous) -> None:
    """Give every host the same merged state, and the same model."""
    states = [_unpacked(message) for message in hosts.exchange(_packed(algorithm.state()))]
    merged = type(algorithm)(**algorithm.get_params())
    for state in states:
        merged.merge(state)
    merged.finalize()
    algorithm.__dict__.update(merged.__dict__)


def measure_test(
    algorithm: StreamingAlgorithm,
    environment: Environment,
    hosts: Rendezvous | None,
    values: Mapping[str, Any],
    log: MetricsLog,
) -> None:
    """Measure the model on the test channel, if there is one, and log what comes out.

    Raises:
        CustomerError: there is no row in it.
    """
    channel = environment.channels.get("test")
    if channel is None:
        return
    sums: dict[str, float] = {}
    if environment.is_leader or channel.is_sharded:
        cls = type(algorithm)
        for batch in batches_of(cls, environment, "test", 0, _batch_size(cls, values)):
            with located(batch):
                measured = algorithm.measure(batch)
            for name, value in measured.items():
                sums[name] = sums.get(name, 0.0) + value
    if hosts is not None and channel.is_sharded:
        parts = [json.loads(message) for message in hosts.exchange(json.dumps(sums).encode())]
        sums = {name: sum(part.get(name, 0.0) for part in parts) for part in parts for name in part}
    if not environment.is_leader:
        return
    if not sums:
        raise CustomerError("There is no row in the channel 'test'; check its S3Uri.")
    metrics = algorithm.quality(sums)
    log.quality("test", metrics)
    for line in algorithm.score_lines(environment.current_host, metrics):
        info(line)


def _packed(state: Mapping[str, npt.NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **dict(state))
    return buffer.getvalue()


def _unpacked(message: bytes) -> dict[str, npt.NDArray[Any]]:
    with np.load(io.BytesIO(message), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
