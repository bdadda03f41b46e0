"""Every built-in algorithm's model goes through a batch transform job; all of them at the same time, they are small."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pytest
from sklearn.datasets import load_digits

from sagesmith_algorithms.formats import recordio
from sagesmith_algorithms.registry import names
from tests.e2e.flow import Flow, csv_bytes
from tests.e2e.served import Served
from tests.e2e.test_transform import output, transform

CSV, LINES, RECORDIO = "text/csv", "application/jsonlines", "application/x-recordio-protobuf"
DIGITS = load_digits().data[:300].astype(np.float32)
LABELS = load_digits().target[:300].astype(np.float32)
SPLIT = {CSV: "Line", LINES: "Line", RECORDIO: "RecordIO"}


@dataclass(frozen=True)
class Case:
    """What is learnt from, and what of it is transformed to *n_rows* answers that each have *key*."""

    hyperparameters: Mapping[str, object]
    training: bytes
    training_type: str
    rows: bytes
    rows_type: str
    key: str
    n_rows: int = 7
    repository: str = ""


DENSE = recordio.encode(DIGITS)
FIRST = recordio.encode(DIGITS[:7])
ENTITIES = "".join(f"user-{i % 9},10.0.{i % 9}.{i % 200}\n" for i in range(600)).encode()
TEXT = "".join(
    f"__label__{'good' if i % 2 else 'bad'} word{i % 2} and word{i % 7}\n" for i in range(200)
).encode()
CASES = {
    "blazingtext": Case(
        {"mode": "supervised", "vector_dim": 8, "epochs": 3}, TEXT, "text/plain",
        b"\n".join(b'{"source": "word1 and word%d"}' % i for i in range(7)), LINES, "label",
    ),
    "factorization-machines": Case(
        {"feature_dim": 64, "num_factors": 4, "predictor_type": "binary_classifier", "epochs": 2},
        recordio.encode(DIGITS, (LABELS > 4).astype(np.float32)), RECORDIO, FIRST, RECORDIO, "predicted_label",
    ),
    "ipinsights": Case(
        {"num_entity_vectors": 20, "vector_dim": 8, "epochs": 1}, ENTITIES, CSV,
        b"".join(ENTITIES.splitlines(keepends=True)[:7]), CSV, "dot_product",
    ),
    "kmeans": Case({"k": 3, "feature_dim": 64}, DENSE, RECORDIO, FIRST, RECORDIO, "closest_cluster"),
    "knn": Case(
        {"k": 3, "predictor_type": "classifier", "sample_size": 300, "feature_dim": 64},
        recordio.encode(DIGITS, LABELS), RECORDIO, csv_bytes(DIGITS[:7]), CSV, "predicted_label",
    ),
    "lda": Case(
        {"num_topics": 3, "feature_dim": 64, "mini_batch_size": 300}, DENSE, RECORDIO, FIRST, RECORDIO, "topic_mixture",
    ),
    "linear-learner": Case(
        {"predictor_type": "regressor", "num_models": 1, "epochs": 2},
        recordio.encode(DIGITS, LABELS), RECORDIO, csv_bytes(DIGITS[:7]), CSV, "score",
    ),
    "pca": Case({"num_components": 2, "feature_dim": 64, "mini_batch_size": 100}, DENSE, RECORDIO, FIRST, RECORDIO, "projection"),
    "randomcutforest": Case({"feature_dim": 64, "num_trees": 50}, DENSE, RECORDIO, csv_bytes(DIGITS[:7]), CSV, "score"),
    "xgboost": Case(
        {"objective": "reg:squarederror", "num_round": 2}, csv_bytes(LABELS, DIGITS), CSV,
        csv_bytes(DIGITS[:7]), CSV, "score", repository="sagemaker-xgboost:1.7-1",
    ),
}  # fmt: skip
Jobs: TypeAlias = "dict[str, Future[tuple[dict[str, Any], str]]]"


@pytest.fixture(scope="module")
def jobs(served: Served) -> Iterator[Jobs]:
    """Every algorithm, trained and on its way through a transform job."""
    flow = Flow(served, "builtin-transform")

    def run(name: str, case: Case) -> tuple[dict[str, Any], str]:
        own = Flow.__new__(Flow)
        own.served, own.bucket = served, flow.bucket
        own.s3, own.sagemaker = served.client("s3"), served.client("sagemaker")
        image = f"382416733822.dkr.ecr.us-east-1.amazonaws.com/{case.repository or f'{name}:1'}"
        own.upload({f"train/{name}/data": case.training, f"rows/{name}/rows": case.rows})
        job = own.train(
            f"to-transform-{name}", image=image, hyperparameters=case.hyperparameters,
            channels={"train": f"train/{name}/"}, content_type=case.training_type,
        )  # fmt: skip
        assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
        own.sagemaker.create_model(
            ModelName=f"to-transform-{name}",
            ExecutionRoleArn=served.role,
            PrimaryContainer={"Image": image, "ModelDataUrl": job["ModelArtifacts"]["S3ModelArtifacts"]},
        )
        done = transform(
            own, f"transformed-{name}", f"rows/{name}/", ModelName=f"to-transform-{name}",
            ContentType=case.rows_type, Accept=LINES, SplitType=SPLIT[case.rows_type], AssembleWith="Line",
        )  # fmt: skip
        assert done["TransformJobStatus"] == "Completed", done["FailureReason"]
        return done, output(own, f"transformed-{name}", "rows")

    with ThreadPoolExecutor(3) as pool:
        yield {name: pool.submit(run, name, case) for name, case in CASES.items()}


@pytest.mark.parametrize("name", names())
def test_batch_transform(jobs: Jobs, name: str) -> None:
    _, text = jobs[name].result()
    answers = [json.loads(line) for line in text.splitlines()]
    assert len(answers) == CASES[name].n_rows
    assert all(CASES[name].key in answer for answer in answers), answers[0]
