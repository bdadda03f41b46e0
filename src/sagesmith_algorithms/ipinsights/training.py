"""Training IP Insights, in a job or without: epochs over the pairs, and how well true pairs are told from made-up ones.

Several hosts share the mini-batches of the first epochs: each takes its part of the pairs from its own data, so that an epoch
has as many steps as on one host. Once there have been enough steps, each host makes its own of whole mini-batches, half as many
on two hosts. They meet after each of the first steps, then after every few (McMahan et al., "Communication-Efficient
Learning", 2017): where all of them moved a parameter at each step, the mean of the moves counts; where steps that moved it
were rare, they were different steps, and count one after the other (see `_share`).
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

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
_STEPS_SHARED, _MOST_STEPS_ALONE = 200, 128

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
        size = values["mini_batch_size"]
        if hosts is not None and network.n_steps < _STEPS_SHARED:
            size = -(-size // len(hosts.hosts))
        losses, since, n_seen = [], time.perf_counter(), 0
        for batch, (entities, addresses) in enumerate(pairs.batches(size, rng)):
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
            if hosts is not None and network.n_new_steps >= min(network.n_steps // 2, _MOST_STEPS_ALONE):
                _meet(network, hosts, pairs.n_pairs, has_more=True)
        if losses:
            progress(epoch, batch, float(np.mean(losses)), n_seen / max(time.perf_counter() - since, 1e-9))
        n_pairs, others_have_more = pairs.n_pairs, hosts is not None
        while hosts is not None and others_have_more:
            n_pairs, others_have_more = _meet(network, hosts, pairs.n_pairs, has_more=False)
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


def check_memory(values: Mapping[str, Any], n_hosts: int = 1) -> None:
    """Raise `CustomerError` if the parameters, of which several hosts keep two, do not fit into this machine's memory."""
    import psutil

    needed = table_bytes(values) * (5 if n_hosts > 1 else 4) // 4
    available = int(psutil.virtual_memory().available)
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
    check_memory(values, len(environment.hosts))
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
        if hosts is not None:
            network.remember()
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


def _meet(network: Network, hosts: Rendezvous, n_pairs: int, *, has_more: bool) -> tuple[int, bool]:
    """Give all hosts the parameters that they come to together.

    *has_more* says whether this host has batches left in its epoch. Returns the number of pairs of all hosts, and whether
    any has more.
    """
    mine = {
        "n_pairs": np.array(n_pairs),
        "has_more": np.array(has_more),
        "n_steps": np.array(network.n_new_steps),
    }
    for number, table in enumerate(network.tables):
        rows = np.flatnonzero(table.counts)
        mine |= {
            f"rows{number}": rows,
            f"moves{number}": table.values[rows] - table.before[rows],
            f"counts{number}": table.counts[rows],
        }
    parts = [_unpacked(message) for message in hosts.exchange(_packed(mine))]
    n_steps = max(*(int(part["n_steps"]) for part in parts), 1)
    for number, table in enumerate(network.tables):
        rates = np.zeros((len(parts), len(table.values)), np.float32)
        for rate, part in zip(rates, parts, strict=True):
            rate[part[f"rows{number}"]] = part[f"counts{number}"] / np.float32(n_steps)
        touched = np.flatnonzero(rates.any(axis=0))
        table.values[touched] = table.before[touched]
        share = _share(rates)
        for part in parts:
            rows = part[f"rows{number}"]
            table.values[rows] += share[rows, None] * part[f"moves{number}"]
        table.settle(touched)
    network.n_new_steps = 0
    return sum(int(part["n_pairs"]) for part in parts), any(bool(part["has_more"]) for part in parts)


def _share(rates: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the share of each host's moves that counts: the steps that would have moved a parameter on one host, by those that did.

    *rates* (n_hosts, n_rows) are the shares of each host's steps that moved it. If its steps are rare, they are different
    ones, and all count: 1. If each moved it on all hosts, they are the same ones: 1 / n_hosts.
    """
    result: npt.NDArray[np.float32] = (1 - np.prod(1 - rates, axis=0)) / np.maximum(
        rates.sum(axis=0), np.float32(1e-12)
    )
    return result


def _packed(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _unpacked(message: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(message), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
