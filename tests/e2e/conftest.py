"""One server for all tests of this folder that do not harm it."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from tests.e2e.served import Served


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sockets of clients whose server was killed are closed by the garbage collector, with a warning."""
    for item in items:
        if "tests/e2e" in str(item.path):
            item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))
            item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    """A running server. Tests share it: they use names of their own and never end it."""
    server = Served()
    try:
        yield server.up()
    finally:
        server.remove()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of the server's log with a test that failed: the server is gone before anybody could look."""
    report = yield
    if report.failed:
        servers = (value for value in getattr(item, "funcargs", {}).values() if isinstance(value, Served))
        report.sections += [("the server's log", server.log()) for server in servers]
    return report
