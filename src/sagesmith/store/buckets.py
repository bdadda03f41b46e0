"""Buckets, and the settings that S3 keeps for each of them as documents."""

# ruff: noqa: S608 - the statements are put together from constants; values are always parameters

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sagesmith.clock import Clock, system_clock
from sagesmith.errors import AwsError
from sagesmith.store.database import Connection, Database, Duplicate
from sagesmith.store.documents import decode, encode
from sagesmith.store.object_errors import bucket_not_empty, no_such_bucket

__all__ = ["Bucket", "Buckets"]

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_RESERVED: Final = re.compile(
    r"(?:xn--|sthree-|amzn-s3-demo-).*|.*(?:-s3alias|--ol-s3|\.mrap|--x-s3|--table-s3)"
)


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket. `owner` is the account that created it."""

    name: str
    region: str
    owner: str
    created: float


class Buckets:
    """The buckets of all accounts, whose names they share. Thread-safe."""

    def __init__(self, database: Database, *, clock: Clock = system_clock) -> None:
        self._database = database
        self._clock = clock

    def create(self, name: str, *, region: str, owner: str) -> Bucket:
        """Create a bucket.

        Raises:
            AwsError: `InvalidBucketName`; `BucketAlreadyOwnedByYou` or `BucketAlreadyExists`, the name is taken.
        """
        _check_name(name)
        bucket = Bucket(name, region, owner, self._clock())
        try:
            with self._database.write() as connection:
                connection.execute(
                    "insert into buckets (name, region, owner, created) values (:name, :region, :owner, :created)",
                    {"name": name, "region": region, "owner": owner, "created": bucket.created},
                )
        except Duplicate:
            present = self.get(name)
            if present.owner == owner:
                raise AwsError(
                    "BucketAlreadyOwnedByYou",
                    "Your previous request to create the named bucket succeeded and you already own it.",
                    status=409,
                    members={"BucketName": name},
                ) from None
            raise AwsError(
                "BucketAlreadyExists",
                "The requested bucket name is not available. The bucket namespace is shared by all users of the "
                "system. Please select a different name and try again.",
                status=409,
                members={"BucketName": name},
            ) from None
        return bucket

    def get(self, name: str) -> Bucket:
        """Return the bucket.

        Raises:
            AwsError: `NoSuchBucket`.
        """
        with self._database.read() as connection:
            row = connection.row(
                "select name, region, owner, created from buckets where name = :name", {"name": name}
            )
        if row is None:
            raise no_such_bucket(name)
        return Bucket(*row)

    def delete(self, name: str) -> list[str]:
        """Delete an empty bucket with its settings and unfinished uploads; return those uploads' files.

        Raises:
            AwsError: `NoSuchBucket`, `BucketNotEmpty`.
        """
        with self._database.write() as connection:
            # First the row itself: a put that holds it is waited for, and then seen.
            if not connection.execute("delete from buckets where name = :name", {"name": name}):
                raise no_such_bucket(name)
            if connection.row("select 1 from objects where bucket = :name limit 1", {"name": name}):
                raise bucket_not_empty(name)
            files = [
                str(file)
                for (file,) in connection.rows(
                    "select file from object_uploads where bucket = :name and file <> '' union "
                    "select p.file from object_parts p join object_uploads u on u.id = p.upload "
                    "where u.bucket = :name and p.file <> ''",
                    {"name": name},
                )
            ]
            connection.execute(
                "delete from object_parts where upload in (select id from object_uploads where bucket = :name)",
                {"name": name},
            )
            connection.execute("delete from object_uploads where bucket = :name", {"name": name})
            connection.execute("delete from bucket_settings where bucket = :name", {"name": name})
        return files

    # ---- settings -----------------------------------------------------------------------------------

    def setting(self, name: str, kind: str) -> Mapping[str, Any] | None:
        """Return a setting's document; None if it was never set, an empty one if it was removed.

        Raises:
            AwsError: `NoSuchBucket`.
        """
        with self._database.read() as connection:
            row = connection.row(
                "select document from bucket_settings where bucket = :name and kind = :kind",
                {"name": name, "kind": kind},
            )
        if row is None:
            self.get(name)
            return None
        return decode(row[0])

    def policy(self, name: str) -> str | None:
        """Return a bucket's policy (JSON text), None if there is none or no such bucket."""
        with self._database.read() as connection:
            row = connection.row(
                "select document from bucket_settings where bucket = :name and kind = 'policy'",
                {"name": name},
            )
        return decode(row[0]).get("Policy") if row is not None else None

    def set(self, name: str, kind: str, document: Mapping[str, Any]) -> None:
        """Store a setting's document; an empty one marks it as removed.

        Raises:
            AwsError: `NoSuchBucket`.
        """
        text = encode(document)

        def work(connection: Connection) -> None:
            lock_bucket(connection, self._database, name)
            connection.execute(
                "insert into bucket_settings (bucket, kind, document) values (:name, :kind, :document) "
                "on conflict (bucket, kind) do update set document = excluded.document",
                {"name": name, "kind": kind, "document": text},
            )

        self._database.transact(work)

    def list(self, *, prefix: str = "", after: str = "", limit: int = 10_000) -> list[Bucket]:
        """Return up to *limit* buckets in the order of their names, from behind *after*."""
        sql = (
            "select name, region, owner, created from buckets where name > :after and name >= :prefix "
            "and substr(name, 1, :length) = :prefix order by name limit :limit"
        )
        with self._database.read() as connection:
            rows = connection.rows(
                sql, {"after": after, "prefix": prefix, "length": len(prefix), "limit": limit}
            )
        return [Bucket(*row) for row in rows]


def lock_bucket(connection: Connection, database: Database, name: str) -> None:
    """Keep the bucket from being deleted until the transaction ends.

    Raises:
        AwsError: `NoSuchBucket`.
    """
    share = " for key share" if database.dialect == "postgresql" else ""
    if connection.row(f"select 1 from buckets where name = :name{share}", {"name": name}) is None:
        raise no_such_bucket(name)


def _check_name(name: str) -> None:
    valid = _NAME.fullmatch(name) and ".." not in name and not _RESERVED.fullmatch(name)
    if valid:
        try:
            ipaddress.IPv4Address(name)
        except ValueError:
            return
    raise AwsError("InvalidBucketName", "The specified bucket is not valid.", members={"BucketName": name})
