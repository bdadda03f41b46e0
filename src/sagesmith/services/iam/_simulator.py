"""The policy simulator: what would be decided, and by which statements, without doing anything."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sagesmith.arns import Arn
from sagesmith.aws.call import Call, operation
from sagesmith.errors import AwsError
from sagesmith.services.iam._answers import Document, RoleBook, page
from sagesmith.services.iam._authorizer import IamAuthorizer
from sagesmith.services.iam._documents import Policy, Statement, parse_policy
from sagesmith.services.iam._evaluate import Decision, Grants, PolicySet, Requester
from sagesmith.store.principals import Principal, PrincipalKind

__all__ = ["Simulator"]

_ACTION: Final = re.compile(r"[A-Za-z0-9-]+:[A-Za-z0-9]+")
_ENTITY: Final = re.compile(r"(user|group|role)/(?:.*/)?([^/]+)")
_MARKS: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]')
_COLON: Final = re.compile(r"\s*:")


class Simulator:
    """SimulatePrincipalPolicy and SimulateCustomPolicy."""

    service = "iam"

    def __init__(self, authorizer: IamAuthorizer, book: RoleBook) -> None:
        self._authorizer = authorizer
        self._book = book

    @operation("SimulatePrincipalPolicy")
    def simulate_principal_policy(self, call: Call, request: Document) -> Document:
        """Decide by the policies that a user, group or role has, and those given with the request."""
        principal = self._principal(request["PolicySourceArn"])
        policies = [*self._authorizer.policies_of(principal), *_given(request, "PolicyInputList")]
        boundary = self._authorizer.boundary_of(principal)
        return _simulate(request, policies, boundary, _known(principal, call))

    @operation("SimulateCustomPolicy")
    def simulate_custom_policy(self, call: Call, request: Document) -> Document:
        """Decide by the policies given with the request alone."""
        return _simulate(request, list(_given(request, "PolicyInputList")), None, {})

    def _principal(self, arn: str) -> Principal:
        match = _ENTITY.fullmatch(Arn.parse(arn).resource) if ":iam:" in arn else None
        if match is None:
            raise AwsError(
                "InvalidInput", f"Invalid Entity Arn: {arn} does not clearly define entity type and name."
            )
        kinds: Mapping[str, PrincipalKind] = {"user": "user", "group": "group", "role": "role"}
        return self._book.find(kinds[match[1]], match[2])


def _simulate(
    request: Document,
    policies: list[Policy],
    boundary: PolicySet | None,
    known: Mapping[str, tuple[str, ...]],
) -> dict[str, Any]:
    actions = list(dict.fromkeys(request["ActionNames"]))
    for action in actions:
        if not _ACTION.fullmatch(action):
            raise AwsError(
                "InvalidInput", f"Invalid Entity: {action!r} is not an action such as s3:GetObject."
            )
    limits = list(_given(request, "PermissionsBoundaryPolicyInputList"))
    if limits:
        boundary = PolicySet(limits)
    context = {**known, **_context(request)}
    caller = request.get("CallerArn") or request.get("PolicySourceArn") or ""
    grants = Grants(PolicySet(policies), boundary, None, Requester(frozenset({caller})))
    resource_policy = None
    if request.get("ResourcePolicy"):
        resource_policy = PolicySet(
            [parse_policy(request["ResourcePolicy"], "resource", source_id="ResourcePolicy")]
        )
    pairs = [
        (index, action, resource)
        for index, (action, resource) in enumerate(
            (action, resource) for action in actions for resource in request.get("ResourceArns") or ("*",)
        )
    ]

    def result(pair: tuple[int, str, str]) -> dict[str, Any]:
        return _result(grants, pair[1], pair[2], context, resource_policy)

    return page(request, "EvaluationResults", pairs, lambda pair: f"{pair[0]:08d}", result)


def _result(
    grants: Grants,
    action: str,
    resource: str,
    context: Mapping[str, tuple[str, ...]],
    resource_policy: PolicySet | None,
) -> dict[str, Any]:
    missing: dict[str, None] = {}

    def lookup(key: str) -> tuple[str, ...] | None:
        values = context.get(key)
        if values is None:
            missing[key] = None
        return values

    outcome = grants.decide(action, resource, lookup, resource_policy)
    result: dict[str, Any] = {
        "EvalActionName": action,
        "EvalResourceName": resource,
        "EvalDecision": outcome.decision.value,
        "MatchedStatements": [_matched(policy, statement) for policy, statement in outcome.matched],
        "MissingContextValues": list(missing),
    }
    if grants.boundary is not None:
        allowed = grants.boundary.decide(action, resource, lookup).decision is Decision.ALLOWED
        result["PermissionsBoundaryDecisionDetail"] = {"AllowedByPermissionsBoundary": allowed}
    return result


def _given(request: Document, member: str) -> Iterator[Policy]:
    for number, text in enumerate(request.get(member) or (), 1):
        yield parse_policy(text, source_id=f"{member}.{number}")


def _known(principal: Principal, call: Call) -> dict[str, tuple[str, ...]]:
    """Return the context keys that the simulator fills in itself."""
    known: dict[str, tuple[str, ...]] = {
        "aws:principalarn": (principal.arn,),
        "aws:principalaccount": (call.account,),
    }
    if principal.kind == "user":
        known["aws:username"] = (principal.name,)
        known["aws:userid"] = (principal.id,)
    for key, value in principal.tags.items():
        known[f"aws:principaltag/{key.lower()}"] = (value,)
    return known


def _context(request: Document) -> dict[str, tuple[str, ...]]:
    return {
        entry["ContextKeyName"].lower(): tuple(entry.get("ContextKeyValues") or ())
        for entry in request.get("ContextEntries") or ()
        if "ContextKeyName" in entry
    }


def _matched(policy: Policy, statement: Statement) -> dict[str, Any]:
    matched: dict[str, Any] = {"SourcePolicyId": policy.source_id, "SourcePolicyType": "IAM Policy"}
    spans = list(_statement_spans(policy.text))
    if statement.index < len(spans):
        start, end = spans[statement.index]
        matched["StartPosition"] = _position(policy.text, start)
        matched["EndPosition"] = _position(policy.text, end)
    return matched


def _statement_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each statement starts and ends in *text*, a valid policy: the objects below `Statement`."""
    depth = base = start = 0
    inside = False
    for match in _MARKS.finditer(text):
        mark = match[0]
        if mark[0] == '"':
            if depth == 1 and _COLON.match(text, match.end()):
                inside, base = mark == '"Statement"', 0
        elif mark in "{[":
            depth += 1
            if inside and mark == "{" and base in (0, depth):
                base, start = depth, match.start()
        else:
            if inside and mark == "}" and depth == base:
                yield start, match.end()
            depth -= 1


def _position(text: str, offset: int) -> dict[str, int]:
    return {"Line": text.count("\n", 0, offset) + 1, "Column": offset - text.rfind("\n", 0, offset)}
