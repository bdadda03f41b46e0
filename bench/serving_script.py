"""Models in script mode behind Sagesmith, behind the other model servers, and called directly.

A linear model of scikit-learn and a small network of PyTorch, each over 64 features. Every server runs the same
``model_fn`` and ``predict_fn``: one request at a time, and the requests that gathered as one call where it can be told to.
Sagesmith is told by `SAGESMITH_DYNAMIC_BATCHING`, the others by a decorator or an option.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bench.environments import EnvironmentMissing
from bench.invocations import CONNECTIONS, Model, check, load
from bench.peers.process import PeerMissing
from bench.peers.servers import Contenders, bentoml, litserve, mlserver, pytriton, ray_serve
from bench.report import Row, Series, interleave, progress
from bench.server import Sagesmith, new_home, running, sagesmith

__all__ = ["run"]

PEERS: Final = Path(__file__).parent / "peers"
WIDTH: Final = 64
ROW: Final = tuple(round(math.cos(column), 3) for column in range(WIDTH))
TOGETHER, ONE_BY_ONE = "https + sigv4, batching", "https + sigv4"
CALL: Final = "in-process call"
BATCH: Final = 64


@dataclass(frozen=True, slots=True)
class Framework:
    """A framework's image, and the model that is served in it."""

    name: str
    image: str
    model: Model


def linear(row: tuple[float, ...]) -> float:
    """Return what `sklearn_model.py` says to *row*."""
    return _logistic(sum(math.sin(column) * value for column, value in enumerate(row)))


def network(row: tuple[float, ...]) -> float:
    """Return what `torch_model.py` says to *row*."""
    values = list(row)
    for n_outputs in (WIDTH, WIDTH, 1):
        weights = [math.sin(n) / 8 for n in range(n_outputs * WIDTH)]
        sums = [
            math.fsum(weights[n * WIDTH + column] * value for column, value in enumerate(values))
            for n in range(n_outputs)
        ]
        values = [max(value, 0.0) for value in sums] if n_outputs > 1 else sums
    return _logistic(values[0])


def _logistic(margin: float) -> float:
    return 1 / (1 + math.exp(-margin))


FRAMEWORKS: Final = (
    Framework(
        "scikit-learn", "sagemaker-scikit-learn:1.2-1-cpu-py3", Model(PEERS / "sklearn_model.py", ROW, linear(ROW))
    ),
    Framework(
        "PyTorch", "pytorch-inference:2.6.0-cpu-py312",
        Model(PEERS / "torch_model.py", ROW, network(ROW), "-torch"),
    ),
)  # fmt: skip
_OTHERS: Final[tuple[Callable[[Model, Path, float], AbstractContextManager[Contenders]], ...]] = (
    pytriton,
    ray_serve,
    bentoml,
    litserve,
    functools.partial(litserve, batch=BATCH),
    mlserver,
)


def run(rounds: int, seconds: float, quick: bool) -> list[Row]:
    """Measure and return the rows; a *quick* run has scikit-learn alone, and no peers."""
    found: list[Row] = []
    with new_home() as home:
        for framework in FRAMEWORKS[:1] if quick else FRAMEWORKS:
            progress(f"  building the environment of {framework.name}")
            python = (
                sagesmith("images", "build", framework.image, "--home", str(home)).strip() + "/bin/python"
            )
            with contextlib.ExitStack() as stack:
                folder = Path(stack.enter_context(TemporaryDirectory()))
                server = stack.enter_context(running(home))
                contenders = dict(ours(server, framework, seconds))
                contenders[CALL] = functools.partial(direct, python, framework.model, seconds)
                for start in () if quick else _OTHERS:
                    try:
                        contenders.update(stack.enter_context(start(framework.model, folder, seconds)))
                    except (EnvironmentMissing, PeerMissing) as error:
                        progress(f"  {error}")
                found += rows(framework.name, interleave(rounds, contenders))
    return found


def ours(
    server: Sagesmith, framework: Framework, seconds: float
) -> Iterator[tuple[str, Callable[[], Mapping[str, float]]]]:
    """Deploy the model twice, and yield both contenders."""
    model = framework.model

    def measured(url: str) -> Mapping[str, float]:
        headers = server.signed(url, "sagemaker", {"Content-Type": "text/csv"}, model.csv)
        check(url, headers, model.csv, model.expected, server)
        return load(url, headers, model.csv, seconds)

    for title, name, batching in ((TOGETHER, "together", "true"), (ONE_BY_ONE, "one-by-one", "false")):
        endpoint = f"{framework.name.lower()}-{name}"
        deploy(server, framework, endpoint, batching)
        yield title, functools.partial(measured, f"{server.url}/endpoints/{endpoint}/invocations")


def direct(python: str, model: Model, seconds: float) -> dict[str, float]:
    """Time the script's functions in a process of the environment's *python*, from the request's text to a number."""
    command = [python, PEERS / "bare_script.py", model.file, model.csv.decode(), str(seconds)]
    environ = {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environ, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    return {"p50 at 1": found["p50_s"]} | {
        f"rps at {connections}": found["rps"] for connections in CONNECTIONS
    }


def deploy(server: Sagesmith, framework: Framework, endpoint: str, batching: str) -> None:
    """Create the endpoint as the SDK's models do, and wait until it is in service."""
    s3, sagemaker = server.client("s3"), server.client("sagemaker")
    bucket, key = f"bench-{endpoint}", "model.tar.gz"
    s3.create_bucket(Bucket=bucket)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.add(framework.model.file, "code/inference.py")
    s3.put_object(Bucket=bucket, Key=key, Body=archive.getvalue())
    sagemaker.create_model(
        ModelName=endpoint,
        ExecutionRoleArn=f"arn:aws:iam::{server.account_id}:role/SagesmithExecutionRole",
        PrimaryContainer={
            "Image": f"683313688378.dkr.ecr.{server.region}.amazonaws.com/{framework.image}",
            "ModelDataUrl": f"s3://{bucket}/{key}",
            "Environment": {
                "SAGEMAKER_PROGRAM": "inference.py",
                "OMP_NUM_THREADS": "1",
                "SAGESMITH_DYNAMIC_BATCHING": batching,
            },
        },
    )
    variant = {"VariantName": "AllTraffic", "ModelName": endpoint, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}  # fmt: skip
    sagemaker.create_endpoint_config(EndpointConfigName=endpoint, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=endpoint)
    sagemaker.get_waiter("endpoint_in_service").wait(
        EndpointName=endpoint, WaiterConfig={"Delay": 0.1, "MaxAttempts": 1200}
    )


def rows(framework: str, found: Mapping[str, Mapping[str, Series]]) -> list[Row]:
    """Return the table's rows from the series of each contender."""
    others = [name for name in found if name not in (TOGETHER, ONE_BY_ONE)]
    peers = [name for name in others if name != CALL]
    result = []
    for title in (TOGETHER, ONE_BY_ONE):
        for measure in ("p50 at 1", *(f"rps at {connections}" for connections in CONNECTIONS[1:])):
            unit, scale = ("ms", 1e3) if measure.startswith("p50") else ("/s", 1.0)
            best = max(peers, key=lambda peer: found[peer][measure].median, default="")
            for other in others:
                our, their = found[title][measure], found[other][measure]
                ratio = our.median / their.median
                judged = unit == "/s" and other == best and title == TOGETHER
                result.append(
                    Row(
                        "serving", f"{framework} script, {title}: {measure}", our.text(unit, scale), other,
                        their.text(unit, scale), ratio, ">= 3 x the best peer" if judged else "",
                        ratio >= 3 if judged else None,
                    )
                )  # fmt: skip
    return result
