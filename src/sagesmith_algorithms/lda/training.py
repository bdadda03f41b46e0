"""A training job of LDA, and what answers requests with its model."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import numpy as np

from sagesmith_algorithms.errors import CustomerError, DataError, RequestError
from sagesmith_algorithms.lda.corpus import Corpus, channel_counts
from sagesmith_algorithms.lda.model import fit
from sagesmith_algorithms.logs import MetricsLog, info
from sagesmith_algorithms.serving import StreamingPredictor

if TYPE_CHECKING:
    from sagesmith_algorithms.formats.batch import Floats
    from sagesmith_algorithms.lda import LDA
    from sagesmith_toolkit.environment import Environment
    from sagesmith_toolkit.server import Request

__all__ = ["LDAPredictor", "run_job"]


def run_job(cls: type[LDA], environment: Environment) -> None:
    """Train as *environment* says and leave the model in its model folder.

    Raises:
        CustomerError: hyperparameters, instances or data are wrong.
    """
    started = time.time()
    values = cls.check(environment.hyperparameters)
    cls.check_channels(environment)
    if len(environment.hosts) > 1:
        raise CustomerError(
            f"LDA trains on one instance, as on SageMaker, and there are {len(environment.hosts)}. Set InstanceCount to 1."
        )
    info(f"Final configuration: {json.dumps(values)}")
    log = MetricsLog(cls.title, environment.current_host)

    def corpus(name: str) -> Corpus:
        channel, n_threads = environment.channels[name], environment.num_cpus
        return Corpus(
            lambda epoch: channel_counts(channel, values["feature_dim"], epoch, n_threads),
            limit=values["mini_batch_size"],
            n_threads=n_threads,
        )

    def progress(done: int, of: int, likelihood: float) -> None:
        log.progress(100.0 * done / of)
        info(
            f"#quality_metric: host={environment.current_host}, epoch={done - 1}, train pwll <score>={likelihood:.12g}"
        )

    train = corpus("train")
    model = cls(**values)
    model.adopt(fit(train, values, np.random.default_rng(model.seed), progress))
    seconds = max(time.time() - started, 1e-9)
    info(
        f"#throughput_metric: host={environment.current_host}, train throughput={train.n_documents / seconds} records/second"
    )
    if "test" in environment.channels:
        try:
            log.quality("test", {"pwll <score>": model.pwll(corpus("test"))})
        except DataError as error:
            if error.where:
                raise
            raise CustomerError("There is no word in the channel 'test'; check its S3Uri.") from error
    environment.model_dir.mkdir(parents=True, exist_ok=True)
    model.save(environment.model_dir)
    log.write(
        {"totaltime": 1000.0 * (time.time() - started), "Total Records Seen": train.n_documents}, started
    )


class LDAPredictor(StreamingPredictor):
    """Answers requests with a model; counts must not be negative."""

    def _rows(self, request: Request) -> Floats:
        rows = super()._rows(request)
        if rows.size and rows.min() < 0:
            raise RequestError("There are negative values; counts of words are 0 or more.")
        return rows
