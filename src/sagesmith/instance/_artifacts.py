"""What a container leaves, brought to S3: archives of folders, parts of several hosts made into one.

The container wrote the folders and may have put links in them. The agent, which sees more than the container
did, follows none: a link is kept if it stays within the folder, and left out (and named) if it does not.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import posixpath
import stat
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple

from sagesmith.instance._objects import DataError, Objects, split_uri

if TYPE_CHECKING or sys.version_info >= (3, 11, 4):
    import tarfile
else:  # Debian 12's: it does not refuse members that lead out of an archive
    from backports import tarfile

__all__ = ["Entry", "is_empty", "merge", "open_file", "pack", "put_files", "unpack", "walk"]

_LEVEL: Final = 1
"""gzip's quickest: of floating point numbers level 6 saves 0.3 % more, of JSON 6 %, in 1.4 and 4 times the time."""
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Entry(NamedTuple):
    """A file, link or other thing below a folder: its relative name, and where to open it while the walk is there."""

    name: str
    parent: int
    base: str
    status: os.stat_result


def walk(folder: Path, inside: str) -> Iterator[Entry]:
    """Yield what is below *inside*, a path below *folder*, in order. No component after *folder* may be a link.

    Every step opens by descriptor, so that a container that still runs cannot lead it elsewhere.
    """
    with contextlib.ExitStack() as stack:
        current = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, current)
        for part in Path(inside).parts:
            try:
                current = os.open(part, _FOLDER, dir_fd=current)
            except OSError:  # not there, not a folder, or a link
                return
            stack.callback(os.close, current)
        yield from _walk(current, "")


def open_file(entry: Entry) -> IO[bytes]:
    """Open *entry* for reading, if it is still the plain file that it was.

    Raises:
        OSError: it is gone, or is something else now.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return open(os.open(entry.base, flags, dir_fd=entry.parent), "rb")


def is_empty(folder: Path, inside: str) -> bool:
    """Return True if there is no file below *inside*, or if it is not a folder (any more)."""
    return next(walk(folder, inside), None) is None


def pack(folder: Path, inside: str, archive: Path) -> list[str]:
    """Write what is below *inside* to *archive* (tar, gzip); return what had to be left out, and why."""
    left_out: list[str] = []
    with tarfile.open(archive, "w:gz", compresslevel=_LEVEL, format=tarfile.PAX_FORMAT) as tar:
        for entry in walk(folder, inside):
            _add(tar, entry, left_out)
    return left_out


def merge(archives: Sequence[Path], target: Path) -> list[str]:
    """Make one archive of *archives*; of equal names the first archive's file is taken, the others are returned."""
    seen: set[str] = set()
    twice: list[str] = []
    with tarfile.open(target, "w:gz", compresslevel=_LEVEL, format=tarfile.PAX_FORMAT) as tar:
        for archive in archives:
            with tarfile.open(archive, "r:gz") as part:
                for member in part:
                    if member.name in seen:
                        if not member.isdir():
                            twice.append(member.name)
                        continue
                    seen.add(member.name)
                    tar.addfile(member, part.extractfile(member) if member.isfile() else None)
    return twice


def put_files(objects: Objects, folder: Path, inside: str, uri: str) -> int:
    """Upload each plain file below *inside* under *uri*; return their size in bytes."""
    bucket, prefix = split_uri(uri)
    total = 0
    for entry in walk(folder, inside):
        if stat.S_ISREG(entry.status.st_mode):
            with open_file(entry) as file:
                objects.put(
                    bucket, posixpath.join(prefix, entry.name), Path(f"/proc/self/fd/{file.fileno()}")
                )
                total += entry.status.st_size
    return total


def unpack(archive: Path, target: Path, uri: str, what: str = "model data") -> None:
    """Unpack the archive that came from *uri* below *target*; *what* it holds is said in errors.

    Raises:
        DataError: it is no gzipped tar, or a member would land or point outside, or is a device.
    """
    try:
        with tarfile.open(archive, "r:gz") as tar:
            tar.extractall(target, filter=_only_inside)  # noqa: S202 (that is what the filter is for)
    except tarfile.FilterError as error:
        raise DataError(f"Failed to extract {what} archive from URL {uri!r}: {error}") from error
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"Failed to extract {what} archive from URL {uri!r}. Please ensure that the object located at the "
            f"URL is a valid tar.gz archive: {error}"
        ) from error


def _only_inside(member: tarfile.TarInfo, target: str) -> tarfile.TarInfo | None:
    """Python's `data` filter, which also clears owners and odd modes; an absolute name is refused, not shortened."""
    if member.name.startswith(("/", os.sep)):
        raise tarfile.AbsolutePathError(member)
    return tarfile.data_filter(member, target)


def _walk(folder: int, above: str) -> Iterator[Entry]:
    for base in sorted(os.listdir(folder)):
        name = f"{above}{base}"
        try:
            status = os.stat(base, dir_fd=folder, follow_symlinks=False)
            below = os.open(base, _FOLDER, dir_fd=folder) if stat.S_ISDIR(status.st_mode) else -1
        except OSError:  # gone since it was listed
            continue
        if below < 0:
            yield Entry(name, folder, base, status)
            continue
        try:
            yield from _walk(below, f"{name}/")
        finally:
            os.close(below)


def _add(tar: tarfile.TarFile, found: Entry, left_out: list[str]) -> None:
    name = found.name
    entry = tarfile.TarInfo(name)
    if stat.S_ISLNK(found.status.st_mode):
        link = os.readlink(found.base, dir_fd=found.parent)
        points_to = posixpath.normpath(posixpath.join(posixpath.dirname(name), link))
        if link.startswith("/") or points_to.startswith(".."):
            left_out.append(f"{name}: a link to {link}, outside of its folder")
            return
        entry.type, entry.linkname = tarfile.SYMTYPE, link
        tar.addfile(entry)
        return
    if not stat.S_ISREG(found.status.st_mode):
        left_out.append(f"{name}: not a plain file")
        return
    with open_file(found) as file:
        status = os.fstat(file.fileno())
        entry.size, entry.mtime, entry.mode = status.st_size, int(status.st_mtime), status.st_mode & 0o755
        tar.addfile(entry, file)
