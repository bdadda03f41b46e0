"""BentoML's service around the benchmark's model, as its documentation says: plain and with adaptive batching."""

import os
import runpy

import bentoml
import numpy as np

place = os.environ["BENCH_MODEL"]


@bentoml.service(workers=1, traffic={"timeout": 30})
class Service:
    """One worker, one thread, like every other server in the benchmark."""

    def __init__(self) -> None:
        if place.endswith(".py"):
            script = runpy.run_path(place)
            model = script["model_fn"]("")
            self.call = lambda rows: script["predict_fn"](rows, model)
        else:
            import xgboost

            booster = xgboost.Booster(model_file=place)
            booster.set_param({"nthread": 1})
            self.call = booster.inplace_predict

    @bentoml.api
    def predict(self, x: np.ndarray) -> np.ndarray:
        """Predict one request."""
        return self.call(x.astype(np.float32))

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=50)
    def predict_batched(self, x: np.ndarray) -> np.ndarray:
        """Predict the requests that gathered."""
        return self.call(x.astype(np.float32))
