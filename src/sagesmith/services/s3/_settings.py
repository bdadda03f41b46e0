"""What S3 keeps for a bucket as a document: most of it only kept, and told again as it was given.

One table says for each kind of setting which operations it has and what is told when it was never set. The
operations are made from the table. Sagesmith acts on none of these but refuses what would be dangerous to
believe in: versions are not kept, so versioning cannot be enabled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, TypeAlias

from sagesmith.aws.call import Call, operation
from sagesmith.errors import AwsError
from sagesmith.services.s3._common import check_owner, owner_document, refuse_what_is_not_kept, tags_of
from sagesmith.store.objects import ObjectStore

__all__ = ["BucketSettings", "CheckPolicy"]

CheckPolicy: TypeAlias = Callable[[str], None]
"""Raises `AwsError` for a text that is no resource policy."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of setting.

    `member` is the input's member that is kept and, if `output` is empty, told again in a member of that name;
    with ``output="*"`` its members are the answer's. `default` is told if nothing is kept; without one the
    error `missing` (code and sentence).
    """

    name: str
    get: str
    put: str = ""
    delete: str = ""
    member: str = ""
    output: str = ""
    missing: tuple[str, str] = ("", "")
    default: Mapping[str, Any] | None = None


_PUBLIC_ACCESS: Final = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
_KINDS: Final = (
    _Kind(
        "encryption",
        "GetBucketEncryption",
        "PutBucketEncryption",
        "DeleteBucketEncryption",
        "ServerSideEncryptionConfiguration",
        missing=(
            "ServerSideEncryptionConfigurationNotFoundError",
            "The server side encryption configuration was not found",
        ),
    ),
    _Kind(
        "lifecycle",
        "GetBucketLifecycleConfiguration",
        "PutBucketLifecycleConfiguration",
        "DeleteBucketLifecycle",
        "LifecycleConfiguration",
        "*",
        missing=("NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist"),
    ),
    _Kind(
        "cors",
        "GetBucketCors",
        "PutBucketCors",
        "DeleteBucketCors",
        "CORSConfiguration",
        "*",
        missing=("NoSuchCORSConfiguration", "The CORS configuration does not exist"),
    ),
    _Kind(
        "public-access-block",
        "GetPublicAccessBlock",
        "PutPublicAccessBlock",
        "DeletePublicAccessBlock",
        "PublicAccessBlockConfiguration",
        missing=(
            "NoSuchPublicAccessBlockConfiguration",
            "The public access block configuration was not found",
        ),
        default={"PublicAccessBlockConfiguration": dict.fromkeys(_PUBLIC_ACCESS, True)},
    ),
    _Kind(
        "ownership-controls",
        "GetBucketOwnershipControls",
        "PutBucketOwnershipControls",
        "DeleteBucketOwnershipControls",
        "OwnershipControls",
        missing=("OwnershipControlsNotFoundError", "The bucket ownership controls were not found"),
        default={"OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}},
    ),
    _Kind("logging", "GetBucketLogging", "PutBucketLogging", "", "BucketLoggingStatus", "*", default={}),
    _Kind(
        "notification",
        "GetBucketNotificationConfiguration",
        "PutBucketNotificationConfiguration",
        "",
        "NotificationConfiguration",
        "*",
        default={},
    ),
    _Kind("accelerate", "GetBucketAccelerateConfiguration", default={}),
    _Kind("request-payment", "GetBucketRequestPayment", default={"Payer": "BucketOwner"}),
    _Kind(
        "website",
        "GetBucketWebsite",
        missing=(
            "NoSuchWebsiteConfiguration",
            "The specified bucket does not have a website configuration",
        ),
    ),
    _Kind(
        "replication",
        "GetBucketReplication",
        missing=("ReplicationConfigurationNotFoundError", "The replication configuration was not found"),
    ),
    _Kind(
        "object-lock",
        "GetObjectLockConfiguration",
        missing=(
            "ObjectLockConfigurationNotFoundError",
            "Object Lock configuration does not exist for this bucket",
        ),
    ),
)


class BucketSettings:
    """The operations on buckets' settings: the table's, and those that check or compute something."""

    service = "s3"

    def __init__(self, store: ObjectStore, check_policy: CheckPolicy | None = None) -> None:
        self._store = store
        self._check_policy = check_policy

    # ---- policy -------------------------------------------------------------------------------------

    @operation("GetBucketPolicy")
    def get_bucket_policy(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a bucket's policy as the text that was given."""
        check_owner(self._store, request)
        return {"Policy": self._policy(request["Bucket"])}

    @operation("PutBucketPolicy")
    def put_bucket_policy(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Keep a bucket's policy, which is heeded from the next request on."""
        check_owner(self._store, request)
        text = request["Policy"]
        self._check_document(text, request["Bucket"])
        self._store.buckets.set(request["Bucket"], "policy", {"Policy": text})
        return {}

    @operation("DeleteBucketPolicy")
    def delete_bucket_policy(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Remove a bucket's policy."""
        check_owner(self._store, request)
        self._store.buckets.set(request["Bucket"], "policy", {})
        return {}

    @operation("GetBucketPolicyStatus")
    def get_bucket_policy_status(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Say that nothing here is public: every request must be signed."""
        check_owner(self._store, request)
        self._policy(request["Bucket"])
        return {"PolicyStatus": {"IsPublic": False}}

    def _check_document(self, text: str, bucket: str) -> None:
        """Check that *text* is a policy, and one for *bucket*.

        Raises:
            AwsError: `MalformedPolicy`.
        """
        try:
            policy = json.loads(text)
            if self._check_policy is not None:
                self._check_policy(text)
        except (ValueError, RecursionError):
            policy = None
        except AwsError as error:
            raise AwsError("MalformedPolicy", error.message) from error
        if not isinstance(policy, dict) or not policy.get("Statement"):
            raise AwsError("MalformedPolicy", "Policies must be valid JSON and the first byte must be '{'")
        for resource in _resources(policy):
            if not fnmatchcase(bucket, resource.rpartition(":::")[2].partition("/")[0]):
                raise AwsError(
                    "MalformedPolicy",
                    f"Policy has invalid resource: {resource} is not the bucket {bucket}, nor in it",
                )

    def _policy(self, bucket: str) -> str:
        kept = self._store.buckets.setting(bucket, "policy")
        if not kept:
            raise AwsError(
                "NoSuchBucketPolicy", "The bucket policy does not exist", status=404,
                members={"BucketName": bucket},
            )  # fmt: skip
        return str(kept["Policy"])

    # ---- tags ---------------------------------------------------------------------------------------

    @operation("GetBucketTagging")
    def get_bucket_tagging(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a bucket's tags."""
        check_owner(self._store, request)
        kept = self._store.buckets.setting(request["Bucket"], "tagging")
        if not kept:
            raise AwsError(
                "NoSuchTagSet", "The TagSet does not exist", status=404,
                members={"BucketName": request["Bucket"]},
            )  # fmt: skip
        return {"TagSet": [{"Key": key, "Value": value} for key, value in kept.items()]}

    @operation("PutBucketTagging")
    def put_bucket_tagging(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Replace a bucket's tags."""
        check_owner(self._store, request)
        self._store.buckets.set(request["Bucket"], "tagging", tags_of(request["Tagging"]["TagSet"], limit=50))
        return {}

    @operation("DeleteBucketTagging")
    def delete_bucket_tagging(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Remove a bucket's tags."""
        check_owner(self._store, request)
        self._store.buckets.set(request["Bucket"], "tagging", {})
        return {}

    # ---- versioning, ACL ----------------------------------------------------------------------------

    @operation("GetBucketVersioning")
    def get_bucket_versioning(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Say whether versioning was ever touched; it is never enabled."""
        check_owner(self._store, request)
        return self._store.buckets.setting(request["Bucket"], "versioning") or {}

    @operation("PutBucketVersioning")
    def put_bucket_versioning(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Keep that versioning is suspended; refuse to enable it."""
        check_owner(self._store, request)
        status = request["VersioningConfiguration"].get("Status")
        if status == "Enabled":
            raise AwsError(
                "NotImplemented",
                "Bucket versioning is not available here: only the newest version of an object is kept. "
                "Configure an external S3 if you need versions.",
                status=501,
            )
        self._store.buckets.set(request["Bucket"], "versioning", {"Status": status} if status else {})
        return {}

    @operation("GetBucketAcl")
    def get_bucket_acl(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the only grant there is: the owner's."""
        check_owner(self._store, request)
        owner = owner_document(self._store.buckets.get(request["Bucket"]).owner)
        return {
            "Owner": owner,
            "Grants": [{"Grantee": {**owner, "Type": "CanonicalUser"}, "Permission": "FULL_CONTROL"}],
        }

    @operation("PutBucketAcl")
    def put_bucket_acl(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Accept the grant that is there anyway, and no other."""
        check_owner(self._store, request)
        refuse_what_is_not_kept(request)
        if request.get("AccessControlPolicy"):
            raise AwsError("AccessControlListNotSupported", "The bucket does not allow ACLs")
        self._store.buckets.get(request["Bucket"])
        return {}


def _resources(policy: Mapping[str, Any]) -> Iterator[str]:
    """Yield every resource that a policy is about."""
    statements = policy["Statement"]
    for statement in statements if isinstance(statements, list) else [statements]:
        for name in ("Resource", "NotResource"):
            found = statement.get(name, [])
            yield from found if isinstance(found, list) else [found]


def _add_operations(kind: _Kind) -> None:
    """Give `BucketSettings` the operations of *kind*."""

    def get(self: BucketSettings, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        check_owner(self._store, request)
        kept = self._store.buckets.setting(request["Bucket"], kind.name)
        answer = kind.default if kept is None else kept if kept or not kind.delete else None
        if answer is None:
            code, message = kind.missing
            raise AwsError(code, message, status=404, members={"BucketName": request["Bucket"]})
        return answer

    def put(self: BucketSettings, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        check_owner(self._store, request)
        value = request.get(kind.member) or {}
        document = value if kind.output == "*" else {kind.member: value}
        self._store.buckets.set(request["Bucket"], kind.name, document)
        return {}

    def delete(self: BucketSettings, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        check_owner(self._store, request)
        self._store.buckets.set(request["Bucket"], kind.name, {})
        return {}

    for name, function in ((kind.get, get), (kind.put, put), (kind.delete, delete)):
        if name:
            setattr(BucketSettings, name, operation(name, record_only=True)(function))


for _kind in _KINDS:
    _add_operations(_kind)
