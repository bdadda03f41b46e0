"""``sagesmith deploy``, ``endpoints``, ``predict``, ``transform`` and ``rm``."""

from __future__ import annotations

import sys
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
    say,
    table,
    when,
)

if TYPE_CHECKING:
    from sagesmith.sdk import Model, Session

__all__ = ["deploy", "endpoints", "predict", "rm", "transform"]

SourceArgument = Annotated[str, typer.Argument(help="A training job, or a model.")]


def _model(session: Session, name: str) -> Model:
    """Return the model called *name*, or that of the training job *name*."""
    from sagesmith.sdk import Model, NotFound

    try:
        return Model.from_job(name, session=session)
    except NotFound:
        try:
            return Model.existing(name, session=session)
        except NotFound:
            fail(f"There is no training job and no model {name!r}. `sagesmith jobs` lists the jobs.")


def deploy(
    source: SourceArgument,
    name: Annotated[str | None, typer.Option(help="The endpoint's name. Default: one is made.")] = None,
    instance_type: Annotated[str, typer.Option(help="Instance type.")] = "ml.m5.large",
    instances: Annotated[int, typer.Option(min=1, help="How many instances.")] = 1,
    wait: Annotated[bool, typer.Option(help="Wait until it is in service.")] = True,
    as_json: JsonOption = False,
    home: HomeOption = None,
    aws: AwsOption = False,
) -> None:
    """Serve a trained model; the endpoint's name goes to standard output."""
    predictor = _model(connect(home, aws), source).deploy(
        name=name, instance_type=instance_type, instance_count=instances, wait=wait
    )
    if as_json:
        found = predictor.describe()
        emit({key: found[key] for key in ("EndpointName", "EndpointArn", "EndpointStatus")})
    else:
        typer.echo(predictor.name)


def endpoints(
    name: Annotated[str | None, typer.Option(help="Only names that contain this.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, the newest first.")] = 50,
    as_json: JsonOption = False,
    home: HomeOption = None,
    aws: AwsOption = False,
) -> None:
    """List endpoints, the newest first."""
    more = {"NameContains": name} if name else {}
    found = connect(home, aws).call(
        "sagemaker", "list_endpoints", SortBy="CreationTime", SortOrder="Descending",
        MaxResults=min(limit, 100), **more,
    )["Endpoints"]  # fmt: skip
    if as_json:
        emit(found)
        return
    if not found:
        say("There are no endpoints.")
    table(
        [(each["EndpointName"], each["EndpointStatus"], when(each["CreationTime"])) for each in found],
        ("NAME", "STATUS", "CREATED"),
    )


def predict(
    endpoint: Annotated[str, typer.Argument(help="The endpoint's name.")],
    data: Annotated[str, typer.Argument(help="A file with rows; - reads CSV from standard input.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
    aws: AwsOption = False,
) -> None:
    """Predict for the rows of a file; the predictions go to standard output as CSV, or JSON with --json.

    Columns are found by name: the label and others may still be there.
    """
    from sagesmith.sdk import NotFound, Predictor

    predictor = Predictor(endpoint, session=connect(home, aws))
    if data != "-" and not Path(data).is_file():
        fail(f"There is no file {data}.")
    try:
        if data == "-":
            import tempfile

            with tempfile.NamedTemporaryFile(suffix=".csv") as file:
                file.write(sys.stdin.buffer.read())
                file.flush()
                answer = predictor.predict(Path(file.name))
        else:
            answer = predictor.predict(Path(data))
    except NotFound:
        fail(f"There is no endpoint {endpoint!r}. `sagesmith endpoints` lists them.")
    _write(answer, output, as_json)


def transform(
    source: SourceArgument,
    data: Annotated[str, typer.Argument(help="A file, a folder, or an S3 URI.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the predictions to this file, - for standard output."),
    ] = None,
    instance_type: Annotated[str, typer.Option(help="Instance type.")] = "ml.m5.large",
    instances: Annotated[int, typer.Option(min=1, help="How many instances.")] = 1,
    name: Annotated[str | None, typer.Option(help="The job's name. Default: one is made.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the end.")] = True,
    as_json: JsonOption = False,
    home: HomeOption = None,
    aws: AwsOption = False,
) -> None:
    """Predict for whole files in a batch transform job; the S3 URIs of the predictions go to standard output."""
    transformer = _model(connect(home, aws), source).transformer(
        instance_type=instance_type, instance_count=instances
    )
    transformer.transform(data, job_name=name, wait=wait)
    if not wait:
        typer.echo(transformer.name)
        return
    if output is not None:
        _write(transformer.output(), None if str(output) == "-" else output, as_json)
    elif as_json:
        emit({"TransformJobName": transformer.name, "Files": transformer.files()})
    else:
        typer.echo("\n".join(transformer.files()))


def _write(answer: Any, output: Path | None, as_json: bool) -> None:
    """Write predictions to a file or to standard output."""
    if hasattr(answer, "to_csv"):
        text = (
            answer.to_json(orient="records", lines=True, double_precision=15)
            if as_json
            else answer.to_csv(index=False)
        )
    elif isinstance(answer, str):
        text = answer
    else:
        import json

        text = json.dumps(answer.tolist() if hasattr(answer, "tolist") else answer, default=str) + "\n"
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        fail(f"{output} cannot be written: {error.strerror}.")
    say(f"Written to {output}.")


def rm(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Endpoints, models or training jobs.")
    ],
    home: HomeOption = None,
    aws: AwsOption = False,
) -> None:
    """Delete endpoints, each with its configuration and models, or models, or training jobs that have ended."""
    from sagesmith.sdk import NotFound, Predictor

    session = connect(home, aws)
    for name in names:
        predictor = Predictor(name, session=session)
        try:
            predictor.describe()
        except NotFound:
            say(f"Deleted the {_delete(session, name)} {name}.")
            continue
        predictor.delete(wait=True)
        say(f"Deleted the endpoint {name}, its configuration and models.")


def _delete(session: Session, name: str) -> str:
    """Delete the model or else the training job *name*; return which it was."""
    from sagesmith.sdk import NotFound

    for kind, operation, request in (
        ("model", "delete_model", {"ModelName": name}),
        ("training job", "delete_training_job", {"TrainingJobName": name}),
    ):
        try:
            session.call("sagemaker", operation, **request)
        except NotFound:
            continue
        else:
            return kind
    return fail(f"There is no endpoint, model or training job {name!r}.")
