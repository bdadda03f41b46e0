"""Code, archives and models that are wrong: each is told as AWS tells it, and nothing is left running."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError

from tests.e2e.flow import Flow
from tests.e2e.script_mode import archive, deploy, script
from tests.e2e.served import Served, wait_until
from tests.e2e.test_script_mode import sklearn_image


@pytest.fixture(scope="module")
def flow(served: Served) -> Iterator[Flow]:
    flow = Flow(served, "bad-scripts")
    flow.upload({"data/train.csv": b"1,2\n"})
    yield flow
    wait_until(lambda: not instances(served), timeout_s=60, what=f"no container left: {instances(served)}")


@pytest.fixture(scope="module", autouse=True)
def hanging(flow: Flow) -> None:
    """An endpoint whose server never answers: it takes a minute to fail, so it begins before everything else."""
    flow.upload({"hangs/model.tar.gz": archive({"code/inference.py": "import time\ntime.sleep(3600)\n"})})
    flow.sagemaker.create_model(
        ModelName="hangs",
        ExecutionRoleArn=flow.served.role,
        PrimaryContainer={
            "Image": sklearn_image(),
            "ModelDataUrl": f"s3://{flow.bucket}/hangs/model.tar.gz",
        },
    )
    variant = {
        "VariantName": "AllTraffic", "ModelName": "hangs", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large",
        "ContainerStartupHealthCheckTimeoutInSeconds": 60,
    }  # fmt: skip
    flow.sagemaker.create_endpoint_config(EndpointConfigName="hangs", ProductionVariants=[variant])
    flow.sagemaker.create_endpoint(EndpointName="hangs", EndpointConfigName="hangs")


def instances(served: Served) -> list[psutil.Process]:
    """The processes of the toolkit, which only containers run, for this file's jobs and endpoints."""
    return [
        process
        for process in served.processes()
        if "sagesmith_toolkit" in process.cmdline() and "sagesmith_toolkit.warm" not in process.cmdline()
    ]


def linking(name: str, target: str) -> bytes:
    """An archive with a train.py, and a link *name* to *target*."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as tar:
        entry = tarfile.TarInfo("train.py")
        tar.addfile(entry, io.BytesIO())
        link = tarfile.TarInfo(name)
        link.type, link.linkname = tarfile.SYMTYPE, target
        tar.addfile(link)
    return sink.getvalue()


def test_an_entry_point_that_is_not_in_the_archive(flow: Flow) -> None:
    hyperparameters = script(flow, "absent", {"other.py": ""}, program="train.py")
    job = flow.train(
        "absent", image=sklearn_image(), hyperparameters=hyperparameters, channels={"train": "data/"}
    )
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith(
        "AlgorithmError: ExecuteUserScriptError:\nExitCode 2\nErrorMessage"
    )
    assert "can't open file" in job["FailureReason"]
    assert "train.py" in job["FailureReason"]


@pytest.mark.parametrize(("name", "target"), [("lib", "/etc"), ("lib", "../../../etc")])
def test_code_with_a_link_that_leaves_its_folder(flow: Flow, name: str, target: str) -> None:
    job_name = f"link-{len(target)}"
    hyperparameters = script(flow, job_name, {"train.py": ""})
    flow.upload({f"{job_name}/source/sourcedir.tar.gz": linking(name, target)})
    job = flow.train(
        job_name, image=sklearn_image(), hyperparameters=hyperparameters, channels={"train": "data/"}
    )
    assert job["FailureReason"].startswith("ClientError: Failed to extract source code archive from URL")


def test_a_script_that_is_killed_says_how(flow: Flow) -> None:
    files = {"train.py": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"}
    job = flow.train(
        "killed",
        image=sklearn_image(),
        hyperparameters=script(flow, "killed", files),
        channels={"train": "data/"},
    )
    assert "ExitCode 137" in job["FailureReason"]
    assert "OutOfMemory: Process killed by SIGKILL" in job["FailureReason"]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:newest", "is invalid"),
        ("763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.6.0", "is invalid"),
        (
            "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-tensorflow-training:2.6.3",
            "not available",
        ),
    ],
)
def test_an_image_that_does_not_exist(flow: Flow, image: str, words: str) -> None:
    with pytest.raises(ClientError, match=words) as caught:
        flow.train("no-image", image=image, hyperparameters={}, channels={"train": "data/"})
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    with pytest.raises(ClientError, match=words):
        flow.sagemaker.create_model(
            ModelName="no-image", ExecutionRoleArn=flow.served.role, PrimaryContainer={"Image": image}
        )


DYING = """
import os

def model_fn(model_dir):
    return None

def input_fn(body, content_type):
    return body

def predict_fn(data, model):
    if data == "die":
        os._exit(9)
    return data

def output_fn(prediction, accept):
    return prediction
"""


def test_a_model_server_that_dies_under_load_comes_back(flow: Flow) -> None:
    flow.upload({"dying/model.tar.gz": archive({"code/inference.py": DYING})})
    deploy(flow, "dying", sklearn_image(), f"s3://{flow.bucket}/dying/model.tar.gz", {})
    try:
        assert ask(flow, "dying", "hello") == "hello"
        with pytest.raises(ClientError) as caught:
            ask(flow, "dying", "die")
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] >= 400
        deadline = time.monotonic() + 60
        while True:
            try:
                assert ask(flow, "dying", "again") == "again"
                break
            except ClientError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert flow.sagemaker.describe_endpoint(EndpointName="dying")["EndpointStatus"] == "InService"
        lines = flow.log_lines("/aws/sagemaker/Endpoints/dying", "AllTraffic")
        assert any("The model server ended (exit code 9)" in line for line in lines), lines
    finally:
        flow.delete("dying")


def test_a_model_server_that_never_answers_fails_its_endpoint(flow: Flow) -> None:
    def status() -> dict[str, Any]:
        found: dict[str, Any] = flow.sagemaker.describe_endpoint(EndpointName="hangs")
        return found

    wait_until(lambda: status()["EndpointStatus"] == "Failed", timeout_s=150, what="the endpoint has failed")
    assert "did not pass the ping health check" in status()["FailureReason"]
    assert "no answer to /ping in 60 s" in status()["FailureReason"]
    flow.delete("hangs")


def ask(flow: Flow, name: str, body: str) -> str:
    answer = flow.runtime.invoke_endpoint(
        EndpointName=name, ContentType="text/plain", Accept="text/plain", Body=body
    )
    text: str = answer["Body"].read().decode()
    return text
