"""The control plane: describe and list among 10,000 training jobs against moto's server; start and idle memory.

Sagesmith's jobs are copies of one that really ran, written to its database while it is down, since creating them
by the API would run them. moto's are created by its API: it runs nothing. Sagesmith's requests go over HTTPS with
signatures that it verifies; moto's over plain HTTP, and it looks at no signature.
"""

from __future__ import annotations

import copy
import json
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.environments import EnvironmentMissing, environment
from bench.load import measure
from bench.peers.process import Peer, peer
from bench.report import Row, Series, interleave, progress
from bench.server import Sagesmith, free_port, new_home, running, sagesmith

__all__ = ["run"]

JSON = "application/x-amz-json-1.1"
CONNECTIONS = (1, 16)
CALLS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "DescribeTrainingJob": ("DescribeTrainingJob", {}),
    "ListTrainingJobs, 100 newest": (
        "ListTrainingJobs",
        {"MaxResults": 100, "SortBy": "CreationTime", "SortOrder": "Descending"},
    ),
}


def run(rounds: int, seconds: float, quick: bool) -> list[Row]:
    """Measure and return the rows."""
    count = 500 if quick else 10_000
    rows = start_and_memory(rounds)
    with new_home() as home, tempfile.TemporaryDirectory() as folder:
        with running(home) as server:
            progress("  running the job that is copied")
            template = real_job(server)
        progress(f"  writing {count:,} copies")
        middle = copies(home, template, count)
        with running(home) as server:
            rows += against_moto(server, Path(folder), middle, count, rounds, seconds)
    return rows


# ---- start and memory ----------------------------------------------------------------------------------


def start_and_memory(rounds: int) -> list[Row]:
    """How long `sagesmith up --detach` takes, first and later, and what an idle server holds."""
    import psutil

    first, again, memory, warm = Series(), Series(), Series(), Series()
    for number in range(max(rounds, 3)):
        progress(f"  start {number + 1}")
        with new_home() as home:
            for series in (first, again):
                began = time.perf_counter()
                sagesmith("up", "--home", str(home), "--port", "0", "--detach")
                series.add(time.perf_counter() - began)
                if series is again:
                    time.sleep(5)
                    memory.add(psutil.Process(Sagesmith(home).pid).memory_full_info().pss)
                    fleet = json.loads(sagesmith("status", "--home", str(home), "--json"))["fleet"]
                    aside = [fleet["nursery"], *fleet["warm"]]
                    warm.add(sum(process["memory_bytes"] for process in aside))
                sagesmith("down", "--home", str(home))
    return [
        Row("control", "sagesmith up, new home", first.text("s"), "", "", None),
        Row(
            "control", "sagesmith up", again.text("s"), "", "", None, "<= 1 s", again.median <= 1.0,
        ),
        Row(
            "control", "idle memory of the server", memory.text("MB", 1e-6), "", "", None,
            "<= 200 MB", memory.median <= 200e6, f"nursery and warm processes: {warm.text('MB', 1e-6)}",
        ),
    ]  # fmt: skip


# ---- 10,000 jobs ---------------------------------------------------------------------------------------


def request(image: str, account: str, name: str) -> dict[str, Any]:
    """Return a CreateTrainingJob request."""
    source = {
        "S3DataType": "S3Prefix",
        "S3Uri": "s3://bench/train/",
        "S3DataDistributionType": "FullyReplicated",
    }
    return {
        "TrainingJobName": name,
        "RoleArn": f"arn:aws:iam::{account}:role/SagesmithExecutionRole",
        "AlgorithmSpecification": {"TrainingImage": image, "TrainingInputMode": "File"},
        "HyperParameters": {"num_round": "1", "objective": "binary:logistic", "eta": "0.3", "max_depth": "6"},
        "InputDataConfig": [
            {"ChannelName": "train", "ContentType": "text/csv", "DataSource": {"S3DataSource": source}}
        ],
        "OutputDataConfig": {"S3OutputPath": "s3://bench/models"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
    }


def image_of(region: str) -> str:
    """Return the image that all jobs name."""
    return f"683313688378.dkr.ecr.{region}.amazonaws.com/sagemaker-xgboost:1.7-1"


def real_job(server: Sagesmith) -> str:
    """Run one small training job to its end; return its name."""
    s3, client = server.client("s3"), server.client("sagemaker")
    s3.create_bucket(Bucket="bench")
    s3.put_object(Bucket="bench", Key="train/train.csv", Body=b"0,1,2\n1,3,4\n" * 50)
    client.create_training_job(**request(image_of(server.region), server.account_id, "template"))
    client.get_waiter("training_job_completed_or_stopped").wait(
        TrainingJobName="template", WaiterConfig={"Delay": 0.1, "MaxAttempts": 600}
    )
    return "template"


def copies(home: Path, template: str, count: int) -> str:
    """Write *count* copies of the row of job *template*; return the name of the one in the middle."""
    from sagesmith.aws import Catalog
    from sagesmith.config import Home
    from sagesmith.services.sagemaker import summaries
    from sagesmith.store.database import Database
    from sagesmith.store.resources import Resources

    database = Database(f"sqlite:///{Home(home).database}")
    model = Catalog().get("sagemaker")
    assert model is not None
    resources = Resources(database, summarize=summaries(lambda: model))
    found = next(
        row for kind in ("training-job", "TrainingJob") if (row := resources.get(kind, "us-east-1", template))
    )
    for number in range(count):
        name = f"job-{number:05d}"
        text = json.dumps(found.document).replace(template, name)
        resources.create(
            found.kind, found.region, name, arn=found.arn.replace(template, name),
            document=json.loads(text), status=found.status,
        )  # fmt: skip
    database.close()
    return f"job-{count // 2:05d}"


def against_moto(
    server: Sagesmith, folder: Path, job: str, count: int, rounds: int, seconds: float
) -> list[Row]:
    """Put the same load on both servers."""
    calls = copy.deepcopy(dict(CALLS))
    calls["DescribeTrainingJob"][1]["TrainingJobName"] = job
    contenders: dict[str, Callable[[], Mapping[str, float]]] = {
        "https + sigv4": lambda: load(server.url, calls, seconds, server)
    }
    try:
        moto = environment("moto") / "moto_server"
    except EnvironmentMissing as error:
        progress(f"  {error}")
        return _rows(interleave(rounds, contenders), count)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with peer([moto, "-H", "127.0.0.1", "-p", str(port)], url, folder) as other:
        fill(other, url, count)

        def frozen() -> Mapping[str, float]:
            other.thaw()
            try:
                return load(url, calls, seconds, None)
            finally:
                other.freeze()

        contenders["moto"] = frozen
        return _rows(interleave(rounds, contenders), count)


def fill(server: Peer, url: str, count: int) -> None:
    """Create the jobs at moto."""
    import http.client

    progress(f"  creating {count:,} jobs at moto")
    server.thaw()
    host = url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=60)
    for number in range(count):
        body = json.dumps(request(image_of("us-east-1"), "123456789012", f"job-{number:05d}")).encode()
        connection.request("POST", "/", body, _headers("CreateTrainingJob"))
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"moto: {text[:300]!r}")
    connection.close()
    server.freeze()


def _headers(operation: str) -> dict[str, str]:
    scope = "Credential=AKIDEXAMPLE/20260101/us-east-1/sagemaker/aws4_request"
    return {
        "Content-Type": JSON,
        "X-Amz-Target": f"SageMaker.{operation}",
        "Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0",
    }


def load(
    url: str, calls: Mapping[str, tuple[str, Mapping[str, Any]]], seconds: float, server: Sagesmith | None
) -> dict[str, float]:
    """Measure each call at each number of connections; requests to *server* are signed for it."""
    found: dict[str, float] = {}
    for title, (operation, parameters) in calls.items():
        body = json.dumps(parameters).encode()
        headers = _headers(operation)
        if server is not None:
            del headers["Authorization"]
            headers = server.signed(url + "/", "sagemaker", headers, body)
        else:
            with urllib.request.urlopen(
                urllib.request.Request(url + "/", body, headers), timeout=60
            ) as answer:
                answer.read()
        for connections in CONNECTIONS:
            result = measure(url + "/", headers, body, connections=connections, seconds=seconds)
            if result.bad:
                raise RuntimeError(f"{result.bad} bad answers to {operation} from {url}")
            found[f"{title} at {connections}"] = result.rps
    return found


def _rows(found: Mapping[str, Mapping[str, Series]], count: int) -> list[Row]:
    result = []
    for measure_name, ours in found["https + sigv4"].items():
        what = f"{measure_name} connections, {count:,} jobs"
        if "moto" not in found:
            result.append(Row("control", what, ours.text("/s"), "", "", None))
            continue
        theirs = found["moto"][measure_name]
        ratio = ours.median / theirs.median
        result.append(
            Row(
                "control", what, ours.text("/s"), "moto", theirs.text("/s"), ratio, ">= 20 x", ratio >= 20,
            )
        )  # fmt: skip
    return result
