"""SQLite: one writing connection behind a lock, one reading connection for each thread (WAL: they never wait)."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, TypeVar, cast

from sagesmith.store.database import DatabaseError, Duplicate, Parameters, Retry, Row

__all__ = ["SqliteBackend"]

T = TypeVar("T")
_PREFIX: Final = "sqlite:///"
_BUSY_S: Final = 30.0
_ATTEMPTS: Final = 5


class SqliteConnection:
    """A `Connection`, and the context manager of itself: entering a read costs nothing."""

    __slots__ = ("__weakref__", "_raw", "raw_execute")

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw
        self.raw_execute = raw.execute

    def __enter__(self) -> SqliteConnection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def rows(self, sql: str, parameters: Parameters = {}) -> list[Row]:  # noqa: B006 - never modified
        try:
            return self.raw_execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise _translated(error) from error

    def row(self, sql: str, parameters: Parameters = {}) -> Row | None:  # noqa: B006
        try:
            # The cursor is gone at once, which resets the statement: an open one would hold its snapshot.
            row: Row | None = self.raw_execute(sql, parameters).fetchone()
            return row
        except sqlite3.Error as error:
            raise _translated(error) from error

    def execute(self, sql: str, parameters: Parameters = {}) -> int:  # noqa: B006
        try:
            return self.raw_execute(sql, parameters).rowcount
        except sqlite3.Error as error:
            raise _translated(error) from error

    def execute_many(self, sql: str, parameters: Iterable[Parameters]) -> None:
        try:
            self._raw.executemany(sql, parameters)
        except sqlite3.Error as error:
            raise _translated(error) from error

    @property
    def in_transaction(self) -> bool:
        return self._raw.in_transaction

    def rollback(self) -> None:
        if self._raw.in_transaction:  # SQLite itself gives up a transaction when the disk is full
            self._raw.execute("rollback")

    def close(self) -> None:
        self._raw.close()


def _translated(error: sqlite3.Error) -> Exception:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name in ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"):
        return Duplicate(str(error))
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Retry(str(error))
    return DatabaseError(f"SQLite refused: {error}.")


class _Task(Generic[T]):
    """Work that waits for a transaction, then its result or error."""

    __slots__ = ("done", "error", "result", "work")

    def __init__(self, work: Callable[[SqliteConnection], T]) -> None:
        self.work = work
        self.done = False
        self.result: T | None = None
        self.error: Exception | None = None

    def run(self, connection: SqliteConnection) -> None:
        """Do the work in a savepoint of its own."""
        connection.execute("savepoint task")
        try:
            self.result = self.work(connection)
        except Exception as error:
            if not connection.in_transaction:  # SQLite itself gave up: the disk is full, for instance
                raise
            self.error = error
            connection.execute("rollback to task")
        connection.execute("release task")


class SqliteBackend:
    """See `database.Database`."""

    dialect = "sqlite"

    def __init__(self, url: str) -> None:
        if not url.startswith(_PREFIX) or len(url) == len(_PREFIX) or "?" in url:
            raise DatabaseError(f"an SQLite URL looks like sqlite:////absolute/path, not {url!r}.")
        self._path = Path(url[len(_PREFIX) :])
        self._lock = threading.Lock()
        self._queue: list[_Task[Any]] = []
        self._queueing = threading.Lock()
        self._local = threading.local()
        self._registering = threading.Lock()
        self._readers: weakref.WeakSet[SqliteConnection] = weakref.WeakSet()
        self._closed = False
        self._make_private()
        self._writer = self._open(read_only=False)

    def _make_private(self) -> None:
        """Make a new file readable by its owner alone: it holds keys.

        An old one is left alone: closing a descriptor of it would end the locks this process has on it.
        """
        try:
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            pass
        except OSError as error:
            raise DatabaseError(f"cannot make the SQLite database {self._path}: {error}.") from error

    def _open(self, *, read_only: bool) -> SqliteConnection:
        if self._closed:
            raise DatabaseError(f"the database {self._path} was closed.")
        try:
            raw = sqlite3.connect(
                self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False,
                cached_statements=512,
            )  # fmt: skip
            raw.execute("pragma journal_mode = wal")
            raw.execute("pragma synchronous = full")
            raw.execute("pragma foreign_keys = on")
            raw.execute("pragma temp_store = memory")
            raw.execute("pragma mmap_size = 268435456")
            if read_only:
                raw.execute("pragma query_only = on")
        except sqlite3.Error as error:
            raise DatabaseError(f"cannot open the SQLite database {self._path}: {error}.") from error
        return SqliteConnection(raw)

    def read(self) -> SqliteConnection:
        try:
            reader: SqliteConnection = self._local.reader
        except AttributeError:
            reader = self._local.reader = self._open(read_only=True)
            with self._registering:
                self._readers.add(reader)
        return reader

    @contextmanager
    def write(self) -> Iterator[SqliteConnection]:
        self._refuse_nested()
        with self._lock, self._transaction() as connection:
            yield connection

    def _refuse_nested(self) -> None:
        if getattr(self._local, "writing", False):
            raise RuntimeError("write() inside write(): pass the connection on instead.")

    @contextmanager
    def _transaction(self) -> Iterator[SqliteConnection]:
        """Begin and commit, or roll back; the lock is held."""
        if self._closed:
            raise DatabaseError(f"the database {self._path} was closed.")
        self._local.writing = True
        try:
            self._writer.execute("begin immediate")
            try:
                yield self._writer
                self._writer.execute("commit")
            except BaseException:
                self._writer.rollback()
                raise
        finally:
            self._local.writing = False

    def transact(self, work: Callable[[SqliteConnection], T]) -> T:
        """Run *work* together with what other threads want by now, as savepoints of one transaction.

        Whoever gets the lock first works for all that wait for it: a commit waits for the disk, and so the disk
        sees one for many. An error undoes the savepoint it came from, and is raised to whom it belongs.
        """
        self._refuse_nested()
        for attempt in range(_ATTEMPTS):
            task: _Task[T] = _Task(work)
            with self._queueing:
                self._queue.append(task)
            with self._lock:
                if not task.done:
                    self._run_queue()
            if task.error is None:
                return cast(T, task.result)
            if not isinstance(task.error, Retry) or attempt == _ATTEMPTS - 1:
                raise task.error
        raise AssertionError("unreachable")

    def _run_queue(self) -> None:
        with self._queueing:
            tasks, self._queue = self._queue, []
        try:
            with self._transaction() as connection:
                for task in tasks:
                    task.run(connection)
        except Exception as error:  # of the begin or the commit: it is everybody's
            for task in tasks:
                task.error = error
        except BaseException:  # this thread's own end: let the others try by themselves
            for task in tasks:
                task.error = Retry("the thread that worked for others was interrupted")
            raise
        finally:
            for task in tasks:
                task.done = True

    def script(self, statements: Iterable[str]) -> None:
        with self.write() as connection:
            for statement in statements:
                connection.execute(statement)

    def sqlalchemy_url(self) -> str:
        return f"{_PREFIX}{self._path}"

    def close(self) -> None:
        with self._lock:
            self._closed = True
            with self._registering:
                for reader in list(self._readers):
                    reader.close()
            self._writer.close()
