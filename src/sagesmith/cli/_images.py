"""``sagesmith images``: the Python environments of frameworks, which jobs build on first use."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from sagesmith.config import Home, Settings, SettingsError

if TYPE_CHECKING:
    from sagesmith.images import Environments

__all__ = ["images"]

images = typer.Typer(
    name="images",
    help="List, build ahead and remove the environments of framework images.",
    no_args_is_help=True,
)
HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", help="The home folder. Default: $SAGESMITH_HOME, else ~/.sagesmith.", show_default=False
    ),
]
_DAY_S = 86400.0


@images.command("list")
def list_images(
    home: HomeOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the environments that are there: size, last use, what is in them."""
    built = _environments(home).all()
    if as_json:
        rows = [
            {
                "name": each.name,
                "folder": str(each.folder),
                "requirements": each.requirements,
                "size_bytes": each.size_bytes,
                "last_used": each.last_used,
                "in_use": each.in_use,
            }
            for each in built
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    if not built:
        typer.echo(
            "There are no environments yet: a job builds the one it needs, or `sagesmith images build`.",
            err=True,
        )
    for each in built:
        used = "in use" if each.in_use else time.strftime("%Y-%m-%d %H:%M", time.localtime(each.last_used))
        size = f"{each.size_bytes / 1e6:.0f} MB"
        typer.echo(f"{each.name:24}{size:>9}  {used:18}{' '.join(each.requirements)}")


@images.command()
def build(
    image: Annotated[
        str, typer.Argument(help="Repository and tag, such as sagemaker-scikit-learn:1.2-1-cpu-py3.")
    ],
    home: HomeOption = None,
) -> None:
    """Build the environment of a framework image now, so that no job has to."""
    from sagesmith.errors import AwsError
    from sagesmith.images import BuildFailed, resolve

    uri = image if "/" in image else f"{'0' * 12}.dkr.ecr.us-east-1.amazonaws.com/{image}"
    try:
        wanted = resolve(uri).python
        if wanted is None:
            _fail(f"{image} has no environment of its own to build.")
        if wanted.note:
            typer.echo(wanted.note, err=True)
        use = _environments(home).make(wanted, lambda line: typer.echo(line, err=True))
    except (AwsError, BuildFailed) as fault:
        _fail(str(fault))
    if use.note:
        typer.echo(use.note, err=True)
    typer.echo(use.prefix or sys.prefix)


@images.command()
def prune(
    home: HomeOption = None,
    unused_days: Annotated[
        float, typer.Option("--unused-days", min=0, help="Only what nobody has used for so many days.")
    ] = 0,
) -> None:
    """Remove environments that nobody uses; a job that needs one builds it again."""
    for name in _environments(home).prune(unused_s=unused_days * _DAY_S):
        typer.echo(name)


def _environments(home: Path | None) -> Environments:
    from sagesmith.images import Environments

    located = Home.locate(home)
    try:
        settings = Settings.load(located, os.environ)
    except SettingsError as fault:
        _fail(str(fault))
    return Environments(settings.images(located), torch_backend=settings.torch_backend)


def _fail(sentence: str) -> NoReturn:
    typer.echo(f"sagesmith: {sentence}", err=True)
    raise typer.Exit(1)
