"""What an instance needs of the object store, and the two kinds of fault that can come of it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Protocol

__all__ = ["DataError", "ObjectEntry", "ObjectFacts", "Objects", "split_uri"]


class DataError(Exception):
    """The data that the user named is missing or wrong; a client error of the job."""


class ObjectEntry(Protocol):
    """One object of a listing."""

    @property
    def key(self) -> str:
        """The whole key."""
        ...

    @property
    def size(self) -> int:
        """The size in bytes."""
        ...


class ObjectFacts(Protocol):
    """What is known of an object without its content."""

    @property
    def size(self) -> int:
        """The length of its content in bytes."""
        ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """What its writer said of it."""
        ...


class Objects(Protocol):
    """The part of `store.client.ObjectClient` that is used here. Thread-safe; waits while the server is away.

    Raises `AwsError` where the store refuses.
    """

    def list(self, bucket: str, prefix: str = "") -> Iterable[ObjectEntry]:
        """Yield the objects whose key begins with *prefix*, in the order of their keys."""
        ...

    def head(self, bucket: str, key: str) -> ObjectFacts | None:
        """Return what is known of the object, None if it does not exist."""
        ...

    def open(self, bucket: str, key: str, aside: Path) -> AbstractContextManager[IO[bytes]]:
        """Return a reader of the object's content; *aside* is a name of a file that it may use meanwhile."""
        ...

    def read(self, bucket: str, key: str) -> bytes:
        """Return the content of a small object."""
        ...

    def open_stream(self, bucket: str, key: str) -> io.RawIOBase:
        """Return a reader of the object's content."""
        ...

    def get(self, bucket: str, key: str, path: Path, *, link: bool = True) -> object:
        """Write the object to *path*, with *link* perhaps as a hard link to the store's own file."""
        ...

    def put(
        self,
        bucket: str,
        key: str,
        source: Path | bytes,
        *,
        metadata: Mapping[str, str] | None = None,
        in_parts: bool = False,
    ) -> object:
        """Store *source*; with *in_parts* it is never written twice, whatever answer of the store is lost."""
        ...

    def delete(self, bucket: str, key: str) -> None:
        """Remove the object; no error if it is not there."""
        ...


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of ``s3://bucket/key``.

    Raises:
        DataError: *uri* is nothing like that.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme not in ("s3", "s3a", "s3n") or not bucket:
        raise DataError(f"{uri!r} is not an S3 URI: it must look like s3://bucket/key.")
    return bucket, key
