"""The Docker engine of this machine for tests, and the image that they build on."""

from __future__ import annotations

import functools

import pytest

from sagesmith.containers._engine import Engine, EngineError, EngineUnavailable

__all__ = ["BASE", "missing_docker", "needs_docker"]

BASE = "sagesmith-test-base"
"""Debian with Python 3, made by ``tests/containers/base-image.sh``."""


@functools.cache
def missing_docker() -> str:
    """Return what is missing for tests with Docker, "" if nothing is."""
    try:
        Engine().ask("GET", f"/images/{BASE}/json", timeout_s=5)
    except EngineUnavailable as error:
        return str(error)
    except EngineError:
        return f"the engine has no image {BASE}; make it: tests/containers/base-image.sh {BASE}"
    return ""


needs_docker = pytest.mark.skipif(bool(missing_docker()), reason=missing_docker() or "all is there")
