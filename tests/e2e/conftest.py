"""One server for all tests of this folder that do not harm it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.served import Served


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    """A running server. Tests share it: they use names of their own and never end it."""
    server = Served()
    try:
        yield server.up()
    finally:
        server.remove()
