"""Tables of users, keys, roles and policies. Declared apart from their code, as `schema.py` explains."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Double, Index, Table, Text

from sagesmith.store.schema import metadata, text_column

__all__ = ["iam_changes", "iam_entities", "iam_keys"]

iam_entities: Final = Table(
    "iam_entities",
    metadata,
    text_column("kind", primary_key=True, comment="user, group, role or policy"),
    text_column("key", primary_key=True, comment="name (a policy's ARN) in lower case"),
    Column("document", Text, nullable=False),
)

iam_keys: Final = Table(
    "iam_keys",
    metadata,
    text_column("access_key_id", primary_key=True),
    text_column("holder", comment="kind/name in lower case"),
    Column("expires", Double, comment="null: never"),
    Column("document", Text, nullable=False),
    Index("ix_iam_keys_holder", "holder"),
    Index("ix_iam_keys_expires", "expires"),
)

iam_changes: Final = Table(
    "iam_changes",
    metadata,
    text_column("name", primary_key=True, comment="always 'all'"),
    Column("number", BigInteger, nullable=False, comment="rises with each change"),
)
