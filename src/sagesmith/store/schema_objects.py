"""Tables of the embedded S3. Declared apart from its code, so that a running server never imports SQLAlchemy.

`objects` is clustered by its key (no rowid on SQLite), so that a listing reads neighbouring rows; contents kept in
the database lie in a table of their own to keep those rows short.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, Table, Text, text

from sagesmith.store.schema import metadata, text_column

__all__ = ["bucket_settings", "buckets", "object_contents", "object_parts", "object_uploads", "objects"]

buckets = Table(
    "buckets",
    metadata,
    text_column("name", primary_key=True),
    text_column("region"),
    text_column("owner", comment="account"),
    Column("created", Double, nullable=False),
)

bucket_settings = Table(
    "bucket_settings",
    metadata,
    text_column("bucket", primary_key=True),
    text_column("kind", primary_key=True),
    Column("document", Text, nullable=False, comment="JSON; null: removed, where S3 has a default"),
)

objects = Table(
    "objects",
    metadata,
    text_column("bucket", primary_key=True),
    text_column("key", primary_key=True),
    text_column("version", comment="names the file, or the row of object_contents"),
    Column("inline", Integer, nullable=False, comment="1: the content lies in object_contents"),
    Column("size", BigInteger, nullable=False),
    text_column("etag", comment="without quotes"),
    Column("modified", Double, nullable=False),
    text_column("storage_class"),
    text_column("checksum_algorithm", comment="empty: none"),
    text_column("checksum_kind"),
    text_column("checksum"),
    text_column("upload", comment="the multipart upload that made it, or empty"),
    Column("details", Text, nullable=False, comment="JSON: members, metadata, tags"),
    Index(
        "ix_objects_version",
        "version",
        sqlite_where=text("inline = 0"),
        postgresql_where=text("inline = 0"),
    ),
    sqlite_with_rowid=False,
)

object_contents = Table(
    "object_contents",
    metadata,
    text_column("version", primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

object_uploads = Table(
    "object_uploads",
    metadata,
    text_column("id", primary_key=True),
    text_column("bucket"),
    text_column("key"),
    Column("created", Double, nullable=False),
    text_column("initiator", comment="ARN"),
    text_column("storage_class"),
    text_column("checksum_algorithm"),
    text_column("checksum_kind"),
    Column("stride", BigInteger, nullable=False, comment="0 until the first part: see uploads.py"),
    text_column("file", comment="where parts are put side by side"),
    Column("details", Text, nullable=False),
    Index("ix_object_uploads_key", "bucket", "key", "id"),
)

object_parts = Table(
    "object_parts",
    metadata,
    text_column("upload", primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
    text_column("etag"),
    text_column("checksum"),
    Column("modified", Double, nullable=False),
    text_column("file", comment="empty once the object is complete"),
    Column("position", BigInteger, nullable=False, comment="where it begins in the file"),
    sqlite_with_rowid=False,
)
