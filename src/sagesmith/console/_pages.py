"""Pages by path: a table of patterns, each with the function that makes the page, and the templates."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from sagesmith.console._http import PREFIX, Answer, Request, path_of
from sagesmith.console._visits import Visit

__all__ = ["FOLDER", "Context", "Live", "Pages", "fragment", "render"]

FOLDER: Final = Path(__file__).resolve().parent


@dataclass(slots=True)
class Context:
    """What a page works with: the request, who asks, and what the path's pattern matched."""

    request: Request
    visit: Visit
    names: Mapping[str, str]
    coverage: Callable[[], Mapping[str, Mapping[str, str]]]

    def call(self, service: str, operation: str, /, **request: Any) -> dict[str, Any]:
        """Call the public API with the visitor's keys."""
        return self.visit.session.call(service, operation, **request)

    def page(self, template: str, title: str, **values: Any) -> Answer:
        """Return the page that *template* makes of *values*."""
        return render(
            template,
            title=title,
            visit=self.visit,
            here=self.request.path,
            said=self.request.one("said"),
            **values,
        )


@dataclass(slots=True)
class Live:
    """A stream of updates: `look` returns fragments of HTML by element id, and whether they were the last.

    It is called in a worker thread, every `pause_s` seconds.
    """

    look: Callable[[], tuple[Mapping[str, str], bool]]
    pause_s: float = 1.0


Handler = Callable[[Context], Answer | Live]


@dataclass(slots=True)
class Pages:
    """The pages of one part of the console."""

    routes: list[tuple[str, re.Pattern[str], Handler]] = field(default_factory=list)

    def page(self, method: str, pattern: str) -> Callable[[Handler], Handler]:
        """Register a function for a path such as ``/jobs/{name}``."""
        expression = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern))

        def register(handler: Handler) -> Handler:
            self.routes.append((method, expression, handler))
            return handler

        return register

    def find(self, method: str, path: str) -> tuple[Handler, Mapping[str, str]] | None:
        """Return the function for a path and what its pattern matched, or None."""
        for wanted, expression, handler in self.routes:
            match = expression.fullmatch(path)
            if match is not None and wanted == method:
                return handler, {name: unquote(value) for name, value in match.groupdict().items()}
        return None


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, auto_reload=False,
    )  # fmt: skip
    environment.globals.update(path=path_of, base=PREFIX)
    environment.filters.update(when=_when, span=_span, size=_size)
    return environment


def render(template: str, **values: Any) -> Answer:
    """Return *template* with *values* as a page."""
    return Answer(body=_environment().get_template(template).render(**values).encode())


def fragment(template: str, **values: Any) -> str:
    """Return *template* with *values* as a piece of HTML."""
    text: str = _environment().get_template(template).render(**values)
    return text


def _when(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if moment is not None else ""


def _span(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _size(n_bytes: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


Stream = AsyncIterator[bytes]
