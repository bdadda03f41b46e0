"""STS: who am I, and temporary keys. The keys work at once, everywhere, and end when they say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from sagesmith.aws.call import Call, operation
from sagesmith.errors import AwsError
from sagesmith.store.identities import Identities
from sagesmith.store.principals import AccessKey, Principal

__all__ = ["Policies", "Tokens"]

_ROLE_ARN: Final = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/(?:[\x21-\x7e]+/)?[\w+=,.@-]{1,64}")
_PACKED_BYTES: Final = 2048
"""What AWS lets the session policy and tags together take; `PackedPolicySize` is a percentage of it."""


class Policies(Protocol):
    """What STS needs to know of policies. Implementations are thread-safe."""

    def may_assume(self, call: Call, request: Mapping[str, Any], role: Principal) -> None:
        """Return if the caller may assume *role*, else raise `AccessDenied`."""
        ...

    def check_policy(self, text: str) -> None:
        """Return if *text* is an identity policy, else raise `MalformedPolicyDocument`."""
        ...

    def policy_exists(self, arn: str) -> bool:
        """Whether *arn* names a managed policy."""
        ...


class Tokens:
    """The operations of STS.

    Args:
        identities: where keys are issued.
        policies: decides about trust and session policies.
        strict: whether a role must be declared to be assumed.
    """

    service = "sts"

    def __init__(self, identities: Identities, policies: Policies, *, strict: bool = False) -> None:
        self._identities = identities
        self._policies = policies
        self._strict = strict

    @operation("GetCallerIdentity", inline=True)
    def get_caller_identity(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return who signed the request."""
        return {"UserId": call.caller.user_id, "Account": call.caller.account, "Arn": call.caller.arn}

    @operation("AssumeRole")
    def assume_role(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Issue a temporary key of a role, if its trust policy and the caller's policies allow it."""
        role = self._role(request["RoleArn"], call)
        self._policies.may_assume(call, request, role)
        duration_s = request.get("DurationSeconds", 3600)
        self._check_duration(duration_s, role, call)
        policy = request.get("Policy")
        if policy is not None:
            self._policies.check_policy(policy)
        policy_arns = [item["arn"] for item in request.get("PolicyArns") or () if item.get("arn")]
        for arn in policy_arns:
            if not self._policies.policy_exists(arn):
                raise AwsError("MalformedPolicyDocument", f"Policy {arn} does not exist.")
        tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags") or ()}
        key = self._identities.issue(
            role.arn, request["RoleSessionName"], duration_s, policy, policy_arns=policy_arns, tags=tags
        )
        answer: dict[str, Any] = {
            "Credentials": _credentials(key),
            "AssumedRoleUser": {"AssumedRoleId": key.user_id, "Arn": key.caller_arn},
        }
        if policy is not None or policy_arns or tags:
            packed = len(policy or "") + sum(map(len, policy_arns)) + len(json.dumps(tags))
            answer["PackedPolicySize"] = min(100, -(-100 * packed // _PACKED_BYTES))
        if "SourceIdentity" in request:
            answer["SourceIdentity"] = request["SourceIdentity"]
        return answer

    @operation("GetSessionToken")
    def get_session_token(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Issue a temporary key of the calling user."""
        key = self._identities.find_key(call.caller.access_key_id)
        if key is None or key.session_token is not None:
            raise AwsError("AccessDenied", "Cannot call GetSessionToken with session credentials", status=403)
        issued = self._identities.issue_for_user(key.holder, request.get("DurationSeconds", 43200))
        return {"Credentials": _credentials(issued)}

    @operation("GetAccessKeyInfo", inline=True)
    def get_access_key_info(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the account that an access key belongs to."""
        if self._identities.find_key(request["AccessKeyId"]) is None:
            raise AwsError(
                "ValidationError", f"The access key {request['AccessKeyId']} is not of this account."
            )
        return {"Account": self._identities.account_id}

    def _role(self, role_arn: str, call: Call) -> Principal:
        """Return the role that *role_arn* names; an undeclared one trusts the account, as far as not strict."""
        if _ROLE_ARN.fullmatch(role_arn) is None:
            raise AwsError("ValidationError", f"{role_arn} is invalid: it is not the ARN of a role.")
        name = role_arn.rpartition("/")[2]
        role = self._identities.principal("role", name)  # keys are issued by name, whatever path or account
        if role is not None and (role.arn == role_arn or not self._strict):
            return role
        if self._strict:
            raise AwsError(
                "AccessDenied",
                f"User: {call.caller.arn} is not authorized to perform: sts:AssumeRole on resource: {role_arn}",
                status=403,
            )
        account = f"arn:{call.partition}:iam::{self._identities.account_id}:root"
        trust = {"Effect": "Allow", "Principal": {"AWS": account}, "Action": "sts:AssumeRole"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        return replace(self._identities.stand_in(name), arn=role_arn, trust=document, max_session_s=43200)

    def _check_duration(self, duration_s: int, role: Principal, call: Call) -> None:
        if ":assumed-role/" in call.caller.arn and duration_s > 3600:
            raise AwsError(
                "ValidationError",
                "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
            )
        if duration_s > role.max_session_s:
            raise AwsError(
                "ValidationError",
                "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
            )


def _credentials(key: AccessKey) -> dict[str, Any]:
    return {
        "AccessKeyId": key.access_key_id,
        "SecretAccessKey": key.secret_access_key,
        "SessionToken": key.session_token,
        "Expiration": key.expires,
    }
