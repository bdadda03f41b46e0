"""PyTriton's server around the benchmark's model, as its documentation says, with dynamic batching."""

import os
import socket

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from served_model import load

predict, width = load(os.environ["BENCH_MODEL"])


@batch
def infer(x: np.ndarray) -> list[np.ndarray]:
    """Predict the requests that gathered."""
    return [predict(x).astype(np.float32).reshape(-1, 1)]


def free_port() -> int:
    """Return a port that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


config = TritonConfig(
    http_port=int(os.environ["BENCH_PORT"]), http_address="127.0.0.1", grpc_port=free_port(),
    grpc_address="127.0.0.1", metrics_port=free_port(),
)  # fmt: skip
with Triton(config=config) as triton:
    triton.bind(
        model_name="bench",
        infer_func=infer,
        inputs=[Tensor(name="x", dtype=np.float32, shape=(width,))],
        outputs=[Tensor(name="y", dtype=np.float32, shape=(1,))],
        config=ModelConfig(max_batch_size=128, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        strict=True,
    )
    triton.serve()
