"""The commands. Data goes to standard output, everything said to people goes to standard error."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.models import CommandInfo

from sagesmith import __version__
from sagesmith.cli._client import AwsOption, exit_code
from sagesmith.cli._images import images
from sagesmith.cli._notebook import notebook
from sagesmith.cli._process import NotRunning, follow, running, start_aside, stop, the_running
from sagesmith.cli._serve import deploy, endpoints, predict, rm, transform
from sagesmith.cli._train import job_logs, jobs, train
from sagesmith.cli._train import stop as stop_jobs
from sagesmith.config import Home, Settings, SettingsError

__all__ = ["main"]

app = typer.Typer(
    name="sagesmith",
    help="A machine-learning platform you run yourself that speaks the AWS SageMaker API.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _command in (train, jobs, deploy, predict, transform, endpoints, rm):
    app.command(rich_help_panel="Train and serve")(_command)
app.command("stop", rich_help_panel="Train and serve")(stop_jobs)
app.add_typer(images, name="images")
app.add_typer(notebook, name="notebook")

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", help="The home folder. Default: $SAGESMITH_HOME, else ~/.sagesmith.", show_default=False
    ),
]


def main() -> None:
    """Run the command line; the sentences of expected faults go to standard error with exit code 1."""
    try:
        _only(app, sys.argv[1:])()
    except (NotRunning, SettingsError) as fault:
        _fail(str(fault))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as fault:
        from sagesmith.sdk._errors import SdkError

        if not isinstance(fault, SdkError):
            raise
        for line in getattr(fault, "log", ()):
            _say(f"  {line}")
        _say(f"sagesmith: {fault}")
        sys.exit(exit_code(fault))


def _only(commands: typer.Typer, words: Sequence[str]) -> typer.Typer:
    """Return *commands* with none but the one that *words* begin with, or as they are if they begin with none.

    Before it runs one, Typer looks at every parameter of all, which takes longer than most commands do.
    """
    wanted = copy(commands)
    wanted.registered_commands = [each for each in commands.registered_commands if _name(each) == words[:1]]
    wanted.registered_groups = [each for each in commands.registered_groups if [each.name] == words[:1]]
    return wanted if wanted.registered_commands or wanted.registered_groups else commands


def _name(command: CommandInfo) -> list[str]:
    return [command.name or str(getattr(command.callback, "__name__", ""))]


def _fail(sentence: str) -> NoReturn:
    typer.echo(f"sagesmith: {sentence}", err=True)
    sys.exit(1)


def _say(sentence: str) -> None:
    typer.echo(sentence, err=True)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"sagesmith {__version__}")
        raise typer.Exit


@app.command()
def up(
    home: HomeOption = None,
    port: Annotated[int | None, typer.Option(help="HTTPS port; 0 takes a free one. Default: 8777.")] = None,
    http_port: Annotated[
        int | None, typer.Option(help="Plain HTTP as well, on loopback, at this port. Default: off.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen at. Default: 127.0.0.1.")] = None,
    account_id: Annotated[str | None, typer.Option(help="The account number, 12 digits.")] = None,
    database_url: Annotated[
        str | None, typer.Option(help="PostgreSQL instead of SQLite: postgresql+psycopg://...")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when the server answers.")] = False,
) -> None:
    """Start the server, in the foreground or (--detach) aside."""
    place = Home.locate(home)
    given = {
        "port": port,
        "http_port": http_port,
        "host": host,
        "account_id": account_id,
        "database_url": database_url,
    }
    Settings.load(place, os.environ, **given)
    already = running(place)
    if already is not None:
        _say(f"Sagesmith already runs at {already.url} (pid {already.pid}, home {place.path}).")
        return
    arguments = [
        part
        for name, value in given.items()
        if value is not None
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]
    if not detach:
        from sagesmith.server import main as serve

        sys.exit(serve(["--home", str(place.path), *arguments]))
    began = time.monotonic()
    server = start_aside(place, arguments)
    _say(f"Sagesmith answers at {server.url} after {time.monotonic() - began:.2f} s (home {place.path}).")
    _say('Next: eval "$(sagesmith env)"   or   sagesmith run -- python your_script.py')


@app.command()
def down(home: HomeOption = None) -> None:
    """End the server and its instances in order; what ran goes on at the next `up`."""
    place = Home.locate(home)
    server = running(place)
    if server is None:
        _say(f"No Sagesmith server runs for the home folder {place.path}.")
        return
    if not stop(server, place):
        _fail(f"the server (pid {server.pid}) is still ending its instances; see `sagesmith logs`.")
    _say("Sagesmith has ended.")


@app.command()
def status(
    home: HomeOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the server, its instances and warm processes, and their memory."""
    from sagesmith.cli._status import fetch, render

    place = Home.locate(home)
    server = running(place)
    if server is None:
        if as_json:
            typer.echo(json.dumps({"running": False, "home": str(place.path)}))
        else:
            _say(f"No Sagesmith server runs for the home folder {place.path}. Start one with `sagesmith up`.")
        raise typer.Exit(3)
    data: dict[str, Any] = {"running": True, "home": str(place.path), **fetch(server, place)}
    typer.echo(json.dumps(data, indent=2) if as_json else render(data))


@app.command("open")
def open_console(home: HomeOption = None) -> None:
    """Open the console in the browser; its address goes to standard output."""
    address = f"{the_running(Home.locate(home)).url}/_sagesmith/console/"
    typer.echo(address)
    if sys.stdout.isatty():
        import webbrowser

        _say(
            "Log in with the key that `sagesmith env` prints. The browser asks once about the server's own certificate."
        )
        webbrowser.open(address)


@app.command()
def env(home: HomeOption = None) -> None:
    """Print the `export` lines that point AWS clients of a shell at this server."""
    from sagesmith.cli._environment import environment, export_lines

    place = Home.locate(home)
    the_running(place)
    typer.echo(export_lines(environment(place)))


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
    }
)
def run(context: typer.Context, home: HomeOption = None) -> None:
    """Run a command so that every AWS call of it lands here: sagesmith run -- python train.py"""
    from sagesmith.cli._environment import run as run_command

    if not context.args:
        _fail("give the command to run after `--`, such as: sagesmith run -- python train.py")
    place = Home.locate(home)
    the_running(place)
    sys.exit(run_command(place, context.args))


@app.command()
def coverage(
    service: Annotated[str | None, typer.Argument(help="Only this service, such as sagemaker.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List every operation as real, record-only (SageMaker itself only stores it) or missing."""
    from sagesmith.cli._coverage import render
    from sagesmith.server import coverage as measure

    data = measure()
    if service is not None:
        if service not in data:
            _fail(f"unknown service {service!r}; known are {', '.join(sorted(data))}.")
        data = {service: data[service]}
    typer.echo(json.dumps(data, indent=2) if as_json else render(data))


@app.command()
def doctor(home: HomeOption = None) -> None:
    """Say what this machine lacks; exit code 1 if something must be mended."""
    from sagesmith.cli._doctor import examine

    place = Home.locate(home)
    marks = {"ok": "ok   ", "note": "note ", "fault": "FAULT"}
    faults = 0
    for finding in examine(place, Settings.load(place, os.environ)):
        typer.echo(f"{marks[finding.level]}  {finding.subject}: {finding.sentence}")
        faults += finding.level == "fault"
    if faults:
        raise typer.Exit(1)


@app.command(rich_help_panel="Train and serve")
def logs(
    name: Annotated[
        str | None,
        typer.Argument(help="A training job, transform job or endpoint. Default: the server itself."),
    ] = None,
    home: HomeOption = None,
    follow_on: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    lines: Annotated[
        int | None,
        typer.Option(
            "--lines", "-n", min=0, help="How many lines of the past. Default: all, of the server 50."
        ),
    ] = None,
    aws: AwsOption = False,
) -> None:
    """Print the log of a job or an endpoint, or the server's own."""
    if name is not None:
        job_logs(name, follow=follow_on, lines=lines, home=home, aws=aws)
        return
    place = Home.locate(home)
    log = place.logs / "server.log"
    if not log.is_file():
        _fail(f"there is no log at {log}: no server has run for this home folder yet.")
    for line in follow(log, 50 if lines is None else lines, endless=follow_on):
        typer.echo(line)
