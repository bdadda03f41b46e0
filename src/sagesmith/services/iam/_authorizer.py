"""Authorization of every request: whose policies, which action, which resource, and the answer in AWS's words.

Policies are compiled once for each access key and again when `Identities.generation` has moved. What was
allowed without looking at anything but the caller is remembered with them, so that the next same request costs
a dictionary look-up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol, TypeAlias

from sagesmith.arns import Arn
from sagesmith.aws.call import Call, Caller
from sagesmith.errors import AwsError, access_denied, validation_error
from sagesmith.services.iam._actions import Place, bucket_of_arn, buckets_of, checks, roles_passed
from sagesmith.services.iam._context import Context, caller_keys
from sagesmith.services.iam._documents import Policy, parse_policy
from sagesmith.services.iam._evaluate import Decision, Grants, Outcome, PolicySet, Requester
from sagesmith.services.iam._managed import managed_policy_document
from sagesmith.store.identities import Identities
from sagesmith.store.principals import AccessKey, Principal

__all__ = ["BucketPolicy", "IamAuthorizer", "ResourceTags", "SignedRequest"]

BucketPolicy: TypeAlias = Callable[[str], str | None]
"""Returns the policy (JSON text) of the bucket of that name, None if there is no policy or no such bucket.
Called for each S3 request: must be quick."""

ResourceTags: TypeAlias = Callable[[str], Mapping[str, str]]
"""Returns the tags of the resource with that ARN."""

_ALWAYS: Final = frozenset(("GetCallerIdentity", "GetSessionToken", "AssumeRole"))
"""Operations of STS that need no permission, or (AssumeRole) are decided in `may_assume`."""

_ABOUT_BUCKET_POLICY: Final = frozenset(("GetBucketPolicy", "PutBucketPolicy", "DeleteBucketPolicy"))
"""What no bucket policy keeps an administrator from, or a bucket could be locked for ever."""

_SERVICE_PRINCIPAL: Final = "sagemaker.amazonaws.com"
_QUERY_SERVICES: Final = frozenset(("s3", "iam", "sts", "cloudwatch"))
"""Services that call the refusal ``AccessDenied``; the others say ``AccessDeniedException``."""

_REMEMBERED: Final = 10_000
"""How many keys, and how many decisions for each, are kept before starting anew."""


class SignedRequest(Protocol):
    """A request whose signature was verified, not yet made into a `Call`."""

    def call(self, service: str, operation: str, time: float) -> Call:
        """Return it as a call."""
        ...


class _Access:
    """What is derived from one access key."""

    __slots__ = ("allowed", "everything", "generation", "grants", "key", "values")

    def __init__(
        self, generation: int, key: AccessKey, grants: Grants, values: Mapping[str, tuple[str, ...]]
    ) -> None:
        self.generation = generation
        self.key = key
        self.grants = grants
        self.values = values
        self.everything = grants.is_everything
        self.allowed: set[tuple[str, str]] = set()


class IamAuthorizer:
    """Decides by the policies in *identities*. Thread-safe.

    Args:
        identities: users, roles and policies.
        account_id: the account of this server.
        strict: whether a role must be declared to be passed or assumed.
        bucket_policy: where bucket policies come from; None if there are none.
        resource_tags: where ``aws:ResourceTag/...`` comes from; None if conditions on it never hold.
    """

    def __init__(
        self,
        identities: Identities,
        account_id: str,
        strict: bool = False,
        *,
        bucket_policy: BucketPolicy | None = None,
        resource_tags: ResourceTags | None = None,
    ) -> None:
        self._identities = identities
        self._account = account_id
        self._strict = strict
        self._bucket_policy = bucket_policy
        self._resource_tags = resource_tags
        self._access: dict[str, _Access] = {}
        self._holders: dict[tuple[str, str], tuple[int, PolicySet, PolicySet | None]] = {}
        self._bucket_policies: dict[str, tuple[str, PolicySet]] = {}

    # Requests

    def __call__(self, call: Call, request: Mapping[str, Any]) -> None:
        """Return if *call* is allowed, else raise; see `Authorizer`. DeleteObjects learns which keys are refused."""
        service = call.service
        caller = call.caller
        access = self._access.get(caller.access_key_id)
        if access is None or access.generation != self._identities.generation:
            access = self._find(caller)
        self._identities.note_use(caller.access_key_id, call.time, service, call.region)
        if service == "sts" and call.operation in _ALWAYS:
            return
        policies: Mapping[str, PolicySet] = {}
        if service == "s3" and not (access.everything and call.operation in _ABOUT_BUCKET_POLICY):
            policies = self._policies_of_buckets(request)
        if not access.everything or policies:
            place = Place(call.region, self._account, caller.arn, self._declared)
            for position, (action, resource) in enumerate(checks(service, call.operation, request, place)):
                policy = policies.get(bucket_of_arn(resource)) if policies else None
                try:
                    self._check(access, action, resource, call, request, policy)
                except AwsError as refusal:
                    if service != "s3" or call.operation != "DeleteObjects":
                        raise
                    call.refused[position] = refusal
        if service == "sagemaker" and call.operation.startswith(("Create", "Update", "Start")):
            for role in roles_passed(request):
                self._check_passing(access, role, call)

    def authorize_resource(
        self, caller: Caller, action: str, resource_arn: str, request: SignedRequest
    ) -> None:
        """Return if *caller* may do *action* on *resource_arn*, else raise `AccessDeniedException`.

        For the invocation path: once allowed, one dictionary look-up, unless a condition asks for more than the
        caller. *request* is looked at only then.
        """
        access = self._access.get(caller.access_key_id)
        if (
            access is not None
            and access.generation == self._identities.generation
            and (access.everything or (action, resource_arn) in access.allowed)
        ):
            return
        access = self._find(caller)
        call = request.call("sagemaker-runtime", action.partition(":")[2], time.time())
        context = Context(access.values, call, resource_tags=self._tags_of(resource_arn))
        self._decide(access, action, resource_arn, context, call.service, None)

    # Assuming roles

    def may_assume(self, call: Call, request: Mapping[str, Any], role: Principal) -> None:
        """Return if the caller may assume *role*: its trust policy names the caller, or names the account
        and the caller's own policies allow it.

        Raises:
            AwsError: `AccessDenied`.
        """
        access = self._find(call.caller)
        action = "sts:AssumeRole"
        context = Context(access.values, call, request)
        requester = access.grants.requester
        trust = PolicySet([parse_policy(role.trust, "trust", source_id=role.name)])
        outcome = trust.decide(action, role.arn, context, requester)
        own = access.grants.decide(action, role.arn, context)
        if own.decision is Decision.EXPLICIT_DENY:
            refusal = own
        elif outcome.decision is not Decision.ALLOWED:
            refusal = Outcome(outcome.decision, (), "resource-based policy")
        elif own.decision is Decision.ALLOWED or trust.names_directly(action, role.arn, context, requester):
            return
        else:
            refusal = own
        raise _refused("sts", call.caller.arn, action, role.arn, refusal)

    def check_policy(self, text: str) -> None:
        """Raise `MalformedPolicyDocument` unless *text* is an identity policy."""
        parse_policy(text)

    def policy_exists(self, arn: str) -> bool:
        """Whether *arn* names a managed policy, of AWS or of this account."""
        return managed_policy_document(arn) is not None or self._identities.policy(arn) is not None

    # For the simulator

    def policies_of(self, principal: Principal) -> list[Policy]:
        """Return the policies of *principal*, its groups' included, ready to be evaluated."""
        holders = [principal]
        if principal.kind == "user":
            groups = (self._identities.principal("group", name) for name in principal.groups)
            holders += [group for group in groups if group is not None]
        return [policy for holder in holders for policy in self._own_policies(holder)]

    def boundary_of(self, principal: Principal) -> PolicySet | None:
        """Return the permissions boundary of *principal*, or None."""
        return PolicySet(self._managed([principal.boundary])) if principal.boundary else None

    # How it is done

    def _find(self, caller: Caller) -> _Access:
        access = self._access.get(caller.access_key_id)
        if access is not None and access.generation == self._identities.generation:
            return access
        generation = self._identities.generation
        key = self._identities.find_key(caller.access_key_id)
        if key is None:  # revoked since the signature was checked
            raise AwsError(
                "InvalidClientTokenId", "The security token included in the request is invalid.", status=403
            )
        access = self._derive(generation, key)
        if len(self._access) >= _REMEMBERED:
            self._access.clear()
        self._access[caller.access_key_id] = access
        return access

    def _derive(self, generation: int, key: AccessKey) -> _Access:
        principal = self._identities.principal(key.holder_kind, key.holder)
        if principal is None and key.holder_kind == "role" and not self._strict:
            principal = self._identities.stand_in(key.holder)
        partition = key.caller_arn.split(":", 2)[1]
        requester = Requester(
            direct=frozenset({key.caller_arn, key.user_id, principal.arn if principal else key.caller_arn}),
            account=frozenset({self._account, f"arn:{partition}:iam::{self._account}:root"}),
        )
        sessions = [parse_policy(text, source_type="session") for text in key.session_policies]
        sessions += self._managed(key.session_policy_arns)
        identity, boundary = self._sets_of(principal, generation) if principal else (PolicySet([]), None)
        grants = Grants(
            identity=identity,
            boundary=boundary,
            sessions=PolicySet(sessions) if sessions else None,
            requester=requester,
        )
        values = caller_keys(
            key, self._account, principal.arn if principal else "", principal.tags if principal else {}
        )
        return _Access(generation, key, grants, values)

    def _sets_of(self, principal: Principal, generation: int) -> tuple[PolicySet, PolicySet | None]:
        """Return policies and boundary of *principal*, which all its keys share."""
        name = (principal.kind, principal.name)
        known = self._holders.get(name)
        if known is not None and known[0] == generation:
            return known[1], known[2]
        identity, boundary = PolicySet(self.policies_of(principal)), self.boundary_of(principal)
        if len(self._holders) >= _REMEMBERED:
            self._holders.clear()
        self._holders[name] = (generation, identity, boundary)
        return identity, boundary

    def _own_policies(self, holder: Principal) -> Iterable[Policy]:
        yield from self._managed(holder.attached)
        for name, text in holder.inline.items():
            yield parse_policy(text, source_id=f"{holder.kind}_{holder.name}_{name}", source_type=holder.kind)

    def _managed(self, arns: Iterable[str]) -> list[Policy]:
        found = []
        for arn in arns:
            text = managed_policy_document(arn)
            if text is not None:
                found.append(parse_policy(text, source_id=arn, source_type="aws-managed"))
                continue
            policy = self._identities.policy(arn)
            if policy is not None:
                found.append(parse_policy(policy.document, source_id=arn, source_type="user-managed"))
        return found

    def _policies_of_buckets(self, request: Mapping[str, Any]) -> Mapping[str, PolicySet]:
        """Return the policies of the buckets that a request to S3 names, if they have some."""
        if self._bucket_policy is None:
            return {}
        found = {}
        for bucket in buckets_of(request):
            text = self._bucket_policy(bucket)
            if text is not None:
                found[bucket] = self._compiled(bucket, text)
        return found

    def _compiled(self, bucket: str, text: str) -> PolicySet:
        known = self._bucket_policies.get(bucket)
        if known is not None and known[0] == text:
            return known[1]
        compiled = PolicySet([parse_policy(text, "resource", source_id=bucket)])
        if len(self._bucket_policies) >= _REMEMBERED:
            self._bucket_policies.clear()
        self._bucket_policies[bucket] = (text, compiled)
        return compiled

    def _check(
        self,
        access: _Access,
        action: str,
        resource: str,
        call: Call,
        request: Mapping[str, Any],
        resource_policy: PolicySet | None,
        extra: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        if resource_policy is None and extra is None and (action, resource) in access.allowed:
            return
        context = Context(access.values, call, request, extra, self._tags_of(resource))
        self._decide(access, action, resource, context, call.service, resource_policy)

    def _decide(
        self,
        access: _Access,
        action: str,
        resource: str,
        context: Context,
        service: str,
        resource_policy: PolicySet | None,
    ) -> None:
        outcome = access.grants.decide(action, resource, context, resource_policy)
        if outcome.decision is not Decision.ALLOWED:
            raise _refused(service, access.key.caller_arn, action, resource, outcome)
        if context.constant and resource_policy is None:
            if len(access.allowed) >= _REMEMBERED:
                access.allowed.clear()
            access.allowed.add((action, resource))

    def _check_passing(self, access: _Access, role_arn: str, call: Call) -> None:
        """Check that the caller may hand *role_arn* to SageMaker, and that SageMaker may assume it."""
        parsed = Arn.parse(role_arn)
        if self._strict and parsed.account != self._account:
            raise access_denied(f"Cross-account pass role is not allowed: {role_arn}.")
        role = self._identities.principal("role", role_arn.rpartition("/")[2])
        if not access.everything:
            extra = {"iam:passedtoservice": (_SERVICE_PRINCIPAL,)}
            self._check(access, "iam:PassRole", role_arn, call, {}, None, extra)
            if role is not None and role.arn != role_arn:  # work runs with the declared role of that name
                self._check(access, "iam:PassRole", role.arn, call, {}, None, extra)
        if role is None and not self._strict:
            return
        if role is None or (self._strict and role.arn != role_arn) or not self.trusts_sagemaker(role):
            raise validation_error(
                f"Could not assume role {role_arn}. Please ensure that the role exists and allows principal "
                f"'{_SERVICE_PRINCIPAL}' to assume the role."
            )

    def trusts_sagemaker(self, role: Principal) -> bool:
        """Whether the trust policy of *role* lets SageMaker assume it. Conditions find their keys absent."""
        trust = PolicySet([parse_policy(role.trust, "trust")])
        context = Context({"aws:sourceaccount": (self._account,)})
        requester = Requester(frozenset(), service=_SERVICE_PRINCIPAL)
        return trust.decide("sts:AssumeRole", role.arn, context, requester).decision is Decision.ALLOWED

    def _declared(self, kind: str, name: str) -> str | None:
        if kind not in ("user", "role", "group"):
            return None
        principal = self._identities.principal(kind, name)  # type: ignore[arg-type]
        return principal.arn if principal else None

    def _tags_of(self, resource: str) -> Callable[[], Mapping[str, str]] | None:
        tags = self._resource_tags
        return None if tags is None else lambda: tags(resource)


def _refused(service: str, caller_arn: str, action: str, resource: str, outcome: Outcome) -> AwsError:
    named = f'"{resource}"' if service == "s3" else resource
    article = "an" if outcome.because[0] in "aeiou" else "a"
    reason = (
        f"with an explicit deny in {article} {outcome.because}"
        if outcome.decision is Decision.EXPLICIT_DENY
        else f"because no {outcome.because} allows the {action} action"
    )
    message = f"User: {caller_arn} is not authorized to perform: {action} on resource: {named} {reason}"
    if service in _QUERY_SERVICES:
        return AwsError("AccessDenied", message, status=403)
    return access_denied(message)
