"""``sagesmith train``, ``jobs``, ``stop``, and the logs of jobs and endpoints."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sagesmith.cli._client import (
    AwsOption,
    HomeOption,
    JsonOption,
    connect,
    emit,
    fail,
    pairs,
    say,
    table,
    when,
)

if TYPE_CHECKING:
    from sagesmith.sdk import Estimator, Session

__all__ = ["job_logs", "jobs", "stop", "train"]


class JobStatus(StrEnum):
    """What jobs can be listed by."""

    IN_PROGRESS = "InProgress"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPING = "Stopping"
    STOPPED = "Stopped"


def train(
    algorithm: Annotated[
        str, typer.Argument(help="xgboost, kmeans, ..., an image's URI, or with --script a framework.")
    ],
    data: Annotated[str, typer.Argument(help="A file (.csv, .parquet, .npy, ...), a folder, or an S3 URI.")],
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="The label's column, by name or position.")
    ] = None,
    validation: Annotated[str | None, typer.Option(help="Rows to validate with, as DATA.")] = None,
    test: Annotated[str | None, typer.Option(help="Rows to test with, as DATA.")] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", help="A hyperparameter, NAME=VALUE; several times.")
    ] = None,
    script: Annotated[
        Path | None,
        typer.Option(help="Your script, for sklearn, xgboost, pytorch, tensorflow, mxnet, huggingface."),
    ] = None,
    version: Annotated[str | None, typer.Option(help="Version of the algorithm or framework.")] = None,
    name: Annotated[str | None, typer.Option(help="The job's name. Default: one is made.")] = None,
    instance_type: Annotated[str, typer.Option(help="Instance type.")] = "ml.m5.xlarge",
    instances: Annotated[int, typer.Option(min=1, help="How many instances.")] = 1,
    role: Annotated[str | None, typer.Option(help="Execution role. Default: the server's own.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the end.")] = True,
    logs: Annotated[bool, typer.Option("--logs", help="Print the job's log to standard error.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
    aws: AwsOption = False,
) -> None:
    """Train on a file: sagesmith train xgboost data.csv --target y -p objective=binary:logistic

    The training job's name goes to standard output.
    """
    from sagesmith.sdk import Estimator

    session = connect(home, aws)
    parameters = pairs(param or (), "A hyperparameter")
    settings: dict[str, Any] = {
        "session": session, "version": version, "instance_type": instance_type, "instance_count": instances,
        "role": role, "hyperparameters": parameters,
    }  # fmt: skip
    estimator: Estimator
    if script is not None:
        estimator = _framework(algorithm)(script, **settings)
    else:
        estimator = Estimator(algorithm, **settings)
    where: str | int | None = int(target) if target is not None and target.isdigit() else target
    estimator.fit(
        data, validation=validation, test=test, target=where, job_name=name, wait=wait and not logs,
        progress="auto",
    )  # fmt: skip
    job = estimator.job
    assert job is not None  # noqa: S101 - `fit` sets it
    if wait and logs:
        for line in job.logs(follow=True):
            say(line.text)
        job.wait(progress=False)
    if not as_json:
        typer.echo(job.name)
        return
    found = job.describe()
    emit(
        {
            "TrainingJobName": job.name,
            "TrainingJobArn": found["TrainingJobArn"],
            "TrainingJobStatus": found["TrainingJobStatus"],
            "ModelArtifacts": found.get("ModelArtifacts", {}).get("S3ModelArtifacts"),
            "Metrics": {m["MetricName"]: m["Value"] for m in found.get("FinalMetricDataList", ())},
        }
    )


def _framework(name: str) -> Any:
    from sagesmith import sdk

    classes = {
        "sklearn": sdk.SKLearn, "xgboost": sdk.XGBoostScript, "pytorch": sdk.PyTorch,
        "tensorflow": sdk.TensorFlow, "mxnet": sdk.MXNet, "huggingface": sdk.HuggingFace,
    }  # fmt: skip
    if name not in classes:
        fail(f"--script goes with one of {', '.join(classes)}, not with {name!r}.", 2)
    return classes[name]


def jobs(
    status: Annotated[JobStatus | None, typer.Option(help="Only these.")] = None,
    name: Annotated[str | None, typer.Option(help="Only names that contain this.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, the newest first.")] = 20,
    as_json: JsonOption = False,
    home: HomeOption = None,
    aws: AwsOption = False,
) -> None:
    """List training and transform jobs, the newest first."""
    session = connect(home, aws)
    found = sorted(
        [
            *_listed(session, "Training", status and status.value, name, limit),
            *_listed(session, "Transform", status and status.value, name, limit),
        ],
        key=lambda job: job["CreationTime"],
        reverse=True,
    )[:limit]
    if as_json:
        emit(found)
        return
    if not found:
        say("There are no such jobs." if status or name else "There are no jobs yet.")
    table(
        [(job["Name"], job["Kind"], job["Status"], when(job["CreationTime"]), _took(job)) for job in found],
        ("NAME", "KIND", "STATUS", "CREATED", "TOOK"),
    )


def _listed(
    session: Session, kind: str, status: str | None, name: str | None, limit: int
) -> list[dict[str, Any]]:
    more: dict[str, Any] = {}
    if status:
        more["StatusEquals"] = status
    if name:
        more["NameContains"] = name
    answer = session.call(
        "sagemaker", f"list_{kind.lower()}_jobs", SortBy="CreationTime", SortOrder="Descending",
        MaxResults=min(limit, 100), **more,
    )  # fmt: skip
    return [
        {
            "Name": job[f"{kind}JobName"],
            "Kind": kind.lower(),
            "Status": job[f"{kind}JobStatus"],
            "CreationTime": job["CreationTime"],
            "EndTime": job.get(f"{kind}EndTime"),
            "Arn": job[f"{kind}JobArn"],
        }
        for job in answer[f"{kind}JobSummaries"]
    ]


def _took(job: dict[str, Any]) -> str:
    end = job["EndTime"] or (datetime.now(UTC) if job["Status"] in ("InProgress", "Stopping") else None)
    return f"{(end - job['CreationTime']).total_seconds():.1f} s" if end is not None else ""


def job_logs(name: str, *, follow: bool, lines: int | None, home: Path | None, aws: bool) -> None:
    """Print the log of a training job, a transform job or an endpoint."""
    from sagesmith.sdk import NotFound, Predictor, TrainingJob, TransformJob

    session = connect(home, aws)
    thing: TrainingJob | TransformJob | Predictor
    for kind in (TrainingJob, TransformJob, Predictor):
        thing = kind(name, session=session)
        try:
            thing.describe()
        except NotFound:
            continue
        break
    else:
        fail(f"There is no training job, transform job or endpoint {name!r}.")
    past = list(thing.logs()) if lines is not None else []
    if lines is not None and not follow:
        for line in past[-lines:]:
            typer.echo(line.text)
        return
    skip = max(0, len(past) - lines) if lines is not None else 0
    for number, line in enumerate(thing.logs(follow=follow)):
        if number >= skip:
            typer.echo(line.text)


def stop(
    names: Annotated[list[str], typer.Argument(metavar="JOB...", help="Training or transform jobs.")],
    wait: Annotated[bool, typer.Option(help="Wait until they have stopped.")] = True,
    home: HomeOption = None,
    aws: AwsOption = False,
) -> None:
    """Stop jobs; what a training job has made so far is kept as its model."""
    from sagesmith.sdk import NotFound, TrainingJob, TransformJob

    session = connect(home, aws)
    for name in names:
        job: TrainingJob | TransformJob = TrainingJob(name, session=session)
        try:
            job.describe()
        except NotFound:
            job = TransformJob(name, session=session)
        try:
            job.stop(wait=wait)
        except NotFound:
            fail(f"There is no training or transform job {name!r}. `sagesmith jobs` lists them.")
        say(f"{name}: {job.status}")
