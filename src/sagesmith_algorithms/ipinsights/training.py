"""Training IP Insights, in a job or without: epochs over the pairs, and how well true pairs are told from made-up ones.

Several hosts train on their own parts and meet after each epoch: each parameter becomes the mean of the hosts' values, weighted
by how often a host's data touched it, so that what only one host has seen is kept as that host learned it.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sagesmith_algorithms.errors import CustomerError
from sagesmith_algorithms.ipinsights.network import Network, table_bytes
from sagesmith_algorithms.ipinsights.pairs import Pairs, channel_pairs
from sagesmith_algorithms.logs import MetricsLog, info
from sagesmith_algorithms.training import meeting

if TYPE_CHECKING:
    from sagesmith_algorithms.ipinsights import IPInsights
    from sagesmith_toolkit.environment import Environment
    from sagesmith_toolkit.rendezvous import Rendezvous

__all__ = ["discriminator_auc", "epochs", "run_job"]

_EVALUATION_SEED = 1

Progress = Callable[[int, int, float, float], None]


def epochs(
    network: Network,
    pairs: Pairs,
    values: Mapping[str, Any],
    rng: np.random.Generator,
    hosts: Rendezvous | None = None,
    progress: Progress = lambda epoch, batch, loss, speed: None,
) -> Iterator[int]:
    """Train *network*; yield the number of each epoch after its end.

    *progress* is told every `batch_metrics_publish_interval` batches: epoch, batch, mean loss and pairs per second since then.

    Raises:
        CustomerError: there is no pair on any host.
    """
    for epoch in range(values["epochs"]):
        losses, since, n_seen = [], time.perf_counter(), 0
        for batch, (entities, addresses) in enumerate(pairs.batches(values["mini_batch_size"], rng)):
            losses.append(
                network.learn(
                    entities, addresses, values["random_negative_sampling_rate"],
                    values["shuffled_negative_sampling_rate"], rng,
                )
            )  # fmt: skip
            n_seen += len(entities)
            if len(losses) == values["batch_metrics_publish_interval"]:
                speed = n_seen / max(time.perf_counter() - since, 1e-9)
                progress(epoch, batch, float(np.mean(losses)), speed)
                losses, since, n_seen = [], time.perf_counter(), 0
        if losses:
            progress(epoch, batch, float(np.mean(losses)), n_seen / max(time.perf_counter() - since, 1e-9))
        n_pairs = pairs.n_pairs if hosts is None else _meet(network, hosts, pairs.n_pairs)
        if not n_pairs:
            raise CustomerError("There is no row in the channel 'train'; check its S3Uri.")
        yield epoch


def discriminator_auc(network: Network, pairs: Pairs, values: Mapping[str, Any]) -> float:
    """Return the area under the ROC curve of scores: true pairs against as many made-up ones for each as in training.

    Raises:
        CustomerError: there is no pair.
    """
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(_EVALUATION_SEED)
    scores, labels = [], []
    for entities, addresses in pairs.batches(values["mini_batch_size"], rng):
        others = [
            rng.integers(0, 1 << 32, len(entities), np.uint32)
            for _ in range(values["random_negative_sampling_rate"])
        ]
        others += [rng.permutation(addresses) for _ in range(values["shuffled_negative_sampling_rate"])]
        for number, some in enumerate([addresses, *others]):
            scores.append(network.scores(entities, some))
            labels.append(np.full(len(entities), number == 0))
    if not scores:
        raise CustomerError("There is no row in the channel 'validation'; check its S3Uri.")
    return float(roc_auc_score(np.concatenate(labels), np.concatenate(scores)))


def check_memory(values: Mapping[str, Any]) -> None:
    """Raise `CustomerError` if the parameters do not fit into this machine's memory."""
    import psutil

    needed, available = table_bytes(values), int(psutil.virtual_memory().available)
    if needed > available:
        raise CustomerError(
            f"num_entity_vectors={values['num_entity_vectors']} vectors of vector_dim={values['vector_dim']} take "
            f"{needed / 1e9:.1f} GB in training, and {available / 1e9:.1f} GB are free. Set a smaller number (twice "
            "the number of entities is enough), a smaller vector_dim, or use an instance type with more memory."
        )


def run_job(cls: type[IPInsights], environment: Environment) -> None:
    """Train as *environment* says and leave the model in its model folder, on the first host.

    Raises:
        CustomerError: hyperparameters or data are wrong.
        RendezvousError: another host did not come, or went away.
    """
    started = time.time()
    values = cls.check(environment.hyperparameters)
    cls.check_channels(environment)
    check_memory(values)
    info(f"Final configuration: {json.dumps(values)}")
    host = environment.current_host
    log = MetricsLog(cls.title, host)
    model = cls(**values)

    def progress(epoch: int, batch: int, loss: float, speed: float) -> None:
        info(f"Epoch[{epoch}] Batch [{batch}]#011Speed: {speed:.2f} samples/sec#011cross_entropy={loss:.6f}")
        info(
            f"#quality_metric: host={host}, epoch={epoch}, batch={batch}, train cross_entropy <loss>={loss:.12g}"
        )

    n_vectors = values["num_entity_vectors"]
    train = Pairs(channel_pairs(environment.channels["train"], n_vectors))
    held = environment.channels.get("validation")
    validation = None if held is None else Pairs(channel_pairs(held, n_vectors))
    network = Network(values, np.random.default_rng(model.seed))
    with meeting(environment) as hosts:
        rng = np.random.default_rng([model.seed, environment.rank])
        for epoch in epochs(network, train, values, rng, hosts, progress):
            log.progress(100.0 * (epoch + 1) / values["epochs"])
            if validation is not None and environment.is_leader:
                auc = discriminator_auc(network, validation, values)
                info(
                    f"#quality_metric: host={host}, epoch={epoch}, validation discriminator_auc <score>={auc:.12g}"
                )
        seconds = max(time.time() - started, 1e-9)
        speed = train.n_pairs * values["epochs"] / seconds
        info(f"#throughput_metric: host={host}, train throughput={speed} records/second")
        if environment.is_leader:
            if validation is not None:
                log.quality("validation", {"discriminator_auc <score>": auc})
            model.adopt(network)
            environment.model_dir.mkdir(parents=True, exist_ok=True)
            model.save(environment.model_dir)
        if hosts is not None:
            hosts.exchange(b"")  # nobody leaves before the model is written
    log.write({"totaltime": 1000.0 * (time.time() - started)}, started)


def _meet(network: Network, hosts: Rendezvous, n_pairs: int) -> int:
    """Give all hosts the mean of their parameters; return the number of pairs of all."""
    mine = {"n_pairs": np.array(n_pairs)}
    for number, table in enumerate(network.tables):
        rows = np.flatnonzero(table.counts)
        mine |= {
            f"rows{number}": rows,
            f"values{number}": table.values[rows],
            f"counts{number}": table.counts[rows],
        }
    parts = [_unpacked(message) for message in hosts.exchange(_packed(mine))]
    for number, table in enumerate(network.tables):
        totals = np.zeros(len(table.values), np.float32)
        for part in parts:
            totals[part[f"rows{number}"]] += part[f"counts{number}"]
        touched = np.flatnonzero(totals)
        table.values[touched] = 0
        for part in parts:
            rows = part[f"rows{number}"]
            share = part[f"counts{number}"] / totals[rows]
            table.values[rows] += share[:, None] * part[f"values{number}"]
        table.counts[:] = 0
    return sum(int(part["n_pairs"]) for part in parts)


def _packed(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _unpacked(message: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(message), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
