"""Migrations, snapshots and declarations say the same."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from sagesmith.store.database import Database, DatabaseError
from sagesmith.store.migrations import DIALECTS, alembic_config, head, read_snapshot, snapshot, snapshot_file
from sagesmith.store.schema import load_metadata


@pytest.fixture(params=DIALECTS)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without tables."""
    url = (
        f"sqlite:///{tmp_path}/a.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    )
    database = Database(url)
    yield database
    database.close()


def differences(database: Database) -> list[Any]:
    engine = create_engine(database.sqlalchemy_url(), poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = compare_metadata(context, load_metadata())
    engine.dispose()
    return list(found)


def test_a_new_database_is_as_declared(empty: Database) -> None:
    empty.migrate()
    assert differences(empty) == []
    empty.migrate()


def test_a_migrated_database_is_as_declared(empty: Database) -> None:
    command.upgrade(alembic_config(empty.sqlalchemy_url()), "head")
    assert differences(empty) == []
    with empty.read() as connection:
        assert connection.rows("select version_num from alembic_version") == [(head(),)]
    command.downgrade(alembic_config(empty.sqlalchemy_url()), "base")
    with pytest.raises(DatabaseError), empty.read() as connection:
        connection.rows("select * from resources")


def test_both_ways_make_the_same_sqlite_tables(tmp_path: Path) -> None:
    made = []
    for name in ("new", "migrated"):
        database = Database(f"sqlite:///{tmp_path}/{name}.db")
        if name == "new":
            database.migrate()
        else:
            command.upgrade(alembic_config(database.sqlalchemy_url()), "head")
        with database.read() as connection:
            rows = connection.rows("select name, sql from sqlite_master where name not like 'alembic%'")
        made.append({name: sorted(re.findall(r"[\w.']+", str(sql))) for name, sql in rows})
        database.close()
    assert made[0] == made[1]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_snapshots_are_of_today(dialect: str) -> None:
    advice = "run `python -m sagesmith.store.migrations snapshot`"
    assert snapshot_file(dialect).read_text("utf-8") == snapshot(dialect), advice
    assert len(read_snapshot(dialect)) > 10


def test_the_newest_revision_is_alembics() -> None:
    assert head() == ScriptDirectory.from_config(alembic_config("sqlite://")).get_current_head()


def test_a_start_imports_neither_sqlalchemy_nor_alembic(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from sagesmith.store.database import Database\n"
        "import sagesmith.store.resources, sagesmith.store.logs, sagesmith.store.metrics\n"
        f"database = Database('sqlite:///{tmp_path}/a.db')\n"
        "database.migrate(); database.migrate(); database.close()\n"
        "print([name for name in sys.modules if name in ('sqlalchemy', 'alembic', 'psycopg')])\n"
    )
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_a_database_of_a_newer_version_is_refused(empty: Database) -> None:
    empty.migrate()
    with empty.write() as connection:
        connection.execute("update alembic_version set version_num = '9999'")
    with pytest.raises(DatabaseError, match="'9999', which this version of Sagesmith does not know"):
        empty.migrate()


def test_several_servers_may_make_the_tables_at_once(empty: Database) -> None:
    others = [Database(empty.url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(Database.migrate, others))
    for other in others:
        other.close()
    assert differences(empty) == []
