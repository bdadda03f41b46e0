from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SOURCE = """
from sagesmith_algorithms.compiled import compiled

@compiled("i8(i8)")
def twice(n):
    return 2 * n
"""


@pytest.fixture
def module(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "kernels_of_a_test.py"
    path.write_text(SOURCE)
    yield path
    sys.modules.pop(path.stem, None)


def loaded(path: Path) -> Any:
    """Import *path* as another process would: nothing is known of it."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no file be written, as in a container; the user who runs the tests may perhaps write everywhere."""

    def refused(*_: Any, **__: Any) -> Any:
        raise PermissionError("read-only")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    monkeypatch.setattr(os, "replace", refused)


def test_what_was_compiled_is_read_where_nothing_can_be_written(
    module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert loaded(module).twice(21) == 42
    read_only(monkeypatch)
    twice = loaded(module).twice
    assert twice(4) == 8
    assert sum(twice.stats.cache_hits.values()) == 1
    assert not twice.stats.cache_misses


def test_without_a_place_for_it_the_code_is_compiled(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_only(monkeypatch)
    assert loaded(module).twice(21) == 42


def test_all_of_a_module_is_compiled_ahead(module: Path) -> None:
    from sagesmith_algorithms.compiled import compile_all

    loaded(module)
    compile_all(module.stem)
    index = next((module.parent / "__pycache__").glob("*.nbi"))
    assert index.stat().st_mtime >= module.stat().st_mtime
    twice = loaded(module).twice
    assert twice(3) == 6
    assert not twice.stats.cache_misses
