"""The examples of the documentation, run as they stand, page by page, on one server."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import sagesmith.sdk._session
from tests.e2e.served import SAGESMITH, Served
from tests.e2e.test_clients import CLIENTS

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
"""What is marked `no-run` is a piece of something, or starts a server."""
PAGES = {
    page.name: blocks
    for page in sorted(DOCS.glob("*.md"))
    if page.name not in CLIENTS and (blocks := BLOCK.findall(page.read_text("utf-8")))
}


@pytest.fixture
def place(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that examples read, in an environment like that of `sagesmith run`."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for line in served.command("env").stdout.splitlines():
        name, equals, value = line.removeprefix("export ").partition("=")
        if equals:
            monkeypatch.setenv(name, value.strip("'"))
    monkeypatch.setenv("SAGESMITH_HOME", str(served.home))
    monkeypatch.setenv("PATH", f"{SAGESMITH.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(sagesmith.sdk._session, "_default", None)
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.integers(18, 80, 300), "spent": rng.gamma(2, 20, 300)})
    frame["churned"] = (frame["spent"] < 30).astype(int)
    for name in ("train.csv", "data.csv", "new.csv"):
        frame.to_csv(name, index=False)
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of(page: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for language, block in PAGES[page]:
        if language == "python":
            exec(compile(block, page, "exec"), names)
            continue
        commands = "\n".join(line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ "))
        done = subprocess.run(
            ["bash", "-ec", commands], capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr
    said = capsys.readouterr().out
    if page == "python.md":
        assert "Did you mean 'churned'?" in said
        assert (place / "curve.svg").read_text().startswith("<svg")
    if page == "tutorial.md":
        assert float(said.partition("% of 200 new customers")[0].split()[-1]) > 90
        assert len((place / "predictions.csv").read_text().splitlines()) == 201
    if page == "hosting.md":
        assert said.count("'shallow'") == 6
        assert "guide-2" in said
        assert "Once upon a time" in said
        assert "customer-17" in said
    if page == "transform.md":
        assert "b'100,0." in said
    if page == "identity.md":
        assert "sagemaker:StopTrainingJob" in said
