"""PostgreSQL through psycopg: a small pool; `write()` is as exclusive as SQLite's, `transact()` is not."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors

from sagesmith.store.database import DatabaseError, Duplicate, Parameters, Retry, Row

__all__ = ["PostgresqlBackend"]

T = TypeVar("T")
_POOL: Final = 20
_CHECKOUT_S: Final = 30.0
_ATTEMPTS: Final = 20
_WRITER: Final = 0x5A6E5317
"""The advisory lock that makes `write()` exclusive among all servers of one database."""

_PARAMETER: Final = re.compile(r"(?<![:\w]):([a-z_]\w*)", re.IGNORECASE)


@functools.lru_cache(maxsize=4096)
def _in_psycopg_words(sql: str) -> bytes:
    return _PARAMETER.sub(r"%(\1)s", sql.replace("%", "%%")).encode()


class PostgresqlConnection:
    """A `Connection`."""

    __slots__ = ("_raw",)

    def __init__(self, raw: psycopg.Connection[Row]) -> None:
        self._raw = raw

    def rows(self, sql: str, parameters: Parameters = {}) -> list[Row]:  # noqa: B006 - never modified
        try:
            return self._raw.execute(_in_psycopg_words(sql), parameters).fetchall()
        except psycopg.Error as error:
            raise _translated(error) from error

    def row(self, sql: str, parameters: Parameters = {}) -> Row | None:  # noqa: B006
        try:
            return self._raw.execute(_in_psycopg_words(sql), parameters).fetchone()
        except psycopg.Error as error:
            raise _translated(error) from error

    def execute(self, sql: str, parameters: Parameters = {}) -> int:  # noqa: B006
        try:
            return self._raw.execute(_in_psycopg_words(sql), parameters).rowcount
        except psycopg.Error as error:
            raise _translated(error) from error

    def execute_many(self, sql: str, parameters: Iterable[Parameters]) -> None:
        try:
            with self._raw.cursor() as cursor:
                cursor.executemany(_in_psycopg_words(sql), list(parameters))
        except psycopg.Error as error:
            raise _translated(error) from error


def _translated(error: psycopg.Error) -> Exception:
    if isinstance(error, errors.UniqueViolation):
        return Duplicate(str(error))
    if isinstance(error, (errors.SerializationFailure, errors.DeadlockDetected, errors.LockNotAvailable)):
        return Retry(str(error))
    if isinstance(error, psycopg.OperationalError):
        return DatabaseError(f"PostgreSQL does not answer: {error}".strip())
    return DatabaseError(f"PostgreSQL refused: {error}".strip())


class PostgresqlBackend:
    """See `database.Database`."""

    dialect = "postgresql"

    def __init__(self, url: str) -> None:
        self._address = url.partition("://")[2]
        self._idle: list[psycopg.Connection[Row]] = []
        self._slots = threading.BoundedSemaphore(_POOL)
        self._lock = threading.Lock()
        self._local = threading.local()
        self._closed = False
        self._return(self._open())

    def _open(self) -> psycopg.Connection[Row]:
        try:
            return psycopg.connect(
                f"postgresql://{self._address}", autocommit=True, application_name="sagesmith",
                connect_timeout=10,
            )  # fmt: skip
        except psycopg.Error as error:
            place = self._address.rpartition("@")[2]
            raise DatabaseError(f"cannot reach PostgreSQL at {place}: {error}".strip()) from error

    def _take(self) -> psycopg.Connection[Row]:
        if self._closed:
            raise DatabaseError("the database was closed.")
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self._open()
            if not connection.closed:
                return connection

    def _return(self, connection: psycopg.Connection[Row]) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[Row]]:
        if not self._slots.acquire(timeout=_CHECKOUT_S):
            raise DatabaseError(f"no connection to PostgreSQL became free in {_CHECKOUT_S:.0f} s.")
        try:
            connection = self._take()
            try:
                yield connection
            finally:
                if connection.broken:
                    connection.close()
                else:
                    self._return(connection)
        finally:
            self._slots.release()

    @contextmanager
    def read(self) -> Iterator[PostgresqlConnection]:
        with self._connection() as raw:
            yield PostgresqlConnection(raw)

    @contextmanager
    def write(self) -> Iterator[PostgresqlConnection]:
        with self._transaction() as connection:
            connection.execute("select pg_advisory_xact_lock(:key)", {"key": _WRITER})
            yield connection

    @contextmanager
    def _transaction(self) -> Iterator[PostgresqlConnection]:
        if getattr(self._local, "writing", False):
            raise RuntimeError("write() inside write(): pass the connection on instead.")
        with self._connection() as raw:
            self._local.writing = True
            try:
                with raw.transaction():
                    yield PostgresqlConnection(raw)
            except psycopg.Error as error:  # from the commit
                raise _translated(error) from error
            finally:
                self._local.writing = False

    def transact(self, work: Callable[[PostgresqlConnection], T]) -> T:
        for _ in range(_ATTEMPTS - 1):
            try:
                with self._transaction() as connection:
                    return work(connection)
            except Retry:
                continue
        with self._transaction() as connection:
            return work(connection)

    def script(self, statements: Iterable[str]) -> None:
        with self.write() as connection:
            for statement in statements:
                connection.execute(statement)

    def sqlalchemy_url(self) -> str:
        return f"postgresql+psycopg://{self._address}"

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle: list[Any] = list(self._idle)
            self._idle.clear()
        for connection in idle:
            connection.close()
