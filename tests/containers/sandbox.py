"""Whether containers of their own file system can be had here, for tests of what names paths such as /opt/ml."""

from __future__ import annotations

import pytest

from sagesmith.containers import Sandbox

__all__ = ["missing_sandbox", "needs_sandbox"]


def missing_sandbox() -> str:
    """Return why there is no sandbox on this machine; "" if there is one."""
    sandbox, reason = Sandbox.find()
    return "" if sandbox is not None else f"no sandbox on this machine: {reason}"


needs_sandbox = pytest.mark.skipif(bool(missing_sandbox()), reason=missing_sandbox())
