"""IAM: the operations on users, roles and policies, and the decision on every request."""

from __future__ import annotations

from typing import Final

from sagesmith.services.iam._account import Account
from sagesmith.services.iam._answers import RoleBook
from sagesmith.services.iam._authorizer import BucketPolicy, IamAuthorizer, ResourceTags
from sagesmith.services.iam._documents import check_document
from sagesmith.services.iam._keys import IdentityKeys
from sagesmith.services.iam._policies import ManagedPolicies, attachments, boundaries, inline_policies, tags
from sagesmith.services.iam._principals import AccessKeys, Groups, Roles, ServiceLinkedRoles, Users
from sagesmith.services.iam._simulator import Simulator
from sagesmith.store.identities import Identities
from sagesmith.store.principals import PrincipalKind

__all__ = ["BucketPolicy", "IamAuthorizer", "IdentityKeys", "ResourceTags", "check_document", "handlers"]

_KINDS: Final[tuple[PrincipalKind, ...]] = ("user", "group", "role")


def handlers(identities: Identities, authorizer: IamAuthorizer, *, strict: bool = False) -> list[object]:
    """Return the handlers of IAM's operations.

    Args:
        identities: what they work on.
        authorizer: knows which policies exist, and decides for the simulator.
        strict: whether a role must be declared to be seen.
    """
    book = RoleBook(identities, strict=strict)
    exists = authorizer.policy_exists
    return [
        Users(identities, exists),
        AccessKeys(identities),
        Groups(identities),
        Roles(identities, book, exists),
        ServiceLinkedRoles(identities),
        ManagedPolicies(identities),
        Simulator(authorizer, book),
        Account(identities),
        *(attachments(kind, book, exists) for kind in _KINDS),
        *(inline_policies(kind, book) for kind in _KINDS),
        *(boundaries(kind, book, exists) for kind in _KINDS if kind != "group"),
        *(tags(kind, book) for kind in _KINDS if kind != "group"),
    ]
