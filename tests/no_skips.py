"""Where SAGESMITH_NO_SKIPS is set, a test that would skip fails: there everything it needs must be installed."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, Any]:
    """Turn a skip into a failure that says what was missing."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("SAGESMITH_NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = (
            f"skipped where nothing may skip: {item.nodeid}: {call.excinfo and call.excinfo.value}"
        )
    return report
