"""Ray Serve's deployment of the benchmark's model, as its documentation says."""

import os
import signal
import tempfile

import numpy as np
import ray
from ray import serve
from served_model import load
from starlette.requests import Request
from starlette.responses import PlainTextResponse


class Model:
    """One replica, one thread, like every other server in the benchmark."""

    def __init__(self) -> None:
        self.predict, _ = load(os.environ["BENCH_MODEL"])

    async def __call__(self, request: Request) -> PlainTextResponse:
        """Predict one request."""
        row = np.array((await request.body()).split(b","), np.float32)
        return PlainTextResponse(f"{self.predict(row.reshape(1, -1))[0]:.9g}")


class Batched(Model):
    """The same with dynamic request batching."""

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0)
    async def together(self, rows: list[np.ndarray]) -> list[float]:
        """Predict the requests that gathered."""
        return list(self.predict(np.stack(rows)))

    async def __call__(self, request: Request) -> PlainTextResponse:
        """Predict one request with others."""
        row = np.array((await request.body()).split(b","), np.float32)
        return PlainTextResponse(f"{await self.together(row):.9g}")


@serve.deployment(ray_actor_options={"num_cpus": 0})
class Ready:
    """Answers once the others, which were begun before it, can be reached: Ray's own route for that answers sooner."""

    async def __call__(self, request: Request) -> PlainTextResponse:
        """Say so."""
        return PlainTextResponse("ready")


APPLICATIONS = {"/invocations": Model, "/batched": Batched}
with tempfile.TemporaryDirectory(prefix="ray") as folder:
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False, _temp_dir=folder,
        _node_ip_address="127.0.0.1",
    )  # fmt: skip
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["BENCH_PORT"])})
    for route in os.environ["BENCH_ROUTES"].split():
        deployment = serve.deployment(APPLICATIONS[route], num_replicas=1, max_ongoing_requests=256)
        serve.run(deployment.bind(), name=route.strip("/"), route_prefix=route)
    serve.run(Ready.bind(), name="ready", route_prefix="/ready")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
