"""The documentation site: it builds without a warning, and asks nobody but itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
LOADED = re.compile(
    r'<(?:script|img|iframe)[^>]*\ssrc="(?:https?:)?//|<link[^>]*stylesheet[^>]*href="(?:https?:)?//'
)


def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    build = Path(sys.executable).with_name("sphinx-build")
    arguments = ["--quiet", "--fail-on-warning", "--keep-going", "--doctree-dir", str(tmp_path / "doctrees")]
    done = subprocess.run(
        [build, *arguments, DOCS, tmp_path / "site"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    pages = {page: page.read_text("utf-8") for page in (tmp_path / "site").rglob("*.html")}
    assert {page.name for page, text in pages.items() if LOADED.search(text)} == set()
    for style in (tmp_path / "site" / "_static").rglob("*.css"):
        assert not re.search(r"@import|url\(['\"]?(?:https?:)?//", style.read_text("utf-8")), style
    python = (tmp_path / "site" / "reference" / "python.html").read_text("utf-8")
    assert 'id="sagesmith.sdk.Estimator.fit"' in python
    commands = (tmp_path / "site" / "reference" / "command-line.html").read_text("utf-8")
    assert "sagesmith images prune" in commands
