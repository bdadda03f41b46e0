"""STS through boto3: who am I, and keys that end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.services.accounts import ACCOUNT, Account


def trust(principal: Any, **more: Any) -> str:
    statement = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole", **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def policy(action: Any, resource: Any = "*") -> str:
    return json.dumps(
        {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": action, "Resource": resource}}
    )


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    account = Account(tmp_path_factory.mktemp("account"))
    yield account
    account.close()


def refusal(function: Any, **request: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as refused:
        function(**request)
    error = refused.value.response["Error"]
    return error["Code"], error["Message"]


def assume(account: Account, role: str, key: Any = None, **more: Any) -> Any:
    return account.client("sts", key).assume_role(RoleArn=role, RoleSessionName="session", **more)


def test_the_caller_is_who_signed(account: Account) -> None:
    identity = account.client("sts").get_caller_identity()
    assert identity["Account"] == ACCOUNT
    assert identity["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/administrator"
    assert identity["UserId"].startswith("AIDA")


def test_a_temporary_key_works_and_is_its_role(account: Account) -> None:
    root = {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
    role = account.identities.create_principal(
        "role", "reader", trust=trust(root), inline={"p": policy("sagemaker:List*")}
    )
    answer = assume(account, role.arn)
    assert answer["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/reader/session"
    assert "PackedPolicySize" not in answer
    key = answer["Credentials"]
    assert account.client("sts", key).get_caller_identity()["UserId"] == f"{role.id}:session"
    assert account.client("sagemaker", key).list_training_jobs()
    assert refusal(account.client("iam", key).list_users)[0] == "AccessDenied"
    without_token = {**key, "SessionToken": "another"}
    assert refusal(account.client("sts", without_token).get_caller_identity)[0] == "InvalidClientTokenId"


def test_a_session_policy_takes_away(account: Account) -> None:
    role = f"arn:aws:iam::{ACCOUNT}:role/undeclared"
    answer = assume(account, role, Policy=policy("sagemaker:List*"))
    assert 0 < answer["PackedPolicySize"] <= 100
    sagemaker = account.client("sagemaker", answer["Credentials"])
    assert sagemaker.list_training_jobs()
    code, message = refusal(sagemaker.describe_training_job, TrainingJobName="j")
    assert code == "AccessDeniedException"
    assert "because no session policy allows the sagemaker:DescribeTrainingJob action" in message
    arns = [{"arn": "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"}]
    sagemaker = account.client("sagemaker", assume(account, role, PolicyArns=arns)["Credentials"])
    assert refusal(sagemaker.list_training_jobs)[0] == "AccessDeniedException"
    assert refusal(account.client("sts").assume_role, RoleArn=role, RoleSessionName="xx", Policy="{}")[0] == (
        "MalformedPolicyDocument"
    )


def test_the_trust_policy_decides(account: Account) -> None:
    account.identities.create_principal("role", "jobs", trust=trust({"Service": "sagemaker.amazonaws.com"}))
    arn = f"arn:aws:iam::{ACCOUNT}:role/jobs"
    code, message = refusal(account.client("sts").assume_role, RoleArn=arn, RoleSessionName="xx")
    assert code == "AccessDenied"
    assert "because no resource-based policy allows the sts:AssumeRole action" in message

    key = account.user("friend")
    friend = account.identities.require("user", "friend").arn
    account.identities.create_principal(
        "role",
        "friends",
        trust=trust({"AWS": friend}, Condition={"StringEquals": {"sts:ExternalId": "secret"}}),
    )
    arn = f"arn:aws:iam::{ACCOUNT}:role/friends"
    assert (
        refusal(account.client("sts", key).assume_role, RoleArn=arn, RoleSessionName="xx")[0]
        == "AccessDenied"
    )
    assert assume(account, arn, key, ExternalId="secret")["Credentials"]


def test_trusting_the_account_leaves_it_to_the_users_policies(account: Account) -> None:
    """An undeclared role trusts the account: nobody gains by it what an administrator did not allow."""
    nobody = account.user("assumes-nothing")
    role = f"arn:aws:iam::{ACCOUNT}:role/SomeRole"
    code, message = refusal(account.client("sts", nobody).assume_role, RoleArn=role, RoleSessionName="xx")
    assert code == "AccessDenied"
    assert f"sts:AssumeRole on resource: {role} because no identity-based policy" in message
    somebody = account.user("assumes-one", policy("sts:AssumeRole", role))
    assert assume(account, role, somebody)


def test_a_foreign_arn_does_not_go_around_the_trust_policy(account: Account) -> None:
    account.identities.create_principal("role", "guarded", trust=trust({"Service": "x.amazonaws.com"}))
    foreign = "arn:aws:iam::999999999999:role/guarded"
    code, _ = refusal(account.client("sts").assume_role, RoleArn=foreign, RoleSessionName="xx")
    assert code == "AccessDenied"


def test_durations_have_limits(account: Account) -> None:
    root = {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
    role = account.identities.create_principal("role", "short", trust=trust(root)).arn
    sts = account.client("sts")
    code, message = refusal(sts.assume_role, RoleArn=role, RoleSessionName="xx", DurationSeconds=7200)
    assert (code, "MaxSessionDuration" in message) == ("ValidationError", True)
    assert (
        refusal(sts.assume_role, RoleArn="arn:aws:iam::1:user/x", RoleSessionName="xx")[0]
        == "ValidationError"
    )


def test_an_expired_key_says_so(tmp_path: Any) -> None:
    class Clock:
        behind = 0.0

        def __call__(self) -> float:
            import time

            return time.time() - self.behind

    clock = Clock()
    account = Account(tmp_path, clock=clock)
    try:
        clock.behind = 5000.0
        old = account.identities.issue(f"arn:aws:iam::{ACCOUNT}:role/x", "old", 900)
        assert refusal(account.client("sts", old).get_caller_identity)[0] in (
            "ExpiredToken",
            "ExpiredTokenException",
        )
    finally:
        account.close()


def test_a_revoked_key_works_no_longer(account: Account) -> None:
    key = account.identities.issue(f"arn:aws:iam::{ACCOUNT}:role/x", "job", None)
    assert account.client("sts", key).get_caller_identity()
    account.identities.revoke(key.access_key_id)
    assert refusal(account.client("sts", key).get_caller_identity)[0] == "InvalidClientTokenId"


def test_session_tokens_are_for_users(account: Account) -> None:
    key = account.client("sts").get_session_token(DurationSeconds=900)["Credentials"]
    sts = account.client("sts", key)
    assert sts.get_caller_identity()["Arn"].endswith(":user/administrator")
    assert refusal(sts.get_session_token) == (
        "AccessDenied",
        "Cannot call GetSessionToken with session credentials",
    )
    assert account.client("iam", key).list_users()["Users"]
    info = sts.get_access_key_info(AccessKeyId=account.administrator.access_key_id)
    assert info["Account"] == ACCOUNT
