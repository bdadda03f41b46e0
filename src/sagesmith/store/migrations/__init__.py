"""Bringing a database to the tables of this version.

`migrate` first looks whether there is anything to do, without Alembic: a database that is up to date has the
`HEAD` revision in ``alembic_version``, and a new one is made from `schema.metadata` and stamped with it. Only a
database of an older version goes through Alembic.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sagesmith.store.database import DatabaseError

if TYPE_CHECKING:
    from alembic.config import Config

    from sagesmith.store.database import Database

__all__ = ["HEAD", "alembic_config", "migrate"]

HEAD: Final = "0001"
"""The newest revision in ``versions/``; a test holds it to what Alembic finds."""

_HERE: Final = Path(__file__).parent


def migrate(database: Database) -> None:
    """Bring *database* to `HEAD`; see `Database.migrate`."""
    revision = _revision(database)
    if revision == HEAD:
        return
    if revision is None:
        _create(database)
    else:
        _upgrade(database, revision)


def _revision(database: Database) -> str | None:
    """Return the revision of *database*, None if it has no tables yet."""
    catalog = {
        "sqlite": "select 1 from sqlite_master where type = 'table' and name = 'alembic_version'",
        "postgresql": "select 1 where to_regclass('alembic_version') is not null",
    }[database.dialect]
    with database.read() as connection:
        if connection.row(catalog) is None:
            return None
        row = connection.row("select version_num from alembic_version")
        return None if row is None else str(row[0])


def _create(database: Database) -> None:
    statements = [
        *table_statements(database.dialect),
        "create table alembic_version (version_num varchar(32) not null primary key)",
        f"insert into alembic_version (version_num) values ('{HEAD}')",  # noqa: S608 - our own constant
    ]
    with database.write() as connection:
        if _exists(database):  # another process was quicker
            return
        for statement in statements:
            connection.execute(statement)


def _exists(database: Database) -> bool:
    return _revision(database) is not None


def table_statements(dialect: str) -> list[str]:
    """Return the DDL of every table and index of `schema.metadata`."""
    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.schema import CreateIndex, CreateTable

    from sagesmith.store.schema import load_metadata

    words = {"sqlite": sqlite.dialect, "postgresql": postgresql.dialect}[dialect]()
    statements: list[str] = []
    for table in load_metadata().sorted_tables:
        statements.append(str(CreateTable(table).compile(dialect=words)).strip())
        indexes = sorted(table.indexes, key=lambda index: str(index.name))
        statements.extend(str(CreateIndex(index).compile(dialect=words)).strip() for index in indexes)
    return statements


def alembic_config(database: Database) -> Config:
    """Return Alembic's configuration for *database*."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_HERE))
    config.attributes["url"] = database.sqlalchemy_url()
    return config


def _upgrade(database: Database, revision: str) -> None:
    from alembic import command
    from alembic.util import CommandError

    try:
        command.upgrade(alembic_config(database), "head")
    except CommandError as error:
        raise DatabaseError(
            f"the database is of revision {revision!r}, which this version of Sagesmith does not know. "
            "Use the version that made it, or a newer one."
        ) from error
