"""What people see while they wait."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sagesmith.sdk._chart import Chart
from sagesmith.sdk._progress import State, display

STATES = [
    State("job", "Training", "Training in progress.", line="[3] <b>", metrics={"train:loss": 0.25}),
    State("job", "Failed", "no <memory>", failed=True, done=True),
]


def test_lines_tell_each_stage_once(capsys: pytest.CaptureFixture[str]) -> None:
    with display("lines") as screen:
        for state in (STATES[0], STATES[0], STATES[1]):
            screen.show(state)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "Training: Training in progress." in lines[0]
    assert "Failed: no <memory>" in lines[1]


def test_a_terminal_shows_stage_metrics_and_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    with display("terminal") as screen:
        screen.show(STATES[0])
    shown = capsys.readouterr().err
    for words in ("job", "Training", "train:loss 0.25", "[3] <b>"):
        assert words in shown


def test_a_notebook_gets_html_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class ZMQInteractiveShell:
        pass

    def first(content: str, *, display_id: bool) -> Any:
        assert display_id
        shown.append(content)
        return SimpleNamespace(update=shown.append)

    python: Any = ModuleType("IPython")
    python.get_ipython = ZMQInteractiveShell
    shell: Any = ModuleType("IPython.display")
    shell.HTML, shell.display = str, first
    monkeypatch.setitem(sys.modules, "IPython", python)
    monkeypatch.setitem(sys.modules, "IPython.display", shell)
    with display() as screen:
        for state in STATES:
            screen.show(state)
    assert len(shown) == 2
    assert "<code>train:loss 0.25</code>" in shown[0]
    assert "[3] &lt;b&gt;" in shown[0]
    assert "no &lt;memory&gt;" in shown[1]


def test_charts_are_drawn_for_eyes_ears_and_terminals() -> None:
    chart = Chart(
        {"train:<loss>": [(0, 1.0), (1, 0.5), (2, float("nan")), (3, 0.25)], "none": []}, title="Loss"
    )
    svg = chart.svg()
    assert svg.count("<polyline") == 1
    assert "nan" not in svg
    assert 'aria-label="Loss: train:&lt;loss&gt; from 1 to 0.25"' in svg
    assert "train:&lt;loss&gt;" in svg
    assert str(chart).startswith("train:<loss>  █")
    assert "no values" in Chart({}).svg()
    assert "<circle" in Chart({"one": [(0, 1.0)]}).svg()
    broken = Chart({"rate": [(0, 1.0), (1, 2.0), (20, 3.0), (30, 1.0), (31, 1.0)]}, gap=2.5).svg()
    assert (broken.count("<polyline"), broken.count("<circle")) == (2, 1), "silence is not drawn over"
