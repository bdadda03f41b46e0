"""The examples of the documentation, run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import sagesmith.sdk._session
from tests.e2e.served import Served

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def place(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the file that the examples read, in an environment that names the server."""
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SAGESMITH_HOME", str(served.home))
    monkeypatch.setattr(sagesmith.sdk._session, "_default", None)
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.integers(18, 80, 300), "spent": rng.gamma(2, 20, 300)})
    frame["churned"] = (frame["spent"] < 30).astype(int)
    frame.to_csv("train.csv", index=False)
    return tmp_path


@pytest.mark.parametrize("page", ["python.md"])
def test_the_examples_of(page: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    blocks = BLOCK.findall((DOCS / page).read_text("utf-8"))
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    assert "Did you mean 'churned'?" in capsys.readouterr().out
    assert (place / "curve.svg").read_text().startswith("<svg")
