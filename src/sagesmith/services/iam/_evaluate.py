"""The decision: may this caller do this action on this resource?

Pure: policies, action, resource and a way to look up context keys come in, a decision comes out. The order of
"Policy evaluation logic" in AWS's user guide for requests within one account: an explicit deny anywhere wins;
a resource policy that names the caller, or an identity policy, must allow; a permissions boundary and session
policies must allow too, as they grant nothing by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from sagesmith.services.iam._documents import Policy, Statement
from sagesmith.services.iam._patterns import Lookup

__all__ = ["Decision", "Grants", "Outcome", "PolicySet", "Requester"]


class Decision(StrEnum):
    """A decision, in the words of the policy simulator."""

    ALLOWED = "allowed"
    EXPLICIT_DENY = "explicitDeny"
    IMPLICIT_DENY = "implicitDeny"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A decision, which statements made it, and in which kind of policy the reason for a refusal lies.

    `because` is ``identity-based policy``, ``session policy``, ``permissions boundary`` or
    ``resource-based policy``.
    """

    decision: Decision
    matched: Sequence[tuple[Policy, Statement]] = ()
    because: str = "identity-based policy"


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asks, as resource and trust policies may name it.

    Args:
        direct: identifiers of the caller itself (user, session and role ARN, unique identifier).
        account: identifiers that mean the whole account: its number and its root's ARN.
        service: the service principal if a service of AWS asks, such as ``sagemaker.amazonaws.com``.
    """

    direct: frozenset[str]
    account: frozenset[str] = frozenset()
    service: str = ""


NOBODY: Final = Requester(frozenset())


class PolicySet:
    """Policies that are evaluated together. Statements are sorted by action once for each action seen."""

    def __init__(self, policies: Iterable[Policy]) -> None:
        self.policies = tuple(policies)
        self._all = tuple((policy, statement) for policy in self.policies for statement in policy.statements)
        self._by_action: dict[str, Sequence[tuple[Policy, Statement]]] = {}

    @property
    def is_everything(self) -> bool:
        """Whether everything is allowed without any condition."""
        return any(statement.is_everything for _, statement in self._all) and not any(
            not statement.allow for _, statement in self._all
        )

    def statements(self, action: str) -> Sequence[tuple[Policy, Statement]]:
        """Return the statements about *action*."""
        found = self._by_action.get(action)
        if found is None:
            found = tuple(pair for pair in self._all if _is_about(pair[1], action))
            if len(self._by_action) < 2000:
                self._by_action[action] = found
        return found

    def decide(
        self, action: str, resource: str, lookup: Lookup, requester: Requester | None = None
    ) -> Outcome:
        """Decide by these policies alone; with *requester*, only statements that name it count."""
        matched = [
            pair
            for pair in self.statements(action)
            if (requester is None or _names(pair[1], requester, account=True))
            and _applies(pair[1], resource, lookup)
        ]
        denying = tuple(pair for pair in matched if not pair[1].allow)
        if denying:
            return Outcome(Decision.EXPLICIT_DENY, denying)
        if matched:
            return Outcome(Decision.ALLOWED, tuple(matched))
        return Outcome(Decision.IMPLICIT_DENY)

    def names_directly(self, action: str, resource: str, lookup: Lookup, requester: Requester) -> bool:
        """Whether a statement allows *requester* itself, not only the account it belongs to."""
        return any(
            statement.allow
            and _names(statement, requester, account=False)
            and _applies(statement, resource, lookup)
            for _, statement in self.statements(action)
        )


@dataclass(frozen=True, slots=True)
class Grants:
    """All policies that bear on one caller's requests, whatever the resource.

    Args:
        identity: policies of the user (and its groups) or of the role.
        boundary: the permissions boundary, if there is one.
        sessions: the session policies, if the key was issued with some.
    """

    identity: PolicySet
    boundary: PolicySet | None = None
    sessions: PolicySet | None = None
    requester: Requester = field(default=NOBODY)

    @property
    def is_everything(self) -> bool:
        """Whether nothing but a resource policy can refuse this caller."""
        return self.identity.is_everything and self.boundary is None and self.sessions is None

    def decide(
        self, action: str, resource: str, lookup: Lookup, resource_policy: PolicySet | None = None
    ) -> Outcome:
        """Decide whether *action* on *resource* is allowed."""
        identity = self.identity.decide(action, resource, lookup)
        limits = [
            (limit.decide(action, resource, lookup), name)
            for limit, name in ((self.boundary, "permissions boundary"), (self.sessions, "session policy"))
            if limit is not None
        ]
        by_resource = False
        if resource_policy is not None:
            outcome = resource_policy.decide(action, resource, lookup, self.requester)
            if outcome.decision is Decision.EXPLICIT_DENY:
                return Outcome(outcome.decision, outcome.matched, "resource-based policy")
            by_resource = outcome.decision is Decision.ALLOWED and resource_policy.names_directly(
                action, resource, lookup, self.requester
            )
        if identity.decision is Decision.EXPLICIT_DENY:
            return identity
        for outcome, name in limits:
            if outcome.decision is Decision.EXPLICIT_DENY:
                return Outcome(outcome.decision, outcome.matched, name)
        if identity.decision is not Decision.ALLOWED and not by_resource:
            return identity
        for outcome, name in limits:
            if outcome.decision is not Decision.ALLOWED:
                return Outcome(Decision.IMPLICIT_DENY, (), name)
        return Outcome(Decision.ALLOWED, identity.matched)


def _is_about(statement: Statement, action: str) -> bool:
    return (
        any(pattern.matches(action, _nothing) for pattern in statement.actions) is not statement.not_actions
    )


def _applies(statement: Statement, resource: str, lookup: Lookup) -> bool:
    about = any(pattern.matches(resource, lookup) for pattern in statement.resources)
    if statement.not_resources and any(pattern.resolve(lookup) is None for pattern in statement.resources):
        return not statement.allow  # a variable without value must not make NotResource mean everything
    return about is not statement.not_resources and all(
        condition.holds(lookup) for condition in statement.conditions
    )


def _names(statement: Statement, requester: Requester, *, account: bool) -> bool:
    principals = statement.principals
    if principals is None:
        return True
    aws = principals.named.get("AWS", frozenset())
    named = (
        principals.everyone
        or not aws.isdisjoint(requester.direct)
        or ((account or statement.not_principals) and not aws.isdisjoint(requester.account))
        or (bool(requester.service) and requester.service in principals.named.get("Service", ()))
    )
    return named is not statement.not_principals


def _nothing(key: str) -> None:
    return None
