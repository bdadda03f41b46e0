"""Every built-in algorithm trains, deploys and predicts through boto3, in every form it is asked in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from sagesmith_algorithms import RandomCutForest
from sagesmith_algorithms.formats import recordio
from sagesmith_toolkit.server import Response
from tests.algorithms import serving
from tests.e2e.flow import Flow, csv_bytes
from tests.e2e.served import Served

Array = npt.NDArray[Any]
DIGITS, DIGIT_LABELS = load_digits(return_X_y=True)


@dataclass(frozen=True)
class Case:
    """A job on *rows*, its metrics, and a judgement of what the model answers to the first of them."""

    repository: str
    hyperparameters: Mapping[str, object]
    rows: Array
    labels: Array | None
    judge: Callable[[list[dict[str, Any]]], None]
    metrics: frozenset[str] = frozenset()
    channels: tuple[str, ...] = ("train", "test")
    key: str = "predictions"
    forms: tuple[str, ...] = serving.F4
    accepts: tuple[str, ...] = field(default=(serving.JSON, serving.JSON_LINES, serving.RECORDIO))

    @property
    def image(self) -> str:
        return f"382416733822.dkr.ecr.us-east-1.amazonaws.com/{self.repository}:1"


def judge_pca(found: list[dict[str, Any]]) -> None:
    expected = np.abs(PCA(5).fit(DIGITS).transform(DIGITS[: len(found)])[:, ::-1])
    np.testing.assert_allclose(np.abs([one["projection"] for one in found]), expected, rtol=0.01, atol=0.05)


def judge_linear_learner(found: list[dict[str, Any]]) -> None:
    labels = [int(np.ravel(one["predicted_label"])[0]) for one in found]
    assert labels == DIGIT_LABELS[: len(found)].tolist()
    np.testing.assert_allclose([sum(one["score"]) for one in found], 1.0, rtol=1e-5)


def judge_knn(found: list[dict[str, Any]]) -> None:
    labels = [int(np.ravel(one["predicted_label"])[0]) for one in found]
    assert labels == DIGIT_LABELS[: len(found)].tolist()


def judge_factorization_machines(found: list[dict[str, Any]]) -> None:
    labels = [float(np.ravel(one["predicted_label"])[0]) for one in found]
    assert labels == EVEN[: len(found)].tolist()
    scores = np.array([np.ravel(one["score"])[0] for one in found])
    np.testing.assert_array_equal(scores >= 0.5, labels)


def judge_random_cut_forest(found: list[dict[str, Any]]) -> None:
    expected = -RandomCutForest(50).fit(DIGITS).score_samples(DIGITS[: len(found)])
    np.testing.assert_allclose([np.ravel(one["score"])[0] for one in found], expected, rtol=1e-4)


def judge_lda(found: list[dict[str, Any]]) -> None:
    mixtures = np.array([one["topic_mixture"] for one in found])
    assert mixtures.shape[1] == 4
    np.testing.assert_allclose(mixtures.sum(axis=1), 1, rtol=1e-5)
    assert mixtures.max() > 0.5


EVEN = (DIGIT_LABELS % 2 == 0).astype(np.float32)

CASES = [
    Case(
        "factorization-machines",
        {
            "num_factors": 8,
            "predictor_type": "binary_classifier",
            "feature_dim": 64,
            "epochs": 40,
            "mini_batch_size": 100,
            "factors_lr": 0.003,
            "linear_lr": 0.003,
            "factors_wd": 0,
            "factors_init_sigma": 0.01,
        },
        DIGITS,
        EVEN,
        judge_factorization_machines,
        metrics=frozenset(
            {
                "train:binary_classification_accuracy:epoch",
                "train:binary_f_beta",
                "test:binary_f_beta",
                "test:binary_classification_accuracy",
                "test:binary_classification_cross_entropy",
            }
        ),
        forms=(serving.JSON, serving.JSON_LINES, serving.RECORDIO),
    ),
    Case(
        "knn",
        {"k": 3, "predictor_type": "classifier", "sample_size": 5000, "feature_dim": 64},
        DIGITS,
        DIGIT_LABELS,
        judge_knn,
        metrics=frozenset({"test:accuracy"}),
    ),
    Case(
        "lda",
        {"num_topics": 4, "feature_dim": 64, "mini_batch_size": len(DIGITS)},
        DIGITS,
        None,
        judge_lda,
        metrics=frozenset({"test:pwll"}),
    ),
    Case(
        "linear-learner",
        {"predictor_type": "multiclass_classifier", "num_classes": 10, "feature_dim": 64, "num_models": 2},
        DIGITS,
        DIGIT_LABELS,
        judge_linear_learner,
        metrics=frozenset({"validation:objective_loss", "validation:multiclass_accuracy", "test:dcg"}),
        channels=("train", "validation", "test"),
    ),
    Case(
        "pca",
        {"num_components": 5, "feature_dim": 64, "mini_batch_size": 500},
        DIGITS,
        None,
        judge_pca,
        key="projections",
    ),
    Case(
        "randomcutforest",
        {"feature_dim": 64, "num_trees": 50, "num_samples_per_tree": 256},
        DIGITS,
        DIGIT_LABELS == 0,
        judge_random_cut_forest,
        metrics=frozenset({"test:f1", "test:accuracy", "test:precision", "test:recall"}),
        key="scores",
    ),
]


@pytest.fixture(scope="module")
def flow(served: Served) -> Flow:
    return Flow(served, "builtin-algorithms")


@pytest.mark.parametrize("case", CASES, ids=[case.repository for case in CASES])
def test_train_deploy_predict(flow: Flow, case: Case) -> None:
    name = f"builtin-{case.repository}"
    labels = None if case.labels is None else case.labels.astype(np.float32)
    halves = np.array_split(np.arange(len(case.rows)), 2)
    flow.upload(
        {
            f"{name}/part-{i}.pbr": recordio.encode(
                case.rows[half].astype(np.float32), None if labels is None else labels[half]
            )
            for i, half in enumerate(halves)
        }
    )
    job = flow.train(
        name,
        image=case.image,
        hyperparameters=case.hyperparameters,
        channels=dict.fromkeys(case.channels, f"{name}/"),
        content_type=serving.RECORDIO,
    )
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert case.metrics <= {metric["MetricName"] for metric in job.get("FinalMetricDataList", [])}

    flow.deploy(name, image=case.image, model_data=job["ModelArtifacts"]["S3ModelArtifacts"])
    bodies = serving.bodies(case.rows[:5])
    for content_type in case.forms:
        for accept in case.accepts:
            answer = flow.runtime.invoke_endpoint(
                EndpointName=name, ContentType=content_type, Accept=accept, Body=bodies[content_type]
            )
            assert answer["ContentType"] == accept
            body = answer["Body"].read()
            case.judge(serving.answers(Response(200, accept, body), case.key))
    flow.delete(name)


@pytest.mark.parametrize("case", CASES, ids=[case.repository for case in CASES])
def test_wrong_hyperparameters_name_all_faults(flow: Flow, case: Case) -> None:
    name = f"faults-{case.repository}"
    flow.upload({f"{name}/x.csv": csv_bytes(np.ones((3, 3)))})
    job = flow.train(
        name,
        image=case.image,
        hyperparameters={**case.hyperparameters, "feature_dim": "many", "no_such_thing": 1},
        channels={"train": f"{name}/"},
    )
    assert job["TrainingJobStatus"] == "Failed"
    assert "feature_dim" in job["FailureReason"]
    assert "no_such_thing" in job["FailureReason"]
    assert "Traceback" not in json.dumps(job, default=str)


@pytest.mark.parametrize("repository", ["kmeans", "linear-learner"])
def test_pipe_mode_and_two_instances(flow: Flow, repository: str) -> None:
    """Shards of the data, streamed through pipes as often as the algorithm asks for them."""
    name = f"piped-{repository}"
    flow.upload(
        {
            f"{name}/part-{i}.pbr": recordio.encode(DIGITS[i::4].astype(np.float32), DIGIT_LABELS[i::4])
            for i in range(4)
        }
    )
    given: dict[str, dict[str, object]] = {
        "kmeans": {"k": 10, "feature_dim": 64, "epochs": 2},
        "linear-learner": {"predictor_type": "multiclass_classifier", "num_classes": 10, "num_models": 1},
    }
    job = flow.train(
        name,
        image=f"382416733822.dkr.ecr.us-east-1.amazonaws.com/{repository}:1",
        hyperparameters=given[repository],
        channels={"train": f"{name}/", "test": f"{name}/"},
        content_type=serving.RECORDIO,
        instances=2,
        distribution="ShardedByS3Key",
        AlgorithmSpecification={
            "TrainingImage": f"382416733822.dkr.ecr.us-east-1.amazonaws.com/{repository}:1",
            "TrainingInputMode": "Pipe",
        },
    )
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    found = {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]}
    if repository == "kmeans":
        assert found["test:msd"] < 1.02 * KMeans(10, n_init=3, random_state=0).fit(DIGITS).inertia_ / len(
            DIGITS
        )
    else:
        assert found["test:multiclass_accuracy"] > 0.97
