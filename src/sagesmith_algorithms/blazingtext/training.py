"""A training job of BlazingText: its channels, its log lines, its artifact."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from sagesmith_algorithms.blazingtext.classifier import accuracy, learn_labels
from sagesmith_algorithms.blazingtext.evaluation import similarity
from sagesmith_algorithms.blazingtext.text import Text, channel_text
from sagesmith_algorithms.blazingtext.words import Vocabulary, learn_vectors, vocabulary
from sagesmith_algorithms.errors import CustomerError
from sagesmith_algorithms.logs import info, say
from sagesmith_algorithms.training import meeting

if TYPE_CHECKING:
    from sagesmith_algorithms.blazingtext import BlazingText
    from sagesmith_toolkit.environment import Environment
    from sagesmith_toolkit.rendezvous import Rendezvous

__all__ = ["run_job"]

_SUPERVISED = "supervised"


def run_job(cls: type[BlazingText], environment: Environment) -> None:
    """Train as *environment* says and leave the model in its model folder, on the first host.

    Raises:
        CustomerError: hyperparameters, instances or data are wrong.
        RendezvousError: another host did not come, or went away.
    """
    values = cls.check(environment.hyperparameters)
    cls.check_channels(environment)
    if len(environment.hosts) > 1 and values["mode"] != "batch_skipgram":
        raise CustomerError(
            f"mode={values['mode']} trains on one instance, as on SageMaker, and there are {len(environment.hosts)}. "
            "Set InstanceCount to 1, or use mode=batch_skipgram."
        )
    info(f"Final configuration: {json.dumps(values)}")
    machines = (
        "single machine CPU" if len(environment.hosts) == 1 else f"{len(environment.hosts)} machines CPU"
    )
    info(f"Running {machines} BlazingText training using {values['mode']} mode.")
    model = cls(values["mode"])
    started = time.perf_counter()
    text = Text.of(channel_text(environment.channels["train"]))
    n_words = int((text.ids >= 0).sum())
    say(f"Read {n_words / 1e6:.2f}M words")
    with meeting(environment) as hosts:
        if values["mode"] == _SUPERVISED:
            _classify(model, text, values, environment, started)
        else:
            _embed(model, text, values, environment, hosts, started)
        if environment.is_leader:
            environment.model_dir.mkdir(parents=True, exist_ok=True)
            model.save(environment.model_dir)
        if hosts is not None:
            hosts.exchange(b"")  # nobody leaves before the model is written


def _embed(
    model: BlazingText,
    text: Text,
    values: dict[str, Any],
    environment: Environment,
    hosts: Rendezvous | None,
    started: float,
) -> None:
    words = _common_vocabulary(text, values["min_count"], hosts)
    say(f"Number of words:  {len(words.words)}")

    def progress(rate: float, share: float, speed: float) -> None:
        say(
            f"##### Alpha: {rate:.4f}  Progress: {100 * share:.2f}%  Million Words/sec: {speed / 1e6:.2f} #####"
        )

    begun = time.perf_counter()
    model.adopt(
        learn_vectors(text, words, values, n_threads=environment.num_cpus, hosts=hosts, progress=progress)
    )
    n_seen = int((text.ids >= 0).sum()) * values["epochs"]
    _finished(n_seen, time.perf_counter() - begun, time.perf_counter() - started)
    if not environment.is_leader or not values["evaluation"]:
        return
    if "validation" not in environment.channels:
        info(
            "No evaluation: the word pairs of WordSim-353 are not part of Sagesmith. Give them, or others, as lines of "
            "word,word,score in the channel 'validation'.",
            "WARNING",
        )
        return
    found = similarity(
        channel_text(environment.channels["validation"]),
        lambda word: vector if (vector := model.vector(word)).any() else None,
    )
    info(json.dumps({"validation": found}))
    info(f"#mean_rho: {found['spearmans_rho']:.12g}")
    environment.model_dir.mkdir(parents=True, exist_ok=True)
    (environment.model_dir / "eval.json").write_text(
        json.dumps({"mean_rho": found["spearmans_rho"], **found})
    )


def _classify(
    model: BlazingText, text: Text, values: dict[str, Any], environment: Environment, started: float
) -> None:
    validation = None
    if "validation" in environment.channels:
        validation = Text.of(channel_text(environment.channels["validation"]))
    elif values["early_stopping"]:
        raise CustomerError("early_stopping=true needs the channel 'validation'.")

    def progress(epoch: int, rate: float, loss: float, found: float) -> None:
        say(f"-------------- End of epoch: {epoch + 1}")
        say(
            f"##### Alpha: {rate:.4f}  Progress: {100 * (epoch + 1) / values['epochs']:.2f}%  Loss: {loss:.4f} #####"
        )
        if not math.isnan(found):
            say(f"Validation accuracy: {found:.6f}")

    begun = time.perf_counter()
    found = learn_labels(
        text, values, validation=validation, n_threads=environment.num_cpus, progress=progress
    )
    say(f"Number of words:  {len(found.words)}")
    say(f"Number of labels: {len(found.labels)}")
    model.adopt(found)
    n_seen = int((text.ids >= 0).sum()) * values["epochs"]
    _finished(n_seen, time.perf_counter() - begun, time.perf_counter() - started)
    for name, part in (("train", text), ("validation", validation)):
        if part is None:
            continue
        share, n_examples = accuracy(found, part)
        if not n_examples:
            raise CustomerError(
                f"No line of the channel {name!r} has a label; each must begin with one, such as __label__4."
            )
        say(f"#{name}_accuracy: {share:.6f}")
        say(f"Number of {name} examples: {n_examples}")


def _common_vocabulary(text: Text, min_count: int, hosts: Rendezvous | None) -> Vocabulary:
    counts = Counter(dict(zip(text.words, text.counts.tolist(), strict=True)))
    if hosts is not None:
        mine = b"\n".join(b"%d %b" % (n, word) for word, n in counts.items())
        counts = Counter()
        for message in hosts.exchange(mine):
            for line in message.splitlines():
                n, _, word = line.partition(b" ")
                counts[word] += int(n)
    return vocabulary(counts, min_count)


def _finished(n_words: int, training_s: float, total_s: float) -> None:
    say("Training finished!")
    say(f"Average throughput in Million words/sec: {n_words / max(training_s, 1e-9) / 1e6:.2f}")
    say(f"Total training time in seconds: {total_s:.2f}")
