"""These tests run on the event loop that the server runs on: an `HttpServer` knows no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import uvloop


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return the one loop that the tests are run on."""
    return {"uvloop": uvloop.new_event_loop}
