"""Framework environments: what building one costs, and how soon a job on one that exists runs its user's code.

An environment is built into an empty folder from packages that uv has in its cache, so that the network is no part of the
figure; beside it uv alone installs the same requirements and Python imports the framework once. The first line of a
script in script mode is compared with `python train.py` by the environment's own Python.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.report import Row, Series, interleave, progress
from bench.server import Sagesmith, new_home, running, sagesmith

__all__ = ["run"]

BUCKET = "bench-images"
REGISTRY = "763104351884.dkr.ecr.us-east-1.amazonaws.com"
IMAGES = {
    "scikit-learn": ("sagemaker-scikit-learn:1.2-1-cpu-py3", "sklearn.ensemble"),
    "PyTorch": ("pytorch-training:2.6.0-cpu-py312", "torch"),
    "TensorFlow": ("tensorflow-training:2.12.0-cpu-py310", "tensorflow"),
    "MXNet": ("mxnet-training:1.9.0-cpu-py38", "mxnet"),
}
QUICK = ("scikit-learn",)
FIRST_LINE = "import time\nprint('first line at', time.time(), flush=True)\n"


def run(rounds: int, seconds: float, quick: bool) -> list[Row]:
    """Measure and return the rows; *seconds* has no meaning here."""
    rows = []
    with new_home() as home:
        frameworks = QUICK if quick else tuple(IMAGES)
        pythons = {}
        for name in frameworks:
            rows.append(_build(name, home))
            pythons[name] = sagesmith("images", "build", IMAGES[name][0], "--home", str(home)).strip()
        with running(home) as server:
            server.client("s3").create_bucket(Bucket=BUCKET)
            rows += [_start(name, server, Path(pythons[name]), max(rounds, 3)) for name in frameworks]
    return rows


def _build(name: str, home: Path) -> Row:
    image, module = IMAGES[name]
    progress(f"  filling uv's cache for {name}")
    folder = Path(sagesmith("images", "build", image, "--home", str(home)).strip())
    built = json.loads(sagesmith("images", "list", "--json", "--home", str(home)))
    described = next(each for each in built if Path(each["folder"]) == folder)
    pins = _pins(folder)
    shutil.rmtree(folder)
    progress(f"  building {name}")
    ours, bare = Series(), Series()
    began = time.perf_counter()
    sagesmith("images", "build", image, "--home", str(home))
    ours.add(time.perf_counter() - began)
    with tempfile.TemporaryDirectory(dir=home) as place:
        began = time.perf_counter()
        _uv("venv", "--quiet", "--python", sys.executable, place)
        _uv("pip", "install", "--quiet", "--python", f"{place}/bin/python", *pins)
        subprocess.run([f"{place}/bin/python", "-c", f"import {module}"], check=True, capture_output=True)
        bare.add(time.perf_counter() - began)
    return Row(
        "environments", f"build {described['name']}, {described['size_bytes'] / 1e6:.0f} MB", ours.text("s"),
        "uv and one import", bare.text("s"), ours.median / bare.median,
    )  # fmt: skip


def _pins(folder: Path) -> list[str]:
    """Return what is installed in the environment *folder*, as requirements."""
    metadata = sorted(folder.glob("lib/python*/site-packages/*.dist-info"))
    return ["==".join(path.name.removesuffix(".dist-info").rsplit("-", 1)) for path in metadata]


def _uv(*arguments: str) -> None:
    environ = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    environ.setdefault("UV_FIND_LINKS", os.environ.get("PIP_FIND_LINKS", ""))
    subprocess.run([Path(sys.executable).with_name("uv"), *arguments], env=environ, check=True)


def _start(name: str, server: Sagesmith, prefix: Path, rounds: int) -> Row:
    """CreateTrainingJob to the first line of a script, against `python train.py`."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as archive:
        member = tarfile.TarInfo("train.py")
        member.size = len(FIRST_LINE)
        archive.addfile(member, io.BytesIO(FIRST_LINE.encode()))
    key = f"{name}/sourcedir.tar.gz"
    server.client("s3").put_object(Bucket=BUCKET, Key=key, Body=sink.getvalue())
    script = server.home / "train.py"
    script.write_text(FIRST_LINE)

    def job() -> dict[str, float]:
        return {"s": _first_line_of_a_job(server, IMAGES[name][0], f"s3://{BUCKET}/{key}")}

    def python() -> dict[str, float]:
        began = time.time()
        said = subprocess.run(
            [prefix / "bin" / "python", script], capture_output=True, text=True, check=True
        ).stdout
        return {"s": float(said.split()[-1]) - began}

    found = interleave(rounds, {f"{name}, job": job, f"{name}, python train.py": python})
    ours, bare = (series["s"] for series in found.values())
    more = ours.median - bare.median
    return Row(
        "environments", f"CreateTrainingJob to first line, {name}", ours.text("ms", 1e3), "python train.py",
        bare.text("ms", 1e3), ours.median / bare.median, "<= 0.5 s more", more <= 0.5, f"{more * 1e3:.0f} ms more",
    )  # fmt: skip


def _first_line_of_a_job(server: Sagesmith, image: str, source: str) -> float:
    sagemaker, logs = server.client("sagemaker"), server.client("logs")
    name = f"images-{time.time_ns()}"
    sagemaker.list_training_jobs(MaxResults=1)  # the connection is not part of the figure
    created = time.time()
    sagemaker.create_training_job(
        TrainingJobName=name,
        RoleArn=f"arn:aws:iam::{server.account_id}:role/SagesmithExecutionRole",
        AlgorithmSpecification={"TrainingImage": f"{REGISTRY}/{image}", "TrainingInputMode": "File"},
        HyperParameters={"sagemaker_program": '"train.py"', "sagemaker_submit_directory": json.dumps(source)},
        OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/models"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
        StoppingCondition={"MaxRuntimeInSeconds": 600},
    )
    described: dict[str, Any] = {}
    while described.get("TrainingJobStatus") not in ("Completed", "Failed", "Stopped"):
        time.sleep(0.02)
        described = sagemaker.describe_training_job(TrainingJobName=name)
    pages = logs.get_paginator("filter_log_events").paginate(
        logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{name}/"
    )
    lines = [event["message"] for page in pages for event in page["events"]]
    said = [line for line in lines if line.startswith("first line at")]
    if not said:
        raise RuntimeError(f"{name}: {described.get('FailureReason') or lines[-5:]}")
    time.sleep(0.5)  # the next instance gets ready
    return float(said[0].split()[-1]) - created
