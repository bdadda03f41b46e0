"""Rows of the identity tables: each entity is one JSON document under its kind and its name in lower case."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from sagesmith.errors import AwsError
from sagesmith.store.database import Connection, Duplicate
from sagesmith.store.principals import AccessKey, ManagedPolicy, PolicyVersion, Principal

__all__ = [
    "add_entity",
    "add_key",
    "changes",
    "count_change",
    "delete_entity",
    "find_key",
    "holder_of",
    "keys_of",
    "policy_from",
    "principal_from",
    "read_entities",
    "read_entity",
    "write_entity",
    "write_key",
]


def read_entity(connection: Connection, kind: str, key: str) -> dict[str, Any] | None:
    """Return the document of an entity, or None."""
    row = connection.row(
        "select document from iam_entities where kind = :kind and key = :key", {"kind": kind, "key": key}
    )
    return None if row is None else json.loads(row[0])


def read_entities(connection: Connection, kind: str) -> list[dict[str, Any]]:
    """Return the documents of all entities of *kind*, sorted by key."""
    rows = connection.rows(
        "select document from iam_entities where kind = :kind order by key", {"kind": kind}
    )
    return [json.loads(row[0]) for row in rows]


def add_entity(
    connection: Connection, kind: str, key: str, entity: Principal | ManagedPolicy, *, taken: str
) -> None:
    """Insert *entity*, or raise `EntityAlreadyExists` with the sentence *taken*."""
    try:
        connection.execute(
            "insert into iam_entities (kind, key, document) values (:kind, :key, :document)",
            {"kind": kind, "key": key, "document": json.dumps(asdict(entity))},
        )
    except Duplicate as error:
        raise AwsError("EntityAlreadyExists", taken, status=409) from error


def write_entity(connection: Connection, kind: str, key: str, entity: Principal | ManagedPolicy) -> None:
    """Replace the document of an entity that is there."""
    connection.execute(
        "update iam_entities set document = :document where kind = :kind and key = :key",
        {"kind": kind, "key": key, "document": json.dumps(asdict(entity))},
    )


def delete_entity(connection: Connection, kind: str, key: str) -> bool:
    """Delete an entity; False if there was none."""
    gone = connection.execute(
        "delete from iam_entities where kind = :kind and key = :key", {"kind": kind, "key": key}
    )
    return gone > 0


def holder_of(kind: str, name: str) -> str:
    """Return what the `holder` column says for keys of that principal."""
    return f"{kind}/{name.lower()}"


def find_key(connection: Connection, access_key_id: str) -> AccessKey | None:
    """Return the key of that name, or None."""
    row = connection.row(
        "select document from iam_keys where access_key_id = :access_key_id", {"access_key_id": access_key_id}
    )
    return None if row is None else _key_from(json.loads(row[0]))


def keys_of(connection: Connection, kind: str, name: str) -> list[AccessKey]:
    """Return all keys, lasting and temporary, of a principal."""
    rows = connection.rows(
        "select document from iam_keys where holder = :holder", {"holder": holder_of(kind, name)}
    )
    return [_key_from(json.loads(row[0])) for row in rows]


def add_key(connection: Connection, key: AccessKey) -> None:
    """Insert *key*."""
    connection.execute(
        "insert into iam_keys (access_key_id, holder, expires, document)"
        " values (:access_key_id, :holder, :expires, :document)",
        {
            "access_key_id": key.access_key_id,
            "holder": holder_of(key.holder_kind, key.holder),
            "expires": key.expires,
            "document": json.dumps(asdict(key)),
        },
    )


def write_key(connection: Connection, key: AccessKey) -> None:
    """Replace what is kept of *key*."""
    connection.execute(
        "update iam_keys set holder = :holder, document = :document where access_key_id = :access_key_id",
        {
            "access_key_id": key.access_key_id,
            "holder": holder_of(key.holder_kind, key.holder),
            "document": json.dumps(asdict(key)),
        },
    )


def count_change(connection: Connection) -> None:
    """Let other servers on this database see that something changed."""
    connection.execute(
        "insert into iam_changes (name, number) values ('all', 1)"
        " on conflict (name) do update set number = iam_changes.number + 1"
    )


def changes(connection: Connection) -> int:
    """Return the number that `count_change` raises."""
    row = connection.row("select number from iam_changes where name = 'all'")
    return row[0] if row else 0


def principal_from(document: dict[str, Any]) -> Principal:
    """Return the principal that *document* was written from."""
    return Principal(
        **{**document, "attached": tuple(document["attached"]), "groups": tuple(document["groups"])}
    )


def policy_from(document: dict[str, Any]) -> ManagedPolicy:
    """Return the policy that *document* was written from."""
    versions = tuple(PolicyVersion(**version) for version in document["versions"])
    return ManagedPolicy(**{**document, "versions": versions})


def _key_from(document: dict[str, Any]) -> AccessKey:
    lists = ("session_policies", "session_policy_arns")
    return AccessKey(**{**document, **{name: tuple(document[name]) for name in lists}})
