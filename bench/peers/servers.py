"""The other servers, each with the same model: how they are started, as their documentation says, and what they are sent.

Every peer runs one process with one thread for the model, without TLS and without authentication. Those whose
documentation names a quicker mode are measured in it as well.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from bench.environments import ROOT, environment
from bench.invocations import Model, check, load
from bench.peers.process import Peer, peer
from bench.server import free_port

__all__ = ["PEERS", "Contenders"]

Contenders: TypeAlias = "dict[str, Callable[[], Mapping[str, float]]]"
_SERVICES: Final = ROOT / "bench" / "peers"
_JSON: Final = {"Content-Type": "application/json"}
_RAY_TUNED: Final = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_HAPROXY_TCP_NODELAY": "1", "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "1",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
}  # fmt: skip


@contextlib.contextmanager
def bentoml(model: Model, folder: Path, seconds: float) -> Iterator[Contenders]:
    """Run BentoML; it has two contenders, without and with its adaptive batching."""
    binaries, port = environment("bentoml" + model.needs), free_port()
    command: list[str | Path] = [
        binaries / "bentoml", "serve", "bento_service:Service", "--working-dir", str(_SERVICES),
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    environ = {
        "BENCH_MODEL": str(model.file), "OMP_NUM_THREADS": "1", "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(folder / "bentoml"),
    }  # fmt: skip
    base = f"http://127.0.0.1:{port}"
    body = json.dumps({"x": [model.row]}).encode()
    with peer(command, base + "/readyz", folder, environ) as server:
        yield {
            title: _peer_contender(server, base + path, _JSON, body, model, seconds)
            for title, path in (("BentoML", "/predict"), ("BentoML, batching", "/predict_batched"))
        }


@contextlib.contextmanager
def mlserver(model: Model, folder: Path, seconds: float) -> Iterator[Contenders]:
    """Run MLServer with its model in the serving process, its quicker way."""
    binaries, port = environment("mlserver" + model.needs), free_port()
    place = folder / "mlserver"
    place.mkdir()
    settings: dict[str, Any] = {
        "debug": False, "host": "127.0.0.1", "http_port": port, "grpc_port": free_port(),
        "metrics_port": free_port(), "parallel_workers": 0,
    }  # fmt: skip
    (place / "settings.json").write_text(json.dumps(settings))
    script = model.file.suffix == ".py"
    runtime = "mlserver_service.Script" if script else "mlserver_xgboost.XGBoostModel"
    parameters = {"uri": str(model.file if script else folder / "model.json"), "version": "v1"}
    titles = {"bench": "MLServer"} | ({"batched": "MLServer, batching"} if script else {})
    for name in titles:
        adaptive = {"max_batch_size": 64, "max_batch_time": 0.001} if name == "batched" else {}
        (place / name).mkdir()
        (place / name / "model-settings.json").write_text(
            json.dumps({"name": name, "implementation": runtime, "parameters": parameters, **adaptive})
        )
    base = f"http://127.0.0.1:{port}"
    command: list[str | Path] = [binaries / "mlserver", "start", str(place)]
    environ = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(_SERVICES)}
    with peer(command, base + "/v2/health/ready", folder, environ) as server:
        yield {
            title: _peer_contender(
                server, f"{base}/v2/models/{name}/infer", _JSON, _v2(model), model, seconds
            )
            for name, title in titles.items()
        }


def _peer_contender(
    server: Peer, url: str, headers: Mapping[str, str], body: bytes, model: Model, seconds: float
) -> Callable[[], Mapping[str, float]]:
    server.thaw()
    check(url, headers, body, model.expected)
    server.freeze()
    return thawed(server, lambda: load(url, headers, body, seconds))


@contextlib.contextmanager
def litserve(model: Model, folder: Path, seconds: float, batch: int = 1) -> Iterator[Contenders]:
    """Run LitServe; its batching made it slower on the XGBoost model (measured), so there it runs without."""
    binaries, port = environment("litserve" + model.needs), free_port()
    command: list[str | Path] = [binaries / "python", _SERVICES / "lit_service.py"]
    base, name = f"http://127.0.0.1:{port}", "LitServe, batching" if batch > 1 else "LitServe"
    environ = {**_settings(model, port), "BENCH_BATCH": str(batch)}
    with peer(command, base + "/health", folder, environ, "litserve") as server:
        body = json.dumps({"x": [model.row]}).encode()
        yield {name: _peer_contender(server, base + "/predict", _JSON, body, model, seconds)}


@contextlib.contextmanager
def ray_serve(model: Model, folder: Path, seconds: float) -> Iterator[Contenders]:
    """Run Ray Serve with the options that its documentation names for throughput.

    Scripts are served twice, without and with its batching, by one Ray: two would want the same ports of its proxy.
    """
    binaries, port = environment("ray" + model.needs), free_port()
    command: list[str | Path] = [binaries / "python", _SERVICES / "ray_service.py"]
    routes = {"Ray Serve": "/invocations"}
    if model.file.suffix == ".py":
        routes["Ray Serve, batching"] = "/batched"
    environ = {
        **_settings(model, port), **_RAY_TUNED, "RAY_USAGE_STATS_ENABLED": "0", "BENCH_ROUTES": " ".join(routes.values()),
    }  # fmt: skip
    base, headers = f"http://127.0.0.1:{port}", {"Content-Type": "text/csv"}
    with peer(command, base + "/ready", folder, environ, "ray") as server:
        yield {
            title: _peer_contender(server, base + route, headers, model.csv, model, seconds)
            for title, route in routes.items()
        }


@contextlib.contextmanager
def pytriton(model: Model, folder: Path, seconds: float) -> Iterator[Contenders]:
    """Run PyTriton with its dynamic batching."""
    binaries, port = environment("pytriton" + model.needs), free_port()
    command: list[str | Path] = [binaries / "python", _SERVICES / "triton_service.py"]
    base = f"http://127.0.0.1:{port}"
    # Triton's worker looks for the interpreter's library, which only the system's Python has on the usual path.
    library = (binaries / "python").resolve().parent.parent / "lib"
    environ = {**_settings(model, port), "LD_LIBRARY_PATH": str(library)}
    with peer(command, base + "/v2/models/bench/ready", folder, environ, "pytriton") as server:
        url = base + "/v2/models/bench/infer"
        yield {"PyTriton": _peer_contender(server, url, _JSON, _v2(model), model, seconds)}


def _settings(model: Model, port: int) -> dict[str, str]:
    return {"BENCH_MODEL": str(model.file), "BENCH_PORT": str(port), "OMP_NUM_THREADS": "1"}


def _v2(model: Model) -> bytes:
    """Return the request in the protocol that MLServer and Triton share."""
    values = {"name": "x", "shape": [1, len(model.row)], "datatype": "FP32", "data": model.row}
    return json.dumps({"inputs": [values]}).encode()


def thawed(server: Peer, then: Callable[[], Mapping[str, float]]) -> Callable[[], Mapping[str, float]]:
    """Return *then* with *server* running meanwhile."""

    def measured() -> Mapping[str, float]:
        server.thaw()
        try:
            return then()
        finally:
            server.freeze()

    return measured


PEERS: Final = (bentoml, mlserver, litserve, ray_serve, pytriton)
