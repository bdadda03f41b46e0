"""The built-in algorithms of texts and of pairs train, deploy and predict through boto3, in every form."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from sagesmith_algorithms.formats import recordio
from tests.algorithms import serving
from tests.algorithms.test_blazingtext import HELD_OUT, HELD_OUT_TOPICS, LINES, TOPICS, as_text
from tests.algorithms.test_ipinsights import as_csv, logins
from tests.e2e.flow import Flow
from tests.e2e.served import Served

BLAZINGTEXT = "811284229777.dkr.ecr.us-east-1.amazonaws.com/blazingtext:1"
IPINSIGHTS = "382416733822.dkr.ecr.us-east-1.amazonaws.com/ipinsights:1"


@pytest.fixture(scope="module")
def flow(served: Served) -> Flow:
    return Flow(served, "text-algorithms")


def ask(flow: Flow, name: str, content_type: str, body: bytes, accept: str) -> Any:
    answer = flow.runtime.invoke_endpoint(
        EndpointName=name, ContentType=content_type, Accept=accept, Body=body
    )
    assert answer["ContentType"] == accept.partition(";")[0]
    text = answer["Body"].read()
    return json.loads(text) if accept.startswith(serving.JSON) and accept != serving.JSON_LINES else [
        json.loads(line) for line in text.splitlines()
    ]  # fmt: skip


def test_ip_insights_on_two_instances(flow: Flow) -> None:
    name, rows = "text-ipinsights", logins(4000, 1, 100)
    held = logins(300, 2, 100)
    flow.upload(
        {
            f"{name}/train/a.csv": as_csv(rows[:2000]),
            f"{name}/train/b.csv": as_csv(rows[2000:]),
            f"{name}/held/c.csv": as_csv(held),
        }
    )
    job = flow.train(
        name,
        image=IPINSIGHTS,
        hyperparameters={
            "num_entity_vectors": 200,
            "vector_dim": 16,
            "mini_batch_size": 200,
            "learning_rate": 0.01,
        },
        channels={"train": f"{name}/train/", "validation": f"{name}/held/"},
        instances=2,
        distribution="ShardedByS3Key",
    )
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    metrics = {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]}
    assert metrics["validation:discriminator_auc"] > 0.85

    flow.deploy(name, image=IPINSIGHTS, model_data=job["ModelArtifacts"]["S3ModelArtifacts"])
    instances = [{"features": row} for row in held[:3]]
    bodies = {
        serving.CSV: as_csv(held[:3]),
        serving.JSON: json.dumps({"instances": instances}).encode(),
        serving.JSON_LINES: "\n".join(map(json.dumps, instances)).encode(),
    }
    found = []
    for content_type, body in bodies.items():
        found.append(
            [one["dot_product"] for one in ask(flow, name, content_type, body, serving.JSON)["predictions"]]
        )
        found.append([one["dot_product"] for one in ask(flow, name, content_type, body, serving.JSON_LINES)])
    np.testing.assert_allclose(found, [found[0]] * 6, rtol=1e-4)
    verbose = ask(flow, name, serving.CSV, bodies[serving.CSV], "application/json; verbose=true")
    assert len(verbose["predictions"][0]["ip_embedding"]) == 16
    flow.delete(name)


def test_blazingtext_classifies(flow: Flow) -> None:
    name = "text-supervised"
    manifest = b"".join(
        recordio.frame(part)
        for line, topic in zip(LINES, TOPICS, strict=True)
        for part in (line.encode(), json.dumps(topic).encode())
    )
    flow.upload(
        {f"{name}/train/a": manifest, f"{name}/held/b": b"".join(
            recordio.frame(part) for line, topic in zip(HELD_OUT, HELD_OUT_TOPICS, strict=True)
            for part in (line.encode(), json.dumps(topic).encode())
        )}
    )  # fmt: skip
    job = flow.train(
        name,
        image=BLAZINGTEXT,
        hyperparameters={"mode": "supervised", "vector_dim": 10, "buckets": 1000, "learning_rate": 0.5},
        channels={"train": f"{name}/train/", "validation": f"{name}/held/"},
        content_type="application/x-recordio",
    )
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    metrics = {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]}
    assert metrics["validation:accuracy"] > 0.99
    assert set(flow.artifact(job)) == {"model.bin"}

    flow.deploy(name, image=BLAZINGTEXT, model_data=job["ModelArtifacts"]["S3ModelArtifacts"])
    asked = json.dumps({"instances": HELD_OUT[:4], "configuration": {"k": 2}}).encode()
    expected = [f"__label__{topic}" for topic in HELD_OUT_TOPICS[:4]]
    found = ask(flow, name, serving.JSON, asked, serving.JSON)
    assert [one["label"][0] for one in found] == expected
    assert all(len(one["prob"]) == 2 for one in found)
    lines = "\n".join(json.dumps({"source": line}) for line in HELD_OUT[:4]).encode()
    found = ask(flow, name, serving.JSON_LINES, lines, serving.JSON_LINES)
    assert [one["label"] for one in found] == [[label] for label in expected]
    flow.delete(name)


def test_blazingtext_learns_words(flow: Flow) -> None:
    name = "text-words"
    flow.upload({f"{name}/text": as_text(LINES)})
    job = flow.train(
        name,
        image=BLAZINGTEXT,
        hyperparameters={"mode": "batch_skipgram", "vector_dim": 16, "sampling_threshold": 0.01},
        channels={"train": f"{name}/"},
        content_type="text/plain",
    )
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert set(flow.artifact(job)) == {"vectors.txt", "vectors.bin"}
    flow.deploy(name, image=BLAZINGTEXT, model_data=job["ModelArtifacts"]["S3ModelArtifacts"])
    found = ask(flow, name, serving.JSON, b'{"instances": ["t1w1", "xyz"]}', serving.JSON)
    assert [one["word"] for one in found] == ["t1w1", "xyz"]
    assert np.any(found[0]["vector"])
    assert not np.any(found[1]["vector"])
    flow.delete(name)


def test_bad_text_fails_the_job_with_a_sentence(flow: Flow) -> None:
    flow.upload({"text-bad/users.csv": b"ann,192.0.2.1\nbob,nowhere\n"})
    job = flow.train(
        "text-bad",
        image=IPINSIGHTS,
        hyperparameters={"num_entity_vectors": 10, "vector_dim": 4},
        channels={"train": "text-bad/"},
    )
    assert job["TrainingJobStatus"] == "Failed"
    assert "users.csv: line 2: 'nowhere' is not an IPv4 address" in job["FailureReason"]
