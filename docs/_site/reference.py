"""What the site makes from the code: the sidebar from the index, and the pages of the reference.

Each page below `reference/` is a Markdown file with an introduction; what is made from the code is added when Sphinx
reads it, so that it cannot grow old.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Final

import click
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.pycode import ModuleAnalyzer

PARTS: Final = {
    "Where requests go": ("Session", "default_session"),
    "Training": ("Estimator", "TrainingJob", "curves", "Channel", "Chart"),
    "Own scripts": ("SKLearn", "XGBoostScript", "PyTorch", "TensorFlow", "MXNet", "HuggingFace"),
    "Models, endpoints, batch transform": ("Model", "ScriptModel", "Predictor", "Transformer", "TransformJob"),
    "Errors": (
        "SdkError", "ApiError", "CredentialsRefused", "DataMismatch", "EndpointFailed", "HyperparameterUnknown", "JobFailed",
        "NameInUse", "NotFound", "ServerUnreachable",
    ),
}  # fmt: skip
ALGORITHMS: Final = (
    "XGBoost", "LinearLearner", "FactorizationMachines", "KMeans", "KNN", "PCA", "RandomCutForest", "LDA", "IPInsights",
    "BlazingText",
)  # fmt: skip

_LISTED: Final = re.compile(r"^ {8}(\w+): (.+)$", re.MULTILINE)
"""A line of a docstring's list of keys."""


def contents(text: str) -> str:
    """Return the tables of contents that the index's headings and links make."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    lines = []
    for caption, body in zip(parts[1::2], parts[2::2], strict=True):
        links = re.findall(r"^- \[([^]]+)\]\(([\w/-]+)\.md\)", body, flags=re.MULTILINE)
        lines += ["", "```{toctree}", ":hidden:", f":caption: {caption}", ""]
        lines += [f"{title} <{page}>" for title, page in links]
        lines += ["```"]
    return "\n".join(lines)


def python_interface() -> str:
    """Return the classes and functions of `sagesmith.sdk`."""
    from sagesmith import sdk

    named = {name for names in PARTS.values() for name in names} | set(ALGORITHMS)
    if named != set(sdk.__all__):
        raise ExtensionError(
            f"docs/_site/reference.py and sagesmith.sdk differ in {named ^ set(sdk.__all__)}"
        )
    lines = []
    for heading, names in PARTS.items():
        lines += ["", f"## {heading}", "", "```{eval-rst}", ".. py:currentmodule:: sagesmith.sdk", ""]
        for name in names:
            kind = "class" if isinstance(getattr(sdk, name), type) else "function"
            lines += [
                f".. auto{kind}:: sagesmith.sdk.{name}",
                *(
                    ["   :members:", "   :inherited-members: object, BaseException"]
                    if kind == "class"
                    else []
                ),
                "",
            ]
        lines += ["```"]
    return "\n".join(lines)


def estimators() -> str:
    """Return each algorithm's class with the hyperparameters it takes."""
    from sagesmith import sdk

    lines = ["", "## Settings that all take", "", *_arguments("sagesmith.sdk._settings", "EstimatorSettings")]
    for name in ALGORITHMS:
        doc = (getattr(sdk, name).__doc__ or "").replace("``", "`")
        lines += ["", f"## {name}", "", doc, ""]
        lines += _arguments("sagesmith.sdk._hyperparameters", f"{name}Arguments")
    return "\n".join(lines)


def _arguments(module: str, name: str) -> Iterator[str]:
    """Yield a table of a `TypedDict`'s keys."""
    analyzer = ModuleAnalyzer.for_module(module)
    told = analyzer.find_attr_docs()
    listed = dict(_LISTED.findall(getattr(import_module(module), name).__doc__ or ""))
    yield from ("| argument | type | |", "|---|---|---|")
    for (owner, key), annotation in analyzer.annotations.items():
        if owner == name:
            text = " ".join(told.get((owner, key), [])) or listed.get(key, "")
            yield f"| `{key}` | {_kind(annotation)} | {_cell(text)} |"


def _kind(annotation: str) -> str:
    """Return a type, of a literal its values: they may break where they end."""
    inner = re.sub(r"^Required\[(.*)\]$", r"\1", annotation)
    literal = re.fullmatch(r"Literal\[(.*)\]", inner)
    values = re.findall(r"[\"']([^\"']*)[\"']", literal[1]) if literal else [inner]
    return ", ".join(f"`{_cell(value)}`" for value in values)


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", r"\|")


def command_line() -> str:
    """Return every command with its arguments and options."""
    import typer.main

    from sagesmith.cli._app import app

    root = typer.main.get_command(app)
    return "\n".join(_commands(root, "sagesmith"))


def _commands(group: Any, path: str) -> Iterator[str]:
    for name in sorted(group.commands):
        command = group.commands[name]
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
            continue
        context = click.Context(command, info_name=f"{path} {name}")
        usage = command.get_usage(context).removeprefix("Usage: ")
        yield from ("", f"## {path} {name}", "", "```console", f"$ {' '.join(usage.split())}", "```", "")
        yield from ((command.help or "").strip(), "", "| | |", "|---|---|")
        for parameter in command.params:
            yield _option(parameter)


def _option(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name = f"`{parameter.make_metavar(None) if not parameter.metavar else parameter.metavar}`"
    else:
        name = ", ".join(f"`{each}`" for each in (*parameter.opts, *parameter.secondary_opts))
    text = _cell(parameter.help or "")
    default = parameter.default
    if default not in (None, False, True, (), []) and not callable(default) and "Default:" not in text:
        text += f" Default: `{default}`."
    return f"| {name} | {text} |"


ADDED: Final[dict[str, Callable[[str], str]]] = {
    "index": contents,
    "reference/python": lambda _: python_interface(),
    "reference/estimators": lambda _: estimators(),
    "reference/command-line": lambda _: command_line(),
}


def add(_: Sphinx, page: str, source: list[str]) -> None:
    """Add to a page what is made for it."""
    if page in ADDED:
        source[0] += "\n" + ADDED[page](source[0]) + "\n"


def setup(app: Sphinx) -> dict[str, bool]:
    """Let Sphinx call us."""
    app.connect("source-read", add)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
