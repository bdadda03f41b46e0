"""Layers on their way into the registry: pieces, one object each, that become one content.

An upload has no record but its pieces: where it stands is the sum of their sizes. So it survives a server that is
killed, and a piece that breaks off has changed nothing. Nearly every client sends a layer as one piece, which becomes
the layer without being copied.
"""

from __future__ import annotations

import base64
import io
import re
import uuid
from collections.abc import Iterator
from typing import Final

from sagesmith.errors import AwsError
from sagesmith.store.checksums import Checksum, Integrity
from sagesmith.store.objects import ObjectInfo, ObjectStore, Properties, Reader

__all__ = ["DIGEST", "BadDigest", "LayerUploads", "UnknownUpload", "WrongOffset", "digest_of", "integrity_of"]

DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_ID: Final = re.compile(r"[0-9a-f]{32}")
_ALGORITHM: Final = "SHA256"
_LAYER: Final = Properties({"ContentType": "application/octet-stream"})


class BadDigest(Exception):
    """The content does not have the digest that was announced, or that is no digest."""


class UnknownUpload(Exception):
    """There is no such upload (any more)."""


class WrongOffset(Exception):
    """A piece does not begin where the upload stands: at `size`."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the upload has {size} bytes")
        self.size = size


class LayerUploads:
    """Uploads into *bucket*. Thread-safe, as the object store is."""

    def __init__(self, objects: ObjectStore, bucket: str) -> None:
        self._objects = objects
        self._bucket = bucket

    def begin(self) -> str:
        """Return the id of a new upload."""
        upload = uuid.uuid4().hex
        self._objects.put_bytes(self._bucket, _start_key(upload), b"")
        return upload

    def size(self, upload: str) -> int:
        """Return how many bytes are here.

        Raises:
            UnknownUpload: there is no such upload.
        """
        return sum(info.size for info in self._pieces(upload))

    def append(self, upload: str, body: Reader, at: int | None = None) -> int:
        """Add *body*, which must begin at byte *at* if that is given; return how many bytes are here then.

        Raises:
            UnknownUpload: there is no such upload.
            WrongOffset: *at* is not where it stands.
            Exception: whatever *body* raises; the upload stands where it stood.
        """
        size = self.size(upload)
        if at is not None and at != size:
            raise WrongOffset(size)
        info = self._objects.put(
            self._bucket, f"{_prefix(upload)}{size:019d}", body, properties=_LAYER,
            integrity=Integrity(algorithm=_ALGORITHM),
        )  # fmt: skip
        return size + info.size

    def finish(self, upload: str, digest: str, key: str) -> ObjectInfo:
        """Make what is here the object *key*.

        Raises:
            UnknownUpload: there is no such upload.
            BadDigest: it does not have that digest; the upload stays.
        """
        if not DIGEST.fullmatch(digest):
            raise BadDigest(f"{digest!r} is no digest of the form sha256:...")
        pieces = [info for info in self._pieces(upload) if info.size]
        if len(pieces) == 1:
            if digest_of(pieces[0]) != digest:
                raise BadDigest(f"the content has the digest {digest_of(pieces[0])}, not {digest}")
            info = self._objects.copy(pieces[0], self._bucket, key, properties=_LAYER)
        else:
            try:
                info = self._objects.put(
                    self._bucket, key, _Joined(self._objects, pieces), properties=_LAYER,
                    integrity=integrity_of(digest),
                )  # fmt: skip
            except AwsError as error:
                if error.code != "BadDigest":
                    raise
                raise BadDigest(f"the content does not have the digest {digest}") from error
        self.cancel(upload)
        return info

    def cancel(self, upload: str) -> None:
        """Forget an upload.

        Raises:
            UnknownUpload: there is no such upload.
        """
        keys = [info.key for info in self._pieces(upload)]
        self._objects.delete_many(self._bucket, [*keys, _start_key(upload)])

    def sweep(self, before: float) -> None:
        """Forget the uploads that nobody has finished and that began before that time."""
        listing = self._objects.list(self._bucket, prefix="_uploads/", limit=100_000)
        old = {
            entry.key.split("/")[1]
            for entry in listing.objects
            if entry.key.endswith("/start") and entry.modified < before
        }
        self._objects.delete_many(
            self._bucket, [entry.key for entry in listing.objects if entry.key.split("/")[1] in old]
        )

    def _pieces(self, upload: str) -> list[ObjectInfo]:
        if not _ID.fullmatch(upload) or self._objects.find(self._bucket, _start_key(upload)) is None:
            raise UnknownUpload(upload)
        listing = self._objects.list(self._bucket, prefix=_prefix(upload), limit=100_000)
        return [self._objects.head(self._bucket, entry.key) for entry in listing.objects]


class _Joined(io.RawIOBase):
    """The contents of several objects, one after the other."""

    def __init__(self, objects: ObjectStore, pieces: list[ObjectInfo]) -> None:
        super().__init__()
        self._chunks = self._read_all(objects, pieces)
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to *size* bytes, b"" at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = chunk
        data, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
        return data

    @staticmethod
    def _read_all(objects: ObjectStore, pieces: list[ObjectInfo]) -> Iterator[bytes]:
        for piece in pieces:
            content = objects.content(piece)
            if content is None:
                raise UnknownUpload(piece.key)
            with content.open() as file:
                while chunk := file.read(1024 * 1024):
                    yield chunk


def digest_of(info: ObjectInfo) -> str:
    """Return the digest under which the registry knows a content."""
    value = info.checksum.value if info.checksum else ""
    return f"sha256:{base64.b64decode(value).hex()}"


def integrity_of(digest: str) -> Integrity:
    """Return what the store is to check of a content with that digest."""
    expected = base64.b64encode(bytes.fromhex(digest.removeprefix("sha256:"))).decode()
    return Integrity(algorithm=_ALGORITHM, value=lambda: Checksum(_ALGORITHM, expected).value)


def _prefix(upload: str) -> str:
    return f"_uploads/{upload}/0"


def _start_key(upload: str) -> str:
    return f"_uploads/{upload}/start"
