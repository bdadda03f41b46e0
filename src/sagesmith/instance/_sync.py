"""Folders of a running container that are kept in step with S3: checkpoints, and intermediate output.

A file is uploaded when it is new or has changed since; nothing is deleted there. The container writes meanwhile, and
may have put links in the folder: none is followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
import stat
from pathlib import Path
from typing import Final

from sagesmith.instance import _artifacts
from sagesmith.instance._objects import DataError, Objects, split_uri

__all__ = ["SyncedFolder"]

_EVERY_S: Final = 5.0


class SyncedFolder:
    """The folder *inside* below *base*, a folder that the container cannot replace, and *uri*, its place in S3."""

    def __init__(self, objects: Objects, base: Path, inside: str, uri: str) -> None:
        self._objects = objects
        self._base = base
        self._inside = inside
        self._uri = uri
        self._uploaded: dict[str, tuple[int, int]] = {}

    def download(self) -> None:
        """Bring what S3 has into the folder.

        Raises:
            DataError: an object's key cannot be the name of a file below the folder.
        """
        bucket, prefix = split_uri(self._uri)
        prefix = prefix.rstrip("/") + "/" if prefix else ""
        target = self._base / self._inside
        target.mkdir(parents=True, exist_ok=True)
        for entry in self._objects.list(bucket, prefix):
            name = entry.key[len(prefix) :]
            if not name or name.endswith("/"):
                continue
            if ".." in Path(name).parts or name.startswith("/"):
                raise DataError(
                    f"The checkpoint s3://{bucket}/{entry.key} cannot be a file below its LocalPath."
                )
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._objects.get(bucket, entry.key, path, link=False)
            status = path.stat()
            self._uploaded[name] = (status.st_mtime_ns, status.st_size)

    def upload(self) -> None:
        """Bring what is new in the folder to S3."""
        bucket, prefix = split_uri(self._uri)
        for entry in _artifacts.walk(self._base, self._inside):
            now = (entry.status.st_mtime_ns, entry.status.st_size)
            if not stat.S_ISREG(entry.status.st_mode) or self._uploaded.get(entry.name) == now:
                continue
            with contextlib.suppress(FileNotFoundError), _artifacts.open_file(entry) as file:
                source = Path(f"/proc/self/fd/{file.fileno()}")
                self._objects.put(bucket, posixpath.join(prefix, entry.name), source)
                self._uploaded[entry.name] = now

    async def keep_uploading(self) -> None:
        """Upload every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_S)
            await asyncio.to_thread(self.upload)
