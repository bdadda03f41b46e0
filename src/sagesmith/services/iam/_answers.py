"""What IAM's operations share: pages, tags, dates and the shapes that describe principals and policies."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote

from sagesmith.errors import AwsError
from sagesmith.store.identities import Identities
from sagesmith.store.principals import ManagedPolicy, Principal, PrincipalKind

__all__ = [
    "Document",
    "boundary_of",
    "conflict",
    "describe",
    "describe_policy",
    "no_such_policy",
    "page",
    "policy_text",
    "tag_list",
    "tags_from",
]

Document = Mapping[str, Any]
T = TypeVar("T")

_PAGE: Final = 100
_NAMES: Final[Mapping[PrincipalKind, str]] = {"user": "User", "group": "Group", "role": "Role"}


def page(
    request: Document, member: str, items: Sequence[T], key: Callable[[T], str], show: Callable[[T], Any]
) -> dict[str, Any]:
    """Return the page of *items* that `Marker` and `MaxItems` ask for, sorted by *key*, as `{member: [...]}`.

    The marker holds the key of the last item shown, so that items that come or go in between shift nothing.
    """
    after = _after(request.get("Marker"))
    limit = request.get("MaxItems", _PAGE)
    rest = sorted((item for item in items if after is None or key(item) > after), key=key)
    shown = rest[:limit]
    answer: dict[str, Any] = {member: [show(item) for item in shown], "IsTruncated": len(rest) > len(shown)}
    if len(rest) > len(shown):
        answer["Marker"] = base64.urlsafe_b64encode(key(shown[-1]).encode()).decode()
    return answer


def _after(marker: str | None) -> str | None:
    if marker is None:
        return None
    try:
        return base64.b64decode(marker, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise AwsError(
            "ValidationError", f"Invalid Marker: {marker!r}. Use the one of the answer before."
        ) from error


def policy_text(document: str) -> str:
    """Return a policy as IAM answers it: percent-encoded JSON, which clients decode."""
    return quote(document, safe="")


def tags_from(request: Document) -> dict[str, str]:
    """Return the request's tags by key. A key that is given twice is refused."""
    given = request.get("Tags") or ()
    tags = {tag["Key"]: tag["Value"] for tag in given}
    if len({key.lower() for key in tags}) != len(given):
        raise AwsError(
            "InvalidInput", "Duplicate tag keys found. Please note that Tag keys are case insensitive."
        )
    if len(tags) > 50:
        raise AwsError("LimitExceeded", "The number of tags has reached the maximum limit of 50.", status=409)
    return tags


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return *tags* as AWS lists them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def describe(principal: Principal, *, with_tags: bool = True) -> dict[str, Any]:
    """Return a user, group or role as IAM describes it. Lists leave tags out."""
    name = _NAMES[principal.kind]
    shape: dict[str, Any] = {
        "Path": principal.path,
        f"{name}Name": principal.name,
        f"{name}Id": principal.id,
        "Arn": principal.arn,
        "CreateDate": principal.created,
    }
    if principal.kind == "role":
        shape["AssumeRolePolicyDocument"] = policy_text(principal.trust)
        shape["MaxSessionDuration"] = principal.max_session_s
        if principal.description:
            shape["Description"] = principal.description
    if principal.boundary:
        shape["PermissionsBoundary"] = {
            "PermissionsBoundaryType": "Policy",
            "PermissionsBoundaryArn": principal.boundary,
        }
    if with_tags and principal.tags:
        shape["Tags"] = tag_list(principal.tags)
    return shape


def describe_policy(policy: ManagedPolicy, attachments: int, *, with_tags: bool = True) -> dict[str, Any]:
    """Return a managed policy as IAM describes it."""
    shape: dict[str, Any] = {
        "PolicyName": policy.name,
        "PolicyId": policy.id,
        "Arn": policy.arn,
        "Path": policy.path,
        "DefaultVersionId": policy.default,
        "AttachmentCount": attachments,
        "PermissionsBoundaryUsageCount": 0,
        "IsAttachable": True,
        "CreateDate": policy.created,
        "UpdateDate": policy.modified,
    }
    if policy.description:
        shape["Description"] = policy.description
    if with_tags and policy.tags:
        shape["Tags"] = tag_list(policy.tags)
    return shape


def boundary_of(request: Document, exists: Callable[[str], bool]) -> str:
    """Return the permissions boundary that the request names, empty if none. It must exist."""
    arn = request.get("PermissionsBoundary", "")
    if arn and not exists(arn):
        raise no_such_policy(arn)
    return str(arn)


def no_such_policy(arn: str) -> AwsError:
    """Return `NoSuchEntity` for a managed policy."""
    return AwsError("NoSuchEntity", f"Policy {arn} does not exist or is not attachable.", status=404)


def conflict(sentence: str) -> AwsError:
    """Return `DeleteConflict`: something hangs on what is to be deleted."""
    return AwsError("DeleteConflict", f"Cannot delete entity, {sentence}.", status=409)


class RoleBook:
    """Roles as clients see them: unless strict, every name is a role, and changing one declares it."""

    def __init__(self, identities: Identities, *, strict: bool) -> None:
        self._identities = identities
        self._strict = strict

    def find(self, kind: PrincipalKind, name: str) -> Principal:
        """Return the principal, or raise `NoSuchEntity`."""
        if kind == "role" and not self._strict:
            return self._identities.principal("role", name) or self._identities.stand_in(name)
        return self._identities.require(kind, name)

    def change(self, kind: PrincipalKind, name: str, edit: Callable[[Principal], Principal]) -> Principal:
        """Replace the principal by what *edit* returns for it."""
        if kind == "role" and not self._strict and self._identities.principal("role", name) is None:
            stand_in = self._identities.stand_in(name)
            self._identities.create_principal(
                "role",
                name,
                trust=stand_in.trust,
                attached=stand_in.attached,
                inline=stand_in.inline,
                max_session_s=stand_in.max_session_s,
                boundary=stand_in.boundary,
            )
        return self._identities.change_principal(kind, name, edit)
