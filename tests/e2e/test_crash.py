"""The server is killed at random moments, again and again; nothing acknowledged is lost, no process is left.

Each test takes its moments from a seeded generator and prints the seed, so that a failure can be repeated.
Clients do what real ones do: they try again, and look whether what they had asked for is already there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import psutil
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from sklearn.datasets import load_iris

from tests.e2e.flow import KMEANS_IMAGE, Flow, csv_bytes
from tests.e2e.served import Served, wait_until

_T = TypeVar("_T")
SEED = int(os.environ.get("SAGESMITH_CRASH_SEED", "20"))


@pytest.fixture(scope="module")
def fragile() -> Iterator[Served]:
    """A server for this module alone, which its tests may kill."""
    server = Served(settings={"warm_instances": 0})
    try:
        yield server.up()
    finally:
        server.remove()


@pytest.fixture(scope="module")
def flow(fragile: Served) -> Flow:
    found = Flow(fragile, "crash")
    found.upload({"iris/points.csv": csv_bytes(load_iris().data)})
    return found


def insist(call: Callable[[], _T], *, timeout_s: float = 60) -> _T:
    """Call until the server answers: connection errors and 5xx are tried again."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return call()
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] < 500 or time.monotonic() > deadline:
                raise
        except BotoCoreError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def restart(server: Served) -> None:
    server.kill()
    server.up()


def test_objects_survive(fragile: Served, flow: Flow) -> None:
    """20 kills during puts of small, large and multipart objects."""
    moments = random.Random(SEED)
    acknowledged: dict[str, str] = {}
    running = threading.Event()
    running.set()

    def put(s3: Any, key: str, body: bytes, *, in_parts: bool) -> None:
        if not in_parts:
            s3.put_object(Bucket="crash", Key=key, Body=body)
            return
        upload = s3.create_multipart_upload(Bucket="crash", Key=key)["UploadId"]
        parts = []
        for part, piece in enumerate((body[: 5 * 2**20], body[5 * 2**20 :]), 1):
            if piece:
                etag = s3.upload_part(Bucket="crash", Key=key, UploadId=upload, PartNumber=part, Body=piece)[
                    "ETag"
                ]
                parts.append({"PartNumber": part, "ETag": etag})
        s3.complete_multipart_upload(
            Bucket="crash", Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
        )

    def write(worker: int) -> None:
        s3 = fragile.client("s3")
        content = random.Random(worker)
        number = 0
        while running.is_set():
            number += 1
            body = content.randbytes(content.choice([10, 5_000, 300_000, 6_000_000]))
            key = f"puts/{worker}/{number % 25}"
            acknowledged.pop(key, None)  # until the answer comes, either content may be there
            while running.is_set() and key not in acknowledged:
                try:
                    put(s3, key, body, in_parts=number % 10 == 0)
                    acknowledged[key] = hashlib.sha256(body).hexdigest()
                except (ClientError, BotoCoreError):
                    time.sleep(0.02)

    writers = [threading.Thread(target=write, args=(worker,)) for worker in range(3)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(20):
            time.sleep(moments.uniform(0.05, 0.8))
            restart(fragile)
    finally:
        running.clear()
        for writer in writers:
            writer.join()

    assert len(acknowledged) > 20
    for key, digest in acknowledged.items():
        body = insist(lambda key=key: flow.s3.get_object(Bucket="crash", Key=key)["Body"].read())  # type: ignore[misc]
        assert hashlib.sha256(body).hexdigest() == digest, f"{key} is not what was acknowledged (seed {SEED})"


def _create_kmeans(flow: Flow, name: str) -> None:
    def create() -> None:
        # An earlier try may have been accepted although its answer did not arrive.
        with contextlib.suppress(flow.sagemaker.exceptions.ResourceInUse):
            flow.train(
                name,
                image=KMEANS_IMAGE,
                hyperparameters={"k": 3, "feature_dim": 4, "epochs": 3},
                channels={"train": "iris/"},
                content_type="text/csv;label_size=0",
                wait=False,
            )

    insist(create)


def test_training_jobs_survive(fragile: Served, flow: Flow) -> None:
    """25 kills from the job's start to its upload; each job completes, once."""
    moments = random.Random(SEED + 1)
    names = []
    for number in range(25):
        name = f"survivor-{number}"
        names.append(name)
        _create_kmeans(flow, name)
        time.sleep(moments.uniform(0.0, 2.0))
        restart(fragile)
    for name in names:
        job = wait_until(
            lambda name=name: (
                (d := insist(lambda: flow.describe(name)))["TrainingJobStatus"] != "InProgress" and d
            ),
            timeout_s=180,
            what=f"{name} has ended (seed {SEED})",
        )
        assert job["TrainingJobStatus"] == "Completed", (name, job.get("FailureReason"), fragile.log())
        assert [s["Status"] for s in job["SecondaryStatusTransitions"]].count("Completed") == 1
        assert any(file.startswith("model_algo-1") for file in flow.artifact(job)), name
    assert not [p for p in fragile.processes() if "sagesmith_algorithms" in " ".join(p.cmdline())]


@pytest.fixture(scope="module")
def model_data(flow: Flow) -> str:
    """The artifact of a k-means job."""
    _create_kmeans(flow, "for-endpoints")
    return str(flow.wait_for_job("for-endpoints")["ModelArtifacts"]["S3ModelArtifacts"])


def test_endpoints_survive(fragile: Served, flow: Flow, model_data: str) -> None:
    """10 kills from CreateEndpoint on; each endpoint comes into service and answers."""
    moments = random.Random(SEED + 2)
    points = load_iris().data[:3]
    for number in range(10):
        name = f"survivor-{number % 3}"
        if number < 3:
            insist(lambda name=name: flow.deploy(name, image=KMEANS_IMAGE, model_data=model_data, wait=False))  # type: ignore[misc]
        time.sleep(moments.uniform(0.0, 1.5))
        restart(fragile)
    for number in range(3):
        name = f"survivor-{number}"
        insist(lambda name=name: flow.wait_for_endpoint(name))  # type: ignore[misc]
        answers = wait_until(
            lambda name=name: _try(lambda: flow.predict(name, points, Accept="text/csv")),
            timeout_s=60,
            what=f"{name} answers",
        )
        assert len(answers) == 3
        flow.delete(name)


def _try(call: Callable[[], Any]) -> Any:
    try:
        found = call()
    except (ClientError, BotoCoreError):
        return None
    return found if not isinstance(found, np.ndarray) else found.tolist()


def agents(server: Served, mark: str) -> list[psutil.Process]:
    """The agent processes whose instance serves *mark* (part of the owner's ARN)."""
    import json

    status = json.loads(server.command("status", "--json").stdout)
    return [psutil.Process(i["pid"]) for i in status["fleet"]["instances"] if mark in i["owner"]]


def test_a_killed_instance_fails_its_job_with_a_reason(fragile: Served, flow: Flow) -> None:
    rng = np.random.default_rng(0)
    flow.upload({"big/x.csv": csv_bytes(rng.normal(size=(40_000, 10)))})
    flow.train(
        "victim",
        image=KMEANS_IMAGE,
        hyperparameters={"k": 50, "feature_dim": 10, "epochs": 100},
        channels={"train": "big/"},
        content_type="text/csv;label_size=0",
        wait=False,
    )
    wait_until(
        lambda: flow.describe("victim")["SecondaryStatus"] == "Training", timeout_s=60, what="the job trains"
    )
    [agent] = agents(fragile, "victim")
    children = agent.children(recursive=True)
    agent.send_signal(signal.SIGKILL)
    job = flow.wait_for_job("victim")
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"]
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive, "the container outlived its instance"


def test_a_killed_instance_of_an_endpoint_is_replaced(fragile: Served, flow: Flow, model_data: str) -> None:
    flow.deploy("replaced", image=KMEANS_IMAGE, model_data=model_data)
    points = load_iris().data[:3]
    before = flow.predict("replaced", points, Accept="text/csv")
    first = agents(fragile, "replaced")
    assert len(first) == 1
    first[0].send_signal(signal.SIGKILL)
    wait_until(
        lambda: [p.pid for p in agents(fragile, "replaced")] not in ([], [first[0].pid]),
        timeout_s=60,
        what="another instance is there",
    )
    after = wait_until(
        lambda: _try(lambda: flow.predict("replaced", points, Accept="text/csv")),
        timeout_s=60,
        what="it answers",
    )
    np.testing.assert_allclose(after, before)
    flow.delete("replaced")


def test_down_leaves_no_process(fragile: Served, flow: Flow, model_data: str) -> None:
    flow.deploy("over-night", image=KMEANS_IMAGE, model_data=model_data)
    fragile.down()
    assert fragile.processes() == []
    fragile.up()
    points = load_iris().data[:3]
    wait_until(
        lambda: _try(lambda: flow.predict("over-night", points, Accept="text/csv")),
        timeout_s=60,
        what="it answers again",
    )
    flow.delete("over-night")
