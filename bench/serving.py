"""Invocations: one XGBoost model behind Sagesmith, BentoML and MLServer, and called directly in this process.

The model is that of PERFORMANCE A.1: 100 trees of depth 6 over 30 features. Every server runs one process with
one thread for it, is checked to give the right probability, and gets one row in each request: CSV here, JSON
where a peer wants it. Only Sagesmith's requests are signed and, where it says so, encrypted.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.environments import ROOT, EnvironmentMissing, environment
from bench.load import measure
from bench.peers.process import Peer, peer
from bench.report import Row, Series, interleave, progress
from bench.server import Sagesmith, free_port, new_home, running

__all__ = ["run"]

CONNECTIONS = (1, 16, 64)
ENDPOINT = "bench"
HTTPS, HTTP, CALL = "https + sigv4", "http + sigv4", "in-process call"


@dataclass(frozen=True, slots=True)
class Model:
    """The model, one row of its data, and what it says to that row."""

    file: Path
    row: tuple[float, ...]
    expected: float

    @property
    def csv(self) -> bytes:
        """The row as text/csv."""
        return ",".join(f"{value:.6g}" for value in self.row).encode()


def train(folder: Path) -> Model:
    """Train the model on scikit-learn's breast-cancer data and save it in *folder*."""
    import numpy as np
    import xgboost
    from sklearn.datasets import load_breast_cancer

    features, labels = load_breast_cancer(return_X_y=True)
    # What the request's text can carry is what all servers predict.
    features = np.array([[float(f"{value:.6g}") for value in row] for row in features], np.float32)
    matrix = xgboost.DMatrix(features, label=labels)
    parameters = {"objective": "binary:logistic", "max_depth": 6, "eta": 0.3, "seed": 7, "nthread": 2}
    booster = xgboost.train(parameters, matrix, 100)
    file = folder / "model.ubj"
    booster.save_model(file)
    booster.save_model(folder / "model.json")
    return Model(file, tuple(float(value) for value in features[17]), float(booster.predict(matrix)[17]))


def run(rounds: int, seconds: float, quick: bool) -> list[Row]:
    """Measure and return the rows."""
    with tempfile.TemporaryDirectory() as name, new_home() as home, contextlib.ExitStack() as stack:
        folder = Path(name)
        model = train(folder)
        contenders: dict[str, Callable[[], Mapping[str, float]]] = {}
        server = stack.enter_context(running(home))
        progress("  deploying to Sagesmith")
        deploy(server, model)
        path = f"/endpoints/{ENDPOINT}/invocations"

        def ours(base: str) -> Callable[[], Mapping[str, float]]:
            def headers() -> Mapping[str, str]:
                return server.signed(base + path, "sagemaker", {"Content-Type": "text/csv"}, model.csv)

            check(base + path, headers(), model.csv, model.expected, server)
            return lambda: load(base + path, headers(), model.csv, seconds)

        contenders[HTTPS] = ours(server.url)
        contenders[HTTP] = ours(server.http_url)
        contenders[CALL] = lambda: direct(model, seconds)
        for start in (bentoml, mlserver):
            try:
                contenders.update(stack.enter_context(start(model, folder, seconds)))
            except EnvironmentMissing as error:
                progress(f"  {error}")
        return rows(interleave(rounds, contenders))


def load(url: str, headers: Mapping[str, str], body: bytes, seconds: float) -> dict[str, float]:
    """Warm up for a second, then measure at each number of connections."""
    measure(url, headers, body, connections=4, seconds=1)
    found: dict[str, float] = {}
    for connections in CONNECTIONS:
        result = measure(url, headers, body, connections=connections, seconds=seconds)
        found[f"p50 at {connections}"] = result.p50_s
        found[f"p99 at {connections}"] = result.p99_s
        found[f"rps at {connections}"] = result.rps
        found[f"bad at {connections}"] = result.bad
    return found


def direct(model: Model, seconds: float) -> dict[str, float]:
    """Time the library's own call in this process, from the request's text to a number, in one thread."""
    import numpy as np
    import xgboost

    booster = xgboost.Booster(model_file=model.file)
    booster.set_param({"nthread": 1})
    times: list[int] = []
    until = time.perf_counter() + seconds
    text = model.csv.decode()
    while time.perf_counter() < until:
        began = time.perf_counter_ns()
        booster.inplace_predict(np.fromstring(text, np.float32, sep=",").reshape(1, -1))
        times.append(time.perf_counter_ns() - began)
    times.sort()
    p50 = times[len(times) // 2] / 1e9
    return {"p50 at 1": p50, "p99 at 1": times[len(times) * 99 // 100] / 1e9} | {
        f"rps at {connections}": 1e9 * len(times) / sum(times) for connections in CONNECTIONS
    }


# ---- Sagesmith -----------------------------------------------------------------------------------------


def deploy(server: Sagesmith, model: Model) -> None:
    """Create the endpoint with boto3, as a user would, and wait until it is in service."""
    s3, sagemaker = server.client("s3"), server.client("sagemaker")
    bucket = f"bench-{server.account_id}"
    s3.create_bucket(Bucket=bucket)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.add(model.file, "xgboost-model")
    s3.put_object(Bucket=bucket, Key="model.tar.gz", Body=archive.getvalue())
    sagemaker.create_model(
        ModelName=ENDPOINT,
        ExecutionRoleArn=f"arn:aws:iam::{server.account_id}:role/SagesmithExecutionRole",
        PrimaryContainer={
            "Image": f"683313688378.dkr.ecr.{server.region}.amazonaws.com/sagemaker-xgboost:1.7-1",
            "ModelDataUrl": f"s3://{bucket}/model.tar.gz",
        },
    )
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": ENDPOINT,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
    }
    sagemaker.create_endpoint_config(EndpointConfigName=ENDPOINT, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName=ENDPOINT)
    sagemaker.get_waiter("endpoint_in_service").wait(
        EndpointName=ENDPOINT, WaiterConfig={"Delay": 0.1, "MaxAttempts": 600}
    )


def check(
    url: str, headers: Mapping[str, str], body: bytes, expected: float, server: Sagesmith | None = None
) -> None:
    """Send one request and compare the probability.

    Raises:
        RuntimeError: it is not the model's.
    """
    import ssl

    context = None
    if url.startswith("https") and server is not None:
        context = ssl.create_default_context(cafile=server.environment["AWS_CA_BUNDLE"])
    request = urllib.request.Request(url, data=body, headers=dict(headers), method="POST")
    with urllib.request.urlopen(request, timeout=30, context=context) as answer:
        text = answer.read().decode()
    numbers = [float(number) for number in re.findall(r"-?\d+\.\d+(?:[eE][-+]?\d+)?|\d[eE]-\d+", text)]
    if not any(abs(number - expected) < 1e-6 for number in numbers):
        raise RuntimeError(f"{url} answered {text[:200]!r} instead of {expected}")


# ---- peers ---------------------------------------------------------------------------------------------


def thawed(server: Peer, then: Callable[[], Mapping[str, float]]) -> Callable[[], Mapping[str, float]]:
    """Return *then* with *server* running meanwhile."""

    def measured() -> Mapping[str, float]:
        server.thaw()
        try:
            return then()
        finally:
            server.freeze()

    return measured


@contextlib.contextmanager
def bentoml(
    model: Model, folder: Path, seconds: float
) -> Iterator[dict[str, Callable[[], Mapping[str, float]]]]:
    """Run BentoML; it has two contenders, without and with its adaptive batching."""
    binaries, port = environment("bentoml"), free_port()
    command: list[str | Path] = [
        binaries / "bentoml", "serve", "bento_service:Service", "--working-dir", str(ROOT / "bench" / "peers"),
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    environ = {
        "BENCH_MODEL": str(model.file), "OMP_NUM_THREADS": "1", "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(folder / "bentoml"),
    }  # fmt: skip
    base = f"http://127.0.0.1:{port}"
    body, headers = json.dumps({"x": [model.row]}).encode(), {"Content-Type": "application/json"}
    with peer(command, base + "/readyz", folder, environ) as server:
        yield {
            title: _peer_contender(server, base + path, headers, body, model, seconds)
            for title, path in (("BentoML", "/predict"), ("BentoML, batching", "/predict_batched"))
        }


@contextlib.contextmanager
def mlserver(
    model: Model, folder: Path, seconds: float
) -> Iterator[dict[str, Callable[[], Mapping[str, float]]]]:
    """Run MLServer with its model in the serving process, its quicker way."""
    binaries, port = environment("mlserver"), free_port()
    place = folder / "mlserver"
    place.mkdir()
    settings: dict[str, Any] = {
        "debug": False, "host": "127.0.0.1", "http_port": port, "grpc_port": free_port(),
        "metrics_port": free_port(), "parallel_workers": 0,
    }  # fmt: skip
    (place / "settings.json").write_text(json.dumps(settings))
    (place / "model-settings.json").write_text(
        json.dumps(
            {
                "name": "bench",
                "implementation": "mlserver_xgboost.XGBoostModel",
                "parameters": {"uri": str(folder / "model.json"), "version": "v1"},
            }
        )
    )
    base = f"http://127.0.0.1:{port}"
    values = {"name": "x", "shape": [1, len(model.row)], "datatype": "FP32", "data": model.row}
    body, headers = json.dumps({"inputs": [values]}).encode(), {"Content-Type": "application/json"}
    command: list[str | Path] = [binaries / "mlserver", "start", str(place)]
    with peer(command, base + "/v2/models/bench/ready", folder, {"OMP_NUM_THREADS": "1"}) as server:
        url = base + "/v2/models/bench/infer"
        yield {"MLServer": _peer_contender(server, url, headers, body, model, seconds)}


def _peer_contender(
    server: Peer, url: str, headers: Mapping[str, str], body: bytes, model: Model, seconds: float
) -> Callable[[], Mapping[str, float]]:
    server.thaw()
    check(url, headers, body, model.expected)
    server.freeze()
    return thawed(server, lambda: load(url, headers, body, seconds))


# ---- the table -----------------------------------------------------------------------------------------


def rows(found: Mapping[str, Mapping[str, Series]]) -> list[Row]:
    """Return the table's rows from the series of each contender."""
    peers = [name for name in found if name not in (HTTPS, HTTP, CALL)]
    result: list[Row] = []
    for name in (HTTPS, HTTP):
        ours = found[name]
        latency = ours["p50 at 1"]
        note = f"p99 {ours['p99 at 1'].text('ms', 1e3)}"
        for other in (CALL, *peers):
            theirs = found[other]["p50 at 1"]
            met = latency.median <= 0.3e-3 if name == HTTPS and other == CALL else None
            result.append(
                Row(
                    "serving", f"{name}: p50 at 1 connection", latency.text("ms", 1e3), other,
                    theirs.text("ms", 1e3), latency.median / theirs.median,
                    "<= 0.3 ms" if met is not None else "", met, note if met is not None else "",
                )
            )  # fmt: skip
        for connections in CONNECTIONS[1:]:
            rate = ours[f"rps at {connections}"]
            best = max(peers, key=lambda peer: found[peer][f"rps at {connections}"].median, default="")
            bad = sum(ours[f"bad at {connections}"].values)
            for other in (CALL, *peers):
                theirs = found[other][f"rps at {connections}"]
                ratio = rate.median / theirs.median
                judged = name == HTTPS and other == best
                result.append(
                    Row(
                        "serving", f"{name}: requests/s at {connections} connections", rate.text("/s"), other,
                        theirs.text("/s"), ratio, ">= 10 x the best peer" if judged else "",
                        ratio >= 10 if judged else None, f"{bad:.0f} errors" if judged and bad else "",
                    )
                )  # fmt: skip
    return result
