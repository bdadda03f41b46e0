"""Every setting is documented with its default, and nothing that is not one."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

from sagesmith.config import Settings

DOCS = Path(__file__).parents[2] / "docs"


def test_the_settings_page_is_complete() -> None:
    rows = dict(
        re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", (DOCS / "settings.md").read_text("utf-8"), re.MULTILINE)
    )
    assert {name: json.loads(value) for name, value in rows.items()} == {
        field.name: getattr(Settings(), field.name) for field in fields(Settings)
    }


def test_the_index_links_every_page() -> None:
    linked = set(re.findall(r"\]\(([\w/-]+\.md)\)", (DOCS / "index.md").read_text("utf-8")))
    assert linked == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {"index.md"}
