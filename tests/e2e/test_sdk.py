"""The Python interface on a real server."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sagesmith import (
    BlazingText,
    Estimator,
    FactorizationMachines,
    IPInsights,
    KMeans,
    Model,
    Predictor,
    Session,
    SKLearn,
    TrainingJob,
    XGBoost,
)
from sagesmith.sdk import EndpointFailed, JobFailed, NameInUse, NotFound, SdkError, ServerUnreachable
from tests.e2e.served import Served, free_port


@pytest.fixture(scope="module")
def session(served: Served) -> Iterator[Session]:
    with Session(home=served.home, prefix="sdk") as session:
        yield session


def rows(n_rows: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(rng.normal(size=(n_rows, 3)), columns=["height", "width", "depth"])
    frame.insert(1, "big", (frame["height"] + 2 * frame["width"] > 0).astype(int))
    return frame


@pytest.fixture(scope="module")
def trained(session: Session) -> Estimator:
    frame = rows()
    return Estimator("xgboost", session=session, objective="binary:logistic", num_round=20, eval_metric="logloss").fit(
        frame.iloc[:300], validation=frame.iloc[300:], target="big", progress=False
    )  # fmt: skip


def test_the_main_job_from_frames(session: Session, trained: Estimator) -> None:
    metrics = trained.metrics()
    curve = metrics[metrics["metric"] == "validation:logloss"]["value"]
    assert len(curve) == 20
    assert curve.iloc[-1] < curve.iloc[0]
    assert "validation:logloss" in trained.plot("validation").svg()
    assert any("validation-logloss" in line.text for line in trained.logs())
    frame = rows()
    with trained.deploy(progress=False) as predictor:
        found = predictor.predict(frame.iloc[300:])
        assert found.index.tolist() == frame.index[300:].tolist()
        assert ((found["prediction"] > 0.5) == frame["big"].iloc[300:]).mean() > 0.9
        # Columns are found by name in whatever order, also by someone who knows the endpoint's name alone.
        other = Predictor(predictor.name, session=session)
        assert other.predict(frame.iloc[300:][["depth", "width", "height"]]).equals(found)
        as_array = predictor.predict(frame.iloc[300:][["height", "width", "depth"]].to_numpy())
        assert np.array_equal(as_array, found["prediction"].to_numpy())
        with pytest.raises(SdkError, match="no column 'depth'"):
            predictor.predict(frame[["height", "width"]])
        with pytest.raises(SdkError, match="Is the label still in it"):
            predictor.predict(frame.to_numpy())
        with pytest.raises(EndpointFailed):
            predictor.invoke(b"not,a,number", content_type="text/csv")
        with pytest.raises(NameInUse, match="already"):
            trained.deploy(name=predictor.name, progress=False)
        model = session.call("sagemaker", "describe_endpoint_config", EndpointConfigName=predictor.name)[
            "ProductionVariants"
        ][0]["ModelName"]
    with pytest.raises(NotFound):
        session.call("sagemaker", "describe_model", ModelName=model)


def test_another_process_finds_job_and_columns(session: Session, trained: Estimator) -> None:
    assert trained.job is not None
    again = Estimator.attach(trained.job.name, session=session)
    assert again.model_data == trained.model_data
    assert again.schema.features == ("height", "width", "depth")
    assert again.schema.target == "big"
    model = Model.from_job(trained.job.name, session=session)
    assert model.image == trained._image(session.region)


def test_whole_files_without_an_endpoint(session: Session, trained: Estimator) -> None:
    frame = rows().iloc[300:]
    transformer = trained.transformer().transform(frame, progress=False)
    found = transformer.output()
    assert len(transformer.files()) == 1
    assert len(found) == len(frame)
    assert ((found["prediction"].to_numpy() > 0.5) == frame["big"].to_numpy()).mean() > 0.9


def test_arrays_go_up_as_records(session: Session) -> None:
    points = np.concatenate([np.random.default_rng(0).normal(c, 0.1, (20, 2)) for c in (0, 5, 10)])
    kmeans = KMeans(k=3, session=session).fit(points, progress=False)
    with kmeans.deploy(progress=False) as predictor:
        found = predictor.predict(points)
        assert found.shape == (60, 2)
        assert len(set(found[:20, 0])) == 1
        assert len(set(found[:, 0])) == 3


def test_sparse_rows_pairs_and_texts(session: Session) -> None:
    """What is no table of numbers: each in the form that its algorithm takes, trained and asked at the same time."""
    matrix = sparse.random(200, 50, 0.1, "csr", random_state=0)
    labels = (np.asarray(matrix.sum(axis=1)).ravel() > 2.5).astype(int)
    visits = pd.DataFrame(
        {"who": [f"user{i % 7}" for i in range(300)], "where": [f"10.0.{i % 7}.{i % 5}" for i in range(300)]}
    )
    moods = pd.DataFrame({"text": ["good day sunny", "bad night rain"] * 60, "mood": ["fine", "poor"] * 60})
    work: list[tuple[Estimator, Any, str | None, Any]] = [
        (FactorizationMachines(num_factors=4, predictor_type="binary_classifier", session=session),
         (matrix, labels), None, matrix[:3]),
        (IPInsights(num_entity_vectors=20, vector_dim=8, epochs=2, session=session), visits, None, visits.head(3)),
        (BlazingText(mode="supervised", min_count=1, vector_dim=10, session=session), moods, "mood", ["good day", "bad"]),
    ]  # fmt: skip

    def ask(estimator: Estimator, data: Any, target: str | None, rows: Any) -> Any:
        with estimator.fit(data, target=target, progress=False).deploy(progress=False) as predictor:
            return predictor.predict(rows)

    with ThreadPoolExecutor(3) as pool:
        factors, places, texts = (done.result() for done in [pool.submit(ask, *each) for each in work])
    assert factors.shape == (3, 2)
    assert places.columns.tolist() == ["dot_product"]
    assert len(places) == 3
    assert list(texts["label"]) == [["__label__fine"], ["__label__poor"]]


def test_waiting_ends_when_the_job_does(session: Session) -> None:
    """The wait's own delay, from the job's end as the server recorded it to the return, on a machine that may be busy."""
    frame = rows(100)
    late = []
    for _ in range(3):
        job = XGBoost(session=session, num_round=2).fit(frame, target="big", progress=False).job
        returned = time.time()
        assert job is not None
        late.append(returned - job.describe()["TrainingEndTime"].timestamp())
    assert min(late) < 0.5


def test_a_script_of_ones_own(session: Session, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(dedent('''
        import argparse, os
        import joblib, pandas as pd
        from sklearn.linear_model import LogisticRegression

        def model_fn(model_dir):
            return joblib.load(os.path.join(model_dir, "model.joblib"))

        if __name__ == "__main__":
            parser = argparse.ArgumentParser()
            parser.add_argument("--strength", type=float)
            C = parser.parse_args().strength
            frame = pd.read_csv(os.path.join(os.environ["SM_CHANNEL_TRAIN"], "train.csv"))
            model = LogisticRegression(C=C).fit(frame[["height", "width"]].values, frame["big"])
            print("accuracy=%.4f" % model.score(frame[["height", "width"]].values, frame["big"]))
            joblib.dump(model, os.path.join(os.environ["SM_MODEL_DIR"], "model.joblib"))
    '''))  # fmt: skip
    version = ".".join(importlib.metadata.version("scikit-learn").split(".")[:2]) + "-1"
    frame = rows()
    estimator = SKLearn(
        script, session=session, version=version, hyperparameters={"strength": 2.0},
        metric_definitions={"accuracy": r"accuracy=([0-9.]+)"},
    ).fit(frame, progress=False)  # fmt: skip
    assert estimator.metrics()["value"].iloc[-1] > 0.9
    with estimator.deploy(progress=False) as predictor:
        found = predictor.predict(frame[["height", "width"]].to_numpy())
        assert (found == frame["big"]).mean() > 0.9


def test_failures_are_one_sentence(served: Served, session: Session, trained: Estimator) -> None:
    frame = rows(50).assign(big=7)
    with pytest.raises(JobFailed, match="from 0 to 1") as failed:
        XGBoost(session=session, objective="binary:logistic", num_round=1).fit(
            frame, target="big", progress=False
        )
    assert failed.value.log
    assert trained.job is not None
    with pytest.raises(NameInUse, match="already"):
        trained.fit(rows(), target="big", job_name=trained.job.name)
    with pytest.raises(NotFound):
        TrainingJob("no-such-job", session=session).describe()
    found: dict[str, Any] = {"region": "us-east-1", "ca_bundle": served.ca_file}
    with pytest.raises(ServerUnreachable, match="sagesmith up") as unreachable:
        Session(served.session(), endpoint_url=f"https://127.0.0.1:{free_port()}", **found).identity()
    assert unreachable.value.__cause__ is not None
    stranger = {"AccessKeyId": "AKIAIOSFODNN7EXAMPLE", "SecretAccessKey": "x" * 40}
    with pytest.raises(SdkError, match="not known"):
        Session(served.session(stranger), endpoint_url=served.url, **found).call("sagemaker", "list_models")


def test_a_session_deletes_what_it_made(served: Served) -> None:
    with Session(home=served.home, bucket="gone-afterwards") as session:
        session.ensure_bucket("gone-afterwards")
        estimator = XGBoost(session=session, num_round=1).fit(rows(50), target="big", progress=False)
        predictor = estimator.deploy(progress=False)
        assert predictor.status == "InService"
    s3 = served.client("s3")
    assert "Contents" not in s3.list_objects_v2(Bucket="gone-afterwards")
    s3.delete_bucket(Bucket="gone-afterwards")
    endpoints = served.client("sagemaker").list_endpoints(NameContains=predictor.name)["Endpoints"]
    assert all(endpoint["EndpointStatus"] == "Deleting" for endpoint in endpoints)
