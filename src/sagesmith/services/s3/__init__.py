"""The embedded S3: Amazon S3's operations over the object store.

Kept as S3 keeps them: objects with their metadata, tags and checksums, multipart uploads, listings, conditions.
Told again but without effect: encryption (contents are files on your disk), storage classes, lifecycle rules,
CORS, logging, notifications. Refused: versioning, object lock, customers' keys, ACLs for others.
"""

from __future__ import annotations

from sagesmith.services.s3._buckets import Buckets
from sagesmith.services.s3._listing import Listings
from sagesmith.services.s3._multipart import Multipart
from sagesmith.services.s3._objects import Objects
from sagesmith.services.s3._settings import BucketSettings, CheckPolicy
from sagesmith.store.objects import ObjectStore

__all__ = ["BucketSettings", "Buckets", "CheckPolicy", "Listings", "Multipart", "Objects", "handlers"]


def handlers(store: ObjectStore, *, check_policy: CheckPolicy | None = None) -> tuple[object, ...]:
    """Return every handler of the service over *store*.

    Args:
        store: the objects and buckets.
        check_policy: raises `AwsError` for a text that is no resource policy; None takes all JSON for one.
    """
    return (
        Buckets(store),
        BucketSettings(store, check_policy),
        Objects(store),
        Listings(store),
        Multipart(store),
    )
