"""Fixtures that every area shares: databases, of both kinds.

PostgreSQL runs as a private cluster from the system's programs, started once for each test session in a folder
of its own and gone with it; tests that want it are skipped where it is not installed.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import uvloop

from sagesmith.store.database import Database, DatabaseError

_names: Final = itertools.count(1)
_AGENT: Final = ("instance", "containers")


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run asynchronous tests on the loop that their code runs on: the server's is uvloop, that of an instance's agent is not."""
    is_agent = item.path.parent.name in _AGENT
    return {"loop": asyncio.new_event_loop if is_agent else uvloop.new_event_loop}


def _postgresql_programs() -> Path | None:
    """Return the folder of the newest installed PostgreSQL's programs."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    found.sort(key=lambda path: int(path.parent.name) if path.parent.name.isdigit() else 0)
    if found:
        return found[-1]
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def _as_postgres() -> dict[str, Any]:
    """Return the `subprocess` options to run as user postgres: PostgreSQL refuses to be run by root."""
    if os.getuid() != 0:
        return {}
    return {"user": "postgres", "group": "postgres", "extra_groups": []}


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Start a PostgreSQL cluster; yield the URL of it, to which a database name can be appended."""
    programs = _postgresql_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (looked in /usr/lib/postgresql and on the PATH).")
    folder = Path(tempfile.mkdtemp(prefix="sagesmith-postgres-", dir="/tmp"))
    options = _as_postgres()
    if options:
        shutil.chown(folder, "postgres", "postgres")
    data = folder / "data"
    try:
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"],
            check=True, capture_output=True, timeout=120, cwd=folder, **options,
        )  # fmt: skip
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command: list[str | Path] = [programs / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1"]
        for setting in (
            "unix_socket_directories=", "fsync=off", "full_page_writes=off", "shared_buffers=16MB",
            "max_connections=100", "autovacuum=off", "log_min_messages=fatal",
        ):  # fmt: skip
            command += ["-c", setting]
        if shutil.which("setpriv"):  # should the tests be killed, the server goes too
            command = ["setpriv", "--pdeathsig", "QUIT", *command]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **options)
        try:
            yield _answering(f"postgresql+psycopg://postgres@127.0.0.1:{port}/", server, folder / "log")
        finally:
            server.send_signal(signal.SIGQUIT)
            server.wait(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _answering(url: str, server: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(300):
        try:
            Database(url + "postgres").close()
        except DatabaseError:
            if server.poll() is not None:
                break
            time.sleep(0.1)
        else:
            return url
    raise RuntimeError(f"PostgreSQL did not start: {log.read_text('utf-8', 'replace')[-2000:]}")


def _create_postgres_database(server: str) -> str:
    import psycopg

    name = f"test_{next(_names)}"
    address = server.replace("postgresql+psycopg", "postgresql") + "postgres"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"create database {name} template template0".encode())
    return name


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The URL of a new, empty PostgreSQL database."""
    return postgres_server + _create_postgres_database(postgres_server)


@pytest.fixture(scope="session")
def _emptied_postgres(postgres_server: str) -> Iterator[Callable[[], str]]:
    """A function that empties one database with all tables and returns its URL: quicker than a new one."""
    import psycopg

    url = postgres_server + _create_postgres_database(postgres_server)
    database = Database(url)
    database.migrate()
    database.close()
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        tables = connection.execute(
            "select tablename from pg_tables where schemaname = 'public' and tablename <> 'alembic_version'"
        ).fetchall()
        wipe = ";".join(f"delete from {table}" for (table,) in tables).encode()

        def empty() -> str:
            connection.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
            connection.execute(wipe)
            return url

        yield empty


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database with all tables, once of each kind."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/sagesmith.db"
        database = Database(url)
        database.migrate()
        database.close()
        return url
    empty: Callable[[], str] = request.getfixturevalue("_emptied_postgres")
    return empty()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An empty database with all tables, once of each kind."""
    database = Database(database_url)
    yield database
    database.close()


class FakeClock:
    """A clock that stands still until it is told to go."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> float:
        """Go on by *seconds* and return the time then."""
        self.now += seconds
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    """A clock for tests to advance."""
    return FakeClock()


@pytest.fixture
def sqlite_database(tmp_path: Path) -> Iterator[Database]:
    """A new SQLite database with all tables, for tests of what does not depend on its kind."""
    database = Database(f"sqlite:///{tmp_path}/sagesmith.db")
    database.migrate()
    yield database
    database.close()
