"""Jobs that run a script, and models with code, as the SDKs ask for them; and the environments they run in."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.e2e.flow import Flow
from tests.e2e.served import IMAGES, SAGESMITH

__all__ = [
    "SLEEPER", "archive", "deploy", "environment", "framework_image", "invoke_npy", "script", "sklearn_image",
]  # fmt: skip

SLEEPER = """
import time

def model_fn(model_dir):
    return None

def transform_fn(model, body, content_type, accept):
    time.sleep(float(body))
    return "awake", "text/csv"
"""
"""An inference script whose model sleeps for as many seconds as it is told."""


def framework_image(repository: str, tag: str) -> str:
    """Return the URI of one of AWS's images of frameworks."""
    return f"763104351884.dkr.ecr.us-east-1.amazonaws.com/{repository}:{tag}"


def sklearn_image() -> str:
    """The image of the scikit-learn that Sagesmith itself has, whose environment is there."""
    own = ".".join(importlib.metadata.version("scikit-learn").split(".")[:2])
    return f"683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:{own}-1-cpu-py3"


def environment(repository: str, tag: str) -> Path:
    """Return the Python of an image's environment, which is built first if it is not there.

    Without a way to the packages, the test that wants it is skipped.
    """
    done = subprocess.run(
        [SAGESMITH, "images", "build", f"{repository}:{tag}"],
        env={**os.environ, "SAGESMITH_IMAGES_FOLDER": IMAGES},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"The environment of {repository}:{tag} cannot be built: {done.stderr[-1500:]}")
    return Path(done.stdout.strip(), "bin", "python")


def archive(files: Mapping[str, str | bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as tar:
        for name, content in files.items():
            data = dedent(content).encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return sink.getvalue()


def script(flow: Flow, name: str, files: Mapping[str, str], program: str = "train.py", **more: object) -> Any:
    """The hyperparameters of a job that runs *program*, as the SDKs write them."""
    flow.upload({f"{name}/source/sourcedir.tar.gz": archive(files)})
    named = {
        "sagemaker_program": program,
        "sagemaker_submit_directory": f"s3://{flow.bucket}/{name}/source/sourcedir.tar.gz",
        "sagemaker_job_name": name,
        "sagemaker_region": "us-east-1",
        "sagemaker_container_log_level": 20,
        **more,
    }
    return {key: json.dumps(value) for key, value in named.items()}


def deploy(flow: Flow, name: str, image: str, model_data: str, environment: Mapping[str, str]) -> None:
    flow.sagemaker.create_model(
        ModelName=name,
        ExecutionRoleArn=flow.served.role,
        PrimaryContainer={"Image": image, "ModelDataUrl": model_data, "Environment": dict(environment)},
    )
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": name,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
    }
    flow.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    flow.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    flow.wait_for_endpoint(name)


def invoke_npy(flow: Flow, name: str, data: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Invoke with NPY both ways, as the SDKs' predictors of most frameworks do."""
    sink = io.BytesIO()
    np.save(sink, data)
    answer = flow.runtime.invoke_endpoint(
        EndpointName=name, ContentType="application/x-npy", Accept="application/x-npy", Body=sink.getvalue()
    )
    found: npt.NDArray[Any] = np.load(io.BytesIO(answer["Body"].read()))
    return found
