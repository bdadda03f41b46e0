"""The object store: what the embedded S3 keeps, and what drivers and services use in-process.

A version of an object never changes. A larger one is a file (`_objects_files`), a small one lies in the database
(`INLINE_BYTES`: one sync of the disk instead of three, which halves the time of a put). Either way one
transaction makes it the object of its key, so a reader sees the old or the new one, and a put that breaks off
has changed nothing.

Buckets are `store.buckets`, multipart uploads `store.uploads`.
"""

# ruff: noqa: S608 - the statements are put together from constants; values are always parameters

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from sagesmith.clock import Clock, system_clock
from sagesmith.errors import AwsError
from sagesmith.store._objects_files import ObjectFiles, new_version, write_all
from sagesmith.store._objects_listing import list_page
from sagesmith.store._objects_records import (
    COLUMNS,
    Conditions,
    ObjectInfo,
    Properties,
    Reader,
    Superseded,
    change_record,
    check_key,
    from_row,
    put_record,
    remove_record,
    transact,
)
from sagesmith.store.buckets import Bucket, Buckets
from sagesmith.store.checksums import Checksum, Digests, Integrity, Summary
from sagesmith.store.database import Connection, Database
from sagesmith.store.object_errors import no_such_key
from sagesmith.store.uploads import Part, Upload, Uploads

__all__ = [
    "Bucket",
    "Conditions",
    "Content",
    "Integrity",
    "ListedObject",
    "Listing",
    "ObjectInfo",
    "ObjectStore",
    "Part",
    "Properties",
    "Reader",
    "Upload",
]

INLINE_BYTES: Final = 16 * 1024
CHUNK_BYTES: Final = 1024 * 1024
MIN_PART_BYTES: Final = 5 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Content:
    """A content: the bytes themselves, or the path of the file that has them."""

    data: bytes | None
    path: Path | None

    def open(self) -> BinaryIO:
        """Return a reader at the beginning."""
        if self.data is not None:
            return io.BytesIO(self.data)
        assert self.path is not None  # noqa: S101 - one of the two is there
        return self.path.open("rb")


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object in a listing."""

    key: str
    size: int
    etag: str
    modified: float
    storage_class: str
    checksum_algorithm: str
    checksum_kind: str


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of a listing. `next_after` is where the next one begins, "" on the last."""

    objects: list[ListedObject]
    prefixes: list[str]
    next_after: str


class ObjectStore:
    """Objects in buckets. Thread-safe.

    Args:
        database: migrated.
        folder: for the files; this store's alone.
        clock: gives objects their times.
        inline_bytes: contents up to this size lie in the database.
        min_part_bytes: how small a part may be that is not an upload's last.
        grace_s: for how long the file of a superseded version stays for those who were just told its path.
    """

    def __init__(
        self,
        database: Database,
        folder: Path,
        *,
        clock: Clock = system_clock,
        inline_bytes: int = INLINE_BYTES,
        min_part_bytes: int = MIN_PART_BYTES,
        grace_s: float = 30.0,
    ) -> None:
        self._database = database
        self._files = ObjectFiles(folder, grace_s=grace_s)
        self._clock = clock
        self._inline_bytes = inline_bytes
        self.buckets = Buckets(database, clock=clock)
        self.uploads = Uploads(database, self._files, clock=clock, min_part_bytes=min_part_bytes)

    def close(self) -> None:
        """Remove superseded files at once. The database is closed by its owner."""
        self._files.close()

    def sweep(self) -> int:
        """Remove files that a crash left behind before this store was made; return how many.

        Harmless at any time, and best called once in a thread of its own after the start.
        """

        def named(start: str) -> set[str]:
            bounds = {"low": start, "high": start + "g"}
            with self._database.read() as connection:
                # Uploads first: completing one moves its file's name from there to the objects.
                return {
                    str(row[0])
                    for table, column, where in (
                        ("object_uploads", "file", ""),
                        ("object_parts", "file", ""),
                        ("objects", "version", "inline = 0 and "),
                    )
                    for row in connection.rows(
                        f"select {column} from {table} where {where}{column} >= :low and {column} < :high",
                        bounds,
                    )
                }

        return self._files.sweep(named)

    # ---- reading ------------------------------------------------------------------------------------

    def head(self, bucket: str, key: str) -> ObjectInfo:
        """Return the object's record.

        Raises:
            AwsError: `NoSuchBucket` or `NoSuchKey`.
        """
        info = self.find(bucket, key)
        if info is None:
            self.buckets.get(bucket)
            raise no_such_key(key)
        return info

    def find(self, bucket: str, key: str) -> ObjectInfo | None:
        """Return the object's record, None if there is no such object or bucket."""
        with self._database.read() as connection:
            row = connection.row(
                f"select {COLUMNS} from objects where bucket = :bucket and key = :key",
                {"bucket": bucket, "key": key},
            )
        return None if row is None else from_row(row)

    def has(self, bucket: str, key: str) -> bool:
        """Whether there is an object of that key or, if *key* is empty or ends with a slash, any below it."""
        with self._database.read() as connection:
            if key and not key.endswith("/"):
                found = connection.row(
                    "select 1 from objects where bucket = :bucket and key = :key",
                    {"bucket": bucket, "key": key},
                )
                return found is not None
            page = list_page(connection, bucket, prefix=key, delimiter="", after="", limit=1)
        return bool(page.rows)

    def content(self, info: ObjectInfo) -> Content | None:
        """Return the version's content, None if that version is gone. A path is good for some seconds."""
        if not info.inline:
            path = self._files.path(info.version)
            return Content(None, path) if path.exists() else None
        with self._database.read() as connection:
            row = connection.row(
                "select data from object_contents where version = :version", {"version": info.version}
            )
        return None if row is None else Content(bytes(row[0]), None)

    def open(self, bucket: str, key: str) -> tuple[ObjectInfo, Content]:
        """Return an object's record and content, of one and the same version.

        Raises:
            AwsError: `NoSuchBucket` or `NoSuchKey`.
        """
        for _ in range(10):
            info = self.head(bucket, key)
            content = self.content(info)
            if content is not None:
                return info, content
        raise AwsError(
            "InternalError",
            f"The file of object {key!r} in bucket {bucket!r} is missing on the disk.",
            status=500,
        )

    def get(self, bucket: str, key: str) -> BinaryIO:
        """Return a reader of the object's content; what happens to the object later does not touch it.

        Raises:
            AwsError: `NoSuchBucket` or `NoSuchKey`.
        """
        while True:
            _, content = self.open(bucket, key)
            with suppress(FileNotFoundError):
                return content.open()

    # ---- writing ------------------------------------------------------------------------------------

    def put(
        self,
        bucket: str,
        key: str,
        body: Reader,
        *,
        properties: Properties | None = None,
        integrity: Integrity | None = None,
        conditions: Conditions | None = None,
    ) -> ObjectInfo:
        """Store *body*, read to its end, as the object *key*; return its record.

        Raises:
            AwsError: `NoSuchBucket`, `KeyTooLongError`; the content or *conditions* are not as announced.
            Exception: whatever *body* raises. In every case the old object stays.
        """
        check_key(key)
        integrity = integrity or Integrity()
        integrity.check_form()
        self.buckets.get(bucket)
        if conditions is not None:  # spares the transfer; decided in the transaction
            present = self.find(bucket, key)
            conditions.check(key, None if present is None else present.etag)
        version = new_version()
        summary, data = self._receive(version, body, integrity)
        checksum = (
            Checksum(integrity.algorithm, summary.checksum(integrity.algorithm))
            if integrity.algorithm
            else None
        )
        info = ObjectInfo(
            bucket, key, version, data is not None, summary.size, summary.md5, self._clock(), checksum, "",
            properties or Properties(),
        )  # fmt: skip
        return self._record(info, data, conditions)

    def put_bytes(
        self, bucket: str, key: str, data: bytes, *, content_type: str = "binary/octet-stream"
    ) -> ObjectInfo:
        """Store *data* as the object *key*; see `put`."""
        return self.put(bucket, key, io.BytesIO(data), properties=Properties({"ContentType": content_type}))

    def copy(
        self,
        source: ObjectInfo,
        bucket: str,
        key: str,
        *,
        properties: Properties,
        algorithm: str = "",
        conditions: Conditions | None = None,
    ) -> ObjectInfo:
        """Store the content of *source* as the object *key*; return its record.

        A file is linked, not copied, unless its content must be read for a new checksum or (after a multipart
        upload) for its MD5.

        Raises:
            AwsError: as `put`; `NoSuchKey`, the source was removed meanwhile.
        """
        check_key(key)
        checksum = source.checksum
        wanted = algorithm or (checksum.algorithm if checksum else "")
        same = not source.upload and wanted == (checksum.algorithm if checksum else "")
        version = new_version()
        try:
            linked = same and not source.inline and self._files.link(source.version, version)
        except FileNotFoundError:
            raise no_such_key(source.key) from None
        if linked:
            info = replace(
                source, bucket=bucket, key=key, version=version, modified=self._clock(), properties=properties
            )
            return self._record(info, None, conditions)
        content = self.content(source)
        if content is None:
            raise no_such_key(source.key)
        with content.open() as body:
            return self.put(
                bucket, key, body, properties=properties, integrity=Integrity(algorithm=wanted),
                conditions=conditions,
            )  # fmt: skip

    def change_properties(
        self, bucket: str, key: str, change: Callable[[Properties], Properties]
    ) -> ObjectInfo:
        """Change what is kept with an object, but not its content or time; return its new record.

        Raises:
            AwsError: `NoSuchBucket` or `NoSuchKey`.
        """
        while True:
            info = self.head(bucket, key)
            changed = replace(info, properties=change(info.properties))

            if self._database.transact(partial(change_record, info=changed)):
                return changed

    def delete(
        self, bucket: str, key: str, *, check: Callable[[ObjectInfo | None], None] | None = None
    ) -> bool:
        """Delete the object; False if there was none.

        Args:
            bucket: where it is.
            key: its name.
            check: called with the object as it is; raises to keep it.

        Raises:
            AwsError: `NoSuchBucket`, `PreconditionFailed`.
        """
        self.buckets.get(bucket)
        conditions = None
        if check is not None:
            info = self.find(bucket, key)
            check(info)
            if info is None:
                return False
            conditions = Conditions(if_match=info.etag)
        return self._discard(
            transact(self._database, lambda connection: remove_record(connection, bucket, key, conditions))
        )

    def delete_many(self, bucket: str, keys: Iterable[str]) -> None:
        """Delete the objects *keys* in one transaction; those that do not exist are deleted already.

        Raises:
            AwsError: `NoSuchBucket`.
        """
        self.buckets.get(bucket)
        chosen = sorted(set(keys))  # one order for all, so that two of these never wait for one another

        def work(connection: Connection) -> list[Superseded | None]:
            return [remove_record(connection, bucket, key, None) for key in chosen]

        for old in transact(self._database, work):
            self._discard(old)

    def delete_bucket(self, name: str) -> None:
        """Delete an empty bucket, with its unfinished uploads.

        Raises:
            AwsError: `NoSuchBucket`, `BucketNotEmpty`.
        """
        for file in self.buckets.delete(name):
            self._files.discard(file)

    # ---- listing ------------------------------------------------------------------------------------

    def list(
        self, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000
    ) -> Listing:
        """Return up to *limit* keys that begin with *prefix*, in byte order, from behind *after*.

        Keys with *delimiter* after the prefix are rolled up into common prefixes, which count as one.

        Raises:
            AwsError: `NoSuchBucket`.
        """
        with self._database.read() as connection:
            page = list_page(connection, bucket, prefix=prefix, delimiter=delimiter, after=after, limit=limit)
        if not page.rows and not page.prefixes:
            self.buckets.get(bucket)
        return Listing([ListedObject(*row) for row in page.rows], page.prefixes, page.next_after)

    # -------------------------------------------------------------------------------------------------

    def _receive(self, version: str, body: Reader, integrity: Integrity) -> tuple[Summary, bytes | None]:
        """Take a content in: small ones as bytes, others as the published file of *version*."""
        digests = Digests(integrity.algorithm)
        start = _read_up_to(body, self._inline_bytes + 1)
        digests.update(start)
        if len(start) <= self._inline_bytes:
            summary = digests.summary()
            integrity.check(summary)
            return summary, start
        descriptor = self._files.create(version)
        sync = self._files.early_sync(descriptor)
        try:
            write_all(descriptor, start)
            while chunk := body.read(CHUNK_BYTES):
                write_all(descriptor, chunk)
                sync.wrote(len(chunk))
                digests.update(chunk)
            summary = digests.summary()
            integrity.check(summary)
            sync.check()
            self._files.publish(version, descriptor)
        except BaseException:
            self._files.abandon(version)
            raise
        finally:
            sync.wait()
            os.close(descriptor)
        return summary, None

    def _record(self, info: ObjectInfo, data: bytes | None, conditions: Conditions | None) -> ObjectInfo:
        try:
            old = transact(
                self._database,
                lambda connection: put_record(connection, self._database, info, conditions, data),
            )
        except (
            AwsError
        ):  # rolled back for certain; after another fault the row may be there, and needs its file
            if not info.inline:
                self._files.abandon(info.version)
            raise
        self._discard(old)
        return info

    def _discard(self, old: Superseded | None) -> bool:
        if old is not None and not old.inline:
            self._files.discard(old.version)
        return old is not None


def _read_up_to(body: Reader, size: int) -> bytes:
    pieces: list[bytes] = []
    while size > 0 and (piece := body.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
