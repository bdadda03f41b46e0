"""Digests of object contents: the MD5 that makes an ETag, and the checksums S3 knows by name.

A checksum of a multipart object is either *composite* (the digest of the parts' digests, with the number of
parts: ``x==-3``) or of the *full object*, which only CRCs can have without reading the content again.

Source: "Checking object integrity in Amazon S3", Amazon S3 User Guide.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from sagesmith.errors import AwsError
from sagesmith.store._crc import CRC32, CRC32C, CRC64NVME, Crc

__all__ = ["ALGORITHMS", "COMPOSITE", "FULL_OBJECT", "Checksum", "Digests", "Integrity", "Summary", "join"]

FULL_OBJECT: Final = "FULL_OBJECT"
COMPOSITE: Final = "COMPOSITE"


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class _CrcHash:
    def __init__(self, crc: Crc) -> None:
        self._crc = crc
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = self._crc(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._crc.width // 8, "big")


_CRCS: Final[Mapping[str, Crc]] = {"CRC32": CRC32, "CRC32C": CRC32C, "CRC64NVME": CRC64NVME}

ALGORITHMS: Final[Mapping[str, Callable[[], _Hash]]] = {
    "CRC32": lambda: _CrcHash(CRC32),
    "CRC32C": lambda: _CrcHash(CRC32C),
    "CRC64NVME": lambda: _CrcHash(CRC64NVME),
    "SHA1": lambda: hashlib.sha1(usedforsecurity=False),
    "SHA256": hashlib.sha256,
    "SHA512": hashlib.sha512,
    "MD5": lambda: hashlib.md5(usedforsecurity=False),
}
"""Checksum algorithms by S3's name. (The XXHASH family needs a library that is not here.)"""


@dataclass(frozen=True, slots=True)
class Checksum:
    """A stored checksum: base64, for composite ones with ``-`` and the number of parts."""

    algorithm: str
    value: str
    kind: str = FULL_OBJECT


@dataclass(frozen=True, slots=True)
class Summary:
    """What is known of a content after its last byte. `md5` is hexadecimal."""

    size: int
    md5: str
    digests: Mapping[str, bytes]

    def checksum(self, algorithm: str) -> str:
        """Return the checksum in base64."""
        return base64.b64encode(self.digests[algorithm]).decode()


class Digests:
    """Hashes a content piece by piece: MD5 always, and one checksum algorithm if asked for."""

    def __init__(self, *algorithms: str) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._hashes = {name: ALGORITHMS[name]() for name in algorithms if name}
        self._size = 0

    def update(self, data: bytes) -> None:
        """Take the next piece."""
        self._size += len(data)
        self._md5.update(data)
        for one in self._hashes.values():
            one.update(data)

    def summary(self) -> Summary:
        """Return what was seen up to now."""
        digests = {name: one.digest() for name, one in self._hashes.items()}
        return Summary(self._size, self._md5.hexdigest(), digests)


def _nothing() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Integrity:
    """What the sender says about a content: checked before it becomes visible.

    `value` returns the announced checksum in base64 ("" for none); it is asked after the last byte, since it
    may come in a trailer. `content_md5` is the header's text.
    """

    size: int | None = None
    content_md5: str = ""
    algorithm: str = ""
    value: Callable[[], str] = field(default=_nothing)

    def check_form(self) -> None:
        """Check what can be checked before the content arrives.

        Raises:
            AwsError: `InvalidDigest` or `InvalidRequest`, a value is no digest at all.
        """
        if self.content_md5 and _decoded(self.content_md5, 16) is None:
            raise AwsError("InvalidDigest", "The Content-MD5 you specified was invalid.")
        if self.algorithm and self.algorithm not in ALGORITHMS:
            raise AwsError(
                "NotImplemented",
                f"The checksum algorithm {self.algorithm} is not available here. Use one of {', '.join(ALGORITHMS)}.",
                status=501,
            )

    def check(self, summary: Summary) -> None:
        """Compare with what arrived.

        Raises:
            AwsError: `IncompleteBody`, `BadDigest` or `InvalidRequest`.
        """
        if self.size is not None and summary.size != self.size:
            raise AwsError(
                "IncompleteBody",
                "You did not provide the number of bytes specified by the Content-Length HTTP header: "
                f"{summary.size} of {self.size}.",
            )
        if self.content_md5 and _decoded(self.content_md5, 16) != bytes.fromhex(summary.md5):
            raise AwsError("BadDigest", "The Content-MD5 you specified did not match what we received.")
        value = self.value() if self.algorithm else ""
        if value:
            actual = summary.digests[self.algorithm]
            given = _decoded(value, len(actual))
            if given is None:
                raise AwsError(
                    "InvalidRequest",
                    f"Value for x-amz-checksum-{self.algorithm.lower()} header is invalid.",
                )
            if given != actual:
                raise AwsError(
                    "BadDigest", f"The {self.algorithm} you specified did not match the calculated checksum."
                )


def _decoded(text: str, size: int) -> bytes | None:
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return value if len(value) == size else None


def join(algorithm: str, kind: str, parts: Sequence[tuple[str, int]]) -> Checksum:
    """Return the checksum of a whole from its parts' (base64, size in bytes), without reading them.

    Args:
        algorithm: one of `ALGORITHMS`; a CRC if *kind* is `FULL_OBJECT`.
        kind: `COMPOSITE` or `FULL_OBJECT`.
        parts: in order, at least one.
    """
    if kind == FULL_OBJECT:
        crc = _CRCS[algorithm]
        whole = 0
        for value, size in parts:
            whole = crc.combine(whole, int.from_bytes(base64.b64decode(value), "big"), size)
        return Checksum(algorithm, base64.b64encode(whole.to_bytes(crc.width // 8, "big")).decode(), kind)
    hash_ = ALGORITHMS[algorithm]()
    for value, _ in parts:
        hash_.update(base64.b64decode(value))
    return Checksum(algorithm, f"{base64.b64encode(hash_.digest()).decode()}-{len(parts)}", kind)
