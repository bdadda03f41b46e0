"""Every table of the database, declared once; the migrations and the snapshots are made from here.

Nothing imports this module while a server runs on a database that is up to date: SQLAlchemy takes a second
to import, which is the whole budget of a server start. Statements are therefore plain SQL that SQLite and
PostgreSQL both understand (see `database.py`), and this module is for creating, migrating and testing.

Other aggregates declare their tables in modules of their own, named in `TABLE_MODULES`, on `metadata`.

Rules that keep the two databases alike: names and texts are compared byte by byte (`text_column`, COLLATE "C"
on PostgreSQL), times are seconds since 1970 as doubles, flags are integers, documents are JSON texts.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, MetaData, Table, Text

__all__ = ["TABLE_MODULES", "key_column", "load_metadata", "metadata", "text_column"]

TABLE_MODULES: Final = (
    "sagesmith.store.schema",
    "sagesmith.store.schema_objects",
    "sagesmith.store.schema_identities",
)
"""The modules that declare tables on `metadata`."""

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

BYTEWISE: Final = Text().with_variant(Text(collation="C"), "postgresql")
ROW_ID: Final = BigInteger().with_variant(Integer(), "sqlite")


def text_column(name: str, **options: Any) -> Column[str]:
    """Return a text column, not null unless told so, that sorts byte by byte on every database."""
    return Column(name, BYTEWISE, **{"nullable": False, **options})


def key_column() -> Column[int]:
    """Return an `id` column that the database fills with numbers that rise and are never used again."""
    return Column("id", ROW_ID, primary_key=True, autoincrement=True)


def load_metadata() -> MetaData:
    """Return `metadata` with the tables of every module in `TABLE_MODULES`."""
    for name in TABLE_MODULES:
        importlib.import_module(name)
    return metadata


resources = Table(
    "resources",
    metadata,
    key_column(),
    text_column("kind"),
    text_column("region"),
    text_column("name"),
    text_column("arn"),
    text_column("arn_key", comment="the ARN in lower case"),
    text_column("status"),
    text_column("parent"),
    Column("created", Double, nullable=False),
    Column("modified", Double, nullable=False),
    Column("version", BigInteger, nullable=False, comment="the id of the event that made this state"),
    text_column("owner"),
    Column("lease_until", Double, nullable=False),
    # Lists read summaries only: they lie before the document, which fills pages of its own.
    Column("summary", Text, nullable=False, comment="JSON, as lists show the resource"),
    Column("document", Text, nullable=False, comment="JSON without the private members"),
    Column("private", Text, nullable=False, comment="JSON of the members that begin with $, or empty"),
    Index("ix_resources_name", "kind", "region", "name", unique=True),
    Index("ix_resources_arn", "arn_key", unique=True),
    Index("ix_resources_created", "kind", "region", "created", "name"),
    Index("ix_resources_modified", "kind", "region", "modified", "name"),
    Index("ix_resources_status", "kind", "region", "status", "created", "name"),
    Index("ix_resources_parent", "kind", "region", "parent", "created", "name"),
    sqlite_autoincrement=True,
)

events = Table(
    "events",
    metadata,
    key_column(),
    Column("time", Double, nullable=False),
    text_column("arn", comment="in lower case"),
    text_column("what"),
    text_column("before"),
    text_column("after"),
    text_column("why"),
    Index("ix_events_arn", "arn", "id"),
    sqlite_autoincrement=True,
)

tags = Table(
    "tags",
    metadata,
    text_column("arn", primary_key=True, comment="in lower case"),
    text_column("key", primary_key=True),
    text_column("value"),
    Index("ix_tags_key", "key", "value"),
)

log_groups = Table(
    "log_groups",
    metadata,
    key_column(),
    text_column("region"),
    text_column("name"),
    Column("created", Double, nullable=False),
    Column("retention_days", Integer, nullable=False, comment="0: kept for ever"),
    Index("ix_log_groups_name", "region", "name", unique=True),
    sqlite_autoincrement=True,
)

log_streams = Table(
    "log_streams",
    metadata,
    key_column(),
    Column("group_id", BigInteger, nullable=False),
    text_column("name"),
    Column("created", Double, nullable=False),
    Column("first_ms", BigInteger, nullable=False, comment="0: no event yet"),
    Column("last_ms", BigInteger, nullable=False, comment="0: no event yet"),
    Column("ingested", Double, nullable=False, comment="0: no event yet"),
    Column("bytes", BigInteger, nullable=False),
    Index("ix_log_streams_name", "group_id", "name", unique=True),
    Index("ix_log_streams_last", "group_id", "last_ms", "name"),
    sqlite_autoincrement=True,
)

log_batches = Table(
    "log_batches",
    metadata,
    key_column(),
    Column("group_id", BigInteger, nullable=False),
    Column("stream_id", BigInteger, nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    Column("ingested_ms", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False, comment="see log_batches.py"),
    Index("ix_log_batches_group", "group_id", "first_ms", "id"),
    Index("ix_log_batches_first", "stream_id", "first_ms", "id"),
    Index("ix_log_batches_last", "stream_id", "last_ms", "id"),
    sqlite_autoincrement=True,
)

metric_series = Table(
    "metric_series",
    metadata,
    key_column(),
    text_column("region"),
    text_column("namespace"),
    text_column("name"),
    text_column("dimensions", comment="JSON object with sorted keys"),
    text_column("unit", comment="of the latest datum"),
    Column("last_time", Double, nullable=False),
    Index("ix_metric_series_key", "region", "namespace", "name", "dimensions", unique=True),
    sqlite_autoincrement=True,
)

metric_points = Table(
    "metric_points",
    metadata,
    key_column(),
    Column("series_id", BigInteger, nullable=False),
    Column("period", Integer, nullable=False, comment="seconds the point stands for"),
    Column("time", Double, nullable=False, comment="its start"),
    Column("count", Double, nullable=False),
    Column("sum", Double, nullable=False),
    Column("minimum", Double, nullable=False),
    Column("maximum", Double, nullable=False),
    Column("sketch", Text, nullable=False, comment="see metric_summaries.py"),
    Index("ix_metric_points_series", "series_id", "time"),
    Index("ix_metric_points_period", "period", "time"),
    sqlite_autoincrement=True,
)
