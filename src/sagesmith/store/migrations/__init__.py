"""Bringing a database to the tables of this version.

`migrate` first looks whether there is anything to do, without SQLAlchemy or Alembic, which take a second to
import. A database that has the newest revision in ``alembic_version`` is left alone; a new one is made from a
snapshot of the tables, DDL written ahead; only a database of an older version goes through Alembic.

After changing a table::

    python -m sagesmith.store.migrations revision "what changes"    # writes versions/000N_....py
    python -m sagesmith.store.migrations snapshot                   # writes tables.*.sql

Tests hold migrations, snapshots and `schema.py` equal. While they differ (in development), a new database is
made from `schema.py`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sagesmith.store.database import DatabaseError

if TYPE_CHECKING:
    from alembic.config import Config

    from sagesmith.store.database import Database

__all__ = ["DIALECTS", "alembic_config", "head", "migrate", "read_snapshot", "snapshot", "snapshot_file"]

DIALECTS: Final = ("sqlite", "postgresql")
_HERE: Final = Path(__file__).parent
_DIVIDER: Final = ";\n\n"


def migrate(database: Database) -> None:
    """Bring *database* to the newest revision; see `Database.migrate`."""
    revision = _revision(database)
    if revision == head():
        return
    if revision is None:
        _create(database)
    else:
        _upgrade(database, revision)


def head() -> str:
    """Return the newest revision: the greatest number of a file in ``versions/``."""
    return max(path.name.partition("_")[0] for path in (_HERE / "versions").glob("[0-9]*_*.py"))


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
    statements = read_snapshot(database.dialect) or table_statements(database.dialect)
    with database.write() as connection:
        if _revision(database) is not None:  # another process was quicker
            return
        for statement in statements:
            connection.execute(statement)
        connection.execute("create table alembic_version (version_num varchar(32) not null primary key)")
        connection.execute("insert into alembic_version (version_num) values (:head)", {"head": head()})


def _upgrade(database: Database, revision: str) -> None:
    from alembic import command
    from alembic.util import CommandError

    try:
        command.upgrade(alembic_config(database.sqlalchemy_url()), "head")
    except CommandError as error:
        raise DatabaseError(
            f"the database is of revision {revision!r}, which this version of Sagesmith does not know. "
            "Use the version that made it, or a newer one."
        ) from error


def alembic_config(url: str) -> Config:
    """Return Alembic's configuration for the database at *url* (in SQLAlchemy's words)."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_HERE))
    config.attributes["url"] = url
    return config


# ---- snapshots ----


def snapshot_file(dialect: str) -> Path:
    """Return where the snapshot for *dialect* lies."""
    return _HERE / f"tables.{dialect}.sql"


def read_snapshot(dialect: str) -> list[str]:
    """Return the statements of the snapshot, or nothing if it was made of other declarations than today's."""
    try:
        text = snapshot_file(dialect).read_text("utf-8")
    except FileNotFoundError:
        return []
    first, _, rest = text.partition("\n")
    return rest.strip().removesuffix(";").split(_DIVIDER) if first == _heading() else []


def snapshot(dialect: str) -> str:
    """Return the text of the snapshot for *dialect*."""
    return f"{_heading()}\n{_DIVIDER.join(table_statements(dialect))};\n"


def _heading() -> str:
    """Return the first line of a snapshot, which tells what declarations it was made of."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(_HERE.parent.glob("schema*.py")):
        digest.update(path.read_bytes())
    return f"-- Written by `python -m sagesmith.store.migrations snapshot` from {digest.hexdigest()}"


def table_statements(dialect: str) -> list[str]:
    """Return the DDL of every table and index of `schema.metadata`."""
    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.schema import CreateIndex, CreateTable, SetColumnComment

    from sagesmith.store.schema import load_metadata

    words: Any = {"sqlite": sqlite.dialect, "postgresql": postgresql.dialect}[dialect]()
    statements: list[Any] = []
    for table in load_metadata().sorted_tables:
        statements.append(CreateTable(table))
        statements.extend(map(CreateIndex, sorted(table.indexes, key=lambda index: str(index.name))))
        if words.supports_comments:
            statements.extend(SetColumnComment(column) for column in table.columns if column.comment)
    return [str(statement.compile(dialect=words)).strip() for statement in statements]
