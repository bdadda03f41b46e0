"""The Python interface beside SageMaker's SDKs 2 and 3: what it weighs, what importing costs, how late a wait returns.

All run against the same server of ours. The wait's delay is from the job's end, as the server recorded it, to the
moment when `fit` (or `train`) returns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.clients.environments import EnvironmentUnavailableError, environment

from bench.environments import ROOT, WORK
from bench.report import Row, Series, interleave, progress
from bench.server import Sagesmith, new_home, running

__all__ = ["run"]

IMPORTS = {
    "sagesmith": "from sagesmith import Estimator, Session",
    "sdk2": "from sagemaker.estimator import Estimator",
    "sdk3": "from sagemaker.train import ModelTrainer",
}
FITS = {
    "sagesmith": """
from sagesmith import Estimator
e = Estimator("xgboost", num_round=3, metric_definitions=None)
e.fit("s3://bench/train/", progress=False)
name = e.job.name
""",
    "sdk2": """
from sagemaker import image_uris
from sagemaker.estimator import Estimator
from sagemaker.inputs import TrainingInput
e = Estimator(image_uris.retrieve("xgboost", "us-east-1", "1.7-1"), ROLE, 1, "ml.m5.xlarge",
              hyperparameters={"num_round": 3})
e.fit({"train": TrainingInput("s3://bench/train/", content_type="text/csv")}, logs="None")
name = e.latest_training_job.name
""",
    "sdk3": """
from sagemaker.core import image_uris
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, OutputDataConfig
e = ModelTrainer(training_image=image_uris.retrieve("xgboost", "us-east-1", "1.7-1"), role=ROLE,
                 compute=Compute(instance_type="ml.m5.xlarge", instance_count=1, volume_size_in_gb=10),
                 output_data_config=OutputDataConfig(s3_output_path="s3://bench/models"), hyperparameters={"num_round": 3})
e.train(input_data_config=[InputData(channel_name="train", data_source="s3://bench/train/", content_type="text/csv")],
        wait=True, logs=False)
name = e._latest_training_job.training_job_name
""",
}
AFTER = """
import time
returned = time.time()
import boto3, json
end = boto3.client("sagemaker").describe_training_job(TrainingJobName=name)["TrainingEndTime"].timestamp()
print("\\nRESULT", json.dumps(returned - end))
"""
LABELS = {
    "sagesmith": "sagesmith-client",
    "sdk2": "sagemaker 2.257",
    "sdk3": "sagemaker 3.27's core and train",
}


def run(rounds: int, seconds: float, quick: bool) -> list[Row]:
    """Measure and return the rows. *seconds* is not heeded: nothing here is load."""
    pythons = {"sagesmith": _client()}
    for name in ("sdk2", "sdk3"):
        try:
            pythons[name] = environment(name)
        except EnvironmentUnavailableError as error:
            progress(f"  {error}")
    rows = [_size(pythons), *_imports(pythons, rounds)]
    with new_home() as home, running(home) as server:
        s3 = server.client("s3")
        s3.create_bucket(Bucket="bench")
        s3.put_object(Bucket="bench", Key="train/train.csv", Body=b"0,1,2\n1,3,4\n" * 50)
        rows += _waits(pythons, server, 1 if quick else rounds)
    return rows


def _client() -> Path:
    """Return the Python of an environment with the small distribution, made anew from this tree."""
    place = WORK / "sagesmith-client"
    uv = Path(sys.executable).with_name("uv")
    python = place / "bin" / "python"
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, place],
        [
            uv,
            "pip",
            "install",
            "--quiet",
            "--python",
            python,
            "--reinstall-package",
            "sagesmith-client",
            ROOT / "client",
        ],
    ):
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return python


def _size(pythons: Mapping[str, Path]) -> Row:
    """What each environment holds besides Python itself."""
    sizes = {name: _folder_size(python.parent.parent / "lib") for name, python in pythons.items()}
    return _row("installed, with all that it needs", {k: _series(v) for k, v in sizes.items()}, "MB", 1e-6)


def _folder_size(folder: Path) -> float:
    return float(sum(path.lstat().st_size for path in folder.rglob("*") if "__pycache__" not in path.parts))


def _series(value: float) -> Series:
    series = Series()
    series.add(value)
    return series


def _imports(pythons: Mapping[str, Path], rounds: int) -> list[Row]:
    def contender(name: str) -> Any:
        code = (
            f"import time; began = time.perf_counter(); {IMPORTS[name]}; print(time.perf_counter() - began)"
        )

        def measure() -> Mapping[str, float]:
            done = _python(pythons[name], code, _bare_environment())
            return {"import": float(done.split()[-1])}

        return measure

    for name in pythons:
        contender(name)()  # compiles
    found = interleave(max(rounds, 3), {name: contender(name) for name in pythons})
    series = {name: measures["import"] for name, measures in found.items()}
    return [_row("import of the estimator", series, "s", target="<= 0.3 s", most=0.3)]


def _waits(pythons: Mapping[str, Path], server: Sagesmith, rounds: int) -> list[Row]:
    role = f"ROLE = 'arn:aws:iam::{server.account_id}:role/SagesmithExecutionRole'\n"

    def contender(name: str) -> Any:
        def measure() -> Mapping[str, float]:
            variables = {**_bare_environment(), **server.environment}
            # The official SDKs name hosts of AWS in their code; `run` brings those calls here as well.
            sagesmith = str(Path(sys.executable).with_name("sagesmith"))
            command = [
                sagesmith,
                "run",
                "--home",
                str(server.home),
                "--",
                str(pythons[name]),
                "-c",
                role + FITS[name] + AFTER,
            ]
            done = subprocess.run(
                command, env=variables, capture_output=True, text=True, check=False, timeout=600
            )
            if done.returncode:
                raise RuntimeError(f"{LABELS[name]}: {done.stderr.strip().splitlines()[-1]}")
            line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
            return {"late": float(json.loads(line.removeprefix("RESULT ")))}

        return measure

    found = interleave(rounds, {name: contender(name) for name in pythons})
    series = {name: measures["late"] for name, measures in found.items()}
    return [_row("fit returns after the job's end", series, "s", target="<= 0.1 s", most=0.1)]


def _row(
    what: str,
    series: Mapping[str, Series],
    unit: str,
    scale: float = 1.0,
    *,
    target: str = "",
    most: float | None = None,
) -> Row:
    """Return one row: ours against both; the ratio is to version 2."""
    ours = series.get("sagesmith")
    others = [name for name in ("sdk2", "sdk3") if name in series]
    return Row(
        "sdk", what, ours.text(unit, scale) if ours else "",
        ", ".join(LABELS[name] for name in others), ", ".join(series[name].text(unit, scale) for name in others),
        ours.median / series["sdk2"].median if ours and "sdk2" in series else None,
        target, None if most is None or ours is None else ours.median <= most,
        "ratio to 2.257" if "sdk2" in series else "",
    )  # fmt: skip


def _bare_environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "", "AWS_EC2_METADATA_DISABLED": "true"}


def _python(python: Path, code: str, variables: Mapping[str, str]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [python, "-c", code], env=dict(variables), cwd=folder, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return done.stdout
