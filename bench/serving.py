"""Invocations: one XGBoost model behind Sagesmith, behind other model servers, and called directly in this process.

The model is that of PERFORMANCE A.1: 100 trees of depth 6 over 30 features. Every server runs one process with
one thread for it, is checked to give the right probability, and gets one row in each request: CSV here, JSON
where a peer wants it. Only Sagesmith's requests are signed and, where it says so, encrypted.
"""

from __future__ import annotations

import contextlib
import io
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bench import serving_many, serving_script
from bench.environments import EnvironmentMissing
from bench.invocations import CONNECTIONS, Model, check, load, train
from bench.peers.process import PeerMissing
from bench.peers.servers import PEERS, Contenders
from bench.report import Row, Series, interleave, progress
from bench.server import Sagesmith, new_home, running

__all__ = ["run"]

ENDPOINT = "bench"
PARTS = ("xgboost", "script", "many")
HTTPS, HTTP, CALL = "https + sigv4", "http + sigv4", "in-process call"


def run(rounds: int, seconds: float, quick: bool, only: str = "") -> list[Row]:
    """Measure and return the rows: of one of `PARTS`, or of all.

    Raises:
        ValueError: *only* is none of them.
    """
    if only not in ("", *PARTS):
        raise ValueError(f"there is no serving/{only}; there are {', '.join(PARTS)}")
    found: list[Row] = []
    if only in ("", "xgboost"):
        found += against_peers(rounds, seconds)
    if only in ("", "script"):
        found += serving_script.run(rounds, seconds, quick)
    if only in ("", "many"):
        found += serving_many.run(seconds, quick)
    return found


def against_peers(rounds: int, seconds: float) -> list[Row]:
    """Measure one XGBoost model behind every server."""
    with tempfile.TemporaryDirectory() as name, new_home() as home, contextlib.ExitStack() as stack:
        folder = Path(name)
        model = train(folder)
        contenders: Contenders = {}
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
        for start in PEERS:
            try:
                contenders.update(stack.enter_context(start(model, folder, seconds)))
            except (EnvironmentMissing, PeerMissing) as error:
                progress(f"  {error}")
        return rows(interleave(rounds, contenders))


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
