"""LitServe's server around the benchmark's model, as its documentation says."""

import os

import litserve
import numpy as np
import xgboost


class Api(litserve.LitAPI):
    """One worker, one thread, like every other server in the benchmark."""

    def setup(self, device: str) -> None:
        """Load the model."""
        self.booster = xgboost.Booster(model_file=os.environ["BENCH_MODEL"])
        self.booster.set_param({"nthread": 1})

    def decode_request(self, request: dict) -> np.ndarray:
        """Read one request."""
        return np.array(request["x"], np.float32)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Predict it."""
        return self.booster.inplace_predict(x)

    def encode_response(self, output: np.ndarray) -> dict:
        """Write its answer."""
        return {"predictions": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), generate_client_file=False, log_level="warning"
    )
