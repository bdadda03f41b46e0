"""How a job goes on, shown while one waits: in a terminal, in a notebook, as lines, or not at all.

A display is told the state after each look and draws it as its place allows. Everything goes to standard error, so
that a program's own output stays its own.
"""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Protocol, Self

__all__ = ["Display", "Progress", "State", "display"]

Progress = Literal["auto", "terminal", "notebook", "lines", "off"]
_FRAME_S = 0.1


@dataclass(slots=True)
class State:
    """What is known: `title` names the thing, `stage` is AWS's word for where it is, `line` the last of its log."""

    title: str
    stage: str = ""
    message: str = ""
    line: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    failed: bool = False
    done: bool = False


class Display(Protocol):
    """Shows states. It is a context manager: what it draws stays where it is at the end."""

    def show(self, state: State) -> None:
        """Show *state*; called often, also with the same state."""

    def __enter__(self) -> Self:
        """Begin to draw."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End drawing."""


def display(mode: Progress | bool = "auto") -> Display:
    """Return a display: *mode* True means ``auto``, which looks where it runs, False means ``off``."""
    if mode is False or mode == "off":
        return _Off()
    if mode == "notebook" or (mode in ("auto", True) and _in_notebook()):
        return _Notebook()
    if mode == "terminal" or (mode in ("auto", True) and sys.stderr.isatty()):
        return _Terminal()
    return _Lines()


def _in_notebook() -> bool:
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


def metrics_text(metrics: Mapping[str, float], most: int = 4) -> str:
    """Return metrics on one line."""
    return "  ".join(f"{name} {value:.5g}" for name, value in list(metrics.items())[-most:])


class _Off:
    def show(self, state: State) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class _Lines(_Off):
    """One line for each new stage."""

    def __init__(self) -> None:
        self._last = ""
        self._began = time.monotonic()

    def show(self, state: State) -> None:
        text = f"{state.stage}: {state.message}" if state.message else state.stage
        if text == self._last:
            return
        self._last = text
        more = f"  {metrics_text(state.metrics)}" if state.done and state.metrics else ""
        print(
            f"{time.monotonic() - self._began:7.1f} s  {state.title}  {text}{more}",
            file=sys.stderr,
            flush=True,
        )


class _Terminal(_Off):
    """Three lines that change in place: title and stage, metrics, the log's last line."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._began = time.monotonic()
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=10, transient=False)
        self._state = State("")

    def show(self, state: State) -> None:
        self._state = state
        self._live.update(self._drawn())

    def _drawn(self) -> Any:
        from rich.console import Group
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        state = self._state
        head = Table.grid(padding=(0, 1))
        mark: Any = Text("✗", "bold red") if state.failed else Text("✓", "bold green")
        if not state.done:
            mark = Spinner("dots")
        head.add_row(
            mark,
            Text(state.title, "bold"),
            Text(state.stage, "red" if state.failed else "cyan"),
            Text(f"{time.monotonic() - self._began:.1f} s", "dim"),
        )
        parts: list[Any] = [head]
        if state.message:
            parts.append(
                Text(
                    f"  {state.message}",
                    "dim" if not state.failed else "",
                    overflow="ellipsis",
                    no_wrap=not state.failed,
                )
            )
        if state.metrics:
            parts.append(Text(f"  {metrics_text(state.metrics)}", "green", overflow="ellipsis", no_wrap=True))
        if state.line and not state.done:
            parts.append(Text(f"  {state.line}", "dim", overflow="ellipsis", no_wrap=True))
        return Group(*parts)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()


class _Notebook(_Off):
    """The same as HTML that is replaced in place."""

    def __init__(self) -> None:
        from importlib import import_module

        self._display: Any = import_module("IPython.display")
        self._handle: Any = None
        self._drawn_at = 0.0
        self._began = time.monotonic()

    def show(self, state: State) -> None:
        now = time.monotonic()
        if now - self._drawn_at < _FRAME_S and not state.done:
            return
        self._drawn_at = now
        content = self._display.HTML(html_of(state, now - self._began))
        if self._handle is None:
            self._handle = self._display.display(content, display_id=True)
        else:
            self._handle.update(content)


def html_of(state: State, elapsed_s: float) -> str:
    """Return *state* as HTML."""
    mark = "✗" if state.failed else "✓" if state.done else "…"
    parts = [
        f"<b>{mark} {html.escape(state.title)}</b> {html.escape(state.stage)} "
        f"<small>{elapsed_s:.1f} s</small>"
    ]
    if state.message:
        parts.append(f"<small>{html.escape(state.message)}</small>")
    if state.metrics:
        parts.append(f"<code>{html.escape(metrics_text(state.metrics, 8))}</code>")
    if state.line and not state.done:
        parts.append(f"<code style='opacity:.7'>{html.escape(state.line[:200])}</code>")
    return "<div role='status'>" + "<br>".join(parts) + "</div>"
