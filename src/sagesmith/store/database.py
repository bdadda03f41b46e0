"""The database behind everything: SQLite in a file by default, PostgreSQL by URL.

Statements are plain SQL with ``:name`` parameters in the dialect that both databases understand::

    with database.read() as connection:
        rows = connection.rows("select name, value from tags where arn = :arn", {"arn": arn})
    with database.write() as connection:
        connection.execute("delete from tags where arn = :arn", {"arn": arn})

Tables are declared with SQLAlchemy (`schema.py`) and migrated with Alembic, but the way to the database goes
through the driver: importing SQLAlchemy takes as long as a whole server start may, and its execution of a
statement (60 us and more) longer than SQLite's answer (8 us).

What both databases understand: ``insert ... on conflict ... do update/nothing``, ``returning``, row values
(``(a, b) > (:a, :b)``), ``coalesce``, ``cast(:x as bigint)``. Write no literal with a colon in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias, TypeVar

__all__ = ["Connection", "Database", "DatabaseError", "Duplicate", "Parameters", "Retry", "Row"]

Row: TypeAlias = tuple[Any, ...]
Parameters: TypeAlias = Mapping[str, Any]
T = TypeVar("T")


class DatabaseError(Exception):
    """The database cannot be used; the sentence says why and what to do."""


class Duplicate(Exception):
    """A row with the same unique key exists. The transaction is to be given up."""


class Retry(Exception):
    """The transaction met another one and was undone by the database; it may be tried again."""


class Connection(Protocol):
    """One connection, for one thread at a time, until its `with` block ends.

    Every method raises `Duplicate` when a unique key is taken, `Retry` when the transaction must be repeated.
    """

    def rows(self, sql: str, parameters: Parameters = ...) -> list[Row]:
        """Return every row of a query (or of a ``returning`` clause)."""
        ...

    def row(self, sql: str, parameters: Parameters = ...) -> Row | None:
        """Return the first row, or None."""
        ...

    def execute(self, sql: str, parameters: Parameters = ...) -> int:
        """Return the number of rows that a statement changed."""
        ...

    def execute_many(self, sql: str, parameters: Iterable[Parameters]) -> None:
        """Execute one statement for each of *parameters*."""
        ...


class Backend(Protocol):
    """What a kind of database must offer; see `Database` for the meaning."""

    dialect: str

    def read(self) -> AbstractContextManager[Connection]: ...

    def write(self) -> AbstractContextManager[Connection]: ...

    def transact(self, work: Callable[[Connection], T]) -> T: ...

    def script(self, statements: Iterable[str]) -> None: ...

    def sqlalchemy_url(self) -> str: ...

    def close(self) -> None: ...


class Database:
    """A database that any number of threads use at once.

    Args:
        url: ``sqlite:////absolute/path`` or ``postgresql+psycopg://user@host:port/name``.

    Raises:
        DatabaseError: the URL names something else, or the database cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        scheme = url.partition(":")[0]
        self._backend: Backend
        if scheme == "sqlite":
            from sagesmith.store._sqlite import SqliteBackend

            self._backend = SqliteBackend(url)
        elif scheme in ("postgresql", "postgresql+psycopg", "postgres"):
            from sagesmith.store._postgresql import PostgresqlBackend

            self._backend = PostgresqlBackend(url)
        else:
            raise DatabaseError(
                f"database_url must start with sqlite:/// or postgresql+psycopg://, not {scheme!r}."
            )

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._backend.dialect

    @property
    def is_local(self) -> bool:
        """True if reads are so near (SQLite) that they may run on the event loop."""
        return self._backend.dialect == "sqlite"

    def read(self) -> AbstractContextManager[Connection]:
        """Return a connection for queries. Each statement sees what was committed before it; never blocks."""
        return self._backend.read()

    def write(self) -> AbstractContextManager[Connection]:
        """Return a connection in a transaction that commits at the end of the block, or rolls back if it raises.

        One at a time: the whole database belongs to the block, also against other processes. Keep it short
        and call nothing slow inside. A second `write()` within it on the same thread is a programming error
        and raises RuntimeError.
        """
        return self._backend.write()

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Run *work* in a transaction of its own and return its result; repeat it if it met another (`Retry`).

        Unlike `write()` not exclusive on PostgreSQL, and several may share one commit on SQLite: *work* must
        guard each change in its statement (``where version = :version``), may run more than once, and does
        nothing but execute statements.
        """
        return self._backend.transact(work)

    def migrate(self) -> None:
        """Bring the tables to this version's: nothing to do, made anew, or through Alembic.

        Raises:
            DatabaseError: a newer Sagesmith made the database.
        """
        from sagesmith.store.migrations import migrate

        migrate(self)

    def script(self, statements: Iterable[str]) -> None:
        """Execute *statements* (DDL) in one exclusive transaction."""
        self._backend.script(statements)

    def sqlalchemy_url(self) -> str:
        """Return the URL as SQLAlchemy (and so Alembic) wants it."""
        return self._backend.sqlalchemy_url()

    def close(self) -> None:
        """Close every connection. Harmless when repeated."""
        self._backend.close()
