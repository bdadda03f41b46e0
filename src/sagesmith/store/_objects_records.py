"""Object versions as records: the dataclasses, their rows, and the one way a row is put in its place."""

# ruff: noqa: S608 - the statements are put together from constants; values are always parameters

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from sagesmith.errors import AwsError
from sagesmith.store.buckets import lock_bucket
from sagesmith.store.checksums import Checksum
from sagesmith.store.database import Connection, Database, Duplicate, Row
from sagesmith.store.documents import decode, encode
from sagesmith.store.object_errors import no_such_key, not_implemented_header, precondition_failed

__all__ = [
    "COLUMNS",
    "Conditions",
    "ObjectInfo",
    "Properties",
    "Reader",
    "Superseded",
    "change_record",
    "check_key",
    "decode_properties",
    "encode_properties",
    "from_row",
    "put_record",
    "remove_record",
    "transact",
]

T = TypeVar("T")

COLUMNS: Final = (
    "bucket, key, version, inline, size, etag, modified, storage_class, checksum_algorithm, checksum_kind, "
    "checksum, upload, details"
)
_INSERT: Final = (
    f"insert into objects ({COLUMNS}) values ({', '.join(f':{name}' for name in COLUMNS.split(', '))})"
)
_MAX_KEY_BYTES: Final = 1024
_ATTEMPTS: Final = 20


class Reader(Protocol):
    """Where a content comes from. `read` raises if it breaks off; then nothing is stored."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to *size* bytes, b"" at the end."""
        ...


@dataclass(frozen=True, slots=True)
class Properties:
    """What is kept with a content.

    `members` are the model's own (`ContentType`, `CacheControl`, `ServerSideEncryption`, ...), `metadata` the
    user's (names in lower case).
    """

    members: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    storage_class: str = "STANDARD"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object version. `etag` is without quotes; `inline` contents lie in the database, others in a file."""

    bucket: str
    key: str
    version: str
    inline: bool
    size: int
    etag: str
    modified: float
    checksum: Checksum | None = None
    upload: str = ""
    properties: Properties = field(default_factory=Properties)


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under which a write may happen: the present ETag, or ``*`` for "no object" in `if_none_match`."""

    if_match: str = ""
    if_none_match: str = ""

    def check(self, key: str, etag: str | None) -> None:
        """Compare with the present object's ETag (None: there is no object).

        Raises:
            AwsError: `PreconditionFailed`; `NoSuchKey`, `if_match` is given and there is nothing to match.
        """
        if self.if_none_match and self.if_none_match != "*":
            raise not_implemented_header("If-None-Match")
        if self.if_none_match and etag is not None:
            raise precondition_failed("If-None-Match")
        if self.if_match and etag is None:
            raise no_such_key(key)
        if self.if_match and self.if_match.strip('"') not in ("*", etag):
            raise precondition_failed("If-Match")


@dataclass(frozen=True, slots=True)
class Superseded:
    """The version that a write replaced."""

    version: str
    inline: bool


def check_key(key: str) -> None:
    """Check that *key* can name an object.

    Raises:
        AwsError: `KeyTooLongError` or `InvalidArgument`.
    """
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise AwsError("InvalidURI", "Couldn't parse the specified URI.") from None
    if size > _MAX_KEY_BYTES:
        raise AwsError(
            "KeyTooLongError",
            "Your key is too long",
            members={"Size": size, "MaxSizeAllowed": _MAX_KEY_BYTES},
        )
    if not key or "\0" in key:
        raise AwsError(
            "InvalidArgument", "A key has between 1 and 1024 bytes, none of which is zero.",
            members={"ArgumentName": "key"},
        )  # fmt: skip


def from_row(row: Row) -> ObjectInfo:
    """Return the record of a row of `COLUMNS`."""
    (
        bucket,
        key,
        version,
        inline,
        size,
        etag,
        modified,
        storage_class,
        algorithm,
        kind,
        value,
        upload,
        text,
    ) = row
    return ObjectInfo(
        bucket, key, version, bool(inline), size, etag, modified,
        Checksum(algorithm, value, kind) if algorithm else None, upload,
        decode_properties(text, storage_class),
    )  # fmt: skip


def put_record(
    connection: Connection,
    database: Database,
    info: ObjectInfo,
    conditions: Conditions | None,
    data: bytes | None = None,
) -> Superseded | None:
    """Make *info* the object of its key, and return what it replaced, whose file the caller then discards.

    Raises:
        AwsError: `NoSuchBucket`, or *conditions* do not hold.
        Duplicate: another transaction was quicker; repeat this one.
    """
    lock_bucket(connection, database, info.bucket)
    old = remove_record(connection, info.bucket, info.key, conditions)
    checksum = info.checksum or Checksum("", "", "")
    properties = info.properties
    connection.execute(
        _INSERT,
        {
            "bucket": info.bucket, "key": info.key, "version": info.version, "inline": int(info.inline),
            "size": info.size, "etag": info.etag, "modified": info.modified,
            "storage_class": properties.storage_class, "checksum_algorithm": checksum.algorithm,
            "checksum_kind": checksum.kind, "checksum": checksum.value, "upload": info.upload,
            "details": encode_properties(properties),
        },
    )  # fmt: skip
    if data is not None:
        connection.execute(
            "insert into object_contents (version, data) values (:version, :data)",
            {"version": info.version, "data": data},
        )
    return old


def change_record(connection: Connection, info: ObjectInfo) -> bool:
    """Store the properties of *info* with its version; False if that version is gone."""
    changed = connection.execute(
        "update objects set details = :details, storage_class = :storage_class "
        "where bucket = :bucket and key = :key and version = :version",
        {
            "details": encode_properties(info.properties), "storage_class": info.properties.storage_class,
            "bucket": info.bucket, "key": info.key, "version": info.version,
        },
    )  # fmt: skip
    return changed > 0


def encode_properties(properties: Properties) -> str:
    """Return the text of all but the storage class, which has a column of its own."""
    return encode({"members": properties.members, "metadata": properties.metadata, "tags": properties.tags})


def decode_properties(text: str, storage_class: str) -> Properties:
    """Return what `encode_properties` made *text* of."""
    details = decode(text)
    return Properties(details["members"], details["metadata"], details["tags"], storage_class)


def remove_record(
    connection: Connection, bucket: str, key: str, conditions: Conditions | None
) -> Superseded | None:
    """Remove the object of *key*, if there is one, and return what it was."""
    row = connection.row(
        "delete from objects where bucket = :bucket and key = :key returning version, inline, etag, upload",
        {"bucket": bucket, "key": key},
    )
    if conditions is not None:
        conditions.check(key, None if row is None else row[2])
    if row is None:
        return None
    version, inline, _, upload = row
    if inline:
        connection.execute("delete from object_contents where version = :version", {"version": version})
    if upload:
        connection.execute("delete from object_parts where upload = :upload", {"upload": upload})
    return Superseded(version, bool(inline))


def transact(database: Database, work: Callable[[Connection], T]) -> T:
    """Run *work* in a transaction; again, if another one put the same key meanwhile."""
    for _ in range(_ATTEMPTS):
        try:
            return database.transact(work)
        except Duplicate:
            continue
    raise AwsError(
        "OperationAborted",
        "A conflicting conditional operation is currently in progress against this resource. Please try again.",
        status=409,
    )
