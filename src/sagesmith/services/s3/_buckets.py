"""Buckets themselves: create, delete, look, list."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

from sagesmith.aws.call import Call, operation
from sagesmith.errors import AwsError
from sagesmith.services.s3._common import (
    check_owner,
    number_between,
    owner_document,
    refuse_what_is_not_kept,
    whole_seconds,
)
from sagesmith.store.object_errors import invalid_argument
from sagesmith.store.objects import ObjectStore

__all__ = ["Buckets"]

_FIRST_REGION: Final = "us-east-1"
_MOST: Final = 10_000


class Buckets:
    """The operations on buckets."""

    service = "s3"

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @operation("CreateBucket")
    def create_bucket(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Create a bucket in the region it names, which must be the client's."""
        refuse_what_is_not_kept(
            {name: value for name, value in request.items() if not name.startswith("ObjectLock")}
        )
        if request.get("ObjectLockEnabledForBucket"):
            raise AwsError(
                "NotImplemented",
                "Object Lock is not available here: versions of objects are not kept. Create the bucket without it.",
                status=501,
            )
        name = request["Bucket"]
        place = (request.get("CreateBucketConfiguration") or {}).get("LocationConstraint") or ""
        region = _region(call.region, place)
        try:
            self._store.buckets.create(name, region=region, owner=call.account)
        except AwsError as error:
            # The oldest region answers as it always did: the bucket is there.
            if error.code != "BucketAlreadyOwnedByYou" or region != _FIRST_REGION:
                raise
            if self._store.buckets.get(name).region != _FIRST_REGION:
                raise
        if request.get("ObjectOwnership"):
            rules = {"Rules": [{"ObjectOwnership": request["ObjectOwnership"]}]}
            self._store.buckets.set(name, "ownership-controls", {"OwnershipControls": rules})
        return {"Location": f"/{name}"}

    @operation("DeleteBucket")
    def delete_bucket(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Delete an empty bucket."""
        check_owner(self._store, request)
        self._store.delete_bucket(request["Bucket"])
        return {}

    @operation("HeadBucket")
    def head_bucket(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Say whether a bucket exists, and where."""
        check_owner(self._store, request)
        bucket = self._store.buckets.get(request["Bucket"])
        return {"BucketRegion": bucket.region, "AccessPointAlias": False}

    @operation("GetBucketLocation")
    def get_bucket_location(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a bucket's region, which is nothing for us-east-1."""
        check_owner(self._store, request)
        region = self._store.buckets.get(request["Bucket"]).region
        return {} if region == _FIRST_REGION else {"LocationConstraint": region}

    @operation("ListBuckets")
    def list_buckets(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the account's buckets; in pages, if a number is asked for."""
        limit = number_between(request, "MaxBuckets", "max-buckets", _MOST, _MOST)
        prefix, region = request.get("Prefix") or "", request.get("BucketRegion") or ""
        after = _position(request["ContinuationToken"]) if request.get("ContinuationToken") else ""
        shown: list[dict[str, Any]] = []
        truncated = False
        while not truncated:
            found = self._store.buckets.list(prefix=prefix, after=after, limit=limit + 1)
            for bucket in found:
                if bucket.owner != call.account or (region and bucket.region != region):
                    continue
                if len(shown) == limit:
                    truncated = True
                    break
                shown.append({"Name": bucket.name, "CreationDate": whole_seconds(bucket.created)})
                if request.get("MaxBuckets") is not None:
                    shown[-1]["BucketRegion"] = bucket.region
            if len(found) <= limit:
                break
            after = found[-1].name
        answer: dict[str, Any] = {"Buckets": shown, "Owner": owner_document(call.account)}
        if prefix:
            answer["Prefix"] = prefix
        if truncated and shown:
            answer["ContinuationToken"] = base64.urlsafe_b64encode(shown[-1]["Name"].encode()).decode()
        return answer


def _region(caller: str, constraint: str) -> str:
    if not constraint:
        if caller != _FIRST_REGION:
            raise AwsError(
                "IllegalLocationConstraintException",
                "The unspecified location constraint is incompatible for the region specific endpoint this request was "
                "sent to.",
            )
        return _FIRST_REGION
    if constraint == _FIRST_REGION:
        raise AwsError(
            "InvalidLocationConstraint",
            "The specified location-constraint is not valid",
            members={"LocationConstraint": constraint},
        )
    region = "eu-west-1" if constraint == "EU" else constraint
    if caller not in (_FIRST_REGION, region):
        raise AwsError(
            "IllegalLocationConstraintException",
            f"The {constraint} location constraint is incompatible for the region specific endpoint this request was "
            "sent to.",
        )
    return region


def _position(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token.encode()).decode()
    except (binascii.Error, ValueError):
        raise invalid_argument(
            "The continuation token provided is incorrect", "continuation-token", token
        ) from None
