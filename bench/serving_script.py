"""A scikit-learn model in script mode behind Sagesmith, behind the best other model servers, and called directly."""

from __future__ import annotations

import contextlib
import io
import math
import runpy
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.environments import EnvironmentMissing
from bench.invocations import CONNECTIONS, Model, check, load
from bench.peers.process import PeerMissing
from bench.peers.servers import Contenders, pytriton, ray_serve
from bench.report import Row, Series, interleave, progress
from bench.server import Sagesmith, new_home, running, sagesmith

__all__ = ["run"]

NAME = "script"
SCRIPT = Path(__file__).parent / "peers" / "script_model.py"
IMAGE = "sagemaker-scikit-learn:1.2-1-cpu-py3"
OURS, CALL = "https + sigv4", "in-process call"


def run(rounds: int, seconds: float, quick: bool) -> list[Row]:
    """Measure and return the rows; a *quick* run has no peers."""
    row = tuple(round(math.cos(column), 3) for column in range(64))
    margin = sum(math.sin(column) * value for column, value in enumerate(row))
    model = Model(SCRIPT, row, 1 / (1 + math.exp(-margin)))
    with TemporaryDirectory() as name, new_home() as home, contextlib.ExitStack() as stack:
        progress("  building the environment of scikit-learn")
        sagesmith("images", "build", IMAGE, "--home", str(home))
        server = stack.enter_context(running(home))
        deploy(server)
        url = f"{server.url}/endpoints/{NAME}/invocations"

        def ours() -> Mapping[str, float]:
            headers = server.signed(url, "sagemaker", {"Content-Type": "text/csv"}, model.csv)
            check(url, headers, model.csv, model.expected, server)
            return load(url, headers, model.csv, seconds)

        contenders: Contenders = {OURS: ours, CALL: lambda: direct(model, seconds)}
        for start in () if quick else (pytriton, ray_serve):
            try:
                contenders.update(stack.enter_context(start(model, Path(name), seconds)))
            except (EnvironmentMissing, PeerMissing) as error:
                progress(f"  {error}")
        return rows(interleave(rounds, contenders))


def direct(model: Model, seconds: float) -> dict[str, float]:
    """Time the script's functions in this process, from the request's text to a number."""
    import numpy as np

    script = runpy.run_path(str(SCRIPT))
    fitted, text, times = script["model_fn"](""), model.csv.decode(), list[int]()
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter_ns()
        script["predict_fn"](np.fromstring(text, np.float32, sep=","), fitted)
        times.append(time.perf_counter_ns() - began)
    times.sort()
    return {"p50 at 1": times[len(times) // 2] / 1e9} | {
        f"rps at {connections}": 1e9 * len(times) / sum(times) for connections in CONNECTIONS
    }


def deploy(server: Sagesmith) -> None:
    """Create the endpoint as the SDK's SKLearnModel does, and wait until it is in service."""
    s3, sagemaker = server.client("s3"), server.client("sagemaker")
    bucket = f"bench-{server.account_id}"
    s3.create_bucket(Bucket=bucket)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.add(SCRIPT, "code/inference.py")
    s3.put_object(Bucket=bucket, Key="script.tar.gz", Body=archive.getvalue())
    sagemaker.create_model(
        ModelName=NAME,
        ExecutionRoleArn=f"arn:aws:iam::{server.account_id}:role/SagesmithExecutionRole",
        PrimaryContainer={
            "Image": f"683313688378.dkr.ecr.{server.region}.amazonaws.com/{IMAGE}",
            "ModelDataUrl": f"s3://{bucket}/script.tar.gz",
            "Environment": {"SAGEMAKER_PROGRAM": "inference.py", "OMP_NUM_THREADS": "1"},
        },
    )
    variant = {"VariantName": "AllTraffic", "ModelName": NAME, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}  # fmt: skip
    sagemaker.create_endpoint_config(EndpointConfigName=NAME, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName=NAME)
    sagemaker.get_waiter("endpoint_in_service").wait(
        EndpointName=NAME, WaiterConfig={"Delay": 0.1, "MaxAttempts": 1200}
    )


def rows(found: Mapping[str, Mapping[str, Series]]) -> list[Row]:
    """Return the table's rows from the series of each contender."""
    ours, others = found[OURS], [name for name in found if name != OURS]
    peers = [name for name in others if name != CALL]
    result = []
    for measure in ("p50 at 1", *(f"rps at {connections}" for connections in CONNECTIONS[1:])):
        unit, scale = ("ms", 1e3) if measure.startswith("p50") else ("/s", 1.0)
        best = max(peers, key=lambda peer: found[peer][measure].median, default="")
        for other in others:
            theirs = found[other][measure]
            ratio = ours[measure].median / theirs.median
            judged = unit == "/s" and other == best
            result.append(
                Row(
                    "serving", f"scikit-learn script, {OURS}: {measure}", ours[measure].text(unit, scale), other,
                    theirs.text(unit, scale), ratio, ">= 3 x the best peer" if judged else "", ratio >= 3 if judged else None,
                )
            )  # fmt: skip
    return result
