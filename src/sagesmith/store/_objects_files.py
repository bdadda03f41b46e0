"""The files of object versions: written aside, synced, renamed, never changed again, removed a little late.

    objects/tmp/{version}        being written; after a crash garbage
    objects/data/{2 hex}/{version}

A version is a random hexadecimal name, so two writers never meet in a file. What a file is called is decided
before the database knows of it, and the database forgets it before it goes: a crash in between leaves a file
that nobody names, and `sweep` removes it, but never a row without its file. A superseded file stays for some
seconds, because a reader that was just told its path must still find it (one that has it open keeps it anyway).
"""

from __future__ import annotations

import errno
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sagesmith.errors import AwsError

__all__ = ["EarlySync", "ObjectFiles", "copy_range", "new_version", "write_all"]

_GRACE_S: Final = 30.0
_EARLY_SYNC_BYTES: Final = 32 * 1024 * 1024
_COPY_BYTES: Final = 1 << 30  # Linux moves at most 2 GiB in one call


def new_version() -> str:
    """Return a name for a new object version: 32 hexadecimal digits."""
    return secrets.token_hex(16)


class ObjectFiles:
    """The folder of object versions. Thread-safe; one process at a time.

    Args:
        folder: made with its sub-folders if it does not exist.
        grace_s: for how long a superseded file stays.
    """

    def __init__(self, folder: Path, *, grace_s: float = _GRACE_S) -> None:
        self._tmp = folder / "tmp"
        self._data = folder / "data"
        self._grace_s = grace_s
        self._doomed: deque[tuple[float, str]] = deque()
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._closed = False
        self._syncing = ThreadPoolExecutor(4, "sync")
        self._tmp.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._data.mkdir(exist_ok=True, mode=0o700)
        if len(os.listdir(self._data)) < 256:
            for number in range(256):
                (self._data / f"{number:02x}").mkdir(exist_ok=True)
            _sync_folder(self._data)
            _sync_folder(folder)
        self._started_ns = self._file_system_time()

    def path(self, version: str) -> Path:
        """Return where the file of *version* lies once it is published."""
        return self._data / version[:2] / version

    def create(self, version: str) -> int:
        """Return a descriptor to write the new file aside with; `publish` or `abandon` it."""
        return os.open(self._tmp / version, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def early_sync(self, descriptor: int) -> EarlySync:
        """Return what syncs a file that is being written."""
        return EarlySync(descriptor, self._syncing)

    def publish(self, version: str, descriptor: int) -> None:
        """Make the written file durable and put it in its place."""
        with _full_disk():
            os.fdatasync(descriptor)
        os.fchmod(descriptor, 0o444)
        target = self.path(version)
        os.rename(self._tmp / version, target)
        _sync_folder(target.parent)

    def abandon(self, version: str) -> None:
        """Remove a file that never became visible."""
        for path in (self._tmp / version, self.path(version)):
            with suppress(FileNotFoundError):
                path.unlink()

    def open_shared(self, version: str) -> int:
        """Return a descriptor of a file that several writers fill side by side, in its final place."""
        target = self.path(version)
        try:
            return os.open(target, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _sync_folder(target.parent)
            return descriptor
        except PermissionError:  # sealed, but then its object was refused
            target.chmod(0o600)
            return os.open(target, os.O_RDWR | os.O_CLOEXEC)

    def size(self, version: str) -> int:
        """Return the size of a file in its place, in bytes."""
        return self.path(version).stat().st_size

    def seal(self, version: str) -> None:
        """End a file of `open_shared`, whose every byte was synced: it becomes read-only."""
        self.path(version).chmod(0o444)

    def link(self, source: str, version: str) -> bool:
        """Give the content of *source* a second name, at no cost; False where links are not possible."""
        target = self.path(version)
        try:
            os.link(self.path(source), target)
        except FileNotFoundError:
            raise
        except OSError:
            return False
        _sync_folder(target.parent)
        return True

    def discard(self, version: str) -> None:
        """Remove a superseded file once nobody can still be about to open it."""
        with self._lock:
            self._doomed.append((time.monotonic() + self._grace_s, version))
            self._schedule()

    def close(self) -> None:
        """Remove at once what was discarded."""
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            doomed = [version for _, version in self._doomed]
            self._doomed.clear()
        for version in doomed:
            self.abandon(version)
        self._syncing.shutdown(wait=False)

    def sweep(self, is_named: Callable[[str], set[str]]) -> int:
        """Remove what a crash left, and return how many files that were.

        Args:
            is_named: returns the versions that the database names among those that begin with two given digits.
                Asked after the folder was read, so that a file it does not name has no writer before the start.
        """
        removed = 0
        for entry in self._old_files(self._tmp):
            Path(entry.path).unlink(missing_ok=True)
            removed += 1
        for number in range(256):
            old = list(self._old_files(self._data / f"{number:02x}"))
            named = is_named(f"{number:02x}") if old else set()
            for entry in old:
                if entry.name not in named:
                    Path(entry.path).unlink(missing_ok=True)
                    removed += 1
        return removed

    # -------------------------------------------------------------------------------------------------

    def _old_files(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    # ctime, not mtime: a new link to an old content is a new file here.
                    if entry.stat(follow_symlinks=False).st_ctime_ns < self._started_ns:
                        yield entry

    def _file_system_time(self) -> int:
        probe = self._tmp / new_version()
        probe.touch()
        try:
            return probe.stat().st_ctime_ns
        finally:
            probe.unlink()

    def _schedule(self) -> None:
        if self._timer is None and self._doomed and not self._closed:
            wait = max(0.0, self._doomed[0][0] - time.monotonic())
            self._timer = threading.Timer(wait, self._reap)
            self._timer.daemon = True
            self._timer.start()

    def _reap(self) -> None:
        due: list[str] = []
        with self._lock:
            while self._doomed and self._doomed[0][0] <= time.monotonic():
                due.append(self._doomed.popleft()[1])
            self._timer = None
            self._schedule()
        for version in due:
            self.abandon(version)


class EarlySync:
    """Has a large file written to the disk while more of it arrives, so that the last sync has little to do.

    The kernel alone would begin late: half of a large put's time would be that one sync.
    """

    def __init__(self, descriptor: int, pool: ThreadPoolExecutor) -> None:
        self._descriptor = descriptor
        self._pool = pool
        self._pending = 0
        self._running: Future[None] | None = None

    def wrote(self, size: int) -> None:
        """Note that *size* bytes were written; begin a sync if there are enough and none is under way.

        Raises:
            OSError: the sync before failed.
        """
        self._pending += size
        if self._pending >= _EARLY_SYNC_BYTES and (self._running is None or self._running.done()):
            self.check()
            self._pending = 0
            self._running = self._pool.submit(os.fdatasync, self._descriptor)

    def check(self) -> None:
        """Wait for the sync under way.

        Raises:
            OSError: it failed. The system tells a lost write only once, so nobody else would hear of it.
        """
        if self._running is not None:
            with _full_disk():
                self._running.result()

    def wait(self) -> None:
        """Wait for the sync under way, whatever becomes of it: before the file is closed."""
        if self._running is not None:
            self._running.exception()


def write_all(descriptor: int, data: bytes | memoryview, position: int | None = None) -> None:
    """Write all of *data*, at *position* or where the file stands.

    Raises:
        AwsError: `InsufficientStorage`, the disk is full.
    """
    view = memoryview(data)
    with _full_disk():
        while view:
            if position is None:
                written = os.write(descriptor, view)
            else:
                written = os.pwrite(descriptor, view, position)
                position += written
            view = view[written:]


def copy_range(source: int, position: int, size: int, target: int) -> None:
    """Append *size* bytes of *source* to *target* inside the kernel."""
    with _full_disk():
        while size:
            copied = os.sendfile(target, source, position, min(size, _COPY_BYTES))
            if not copied:
                raise OSError(f"a part ends {size} bytes too early")
            position += copied
            size -= copied


@contextmanager
def _full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise AwsError(
            "InsufficientStorage",
            "The disk that holds the objects is full. Free some space, or delete objects.",
            status=507,
        ) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
