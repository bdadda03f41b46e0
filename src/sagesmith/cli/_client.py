"""What the commands that use a server share: which server, how tables look, what a name means.

The commands are thin: the Python interface does the work. Data goes to standard output, everything said to people
to standard error; `--json` makes the data JSON. Exit codes: 0, 1 for what is wrong or refused, 2 for wrong usage,
4 for a job or endpoint that failed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from sagesmith.cli._process import the_running
from sagesmith.config import Home

if TYPE_CHECKING:
    from sagesmith.sdk import Session

__all__ = [
    "AwsOption",
    "HomeOption",
    "JsonOption",
    "connect",
    "emit",
    "exit_code",
    "fail",
    "pairs",
    "say",
    "table",
    "when",
]

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        help="Use the server of this home folder. Default: $AWS_ENDPOINT_URL, else the server that runs here.",
        show_default=False,
    ),
]
AwsOption = Annotated[
    bool, typer.Option("--aws", help="Use AWS, or what AWS_PROFILE names, and not the server that runs here.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def connect(home: Path | None, aws: bool) -> Session:
    """Return a session for the server that the options name.

    Raises:
        NotRunning: no server runs for the home folder.
    """
    from sagesmith.sdk import Session

    if aws or (home is None and os.environ.get("AWS_ENDPOINT_URL")):
        return Session()
    place = Home.locate(home)
    the_running(place)
    return Session(home=place.path)


def say(sentence: str) -> None:
    """Tell people something, on standard error."""
    typer.echo(sentence, err=True)


def fail(sentence: str, code: int = 1) -> NoReturn:
    """End with a sentence on standard error."""
    say(f"sagesmith: {sentence}")
    sys.exit(code)


def exit_code(error: Exception) -> int:
    """Return the exit code for an error of the Python interface."""
    from sagesmith.sdk import EndpointFailed, JobFailed

    return 4 if isinstance(error, (JobFailed, EndpointFailed)) else 1


def emit(data: Any) -> None:
    """Print *data* as JSON; times are ISO 8601."""
    typer.echo(json.dumps(data, indent=2, default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if hasattr(value, "item"):
        return value.item()
    return str(value)


def table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> None:
    """Print rows in columns; the header only where a person looks."""
    lines = (
        [tuple(header), *(tuple(row) for row in rows)] if sys.stdout.isatty() else [tuple(r) for r in rows]
    )
    if not lines:
        return
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for number, line in enumerate(lines):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        typer.echo(typer.style(text, bold=True) if number == 0 and sys.stdout.isatty() else text)


def when(moment: datetime | None) -> str:
    """Return a time in local time, empty for None."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment is not None else ""


def pairs(texts: Iterable[str], what: str) -> Mapping[str, str]:
    """Return ``NAME=VALUE`` texts as a mapping."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            fail(f"{what} has the form NAME=VALUE, but {text!r} has not.", 2)
        found[name] = value
    return found
