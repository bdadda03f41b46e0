"""The parts of a multipart upload: which a client may claim in the end, and what they make together. Pure."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sagesmith.errors import AwsError
from sagesmith.store._objects_records import Properties
from sagesmith.store.checksums import Checksum, join

__all__ = ["ClaimedPart", "Part", "Upload", "choose", "joined_checksum", "joined_etag", "lie_together"]


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload under way. The checksum's fields are empty where none was asked for."""

    id: str
    bucket: str
    key: str
    created: float
    initiator: str
    checksum_algorithm: str
    checksum_kind: str
    stride: int
    file: str
    properties: Properties


@dataclass(frozen=True, slots=True)
class Part:
    """One part as it was received. `checksum` is base64, empty if the upload has none."""

    number: int
    size: int
    etag: str
    checksum: str
    modified: float
    file: str
    position: int


@dataclass(frozen=True, slots=True)
class ClaimedPart:
    """One part as the client lists it at the end. `checksum` is empty if it named none."""

    number: int
    etag: str
    checksum: str = ""


def choose(
    upload: Upload, claimed: Sequence[ClaimedPart], present: Mapping[int, Part], min_part_bytes: int
) -> list[Part]:
    """Return the parts that a client claims in the end, checked against those that are there.

    Raises:
        AwsError: `MalformedXML`, `InvalidPartOrder`, `InvalidPart`, `InvalidRequest` or `EntityTooSmall`.
    """
    if not claimed:
        raise AwsError(
            "MalformedXML",
            "The XML you provided was not well-formed or did not validate against our published schema",
        )
    numbers = [part.number for part in claimed]
    if any(later <= earlier for earlier, later in itertools.pairwise(numbers)):
        raise AwsError(
            "InvalidPartOrder",
            "The list of parts was not in ascending order. Parts must be ordered by part number.",
            members={"UploadId": upload.id},
        )
    chosen: list[Part] = []
    for claim in claimed:
        part = present.get(claim.number)
        if (
            part is None
            or part.etag != claim.etag.strip('"')
            or (claim.checksum and part.checksum and claim.checksum != part.checksum)
        ):
            raise AwsError(
                "InvalidPart",
                "One or more of the specified parts could not be found.  The part may not have been uploaded, "
                "or the specified entity tag may not match the part's entity tag.",
                members={
                    "UploadId": upload.id,
                    "PartNumber": claim.number,
                    "ETag": claim.etag.strip('"'),
                },
            )
        if upload.checksum_kind == "COMPOSITE" and not claim.checksum:
            algorithm = upload.checksum_algorithm.lower()
            raise AwsError(
                "InvalidRequest",
                f"The upload was created using a {algorithm} checksum. The complete request must include the "
                f"checksum for each part. It was missing for part {claim.number} in the request.",
            )
        chosen.append(part)
    for part in chosen[:-1]:
        if part.size < min_part_bytes:
            raise AwsError(
                "EntityTooSmall",
                "Your proposed upload is smaller than the minimum allowed size",
                members={
                    "ProposedSize": part.size, "MinSizeAllowed": min_part_bytes,
                    "PartNumber": part.number, "ETag": part.etag,
                },
            )  # fmt: skip
    return chosen


def lie_together(parts: Sequence[Part], file: str) -> bool:
    """Whether the parts already are the object, one behind the other from the beginning of *file*."""
    position = 0
    for part in parts:
        if part.file != file or part.position != position:
            return False
        position += part.size
    return bool(file)


def joined_etag(parts: Sequence[Part]) -> str:
    """Return the ETag of an object made of *parts*: the MD5 of their MD5s, and how many."""
    md5 = hashlib.md5(b"".join(bytes.fromhex(part.etag) for part in parts), usedforsecurity=False)
    return f"{md5.hexdigest()}-{len(parts)}"


def joined_checksum(upload: Upload, parts: Sequence[Part]) -> Checksum | None:
    """Return the checksum of an object made of *parts*, if the upload has one."""
    if not upload.checksum_algorithm:
        return None
    return join(
        upload.checksum_algorithm, upload.checksum_kind, [(part.checksum, part.size) for part in parts]
    )
