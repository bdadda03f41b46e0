"""Own scripts and own models in the containers of scikit-learn and XGBoost, in plain boto3."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError, WaiterError

from tests.containers.sandbox import needs_sandbox
from tests.e2e.flow import Flow, xgboost_image
from tests.e2e.script_mode import archive, deploy, invoke_npy, script
from tests.e2e.served import Served


def sklearn_image(tag: str = "") -> str:
    """The image of the scikit-learn that Sagesmith itself has, whose environment is there, or of *tag*."""
    own = ".".join(importlib.metadata.version("scikit-learn").split(".")[:2])
    return f"683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:{tag or own + '-1-cpu-py3'}"


def own_xgboost_image() -> str:
    return xgboost_image(".".join(importlib.metadata.version("xgboost-cpu").split(".")[:2]) + "-1")


@pytest.fixture(scope="module")
def flow(served: Served) -> Flow:
    flow = Flow(served, "script-mode")
    flow.upload({"data/train.csv": b"\n".join(b"%f,%f" % tuple(row) for row in points().tolist())})
    return flow


TRAIN = """
import argparse, os
import pandas as pd
from sklearn.externals import joblib
from sklearn.cluster import KMeans

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--n_clusters", type=int)
    parser.add_argument("--model-dir", default=os.environ["SM_MODEL_DIR"])
    parser.add_argument("--train", default=os.environ["SM_CHANNEL_TRAIN"])
    args = parser.parse_args()
    data = pd.concat([pd.read_csv(os.path.join(args.train, f), header=None) for f in os.listdir(args.train)])
    print("rows", len(data))
    model = KMeans(n_clusters=args.n_clusters, n_init=3, random_state=0).fit(data.values.astype("float32"))
    joblib.dump(model, os.path.join(args.model_dir, "model.joblib"))

def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))
"""


def points() -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(center, 0.1, (20, 2)) for center in (0, 5, 10)]).astype("float32")


def test_a_book_chapters_script_trains_deploys_and_predicts(flow: Flow) -> None:
    data = points()
    hyperparameters = script(flow, "book", {"train.py": TRAIN}, n_clusters=3)
    job = flow.train(
        "book", image=sklearn_image(), hyperparameters=hyperparameters, channels={"train": "data/"}
    )
    lines = flow.log_lines("/aws/sagemaker/TrainingJobs", "book/")
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), lines)
    assert "rows 60" in lines
    assert job["HyperParameters"]["n_clusters"] == "3"
    assert set(flow.artifact(job)) == {"model.joblib"}

    environment = {
        "SAGEMAKER_PROGRAM": "train.py",
        "SAGEMAKER_SUBMIT_DIRECTORY": f"s3://{flow.bucket}/book/source/sourcedir.tar.gz",
        "SAGEMAKER_REGION": "us-east-1",
        "SAGEMAKER_CONTAINER_LOG_LEVEL": "20",
    }
    deploy(flow, "book", sklearn_image(), job["ModelArtifacts"]["S3ModelArtifacts"], environment)
    try:
        clusters = invoke_npy(flow, "book", data).tolist()
        assert [len(set(clusters[n : n + 20])) for n in (0, 20, 40)] == [1, 1, 1]
        assert len(set(clusters)) == 3
        answer = flow.runtime.invoke_endpoint(
            EndpointName="book", ContentType="text/csv", Accept="text/csv", Body=b"0.1,0.1\n9.9,9.9"
        )
        assert answer["Body"].read().split() == [str(clusters[0]).encode(), str(clusters[-1]).encode()]
        with pytest.raises(ClientError, match="not supported") as caught:
            flow.runtime.invoke_endpoint(EndpointName="book", ContentType="image/png", Body=b"x")
        assert caught.value.response["OriginalStatusCode"] == 415  # type: ignore[typeddict-item]
    finally:
        flow.delete("book")


RANKS = """
import os, sys
rank, size = os.environ["OMPI_COMM_WORLD_RANK"], os.environ["OMPI_COMM_WORLD_SIZE"]
host = os.environ["SM_CURRENT_HOST"]
sys.stdout.write(f"rank {rank} of {size} on {host}\\n")
open(os.path.join(os.environ["SM_MODEL_DIR"], host + "-" + rank), "w").close()
"""


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="Open MPI (mpirun) is not installed.")
def test_mpirun_runs_a_script_on_all_hosts(flow: Flow) -> None:
    hyperparameters = script(
        flow,
        "mpi",
        {"train.py": RANKS},
        sagemaker_mpi_enabled=True,
        sagemaker_mpi_num_of_processes_per_host=2,
        sagemaker_mpi_custom_mpi_options="-x EXTRA=1 --verbose",
    )
    job = flow.train(
        "mpi",
        image=sklearn_image(),
        hyperparameters=hyperparameters,
        channels={"train": "data/"},
        instances=2,
    )
    lines = flow.log_lines("/aws/sagemaker/TrainingJobs", "mpi/")
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), lines[-30:])
    assert set(flow.artifact(job)) == {"algo-1-0", "algo-1-1", "algo-2-2", "algo-2-3"}
    assert any(line.endswith("rank 3 of 4 on algo-2") for line in lines)


def test_a_failing_script_says_why_in_the_jobs_description(flow: Flow) -> None:
    files = {"train.py": "import lib.part\n", "lib/part.py": "raise ValueError('no column named price')\n"}
    job = flow.train(
        "fails",
        image=sklearn_image(),
        hyperparameters=script(flow, "fails", files),
        channels={"train": "data/"},
    )
    assert job["TrainingJobStatus"] == "Failed"
    reason = job["FailureReason"]
    assert reason.startswith("AlgorithmError: ExecuteUserScriptError:\nExitCode 1\nErrorMessage ")
    assert "ValueError: no column named price" in reason
    assert "train.py" in reason
    assert reason.endswith(", exit code: 1")


def test_code_that_is_not_there_fails_the_job(flow: Flow) -> None:
    hyperparameters = script(flow, "gone", {"train.py": ""})
    hyperparameters["sagemaker_submit_directory"] = json.dumps(f"s3://{flow.bucket}/nothing.tar.gz")
    job = flow.train(
        "gone", image=sklearn_image(), hyperparameters=hyperparameters, channels={"train": "data/"}
    )
    assert job["FailureReason"].startswith(
        f"ClientError: Could not find the source code at s3://{flow.bucket}/noth"
    )


def test_code_that_leads_out_of_its_folder_is_refused(flow: Flow) -> None:
    hyperparameters = script(flow, "escapes", {"../train.py": ""})
    job = flow.train(
        "escapes", image=sklearn_image(), hyperparameters=hyperparameters, channels={"train": "data/"}
    )
    assert job["FailureReason"].startswith("ClientError: Failed to extract source code archive from URL")


def test_a_requirement_that_cannot_be_had_fails_the_job(flow: Flow) -> None:
    files = {"train.py": "", "requirements.txt": "--no-index\nno-such-package==1\n"}
    job = flow.train(
        "wants",
        image=sklearn_image(),
        hyperparameters=script(flow, "wants", files),
        channels={"train": "data/"},
    )
    assert job["FailureReason"].startswith("AlgorithmError: InstallRequirementsError:\nExitCode 1")
    assert "no-such-package==1" in job["FailureReason"]


@needs_sandbox
def test_code_in_a_channel_runs_without_a_network(flow: Flow) -> None:
    code = "import os, socket\nprint(sorted(os.listdir()))\nopen(os.environ['SM_MODEL_DIR'] + '/m', 'w').close()\n"
    flow.upload({"isolated/sourcedir.tar.gz": archive({"train.py": code})})
    hyperparameters = {
        "sagemaker_program": '"train.py"',
        "sagemaker_submit_directory": '"/opt/ml/input/data/code/sourcedir.tar.gz"',
    }
    job = flow.train(
        "isolated",
        image=sklearn_image(),
        hyperparameters=hyperparameters,
        channels={"code": "isolated/"},
        EnableNetworkIsolation=True,
    )
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")


XGBOOST = """
import argparse, os
import numpy as np, xgboost
parser = argparse.ArgumentParser()
parser.add_argument("--num_round", type=int)
args = parser.parse_args()
data = np.loadtxt(os.environ["SM_CHANNEL_TRAIN"] + "/train.csv", delimiter=",")
booster = xgboost.train({"max_depth": 2}, xgboost.DMatrix(data[:, 1:], data[:, 0]), args.num_round)
booster.save_model(os.environ["SM_MODEL_DIR"] + "/xgboost-model")
"""


def test_the_image_of_xgboost_runs_a_script_and_serves_with_its_code(flow: Flow) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 3))
    rows = np.column_stack([x[:, 0] * 2, x])
    flow.upload({"xgb/train.csv": "\n".join(",".join(map(repr, row)) for row in rows.tolist()).encode()})
    hyperparameters = script(flow, "xgb", {"train.py": XGBOOST}, num_round=4)
    job = flow.train(
        "xgb", image=own_xgboost_image(), hyperparameters=hyperparameters, channels={"train": "xgb/"}
    )
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    inference = """
    def output_fn(prediction, accept, context):
        if context.custom_attributes == "parts":
            return ("%.6f\\n" % value for value in prediction), "text/csv"
        return ",".join("%.6f" % value for value in prediction), "text/csv"
    """
    model = archive({**flow.artifact(job), "code/inference.py": inference})
    flow.upload({"xgb/model.tar.gz": model})
    environment = {"SAGEMAKER_PROGRAM": "inference.py", "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code"}
    deploy(flow, "xgb", own_xgboost_image(), f"s3://{flow.bucket}/xgb/model.tar.gz", environment)
    try:
        import xgboost

        booster = xgboost.Booster(model_file=bytearray(flow.artifact(job)["xgboost-model"]))
        answer = flow.runtime.invoke_endpoint(
            EndpointName="xgb",
            ContentType="text/csv",
            Body="\n".join(",".join(map(repr, r)) for r in x[:4].tolist()),
        )
        found = [float(text) for text in answer["Body"].read().split(b",")]
        assert found == pytest.approx(booster.predict(xgboost.DMatrix(x[:4])), abs=1e-5)
        stream = flow.runtime.invoke_endpoint_with_response_stream(
            EndpointName="xgb",
            ContentType="text/csv",
            CustomAttributes="parts",
            Body="\n".join(",".join(map(repr, r)) for r in x[:4].tolist()),
        )
        parts = [float(event["PayloadPart"]["Bytes"]) for event in stream["Body"]]
        assert parts == pytest.approx(found, abs=1e-6), "each part as the script yields it"
    finally:
        flow.delete("xgb")


def test_a_model_without_model_fn_says_what_is_missing(flow: Flow) -> None:
    flow.upload({"bare/model.tar.gz": archive({"model.joblib": b""})})
    with pytest.raises(WaiterError):
        deploy(flow, "bare", sklearn_image(), f"s3://{flow.bucket}/bare/model.tar.gz", {})
    try:
        found = flow.sagemaker.describe_endpoint(EndpointName="bare")
        assert "did not pass the ping health check" in found["FailureReason"]
        lines = flow.log_lines("/aws/sagemaker/Endpoints/bare", "AllTraffic")
        assert any("Please provide a model_fn implementation" in line for line in lines), lines
    finally:
        flow.delete("bare")
