"""The same server on PostgreSQL: a job, a list, and a restart in between."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sklearn.datasets import load_iris

from tests.e2e.flow import KMEANS_IMAGE, Flow, csv_bytes
from tests.e2e.served import Served


@pytest.fixture
def on_postgresql(postgres_url: str) -> Iterator[Served]:
    server = Served(settings={"database_url": postgres_url, "warm_instances": 0})
    try:
        yield server.up()
    finally:
        server.remove()


def test_the_main_job_on_postgresql(on_postgresql: Served) -> None:
    flow = Flow(on_postgresql, "on-postgresql")
    points = load_iris().data
    flow.upload({"iris/points.csv": csv_bytes(points)})
    job = flow.train(
        "on-postgresql",
        image=KMEANS_IMAGE,
        hyperparameters={"k": 3, "feature_dim": 4},
        channels={"train": "iris/"},
        content_type="text/csv;label_size=0",
    )
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    flow.deploy("on-postgresql", image=KMEANS_IMAGE, model_data=job["ModelArtifacts"]["S3ModelArtifacts"])
    before = flow.predict("on-postgresql", points[:3], Accept="text/csv")

    on_postgresql.kill()
    on_postgresql.up()
    flow.wait_for_endpoint("on-postgresql")
    assert flow.predict("on-postgresql", points[:3], Accept="text/csv").tolist() == before.tolist()
    names = [j["TrainingJobName"] for j in flow.sagemaker.list_training_jobs()["TrainingJobSummaries"]]
    assert names == ["on-postgresql"]
    assert flow.log_lines("/aws/sagemaker/TrainingJobs", "on-postgresql/")
    flow.delete("on-postgresql")
