"""What identity is made of: users, groups, roles, managed policies and access keys, as plain values.

Policies are kept as the JSON text that was given, so that they come back as they came; what they mean is
the business of whoever evaluates them.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

__all__ = ["AccessKey", "ManagedPolicy", "PolicyVersion", "Principal", "PrincipalKind", "new_id", "role_id"]

PrincipalKind: TypeAlias = Literal["user", "group", "role"]

_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
PREFIXES: Final[Mapping[str, str]] = {"user": "AIDA", "group": "AGPA", "role": "AROA", "policy": "ANPA"}
"""The first letters of a unique identifier tell what it identifies, as in AWS."""


def new_id(prefix: str, length: int = 17) -> str:
    """Return a new unique identifier in IAM's form: *prefix* and *length* letters and digits."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(length))


def role_id(account_id: str, name: str) -> str:
    """Return the unique identifier of a role that is not declared: the same one each time."""
    digest = hashlib.sha256(f"{account_id}/{name.lower()}".encode()).digest()
    return "AROA" + base64.b32encode(digest).decode()[:17]


@dataclass(frozen=True, slots=True)
class Principal:
    """A user, a group or a role, with the policies it has.

    Args:
        attached: ARNs of managed policies, in the order they were attached.
        inline: inline policies, JSON text by policy name.
        groups: names of the groups a user is in.
        trust: who may assume a role, JSON text.
        boundary: ARN of the managed policy that limits what the others allow; empty if none.
    """

    kind: PrincipalKind
    name: str
    path: str
    id: str
    arn: str
    created: float
    description: str = ""
    attached: tuple[str, ...] = ()
    inline: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    trust: str = ""
    max_session_s: int = 3600
    boundary: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """One version of a managed policy. `id` is ``v1``, ``v2``, ..."""

    id: str
    document: str
    created: float


@dataclass(frozen=True, slots=True)
class ManagedPolicy:
    """A policy that principals attach by its ARN; `default` names the version that counts."""

    name: str
    path: str
    id: str
    arn: str
    created: float
    modified: float
    versions: tuple[PolicyVersion, ...]
    default: str
    description: str = ""
    last_version: int = 1
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def document(self) -> str:
        """The text of the default version."""
        return next(version.document for version in self.versions if version.id == self.default)


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key and who holds it. A temporary key (from STS) has a session token and mostly an end.

    Args:
        holder_kind: ``user`` or ``role``; `holder` is the name of that principal.
        caller_arn: the ARN under which requests signed with this key appear.
        user_id: the unique identifier of the caller, ``AROA...:session`` for a role.
        session_policies: JSON texts that limit what a temporary key may do.
        session_policy_arns: managed policies that do the same.
        expires: seconds since 1970, None for a key without end.
    """

    access_key_id: str
    secret_access_key: str
    holder_kind: Literal["user", "role"]
    holder: str
    caller_arn: str
    user_id: str
    created: float
    active: bool = True
    session_token: str | None = None
    expires: float | None = None
    session_policies: tuple[str, ...] = ()
    session_policy_arns: tuple[str, ...] = ()
    session_tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def expiration(self) -> float | None:
        """Another name of `expires`, as in STS's answers."""
        return self.expires
