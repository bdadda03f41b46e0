"""BentoML's service around the benchmark's model, as its documentation says: plain and with adaptive batching."""

import os

import bentoml
import numpy as np
from served_model import load


@bentoml.service(workers=1, traffic={"timeout": 30})
class Service:
    """One worker, one thread, like every other server in the benchmark."""

    def __init__(self) -> None:
        self.call, _ = load(os.environ["BENCH_MODEL"])

    @bentoml.api
    def predict(self, x: np.ndarray) -> np.ndarray:
        """Predict one request."""
        return self.call(x.astype(np.float32))

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=50)
    def predict_batched(self, x: np.ndarray) -> np.ndarray:
        """Predict the requests that gathered."""
        return self.call(x.astype(np.float32))
