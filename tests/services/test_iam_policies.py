"""Policies: what a document means, and what is said about one that means nothing."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from sagesmith.errors import AwsError
from sagesmith.services.iam._documents import parse_policy
from sagesmith.services.iam._evaluate import Decision, Grants, PolicySet, Requester
from sagesmith.services.iam._managed import managed_policies, managed_policy_document
from sagesmith.services.iam._patterns import compile_glob

JOB = "arn:aws:sagemaker:us-east-1:123456789012:training-job/j1"


def nothing(key: str) -> None:
    return None


def document(*statements: dict[str, Any], version: str = "2012-10-17") -> str:
    return json.dumps({"Version": version, "Statement": list(statements)})


def allow(action: Any = "*", resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action: Any = "*", resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Deny", "Action": action, "Resource": resource, **more}


def policies(*statements: dict[str, Any]) -> PolicySet:
    return PolicySet([parse_policy(document(*statements))])


def decide(policy: PolicySet, action: str, resource: str = JOB, **context: Any) -> Decision:
    values = {
        key.lower().replace("__", ":"): (value,) if isinstance(value, str) else tuple(value)
        for key, value in context.items()
    }
    return policy.decide(action, resource, values.get).decision


@pytest.mark.parametrize(
    ("pattern", "action", "allowed"),
    [
        ("*", "sagemaker:CreateTrainingJob", True),
        ("sagemaker:*", "sagemaker:CreateTrainingJob", True),
        ("SageMaker:createtrainingjob", "sagemaker:CreateTrainingJob", True),
        ("sagemaker:Create*", "sagemaker:DescribeTrainingJob", False),
        ("sagemaker:?reateModel", "sagemaker:CreateModel", True),
        ("sagemaker:Create*Job", "sagemaker:CreateModel", False),
        (["s3:GetObject", "sagemaker:*"], "sagemaker:ListTags", True),
    ],
)
def test_actions_match_with_wildcards_whatever_the_case(pattern: Any, action: str, allowed: bool) -> None:
    assert (decide(policies(allow(pattern)), action) is Decision.ALLOWED) is allowed


def test_a_deny_wins_over_every_allow() -> None:
    both = policies(allow(), deny("sagemaker:Delete*", JOB))
    assert decide(both, "sagemaker:DeleteModel") is Decision.EXPLICIT_DENY
    assert decide(both, "sagemaker:DeleteModel", "arn:other") is Decision.ALLOWED
    assert decide(policies(), "sagemaker:DeleteModel") is Decision.IMPLICIT_DENY


def test_not_action_and_not_resource_mean_everything_else() -> None:
    power = policies({"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"})
    assert decide(power, "iam:CreateUser") is Decision.IMPLICIT_DENY
    assert decide(power, "s3:GetObject") is Decision.ALLOWED
    elsewhere = policies({"Effect": "Deny", "Action": "*", "NotResource": "arn:aws:s3:::mine/*"})
    assert decide(elsewhere, "s3:GetObject", "arn:aws:s3:::theirs/x") is Decision.EXPLICIT_DENY
    assert decide(elsewhere, "s3:GetObject", "arn:aws:s3:::mine/x") is Decision.IMPLICIT_DENY


def test_case_does_not_tell_sagemakers_resources_apart() -> None:
    mine = policies(allow("*", "arn:aws:sagemaker:*:*:training-job/MyJob*"))
    assert (
        decide(mine, "x:y", "arn:aws:sagemaker:us-east-1:123456789012:training-job/myjob-1")
        is Decision.ALLOWED
    )


def test_variables_stand_for_the_requests_values_and_no_more() -> None:
    home = policies(allow("s3:*", "arn:aws:s3:::bucket/home/${aws:username}/*"))
    assert (
        decide(home, "s3:GetObject", "arn:aws:s3:::bucket/home/ada/x", aws__username="ada")
        is Decision.ALLOWED
    )
    assert (
        decide(home, "s3:GetObject", "arn:aws:s3:::bucket/home/bob/x", aws__username="ada")
        is not Decision.ALLOWED
    )
    assert (
        decide(home, "s3:GetObject", "arn:aws:s3:::bucket/home/bob/x", aws__username="*")
        is not Decision.ALLOWED
    )
    assert decide(home, "s3:GetObject", "arn:aws:s3:::bucket/home//x") is not Decision.ALLOWED
    default = policies(allow("s3:*", "arn:aws:s3:::b/${aws:PrincipalTag/team, 'all'}/*"))
    assert decide(default, "s3:GetObject", "arn:aws:s3:::b/all/x") is Decision.ALLOWED


def test_a_variable_without_value_does_not_turn_not_resource_into_everything() -> None:
    policy = policies({"Effect": "Allow", "Action": "*", "NotResource": "arn:aws:s3:::${aws:username}/*"})
    assert decide(policy, "s3:GetObject", "arn:aws:s3:::x/y") is Decision.IMPLICIT_DENY


def test_the_old_version_has_no_variables() -> None:
    text = document(allow("s3:*", "arn:aws:s3:::${aws:username}"), version="2008-10-17")
    old = PolicySet([parse_policy(text)])
    assert decide(old, "s3:x", "arn:aws:s3:::ada", aws__username="ada") is Decision.IMPLICIT_DENY
    assert decide(old, "s3:x", "arn:aws:s3:::${aws:username}") is Decision.ALLOWED


@pytest.mark.parametrize(
    ("operator", "wanted", "value", "holds"),
    [
        ("StringEquals", "a", "a", True),
        ("StringEquals", "a", "A", False),
        ("StringEquals", ["a", "b"], "b", True),
        ("StringEquals", "a", None, False),
        ("StringEqualsIfExists", "a", None, True),
        ("StringEqualsIgnoreCase", "a", "A", True),
        ("StringNotEquals", "a", "b", True),
        ("StringNotEquals", ["a", "b"], "b", False),
        ("StringNotEquals", "a", None, True),
        ("StringLike", "ml.g*", "ml.g5.xlarge", True),
        ("StringNotLike", "ml.g*", "ml.g5.xlarge", False),
        ("ArnLike", "arn:aws:iam::*:role/x*", "arn:aws:iam::123456789012:role/xy", True),
        ("ArnLike", "arn:aws:iam::*", "arn:aws:iam::123456789012:role/xy", False),
        ("ArnNotEquals", "arn:aws:iam::1:role/x", "arn:aws:iam::1:role/y", True),
        ("NumericLessThan", "10", "9.5", True),
        ("NumericLessThanEquals", 10, "10", True),
        ("NumericGreaterThan", "10", "nine", False),
        ("DateGreaterThan", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", True),
        ("DateLessThan", "2026-01-01", "2026-01-02T00:00:00Z", False),
        ("Bool", True, "true", True),
        ("Bool", "false", "true", False),
        ("Null", "true", None, True),
        ("Null", "false", "there", True),
        ("Null", "true", "there", False),
        ("IpAddress", "10.0.0.0/8", "10.1.2.3", True),
        ("IpAddress", "10.0.0.0/8", "fe80::1", False),
        ("NotIpAddress", "10.0.0.0/8", "192.168.0.1", True),
        ("ForAnyValue:StringEquals", ["a", "b"], ["b", "z"], True),
        ("ForAnyValue:StringEquals", ["a"], None, False),
        ("ForAllValues:StringEquals", ["a", "b"], ["b", "z"], False),
        ("ForAllValues:StringLike", ["ml.m5.*"], ["ml.m5.large", "ml.m5.xlarge"], True),
        ("ForAllValues:StringEquals", ["a"], None, True),
        ("ForAnyValue:StringNotEquals", ["a"], ["a", "b"], True),
        ("ForAllValues:StringNotEquals", ["a"], ["a", "b"], False),
        ("BinaryEquals", "YQ==", "YQ==", True),
    ],
)  # fmt: skip
def test_conditions(operator: str, wanted: Any, value: Any, holds: bool) -> None:
    policy = policies(allow(Condition={operator: {"Test:Key": wanted}}))
    context = {} if value is None else {"test__key": value}
    assert (decide(policy, "a:B", **context) is Decision.ALLOWED) is holds


def test_all_conditions_must_hold() -> None:
    policy = policies(allow(Condition={"StringEquals": {"a:x": "1", "a:y": "2"}, "Bool": {"a:z": "true"}}))
    assert decide(policy, "a:B", a__x="1", a__y="2", a__z="true") is Decision.ALLOWED
    assert decide(policy, "a:B", a__x="1", a__y="2") is Decision.IMPLICIT_DENY


def test_session_policies_and_boundaries_only_take_away() -> None:
    identity = policies(allow("s3:*"))
    limits = policies(allow(["s3:GetObject", "iam:CreateUser"]))
    for grants, word in (
        (Grants(identity, sessions=limits), "session policy"),
        (Grants(identity, boundary=limits), "permissions boundary"),
    ):
        assert grants.decide("s3:GetObject", JOB, nothing).decision is Decision.ALLOWED
        assert grants.decide("iam:CreateUser", JOB, nothing).decision is Decision.IMPLICIT_DENY
        refused = grants.decide("s3:PutObject", JOB, nothing)
        assert (refused.decision, refused.because) == (Decision.IMPLICIT_DENY, word)


def test_a_resource_policy_gives_and_takes() -> None:
    ada, account = "arn:aws:iam::123456789012:user/ada", "arn:aws:iam::123456789012:root"
    grants = Grants(policies(), requester=Requester(frozenset({ada}), frozenset({account, "123456789012"})))
    key = "arn:aws:s3:::b/k"

    def by(*statements: dict[str, Any]) -> Decision:
        resource = PolicySet([parse_policy(document(*statements), "resource")])
        return grants.decide("s3:GetObject", key, nothing, resource).decision

    assert by(allow("s3:GetObject", key, Principal={"AWS": ada})) is Decision.ALLOWED
    assert by(allow("s3:GetObject", key, Principal="*")) is Decision.ALLOWED
    assert by(allow("s3:GetObject", key, Principal={"AWS": account})) is Decision.IMPLICIT_DENY
    assert by(allow("s3:GetObject", key, Principal={"Service": "x.amazonaws.com"})) is Decision.IMPLICIT_DENY
    assert (
        by(allow("s3:GetObject", key, Principal="*"), deny("s3:*", "*", Principal={"AWS": "123456789012"}))
        is Decision.EXPLICIT_DENY
    )
    assert by(deny("s3:*", "*", NotPrincipal={"AWS": [ada, account]})) is Decision.IMPLICIT_DENY


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not valid JSON"),
        ("[]", "must be a JSON object"),
        ('{"Statement": [], "Statement": []}', "'Statement' stands twice"),
        ('{"Version": "2020-01-01", "Statement": []}', "version 2012-10-17"),
        ('{"Version": "2012-10-17"}', "Missing required field Statement"),
        ('{"Statement": [7]}', "Statement 1 must be a JSON object"),
        (document({"Effect": "Allow"}), "Missing required field Action"),
        (document(allow("s3")), "prefaced by a vendor"),
        (document(allow("s3:*", "bucket")), 'Resource bucket must be in ARN format or "*"'),
        (document({**allow(), "Effect": "allow"}), "Effect must be Allow or Deny, not 'allow'"),
        (document(allow(Principal="*")), "Has prohibited field Principal"),
        (document(allow(NotAction="*")), "has both Action and NotAction"),
        (document(allow(Condition={"StringIs": {"a": "b"}})), "Invalid Condition type : StringIs"),
        (document(allow(Condition={"StringEquals": "b"})), "must be an object of keys and values"),
        (document(allow([], "*")), "Action must not be empty"),
        (document(allow({"a": 1}, "*")), "Action must be a string or a list of strings"),
        (document(allow(Sid="a"), allow(Sid="a")), "must be unique"),
        (document({**allow(), "Actions": "x"}), "unknown elements Actions"),
        ("[" * 100_000, "not valid JSON"),
    ],
)  # fmt: skip
def test_a_malformed_policy_is_refused_with_a_reason(text: str, said: str) -> None:
    with pytest.raises(AwsError) as refused:
        parse_policy(text)
    assert refused.value.code == "MalformedPolicyDocument"
    assert said in refused.value.message


def test_all_faults_are_told_at_once_and_where_they_are() -> None:
    with pytest.raises(AwsError) as refused:
        parse_policy(document(allow(), {"Effect": "Maybe", "Action": "s3:*", "Sid": "second"}))
    assert "Statement 2 (second): Effect" in refused.value.message
    assert "Statement 2 (second): Missing required field Resource" in refused.value.message


def test_a_trust_policy_names_principals_and_no_resource() -> None:
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole"}
    parse_policy(document({**trust, "Principal": {"Service": "sagemaker.amazonaws.com"}}), "trust")
    with pytest.raises(AwsError, match="Missing required field Principal"):
        parse_policy(document(trust), "trust")
    with pytest.raises(AwsError, match="prohibited field Resource"):
        parse_policy(document({**trust, "Principal": "*", "Resource": "*"}), "trust")


def test_the_managed_policies_are_valid() -> None:
    for text in managed_policies().values():
        parse_policy(text)
    china = managed_policy_document("arn:aws-cn:iam::aws:policy/AmazonSageMakerFullAccess")
    assert china is not None
    assert "arn:aws-cn:s3:::*SageMaker*" in china
    assert managed_policy_document("arn:aws:iam::aws:policy/NoSuchPolicy") is None
    assert managed_policy_document("AdministratorAccess") is None


def test_no_pattern_takes_long() -> None:
    started = time.perf_counter()
    assert not compile_glob("*a" * 40 + "b").fullmatch("a" * 4000)
    assert time.perf_counter() - started < 1
