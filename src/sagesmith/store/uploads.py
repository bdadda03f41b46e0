"""Multipart uploads: parts in any order, several at once, joined without copying them where that is possible.

The first part to arrive sets the upload's *stride*; every part of that size (and a smaller one, the last) is
written where it will lie in the finished object, ``(number - 1) * stride`` in one shared file. So completing
the upload of any ordinary client only seals that file. A part that does not fit in there (another size, sent
again while an earlier sending is still under way or done) gets a file of its own, and then completing copies.

No acknowledged part can be damaged: a place in the shared file is given out once, and again only if its
writer failed; nobody writes to the file once completing has begun.
"""

# ruff: noqa: S608 - the statements are put together from constants; values are always parameters

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Final

from sagesmith.clock import Clock, system_clock
from sagesmith.errors import AwsError
from sagesmith.store._objects_files import ObjectFiles, copy_range, new_version, write_all
from sagesmith.store._objects_parts import (
    ClaimedPart,
    Part,
    Upload,
    choose,
    joined_checksum,
    joined_etag,
    lie_together,
)
from sagesmith.store._objects_records import (
    COLUMNS,
    Conditions,
    ObjectInfo,
    Properties,
    Reader,
    Superseded,
    check_key,
    decode_properties,
    encode_properties,
    from_row,
    put_record,
    transact,
)
from sagesmith.store.buckets import lock_bucket
from sagesmith.store.checksums import Digests, Integrity, Summary
from sagesmith.store.database import Connection, Database, Row
from sagesmith.store.object_errors import no_such_upload

__all__ = ["ClaimedPart", "Part", "Upload", "Uploads"]

_CHUNK_BYTES: Final = 1024 * 1024
_UPLOAD: Final = "id, bucket, key, created, initiator, storage_class, checksum_algorithm, checksum_kind, stride, file, details"


class Uploads:
    """The multipart uploads of an object store. Thread-safe; one process at a time.

    Args:
        database: the store's.
        files: the store's.
        clock: gives uploads and parts their times.
        min_part_bytes: how small a part may be that is not the last.
    """

    def __init__(
        self, database: Database, files: ObjectFiles, *, clock: Clock = system_clock, min_part_bytes: int
    ) -> None:
        self._database = database
        self._files = files
        self._clock = clock
        self._min_part_bytes = min_part_bytes
        self._lock = threading.Lock()
        self._writing: dict[str, set[int]] = {}  # upload: parts being written to its shared file
        self._closing: set[str] = set()

    def create(
        self, bucket: str, key: str, *, initiator: str, properties: Properties,
        checksum_algorithm: str = "", checksum_kind: str = "",
    ) -> Upload:  # fmt: skip
        """Begin an upload.

        Raises:
            AwsError: `NoSuchBucket`, `KeyTooLongError`.
        """
        check_key(key)
        upload = Upload(
            new_version(), bucket, key, self._clock(), initiator, checksum_algorithm, checksum_kind, 0, "",
            properties,
        )  # fmt: skip
        values = {
            "id": upload.id, "bucket": bucket, "key": key, "created": upload.created, "initiator": initiator,
            "storage_class": properties.storage_class, "checksum_algorithm": checksum_algorithm,
            "checksum_kind": checksum_kind, "stride": 0, "file": "", "details": encode_properties(properties),
        }  # fmt: skip

        def work(connection: Connection) -> None:
            lock_bucket(connection, self._database, bucket)
            names = ", ".join(f":{name}" for name in _UPLOAD.split(", "))
            connection.execute(f"insert into object_uploads ({_UPLOAD}) values ({names})", values)

        self._database.transact(work)
        return upload

    def get(self, bucket: str, key: str, upload_id: str) -> Upload:
        """Return the upload.

        Raises:
            AwsError: `NoSuchUpload`.
        """
        with self._database.read() as connection:
            upload = self._find(connection, bucket, key, upload_id)
        if upload is None:
            raise no_such_upload(upload_id)
        return upload

    def parts(self, upload_id: str, *, after: int = 0, limit: int = 10_000) -> list[Part]:
        """Return parts of an upload, or of the object it became, by number."""
        with self._database.read() as connection:
            return self._parts(connection, upload_id, after, limit)

    def put_part(
        self, bucket: str, key: str, upload_id: str, number: int, body: Reader, integrity: Integrity
    ) -> Part:
        """Store one part, in place of an earlier one of that number.

        Raises:
            AwsError: `NoSuchUpload`, `InvalidRequest`; the content is not as announced.
            Exception: whatever *body* raises. The earlier part then stays.
        """
        upload = self.get(bucket, key, upload_id)
        integrity.check_form()
        algorithm = upload.checksum_algorithm
        if integrity.algorithm and algorithm and integrity.algorithm != algorithm:
            raise AwsError(
                "InvalidRequest",
                f"Checksum Type mismatch occurred, expected checksum Type: {algorithm.lower()}, "
                f"actual checksum Type: {integrity.algorithm.lower()}",
            )
        digests = Digests(*{algorithm, integrity.algorithm})
        if integrity.size is not None:
            upload = self._with_stride(upload, integrity.size)
        if integrity.size is not None and self._take_place(upload, number, integrity.size):
            try:
                position = (number - 1) * upload.stride
                descriptor = self._files.open_shared(upload.file)
                try:
                    summary = _receive(body, digests, descriptor, position, integrity.size)
                    integrity.check(summary)
                    os.fdatasync(descriptor)
                finally:
                    os.close(descriptor)
                return self._record(upload, number, summary, upload.file, position)
            finally:
                self._give_place_back(upload.id, number)
        file = new_version()
        descriptor = self._files.create(file)
        try:
            summary = _receive(body, digests, descriptor, None, None)
            integrity.check(summary)
            self._files.publish(file, descriptor)
        except BaseException:
            self._files.abandon(file)
            raise
        finally:
            os.close(descriptor)
        return self._record(upload, number, summary, file, 0)

    def complete(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        claimed: Sequence[ClaimedPart],
        *,
        conditions: Conditions | None = None,
        check: Callable[[ObjectInfo], None] | None = None,
    ) -> ObjectInfo:
        """Make the object of the *claimed* parts; return its record. Repeating it after success returns it again.

        Args:
            bucket: the upload's.
            key: the upload's.
            upload_id: the upload.
            claimed: which parts, in rising order.
            conditions: under which the object may be made.
            check: called with the record before it is stored; raises to refuse.

        Raises:
            AwsError: `NoSuchUpload`, `InvalidPart`, `InvalidPartOrder`, `EntityTooSmall`, `InvalidRequest`,
                `PreconditionFailed`.
        """
        with self._database.read() as connection:
            upload = self._find(connection, bucket, key, upload_id)
            present = {part.number: part for part in self._parts(connection, upload_id, 0, 10_000)}
            row = connection.row(
                f"select {COLUMNS} from objects where bucket = :bucket and key = :key and upload = :upload",
                {"bucket": bucket, "key": key, "upload": upload_id},
            )
        if row is not None:  # the answer to an earlier call did not reach the client
            return from_row(row)
        if upload is None:
            raise no_such_upload(upload_id)
        chosen = choose(upload, claimed, present, self._min_part_bytes)
        with self._lock:
            if upload.id in self._closing:
                raise AwsError(
                    "OperationAborted", "A conflicting operation is currently in progress.", status=409
                )
            self._closing.add(upload.id)
            alone = not self._writing.get(upload.id)
        size = sum(part.size for part in chosen)
        in_place = alone and lie_together(chosen, upload.file) and self._files.size(upload.file) == size
        version = upload.file if in_place else new_version()
        try:
            info = ObjectInfo(
                bucket, key, version, False, size, joined_etag(chosen), self._clock(), joined_checksum(upload, chosen),
                upload.id, upload.properties,
            )  # fmt: skip
            if check is not None:
                check(info)
            if in_place:
                self._files.seal(version)
            else:
                self._join(version, chosen)
            old, rest = self._become(upload, info, chosen, conditions)
        except AwsError:
            if not in_place:
                self._files.abandon(version)
            raise
        finally:
            with self._lock:
                self._closing.discard(upload.id)
        for file in rest - {version, ""}:
            self._files.discard(file)
        if old is not None and not old.inline:
            self._files.discard(old.version)
        return info

    def abort(self, bucket: str, key: str, upload_id: str) -> None:
        """Give an upload up, and remove its parts.

        Raises:
            AwsError: `NoSuchUpload`.
        """

        def work(connection: Connection) -> set[str]:
            upload = self._find(connection, bucket, key, upload_id)
            deleted = connection.execute("delete from object_uploads where id = :id", {"id": upload_id})
            if upload is None or not deleted:
                raise no_such_upload(upload_id)
            rows = connection.rows(
                "delete from object_parts where upload = :id returning file", {"id": upload_id}
            )
            return {upload.file, *(str(row[0]) for row in rows)}

        for file in self._database.transact(work) - {""}:
            self._files.discard(file)

    def pending(self, bucket: str, *, prefix: str = "", after: tuple[str, str] = ("", "")) -> list[Upload]:
        """Return the bucket's uploads ordered by key and id, from behind *after* (key, id)."""
        sql = (
            f"select {_UPLOAD} from object_uploads where bucket = :bucket and (key, id) > (:key, :id) "
            "and key >= :prefix and substr(key, 1, :length) = :prefix order by key, id"
        )
        values = {"bucket": bucket, "key": after[0], "id": after[1], "prefix": prefix, "length": len(prefix)}
        with self._database.read() as connection:
            return [_upload(row) for row in connection.rows(sql, values)]

    # ---- one part -----------------------------------------------------------------------------------

    def _with_stride(self, upload: Upload, size: int) -> Upload:
        """Return *upload* with a stride: *size*, unless an earlier part gave another."""
        if upload.stride or size < self._min_part_bytes:
            return upload
        self._database.transact(
            lambda connection: connection.execute(
                "update object_uploads set stride = :size, file = :file where id = :id and stride = 0",
                {"size": size, "file": new_version(), "id": upload.id},
            )
        )
        return self.get(upload.bucket, upload.key, upload.id)

    def _take_place(self, upload: Upload, number: int, size: int) -> bool:
        if not upload.stride or size > upload.stride:
            return False
        with self._lock:
            writing = self._writing.setdefault(upload.id, set())
            if upload.id in self._closing or number in writing:
                return False
            writing.add(number)
        # From here on completing would copy. It may have happened just before: then the shared file is an object.
        with self._database.read() as connection:
            free = connection.row(
                "select 1 from object_uploads where id = :id and not exists "
                "(select 1 from object_parts where upload = :id and number = :number)",
                {"id": upload.id, "number": number},
            )
        if free is None:
            self._give_place_back(upload.id, number)
        return free is not None

    def _give_place_back(self, upload_id: str, number: int) -> None:
        with self._lock:
            writing = self._writing.get(upload_id, set())
            writing.discard(number)
            if not writing:
                self._writing.pop(upload_id, None)

    def _record(self, upload: Upload, number: int, summary: Summary, file: str, position: int) -> Part:
        algorithm = upload.checksum_algorithm
        part = Part(
            number, summary.size, summary.md5, summary.checksum(algorithm) if algorithm else "", self._clock(),
            file, position,
        )  # fmt: skip

        def work(connection: Connection) -> str:
            share = " for key share" if self._database.dialect == "postgresql" else ""
            if (
                connection.row(f"select 1 from object_uploads where id = :id{share}", {"id": upload.id})
                is None
            ):
                raise no_such_upload(upload.id)
            old = connection.row(
                "delete from object_parts where upload = :id and number = :number returning file",
                {"id": upload.id, "number": number},
            )
            connection.execute(
                "insert into object_parts (upload, number, size, etag, checksum, modified, file, position) "
                "values (:id, :number, :size, :etag, :checksum, :modified, :file, :position)",
                {
                    "id": upload.id, "number": number, "size": part.size, "etag": part.etag,
                    "checksum": part.checksum, "modified": part.modified, "file": file, "position": position,
                },
            )  # fmt: skip
            return "" if old is None else str(old[0])

        try:
            old = transact(self._database, work)
        except AwsError:
            if file != upload.file:
                self._files.abandon(file)
            raise
        if old and old != upload.file:
            self._files.discard(old)
        return part

    # ---- the whole ----------------------------------------------------------------------------------

    def _join(self, version: str, parts: Sequence[Part]) -> None:
        descriptor = self._files.create(version)
        try:
            for part in parts:
                source = os.open(self._files.path(part.file), os.O_RDONLY | os.O_CLOEXEC)
                try:
                    copy_range(source, part.position, part.size, descriptor)
                finally:
                    os.close(source)
            self._files.publish(version, descriptor)
        except BaseException:
            self._files.abandon(version)
            raise
        finally:
            os.close(descriptor)

    def _become(
        self, upload: Upload, info: ObjectInfo, chosen: Sequence[Part], conditions: Conditions | None
    ) -> tuple[Superseded | None, set[str]]:
        """Turn the upload into its object in one transaction; return what it replaced and files to remove."""

        def work(connection: Connection) -> tuple[Superseded | None, set[str]]:
            if not connection.execute("delete from object_uploads where id = :id", {"id": upload.id}):
                raise no_such_upload(upload.id)
            old = put_record(connection, self._database, info, conditions)
            rows = connection.rows(
                "delete from object_parts where upload = :id returning number, etag, file", {"id": upload.id}
            )
            if not {(part.number, part.etag) for part in chosen} <= {(row[0], row[1]) for row in rows}:
                raise AwsError(
                    "OperationAborted", "A part was sent again while the upload was completed.", status=409
                )
            connection.execute_many(
                "insert into object_parts (upload, number, size, etag, checksum, modified, file, position) "
                "values (:id, :number, :size, :etag, :checksum, :modified, '', 0)",
                [
                    {
                        "id": upload.id, "number": part.number, "size": part.size, "etag": part.etag,
                        "checksum": part.checksum, "modified": part.modified,
                    }
                    for part in chosen
                ],
            )  # fmt: skip
            return old, {upload.file, *(str(row[2]) for row in rows)}

        return transact(self._database, work)

    # ---- rows ---------------------------------------------------------------------------------------

    def _find(self, connection: Connection, bucket: str, key: str, upload_id: str) -> Upload | None:
        row = connection.row(
            f"select {_UPLOAD} from object_uploads where id = :id and bucket = :bucket and key = :key",
            {"id": upload_id, "bucket": bucket, "key": key},
        )
        return None if row is None else _upload(row)

    def _parts(self, connection: Connection, upload_id: str, after: int, limit: int) -> list[Part]:
        rows = connection.rows(
            "select number, size, etag, checksum, modified, file, position from object_parts "
            "where upload = :id and number > :after order by number limit :limit",
            {"id": upload_id, "after": after, "limit": limit},
        )
        return [Part(*row) for row in rows]


def _upload(row: Row) -> Upload:
    (id_, bucket, key, created, initiator, storage_class, algorithm, kind, stride, file, details) = row
    properties = decode_properties(details, storage_class)
    return Upload(id_, bucket, key, created, initiator, algorithm, kind, stride, file, properties)


def _receive(
    body: Reader, digests: Digests, descriptor: int, position: int | None, limit: int | None
) -> Summary:
    """Write a content where it belongs, never beyond *limit* bytes."""
    size = 0
    while chunk := body.read(_CHUNK_BYTES):
        if limit is not None and size + len(chunk) > limit:
            raise AwsError("IncompleteBody", f"The part has more than the announced {limit} bytes.")
        write_all(descriptor, chunk, None if position is None else position + size)
        digests.update(chunk)
        size += len(chunk)
    return digests.summary()
