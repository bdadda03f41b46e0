"""IAM through boto3, and the decision on every request."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from sagesmith.aws.call import Call, Caller
from sagesmith.errors import AwsError
from sagesmith.services.iam import IamAuthorizer
from sagesmith.store.principals import AccessKey
from tests.services.accounts import ACCOUNT, Account

TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
)  # fmt: skip


def policy(action: Any, resource: Any = "*", effect: str = "Allow", **more: Any) -> str:
    statement = {"Effect": effect, "Action": action, "Resource": resource, **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    account = Account(tmp_path_factory.mktemp("account"))
    yield account
    account.close()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    account = Account(tmp_path_factory.mktemp("strict"), strict=True)
    yield account
    account.close()


def refusal(function: Any, **request: Any) -> tuple[str, str]:
    """Return code and message with which *function* is refused."""
    with pytest.raises(ClientError) as refused:
        function(**request)
    error = refused.value.response["Error"]
    return error["Code"], error["Message"]


def a_training_job(role: str, **more: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": "job",
        "RoleArn": role,
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "AlgorithmSpecification": {"TrainingImage": "xgboost:1", "TrainingInputMode": "File"},
        **more,
    }


# Operations


def test_a_user_comes_and_goes(account: Account) -> None:
    iam = account.client("iam")
    made = iam.create_user(UserName="grace", Path="/navy/", Tags=[{"Key": "team", "Value": "a"}])["User"]
    assert made["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/navy/grace"
    assert iam.get_user(UserName="GRACE")["User"]["Tags"] == [{"Key": "team", "Value": "a"}]
    assert refusal(iam.create_user, UserName="grace")[0] == "EntityAlreadyExists"
    key = iam.create_access_key(UserName="grace")["AccessKey"]
    assert account.client("sts", key).get_caller_identity()["Arn"] == made["Arn"]
    assert (
        iam.get_access_key_last_used(AccessKeyId=key["AccessKeyId"])["AccessKeyLastUsed"]["ServiceName"]
        == "sts"
    )
    iam.update_access_key(UserName="grace", AccessKeyId=key["AccessKeyId"], Status="Inactive")
    assert refusal(account.client("sts", key).get_caller_identity)[0] == "InvalidClientTokenId"
    assert refusal(iam.delete_user, UserName="grace")[0] == "DeleteConflict"
    iam.delete_access_key(UserName="grace", AccessKeyId=key["AccessKeyId"])
    iam.update_user(UserName="grace", NewUserName="hopper")
    assert iam.list_users(PathPrefix="/navy/")["Users"][0]["UserName"] == "hopper"
    iam.delete_user(UserName="hopper")
    assert refusal(iam.get_user, UserName="hopper") == (
        "NoSuchEntity",
        "The user with name hopper cannot be found.",
    )


def test_get_user_without_a_name_is_the_caller(account: Account) -> None:
    assert account.client("iam").get_user()["User"]["UserName"] == "administrator"


def test_a_role_comes_and_goes(account: Account) -> None:
    iam = account.client("iam")
    role = iam.create_role(RoleName="trainer", AssumeRolePolicyDocument=TRUST, Description="d")["Role"]
    assert role["AssumeRolePolicyDocument"] == json.loads(TRUST)
    code, message = refusal(iam.create_role, RoleName="bad", AssumeRolePolicyDocument="{}")
    assert (code, "Statement" in message) == ("MalformedPolicyDocument", True)
    iam.attach_role_policy(RoleName="trainer", PolicyArn="arn:aws:iam::aws:policy/AmazonSageMakerFullAccess")
    iam.put_role_policy(RoleName="trainer", PolicyName="more", PolicyDocument=policy("s3:GetObject"))
    attached = iam.list_attached_role_policies(RoleName="trainer")["AttachedPolicies"]
    assert [item["PolicyName"] for item in attached] == ["AmazonSageMakerFullAccess"]
    assert iam.list_role_policies(RoleName="trainer")["PolicyNames"] == ["more"]
    document = iam.get_role_policy(RoleName="trainer", PolicyName="more")["PolicyDocument"]
    assert document == json.loads(policy("s3:GetObject"))
    iam.update_role(RoleName="trainer", MaxSessionDuration=7200)
    assert iam.get_role(RoleName="trainer")["Role"]["MaxSessionDuration"] == 7200
    assert refusal(iam.delete_role, RoleName="trainer")[0] == "DeleteConflict"
    iam.detach_role_policy(RoleName="trainer", PolicyArn=attached[0]["PolicyArn"])
    iam.delete_role_policy(RoleName="trainer", PolicyName="more")
    iam.delete_role(RoleName="trainer")
    assert refusal(iam.delete_role, RoleName="trainer")[0] == "NoSuchEntity"
    assert iam.list_instance_profiles_for_role(RoleName="trainer")["InstanceProfiles"] == []


def test_any_name_is_a_role_unless_strict(account: Account, strict: Account) -> None:
    role = account.client("iam").get_role(RoleName="MySageMakerRole")["Role"]
    assert role["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/MySageMakerRole"
    trusted = role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]
    assert trusted == {"Service": "sagemaker.amazonaws.com"}
    assert refusal(strict.client("iam").get_role, RoleName="MySageMakerRole")[0] == "NoSuchEntity"
    account.client("iam").tag_role(RoleName="NowDeclared", Tags=[{"Key": "a", "Value": "b"}])
    names = [role["RoleName"] for role in account.client("iam").list_roles()["Roles"]]
    assert "NowDeclared" in names
    assert "MySageMakerRole" not in names


def test_managed_policies_have_versions(account: Account) -> None:
    iam = account.client("iam")
    arn = iam.create_policy(PolicyName="versions", PolicyDocument=policy("s3:Get*"))["Policy"]["Arn"]
    iam.create_policy_version(PolicyArn=arn, PolicyDocument=policy("s3:Put*"), SetAsDefault=True)
    version = iam.get_policy_version(PolicyArn=arn, VersionId="v2")["PolicyVersion"]
    assert (version["Document"], version["IsDefaultVersion"]) == (json.loads(policy("s3:Put*")), True)
    assert refusal(iam.delete_policy, PolicyArn=arn)[0] == "DeleteConflict"
    iam.set_default_policy_version(PolicyArn=arn, VersionId="v1")
    iam.delete_policy_version(PolicyArn=arn, VersionId="v2")
    iam.create_user(UserName="holder")
    iam.attach_user_policy(UserName="holder", PolicyArn=arn)
    holders = iam.list_entities_for_policy(PolicyArn=arn)
    assert holders["PolicyUsers"][0]["UserName"] == "holder"
    assert iam.get_policy(PolicyArn=arn)["Policy"]["AttachmentCount"] == 1
    assert refusal(iam.delete_policy, PolicyArn=arn)[0] == "DeleteConflict"
    iam.detach_user_policy(UserName="holder", PolicyArn=arn)
    iam.delete_policy(PolicyArn=arn)
    code, message = refusal(iam.attach_user_policy, UserName="holder", PolicyArn=arn)
    assert (code, message) == ("NoSuchEntity", f"Policy {arn} does not exist or is not attachable.")


def test_lists_come_in_pages(account: Account) -> None:
    iam = account.client("iam")
    for number in range(5):
        iam.create_group(GroupName=f"group{number}")
    pages = list(iam.get_paginator("list_groups").paginate(PaginationConfig={"PageSize": 2}))
    assert [len(page["Groups"]) for page in pages] == [2, 2, 1]
    assert refusal(iam.list_groups, Marker="!")[0] == "ValidationError"
    aws = iam.list_policies(Scope="AWS")["Policies"]
    assert "AdministratorAccess" in [item["PolicyName"] for item in aws]


def test_a_group_gives_its_policies_to_its_members(account: Account) -> None:
    iam = account.client("iam")
    key = account.user("member")
    sagemaker = account.client("sagemaker", key)
    iam.create_group(GroupName="readers")
    iam.attach_group_policy(GroupName="readers", PolicyArn="arn:aws:iam::aws:policy/AmazonSageMakerReadOnly")
    assert refusal(sagemaker.list_training_jobs)[0] == "AccessDeniedException"
    iam.add_user_to_group(GroupName="readers", UserName="member")
    assert sagemaker.list_training_jobs()["TrainingJobSummaries"] == []
    assert iam.list_groups_for_user(UserName="member")["Groups"][0]["GroupName"] == "readers"
    iam.update_group(GroupName="readers", NewGroupName="lookers")
    assert iam.get_group(GroupName="lookers")["Users"][0]["UserName"] == "member"
    assert sagemaker.list_training_jobs()["TrainingJobSummaries"] == []
    iam.remove_user_from_group(GroupName="lookers", UserName="member")
    assert refusal(sagemaker.list_training_jobs)[0] == "AccessDeniedException"


def test_the_account_has_numbers_and_an_alias(account: Account) -> None:
    iam = account.client("iam")
    assert iam.get_account_summary()["SummaryMap"]["Users"] >= 1
    iam.create_account_alias(AccountAlias="smithy")
    assert iam.list_account_aliases()["AccountAliases"] == ["smithy"]
    iam.delete_account_alias(AccountAlias="smithy")
    assert iam.list_account_aliases()["AccountAliases"] == []


def test_service_linked_roles(account: Account) -> None:
    iam = account.client("iam")
    role = iam.create_service_linked_role(AWSServiceName="sagemaker.amazonaws.com")["Role"]
    assert role["Path"] == "/aws-service-role/sagemaker.amazonaws.com/"
    task = iam.delete_service_linked_role(RoleName=role["RoleName"])["DeletionTaskId"]
    assert iam.get_service_linked_role_deletion_status(DeletionTaskId=task)["Status"] == "SUCCEEDED"


# Simulation


def test_the_simulator_says_what_and_why(account: Account) -> None:
    iam = account.client("iam")
    text = json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::b/*"},
                {"Effect": "Deny", "Action": "s3:Delete*", "Resource": "*"},
            ],
        },
        indent=1,
    )
    account.user("simulated", text)
    arn = f"arn:aws:iam::{ACCOUNT}:user/simulated"
    results = iam.simulate_principal_policy(
        PolicySourceArn=arn,
        ActionNames=["s3:GetObject", "s3:DeleteObject", "iam:GetUser"],
        ResourceArns=["arn:aws:s3:::b/k"],
    )["EvaluationResults"]
    assert [result["EvalDecision"] for result in results] == ["allowed", "explicitDeny", "implicitDeny"]
    (statement,) = results[1]["MatchedStatements"]
    assert statement["SourcePolicyId"] == "user_simulated_policy0"
    lines = text.splitlines()
    start, end = statement["StartPosition"], statement["EndPosition"]
    assert lines[start["Line"] - 1][start["Column"] - 1] == "{"
    assert lines[end["Line"] - 1][: end["Column"] - 1].endswith("}")
    assert '"Deny"' in "".join(lines[start["Line"] - 1 : end["Line"]])


def test_custom_simulation_uses_the_given_context(account: Account) -> None:
    iam = account.client("iam")
    text = policy("sagemaker:*", Condition={"StringLike": {"sagemaker:InstanceTypes": "ml.m5.*"}})
    request = {"PolicyInputList": [text], "ActionNames": ["sagemaker:CreateTrainingJob"]}
    (result,) = iam.simulate_custom_policy(**request)["EvaluationResults"]
    assert (result["EvalDecision"], result["MissingContextValues"]) == (
        "implicitDeny",
        ["sagemaker:instancetypes"],
    )
    entry = {
        "ContextKeyName": "sagemaker:InstanceTypes",
        "ContextKeyValues": ["ml.m5.large"],
        "ContextKeyType": "string",
    }
    (result,) = iam.simulate_custom_policy(**request, ContextEntries=[entry])["EvaluationResults"]
    assert result["EvalDecision"] == "allowed"
    assert refusal(iam.simulate_custom_policy, PolicyInputList=["{"], ActionNames=["s3:GetObject"])[0] in (
        "MalformedPolicyDocument",
        "InvalidInput",
    )


def test_what_the_sdk_asks_of_an_undeclared_role_is_allowed(account: Account) -> None:
    """The checks that ModelTrainer of SDK 3 makes before it trains."""
    pages = account.client("iam").get_paginator("simulate_principal_policy").paginate(
        PolicySourceArn=f"arn:aws:iam::{ACCOUNT}:role/Whatever",
        ActionNames=[
            "sagemaker:CreateTrainingJob",
            "sagemaker:DescribeTrainingJob",
            "logs:CreateLogGroup",
            "logs:PutLogEvents",
            "cloudwatch:PutMetricData",
            "ecr:GetAuthorizationToken",
            "s3:PutObject",
        ],
        PaginationConfig={"PageSize": 3},
    )  # fmt: skip
    decisions = [result["EvalDecision"] for page in pages for result in page["EvaluationResults"]]
    assert decisions == ["allowed"] * 7


# Authorization


def test_a_refusal_speaks_as_aws_does(account: Account) -> None:
    key = account.user("nobody")
    code, message = refusal(account.client("sagemaker", key).describe_training_job, TrainingJobName="j1")
    arn = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:training-job/j1"
    assert code == "AccessDeniedException"
    assert message == (
        f"User: arn:aws:iam::{ACCOUNT}:user/nobody is not authorized to perform: sagemaker:DescribeTrainingJob on "
        f"resource: {arn} because no identity-based policy allows the sagemaker:DescribeTrainingJob action"
    )
    assert refusal(account.client("iam", key).list_users)[0] == "AccessDenied"
    assert account.client("sts", key).get_caller_identity()["Account"] == ACCOUNT


def test_a_policy_counts_from_its_next_request_on(account: Account) -> None:
    key = account.user("changing", policy("sagemaker:Describe*", "arn:aws:sagemaker:*:*:training-job/mine-*"))
    sagemaker = account.client("sagemaker", key)
    assert sagemaker.describe_training_job(TrainingJobName="mine-1")
    assert refusal(sagemaker.describe_training_job, TrainingJobName="yours")[0] == "AccessDeniedException"
    account.client("iam").put_user_policy(
        UserName="changing", PolicyName="no", PolicyDocument=policy("sagemaker:*", effect="Deny")
    )
    _, message = refusal(sagemaker.describe_training_job, TrainingJobName="mine-1")
    assert message.endswith("with an explicit deny in an identity-based policy")


def test_conditions_see_the_request(account: Account) -> None:
    small = policy(
        "sagemaker:CreateTrainingJob",
        Condition={"ForAllValues:StringLike": {"sagemaker:InstanceTypes": "ml.m5.*"}},
    )
    key = account.user("small", small, policy("iam:PassRole"))
    sagemaker = account.client("sagemaker", key)
    job = a_training_job(f"arn:aws:iam::{ACCOUNT}:role/any")
    assert sagemaker.create_training_job(**job)
    job["ResourceConfig"]["InstanceType"] = "ml.p3.2xlarge"
    assert refusal(sagemaker.create_training_job, **job)[0] == "AccessDeniedException"
    job["ResourceConfig"]["InstanceType"] = "ml.m5.large"
    assert sagemaker.create_training_job(**job)


def test_passing_a_role_is_a_permission_of_its_own(account: Account) -> None:
    key = account.user("passer", policy("sagemaker:*"))
    sagemaker = account.client("sagemaker", key)
    role = f"arn:aws:iam::{ACCOUNT}:role/any"
    code, message = refusal(sagemaker.create_training_job, **a_training_job(role))
    assert code == "AccessDeniedException"
    assert f"iam:PassRole on resource: {role}" in message
    account.client("iam").put_user_policy(
        UserName="passer",
        PolicyName="pass",
        PolicyDocument=policy(
            "iam:PassRole",
            role,
            Condition={"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
        ),
    )
    assert sagemaker.create_training_job(**a_training_job(role))


def test_tags_on_creation_are_a_permission_of_their_own(account: Account) -> None:
    key = account.user("tagger", policy(["sagemaker:CreateTrainingJob", "iam:PassRole"]))
    job = a_training_job(f"arn:aws:iam::{ACCOUNT}:role/any", Tags=[{"Key": "a", "Value": "b"}])
    _, message = refusal(account.client("sagemaker", key).create_training_job, **job)
    assert "sagemaker:AddTags" in message


def test_a_declared_role_must_trust_sagemaker(account: Account, strict: Account) -> None:
    trust = TRUST.replace("sagemaker", "lambda")
    role = account.client("iam").create_role(RoleName="lambdas", AssumeRolePolicyDocument=trust)["Role"]
    code, message = refusal(account.client("sagemaker").create_training_job, **a_training_job(role["Arn"]))
    assert code == "ValidationException"
    assert "allows principal 'sagemaker.amazonaws.com' to assume the role" in message
    unknown = a_training_job(f"arn:aws:iam::{ACCOUNT}:role/unknown")
    assert refusal(strict.client("sagemaker").create_training_job, **unknown)[0] == "ValidationException"
    default = strict.identities.require("role", "SagesmithExecutionRole").arn
    assert strict.client("sagemaker").create_training_job(**a_training_job(default))
    foreign = a_training_job("arn:aws:iam::999999999999:role/x")
    assert "Cross-account" in refusal(strict.client("sagemaker").create_training_job, **foreign)[1]


def test_a_boundary_limits_an_administrator(account: Account) -> None:
    iam = account.client("iam")
    key = account.user("bounded", policy("*"))
    iam.put_user_permissions_boundary(
        UserName="bounded", PermissionsBoundary="arn:aws:iam::aws:policy/AmazonSageMakerReadOnly"
    )
    assert account.client("sagemaker", key).list_training_jobs()
    code, message = refusal(account.client("iam", key).list_users)
    assert code == "AccessDenied"
    assert "because no permissions boundary allows the iam:ListUsers action" in message


# S3 and the invocation path, without a server


def call_of(account: Account, key: AccessKey, service: str, operation: str) -> Call:
    caller = Caller(ACCOUNT, key.caller_arn, key.user_id, key.access_key_id)
    return Call(service, operation, "us-east-1", ACCOUNT, caller, "r", time.time())


@pytest.mark.parametrize(
    ("operation", "request_", "action", "resource"),
    [
        ("GetObject", {"Bucket": "b", "Key": "k/x"}, "s3:GetObject", "arn:aws:s3:::b/k/x"),
        (
            "HeadObject",
            {"Bucket": "b", "Key": "k", "VersionId": "1"},
            "s3:GetObjectVersion",
            "arn:aws:s3:::b/k",
        ),
        ("ListObjectsV2", {"Bucket": "b"}, "s3:ListBucket", "arn:aws:s3:::b"),
        ("HeadBucket", {"Bucket": "b"}, "s3:ListBucket", "arn:aws:s3:::b"),
        ("ListBuckets", {}, "s3:ListAllMyBuckets", "*"),
        ("UploadPart", {"Bucket": "b", "Key": "k"}, "s3:PutObject", "arn:aws:s3:::b/k"),
        ("AbortMultipartUpload", {"Bucket": "b", "Key": "k"}, "s3:AbortMultipartUpload", "arn:aws:s3:::b/k"),
        ("DeleteObject", {"Bucket": "b", "Key": "k"}, "s3:DeleteObject", "arn:aws:s3:::b/k"),
        ("PutBucketEncryption", {"Bucket": "b"}, "s3:PutEncryptionConfiguration", "arn:aws:s3:::b"),
        ("GetBucketLocation", {"Bucket": "b"}, "s3:GetBucketLocation", "arn:aws:s3:::b"),
    ],
)
def test_s3_operations_are_these_actions(
    account: Account, operation: str, request_: dict[str, Any], action: str, resource: str
) -> None:
    name = f"s3-{operation}-{len(request_)}"
    key = account.user(name, policy("s3:Nothing"))
    with pytest.raises(AwsError) as refused:
        account.authorizer(call_of(account, key, "s3", operation), request_)
    assert refused.value.code == "AccessDenied"
    assert f'perform: {action} on resource: "{resource}" because' in refused.value.message
    account.client("iam").put_user_policy(
        UserName=name, PolicyName="yes", PolicyDocument=policy(action, resource)
    )
    account.authorizer(call_of(account, key, "s3", operation), request_)


def test_a_copy_needs_its_source_too(account: Account) -> None:
    key = account.user("copier", policy("s3:PutObject"))
    request = {"Bucket": "b", "Key": "k", "CopySource": "other/a b"}
    with pytest.raises(AwsError, match='s3:GetObject on resource: "arn:aws:s3:::other/a b"'):
        account.authorizer(call_of(account, key, "s3", "CopyObject"), request)


def test_deleting_many_is_decided_for_each(account: Account) -> None:
    key = account.user("deleter", policy("s3:DeleteObject", "arn:aws:s3:::b/mine/*"))
    call = call_of(account, key, "s3", "DeleteObjects")
    objects = [{"Key": "mine/1"}, {"Key": "yours"}, {"Key": "mine/1", "VersionId": "v"}, {"Key": "mine/2"}]
    account.authorizer(call, {"Bucket": "b", "Delete": {"Objects": objects}})
    assert list(call.refused) == [1, 2]
    assert {error.code for error in call.refused.values()} == {"AccessDenied"}
    assert "s3:DeleteObjectVersion" in call.refused[2].message


def test_listing_can_be_limited_to_a_prefix(account: Account) -> None:
    condition = {"StringLike": {"s3:prefix": "home/${aws:username}/*"}}
    key = account.user("lister", policy("s3:ListBucket", Condition=condition))
    call = call_of(account, key, "s3", "ListObjectsV2")
    account.authorizer(call, {"Bucket": "b", "Prefix": "home/lister/x"})
    with pytest.raises(AwsError):
        account.authorizer(call, {"Bucket": "b", "Prefix": "home/other/x"})
    with pytest.raises(AwsError):
        account.authorizer(call, {"Bucket": "b"})


def test_bucket_policies_give_and_take(account: Account) -> None:
    key = account.user("guest")
    policies: dict[str, str] = {}
    authorizer = IamAuthorizer(account.identities, ACCOUNT, bucket_policy=policies.get)
    call = call_of(account, key, "s3", "GetObject")
    request = {"Bucket": "b", "Key": "k"}
    with pytest.raises(AwsError):
        authorizer(call, request)
    policies["b"] = policy("s3:GetObject", "arn:aws:s3:::b/*", Principal={"AWS": key.caller_arn})
    authorizer(call, request)
    policies["b"] = policy("*", effect="Deny", Principal="*")
    administrator = call_of(account, account.administrator, "s3", "GetObject")
    with pytest.raises(AwsError, match="with an explicit deny in a resource-based policy"):
        authorizer(administrator, request)
    authorizer(call_of(account, account.administrator, "s3", "DeleteBucketPolicy"), {"Bucket": "b"})
    del policies["b"]
    authorizer(administrator, request)


def test_a_copy_heeds_the_policies_of_both_buckets(account: Account) -> None:
    key = account.user("both", policy("s3:PutObject", "arn:aws:s3:::to/*"))
    policies: dict[str, str] = {}
    authorizer = IamAuthorizer(account.identities, ACCOUNT, bucket_policy=policies.get)
    call = call_of(account, key, "s3", "CopyObject")
    request = {"Bucket": "to", "Key": "k", "CopySource": "from/a%20b"}
    with pytest.raises(AwsError, match="s3:GetObject"):
        authorizer(call, request)
    policies["from"] = policy("s3:GetObject", "arn:aws:s3:::from/a%20b", Principal={"AWS": key.caller_arn})
    authorizer(call, request)
    policies["to"] = policy("s3:*", "arn:aws:s3:::to/*", effect="Deny", Principal="*")
    with pytest.raises(AwsError, match="explicit deny"):
        authorizer(call, request)
    administrator = call_of(account, account.administrator, "s3", "CopyObject")
    policies["from"] = policies.pop("to").replace(":to/", ":from/")
    with pytest.raises(AwsError, match="explicit deny"):
        authorizer(administrator, request)


class Invocation:
    """A signed request on the fast way."""

    def __init__(self, caller: Caller, source_ip: str = "") -> None:
        self.caller = caller
        self.source_ip = source_ip
        self.looked_at = 0

    def call(self, service: str, operation: str, time: float) -> Call:
        self.looked_at += 1
        return Call(
            service, operation, "us-east-1", ACCOUNT, self.caller, "r", time, source_ip=self.source_ip
        )


def test_invocations_are_decided_once(account: Account) -> None:
    key = account.user("invoker", policy("sagemaker:InvokeEndpoint", "arn:aws:sagemaker:*:*:endpoint/mine"))
    caller = Caller(ACCOUNT, key.caller_arn, key.user_id, key.access_key_id)
    arn = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/"
    request = Invocation(caller)
    account.authorizer.authorize_resource(caller, "sagemaker:InvokeEndpoint", arn + "mine", request)
    account.authorizer.authorize_resource(caller, "sagemaker:InvokeEndpoint", arn + "mine", request)
    assert request.looked_at == 1
    with pytest.raises(AwsError, match="endpoint/yours"):
        account.authorizer.authorize_resource(caller, "sagemaker:InvokeEndpoint", arn + "yours", request)
    account.identities.change_principal(
        "user", "invoker", lambda user: user.__class__(**_without_policies(user))
    )
    with pytest.raises(AwsError):
        account.authorizer.authorize_resource(caller, "sagemaker:InvokeEndpoint", arn + "mine", request)


def test_invocations_may_depend_on_the_request(account: Account) -> None:
    near = {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}
    key = account.user("near", policy("sagemaker:InvokeEndpoint", Condition=near))
    caller = Caller(ACCOUNT, key.caller_arn, key.user_id, key.access_key_id)
    arn = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/mine"
    for _ in range(2):
        account.authorizer.authorize_resource(
            caller, "sagemaker:InvokeEndpoint", arn, Invocation(caller, "10.1.2.3")
        )
        with pytest.raises(AwsError, match="not authorized"):
            account.authorizer.authorize_resource(
                caller, "sagemaker:InvokeEndpoint", arn, Invocation(caller, "11.1.2.3")
            )


def _without_policies(user: Any) -> dict[str, Any]:
    return {**{name: getattr(user, name) for name in user.__slots__}, "inline": {}}


def test_a_remembered_decision_does_not_outlive_its_condition(account: Account) -> None:
    until = policy("sagemaker:ListTrainingJobs", Condition={"NumericLessThan": {"aws:EpochTime": "2000"}})
    key = account.user("until", until)
    call = call_of(account, key, "sagemaker", "ListTrainingJobs")
    call.time = 1000.0
    account.authorizer(call, {})
    call.time = 3000.0
    with pytest.raises(AwsError):
        account.authorizer(call, {})
