"""PyTorch: scripts on one host and on two, and models that come from elsewhere."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.flow import Flow
from tests.e2e.script_mode import archive, deploy, environment, framework_image, invoke_npy, script
from tests.e2e.served import Served

TAG = "2.6.0-cpu-py312"
TRAINING = framework_image("pytorch-training", TAG)
INFERENCE = framework_image("pytorch-inference", TAG)


@pytest.fixture(scope="module")
def python() -> Path:
    return environment("pytorch-training", TAG)


@pytest.fixture(scope="module")
def flow(served: Served, python: Path) -> Flow:
    flow = Flow(served, "pytorch")
    flow.upload({"data/points.csv": b"1,2\n3,4\n"})
    return flow


DISTRIBUTED = """
import argparse, json, os, socket
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float)
args = parser.parse_args()
dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(rank)
model = torch.nn.Linear(2, 1)
parallel = DistributedDataParallel(model)
optimizer = torch.optim.SGD(parallel.parameters(), lr=args.lr)
x = torch.randn(400, 2)
y = x @ torch.tensor([[2.0], [-3.0]]) + 1
for _ in range(200):
    optimizer.zero_grad()
    torch.nn.functional.mse_loss(parallel(x), y).backward()
    optimizer.step()
total = torch.tensor([float(len(x))])
dist.all_reduce(total)
print("host", os.environ["SM_CURRENT_HOST"], "rank", rank, "of", dist.get_world_size(), "rows", int(total))
if rank == 0:
    torch.jit.script(model).save(os.path.join(os.environ["SM_MODEL_DIR"], "model.pth"))
dist.destroy_process_group()
"""


def test_torchrun_trains_on_two_hosts_and_the_torchscript_is_served(flow: Flow) -> None:
    hyperparameters = script(
        flow, "two", {"train.py": DISTRIBUTED}, lr=0.1, sagemaker_torch_distributed_enabled=True
    )
    job = flow.train(
        "two", image=TRAINING, hyperparameters=hyperparameters, channels={"train": "data/"}, instances=2
    )
    lines = flow.log_lines("/aws/sagemaker/TrainingJobs", "two/")
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), lines[-30:])
    assert {"host algo-1 rank 0 of 2 rows 800", "host algo-2 rank 1 of 2 rows 800"} <= set(lines)
    assert any("this job runs with the nearest" in line for line in lines)

    deploy(flow, "two", INFERENCE, job["ModelArtifacts"]["S3ModelArtifacts"], {})
    try:
        found = invoke_npy(flow, "two", np.array([[1, 1], [0, 1]], np.float32))
        assert found == pytest.approx(np.array([[0.0], [-2.0]]), abs=0.01)
        answer = flow.runtime.invoke_endpoint(
            EndpointName="two", ContentType="application/json", Body=b"[[1.0, 1.0], [0, 1]]"
        )
        assert np.array(json.loads(answer["Body"].read())) == pytest.approx(found)
        answer = flow.runtime.invoke_endpoint(
            EndpointName="two", ContentType="text/csv", Accept="text/csv", Body=b"1,1\n0,1"
        )
        assert [float(line) for line in answer["Body"].read().split()] == pytest.approx(
            found.ravel().tolist()
        )
    finally:
        flow.delete("two")


MODEL = """
import sys, torch
model = torch.nn.Linear(2, 1)
with torch.no_grad():
    model.weight.copy_(torch.tensor([[1.0, 2.0]]))
    model.bias.fill_(0.5)
torch.save(model.state_dict(), sys.argv[1])
"""
INFERENCE_CODE = """
import json, os
import torch
from lib.scale import FACTOR

def model_fn(model_dir):
    model = torch.nn.Linear(2, 1)
    model.load_state_dict(torch.load(os.path.join(model_dir, "weights.pth")))
    return model.eval()

def input_fn(body, content_type):
    assert content_type == "application/json", content_type
    return torch.tensor(json.loads(body)["rows"])

def output_fn(prediction, accept):
    return json.dumps({"scores": (FACTOR * prediction.detach()).ravel().tolist()})
"""


def test_a_state_dict_made_elsewhere_is_served_by_the_code_beside_it(
    flow: Flow, python: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.pth"
    subprocess.run([python, "-c", MODEL, weights], check=True)
    files: dict[str, str | bytes] = {"weights.pth": weights.read_bytes(), "code/inference.py": INFERENCE_CODE,
             "code/lib/scale.py": "FACTOR = 10\n"}  # fmt: skip
    flow.upload({"outside/model.tar.gz": archive(files)})
    deploy(flow, "outside", INFERENCE, f"s3://{flow.bucket}/outside/model.tar.gz", {})
    try:
        answer = flow.runtime.invoke_endpoint(
            EndpointName="outside",
            ContentType="application/json",
            Body=json.dumps({"rows": [[1.0, 1.0], [2.0, 0.0]]}),
        )
        assert json.loads(answer["Body"].read()) == {"scores": [35.0, 25.0]}
    finally:
        flow.delete("outside")
