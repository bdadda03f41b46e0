"""LitServe's server around the benchmark's model, as its documentation says."""

import os

import litserve
import numpy as np
from served_model import load

batch = int(os.environ["BENCH_BATCH"])


class Api(litserve.LitAPI):
    """One worker, one thread, like every other server in the benchmark."""

    def setup(self, device: str) -> None:
        """Load the model."""
        self.call, _ = load(os.environ["BENCH_MODEL"])

    def decode_request(self, request: dict) -> np.ndarray:
        """Read one request."""
        rows = np.array(request["x"], np.float32)
        return rows[0] if batch > 1 else rows  # LitServe stacks the rows of a batch

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Predict it."""
        return self.call(x)

    def encode_response(self, output: np.ndarray) -> dict:
        """Write its answer."""
        return {"predictions": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Api(max_batch_size=batch), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), generate_client_file=False, log_level="warning"
    )
