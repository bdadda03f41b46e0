"""``sagesmith notebook``: create, start, stop, open, list and remove notebook instances."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from sagesmith.cli._client import AwsOption, HomeOption, JsonOption, connect, emit, fail, say, table, when

if TYPE_CHECKING:
    from sagesmith.sdk import Session

__all__ = ["notebook"]

notebook = typer.Typer(
    name="notebook",
    help="JupyterLab beside the server: create, start, stop, open, list and remove notebook instances.",
    no_args_is_help=True,
)
NameArgument = Annotated[str, typer.Argument(help="The notebook instance's name.")]
WaitOption = Annotated[bool, typer.Option(help="Wait until it is so.")]
_LOOK_S: Final = 0.5


@notebook.command()
def create(
    name: NameArgument,
    instance_type: Annotated[str, typer.Option(help="Instance type.")] = "ml.t3.medium",
    role: Annotated[str | None, typer.Option(help="Execution role. Default: the session's own.")] = None,
    lifecycle_config: Annotated[str | None, typer.Option(help="A lifecycle configuration.")] = None,
    repository: Annotated[
        str | None, typer.Option(help="A git repository (URL or code repository) to open in.")
    ] = None,
    wait: WaitOption = True,
    as_json: JsonOption = False,
    home: HomeOption = None,
    aws: AwsOption = False,
) -> None:
    """Create a notebook instance; its name goes to standard output once it is in service."""
    session = connect(home, aws)
    more = {"LifecycleConfigName": lifecycle_config, "DefaultCodeRepository": repository}
    session.call(
        "sagemaker", "create_notebook_instance", NotebookInstanceName=name, InstanceType=instance_type,
        RoleArn=role or session.role, **{member: value for member, value in more.items() if value},
    )  # fmt: skip
    _finish(session, name, "InService" if wait else "", as_json)


@notebook.command()
def start(
    name: NameArgument,
    wait: WaitOption = True,
    as_json: JsonOption = False,
    home: HomeOption = None,
    aws: AwsOption = False,
) -> None:
    """Start a notebook instance that is stopped; its files are as they were."""
    session = connect(home, aws)
    session.call("sagemaker", "start_notebook_instance", NotebookInstanceName=name)
    _finish(session, name, "InService" if wait else "", as_json)


@notebook.command()
def stop(
    name: NameArgument,
    wait: WaitOption = True,
    as_json: JsonOption = False,
    home: HomeOption = None,
    aws: AwsOption = False,
) -> None:
    """End a notebook instance's JupyterLab and kernels; its files stay."""
    session = connect(home, aws)
    session.call("sagemaker", "stop_notebook_instance", NotebookInstanceName=name)
    _finish(session, name, "Stopped" if wait else "", as_json)


@notebook.command("open")
def open_notebook(name: NameArgument, home: HomeOption = None, aws: AwsOption = False) -> None:
    """Open a notebook instance in the browser; the URL, which works once, goes to standard output."""
    session = connect(home, aws)
    answer = session.call("sagemaker", "create_presigned_notebook_instance_url", NotebookInstanceName=name)
    typer.echo(answer["AuthorizedUrl"])
    if sys.stdout.isatty():
        import webbrowser

        webbrowser.open(answer["AuthorizedUrl"])


@notebook.command("list")
def list_notebooks(as_json: JsonOption = False, home: HomeOption = None, aws: AwsOption = False) -> None:
    """List notebook instances by name."""
    session = connect(home, aws)
    found: list[Any] = []
    token: dict[str, str] = {}
    while True:
        page = session.call("sagemaker", "list_notebook_instances", MaxResults=100, **token)
        found += page["NotebookInstances"]
        if not page.get("NextToken"):
            break
        token = {"NextToken": page["NextToken"]}
    if as_json:
        emit(found)
        return
    if not found:
        say("There are no notebook instances. `sagesmith notebook create NAME` makes one.")
    rows = [
        (n["NotebookInstanceName"], n["NotebookInstanceStatus"], n["InstanceType"], when(n["CreationTime"]))
        for n in found
    ]
    table(rows, ("NAME", "STATUS", "INSTANCE TYPE", "CREATED"))


@notebook.command()
def rm(
    name: NameArgument,
    stop_first: Annotated[bool, typer.Option("--stop", help="Stop it first, if it runs.")] = False,
    home: HomeOption = None,
    aws: AwsOption = False,
) -> None:
    """Remove a notebook instance that is stopped, with all its files."""
    session = connect(home, aws)
    if stop_first and _describe(session, name)["NotebookInstanceStatus"] == "InService":
        session.call("sagemaker", "stop_notebook_instance", NotebookInstanceName=name)
        _wait(session, name, "Stopped")
    session.call("sagemaker", "delete_notebook_instance", NotebookInstanceName=name)


def _describe(session: Session, name: str) -> dict[str, Any]:
    return session.call("sagemaker", "describe_notebook_instance", NotebookInstanceName=name)


def _wait(session: Session, name: str, status: str) -> dict[str, Any]:
    """Wait until the notebook has *status*; end the command if it has failed instead."""
    told = time.monotonic()
    while True:
        found = _describe(session, name)
        if found["NotebookInstanceStatus"] == status:
            return found
        if found["NotebookInstanceStatus"] == "Failed":
            fail(f"{name} has failed: {found.get('FailureReason', 'no reason is given')}", 4)
        if time.monotonic() - told > 10:
            say(
                f"{name} is {found['NotebookInstanceStatus']}; the first notebook's environment takes some minutes."
            )
            told = time.monotonic() + 50
        time.sleep(_LOOK_S)


def _finish(session: Session, name: str, status: str, as_json: bool) -> None:
    found = _wait(session, name, status) if status else _describe(session, name)
    if as_json:
        emit(
            {
                key: found[key]
                for key in ("NotebookInstanceName", "NotebookInstanceArn", "NotebookInstanceStatus")
            }
        )
    else:
        typer.echo(name)
