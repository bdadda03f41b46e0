"""Who may not come in: unsigned, badly signed, changed, expired and denied requests."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from typing import Any, cast

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.e2e.served import Served

LIST_JOBS = {"X-Amz-Target": "SageMaker.ListTrainingJobs", "Content-Type": "application/x-amz-json-1.1"}


def _send(
    served: Served, path: str, body: bytes | None, headers: dict[str, str], method: str = "POST"
) -> tuple[int, str]:
    context = ssl.create_default_context(cafile=served.ca_file)
    request = urllib.request.Request(served.url + path, data=body, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def _signed(
    served: Served, body: bytes, *, secret: str | None = None, date: str | None = None
) -> dict[str, str]:
    key = json.loads((served.home / "credentials.json").read_text("utf-8"))
    request = AWSRequest("POST", served.url + "/", data=body, headers=dict(LIST_JOBS))
    signer = SigV4Auth(
        Credentials(key["AccessKeyId"], secret or key["SecretAccessKey"]), "sagemaker", "us-east-1"
    )
    if date is None:
        signer.add_auth(request)
    else:
        request.context["timestamp"] = date
        request.headers["X-Amz-Date"] = date
        signature = signer.signature(
            signer.string_to_sign(request, signer.canonical_request(request)), request
        )
        cast("Any", signer)._inject_signature_to_request(request, signature)
    return dict(request.headers.items())


def _code(answer: tuple[int, str]) -> str:
    status, text = answer
    assert 400 <= status < 500, answer
    assert "Traceback" not in text
    code: str = json.loads(text)["__type"].rpartition("#")[2]
    return code


def test_unsigned(served: Served) -> None:
    assert _code(_send(served, "/", b"{}", dict(LIST_JOBS))) == "MissingAuthenticationTokenException"
    status, text = _send(served, "/some-bucket/key", None, {}, "GET")
    assert status == 403
    assert "<Code>AccessDenied</Code>" in text


def test_wrong_secret(served: Served) -> None:
    answer = _send(served, "/", b"{}", _signed(served, b"{}", secret="x" * 40))
    assert _code(answer) == "InvalidSignatureException"


def test_changed_body(served: Served) -> None:
    answer = _send(served, "/", b'{"MaxResults": 5}', _signed(served, b"{}"))
    assert _code(answer) == "InvalidSignatureException"


def test_old_signature(served: Served) -> None:
    old = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() - 3600))
    answer = _send(served, "/", b"{}", _signed(served, b"{}", date=old))
    assert _code(answer) == "InvalidSignatureException"
    assert "expired" in answer[1].lower()


def test_unknown_key(served: Served) -> None:
    strangers = {
        "AccessKeyId": "AKIAIOSFODNN7EXAMPLE",
        "SecretAccessKey": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    }
    for service, method, code in (
        ("sagemaker", "list_models", "UnrecognizedClientException"),
        ("s3", "list_buckets", "InvalidAccessKeyId"),
        ("sts", "get_caller_identity", "InvalidClientTokenId"),
    ):
        with pytest.raises(ClientError) as caught:
            getattr(served.client(service, keys=strangers), method)()
        assert caught.value.response["Error"]["Code"] == code
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def _user(served: Served, name: str, *statements: dict[str, Any]) -> dict[str, str]:
    iam = served.client("iam")
    iam.create_user(UserName=name)
    iam.put_user_policy(
        UserName=name,
        PolicyName="own",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": list(statements)}),
    )
    key: dict[str, str] = iam.create_access_key(UserName=name)["AccessKey"]
    return key


def test_what_is_not_allowed_is_denied(served: Served) -> None:
    key = _user(served, "lister", {"Effect": "Allow", "Action": "sagemaker:List*", "Resource": "*"})
    lister = served.client("sagemaker", keys=key)
    lister.list_models()
    with pytest.raises(
        ClientError, match=r"user/lister is not authorized to perform: sagemaker:CreateModel"
    ) as caught:
        lister.create_model(
            ModelName="m",
            ExecutionRoleArn=served.role,
            PrimaryContainer={
                "Image": "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1"
            },
        )
    assert caught.value.response["Error"]["Code"] == "AccessDeniedException"


def test_an_explicit_deny_wins(served: Served) -> None:
    key = _user(
        served,
        "half",
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
        {"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::secret-*"},
    )
    s3 = served.client("s3", keys=key)
    s3.create_bucket(Bucket="open-to-half")
    s3.put_object(Bucket="open-to-half", Key="k", Body=b"1")
    with pytest.raises(ClientError) as caught:
        s3.create_bucket(Bucket="secret-1")
    assert caught.value.response["Error"]["Code"] == "AccessDenied"


def test_bucket_policies_are_heeded(served: Served) -> None:
    key = _user(served, "guest", {"Effect": "Allow", "Action": "sts:*", "Resource": "*"})
    owner, guest = served.client("s3"), served.client("s3", keys=key)
    owner.create_bucket(Bucket="shared")
    owner.put_object(Bucket="shared", Key="in/k", Body=b"1")

    def refused(call: Any, **parameters: Any) -> str:
        with pytest.raises(ClientError) as caught:
            call(Bucket="shared", **parameters)
        return str(caught.value.response["Error"]["Code"])

    def put(*statements: dict[str, Any]) -> None:
        owner.put_bucket_policy(
            Bucket="shared", Policy=json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
        )

    assert refused(guest.get_object, Key="in/k") == "AccessDenied"
    arn = f"arn:aws:iam::{served.account}:user/guest"
    allow = {
        "Effect": "Allow",
        "Principal": {"AWS": arn},
        "Action": "s3:GetObject",
        "Resource": "arn:aws:s3:::shared/in/*",
        "Condition": {"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}},
    }
    put(allow)
    assert guest.get_object(Bucket="shared", Key="in/k")["Body"].read() == b"1"
    assert refused(guest.put_object, Key="in/k", Body=b"2") == "AccessDenied"
    put({**allow, "Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}})
    assert refused(guest.get_object, Key="in/k") == "AccessDenied"
    put(allow, {"Effect": "Deny", "Principal": "*", "Action": "s3:Get*", "Resource": "arn:aws:s3:::shared/*"})
    assert refused(guest.get_object, Key="in/k") == "AccessDenied"
    assert refused(owner.get_object, Key="in/k") == "AccessDenied"
    malformed = {**allow, "Action": "GetObject"}
    assert refused(owner.put_bucket_policy, Policy=json.dumps({"Statement": malformed})) == "MalformedPolicy"
    owner.delete_bucket_policy(Bucket="shared")
    assert owner.get_object(Bucket="shared", Key="in/k")["Body"].read() == b"1"


def test_deleting_many_deletes_what_is_allowed(served: Served) -> None:
    mine = {"Effect": "Allow", "Action": "s3:DeleteObject", "Resource": "arn:aws:s3:::swept/mine/*"}
    key = _user(served, "sweeper", mine)
    owner = served.client("s3")
    owner.create_bucket(Bucket="swept")
    for name in ("mine/1", "mine/2", "yours"):
        owner.put_object(Bucket="swept", Key=name, Body=b"")
    objects = [{"Key": name} for name in ("mine/1", "yours", "mine/2")]
    answer = served.client("s3", keys=key).delete_objects(Bucket="swept", Delete={"Objects": objects})
    assert [one["Key"] for one in answer["Deleted"]] == ["mine/1", "mine/2"]
    assert [(one["Key"], one["Code"]) for one in answer["Errors"]] == [("yours", "AccessDenied")]
    assert [one["Key"] for one in owner.list_objects_v2(Bucket="swept")["Contents"]] == ["yours"]


def test_conditions_on_tags_and_addresses(served: Served) -> None:
    tagged = {"StringEquals": {"aws:ResourceTag/team": "blue"}}
    near = {"IpAddress": {"aws:SourceIp": "127.0.0.1"}}
    everything = {"Effect": "Allow", "Resource": "*"}
    keys = _user(
        served,
        "blue",
        {**everything, "Action": "sagemaker:DescribeEndpointConfig", "Condition": tagged},
        {**everything, "Action": "sagemaker:List*", "Condition": near},
        {**everything, "Action": "sagemaker:InvokeEndpoint", "Condition": near},
        {"Effect": "Deny", "Resource": "*", "Action": "*", "Condition": {"NotIpAddress": near["IpAddress"]}},
    )
    sagemaker, blue = served.client("sagemaker"), served.client("sagemaker", keys=keys)
    image = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1"
    sagemaker.create_model(
        ModelName="tagged", ExecutionRoleArn=served.role, PrimaryContainer={"Image": image}
    )
    variant = {
        "VariantName": "v", "ModelName": "tagged", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1
    }  # fmt: skip
    for name, team in (("ours", "blue"), ("theirs", "red")):
        sagemaker.create_endpoint_config(
            EndpointConfigName=name, ProductionVariants=[variant], Tags=[{"Key": "team", "Value": team}]
        )
    blue.list_models()
    assert blue.describe_endpoint_config(EndpointConfigName="ours")["EndpointConfigName"] == "ours"
    with pytest.raises(ClientError, match="not authorized to perform: sagemaker:DescribeEndpointConfig"):
        blue.describe_endpoint_config(EndpointConfigName="theirs")
    with pytest.raises(ClientError, match="Endpoint nowhere"):
        served.client("sagemaker-runtime", keys=keys).invoke_endpoint(EndpointName="nowhere", Body=b"1")


def test_invocations_are_authorized(served: Served) -> None:
    key = _user(served, "no-invoker", {"Effect": "Allow", "Action": "sagemaker:List*", "Resource": "*"})
    with pytest.raises(ClientError) as caught:
        served.client("sagemaker-runtime", keys=key).invoke_endpoint(
            EndpointName="x", Body=b"1", ContentType="text/csv"
        )
    assert caught.value.response["Error"]["Code"] == "AccessDeniedException"


def test_temporary_keys_work_and_end(served: Served) -> None:
    sts = served.client("sts")
    role = served.client("iam").create_role(
        RoleName="worker",
        AssumeRolePolicyDocument=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"AWS": f"arn:aws:iam::{served.account}:root"},
                        "Action": "sts:AssumeRole",
                    }
                ],
            }
        ),
    )["Role"]["Arn"]
    served.client("iam").put_role_policy(
        RoleName="worker",
        PolicyName="list",
        PolicyDocument=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": {"Effect": "Allow", "Action": "sagemaker:ListModels", "Resource": "*"},
            }
        ),
    )
    keys = sts.assume_role(RoleArn=role, RoleSessionName="one")["Credentials"]
    assert served.client("sts", keys=keys).get_caller_identity()["Arn"].endswith("assumed-role/worker/one")
    served.client("sagemaker", keys=keys).list_models()
    with pytest.raises(ClientError, match="assumed-role/worker/one is not authorized"):
        served.client("sagemaker", keys=keys).list_endpoints()
    with pytest.raises(ClientError) as caught:
        served.client("sagemaker", keys={**keys, "SessionToken": "wrong"}).list_models()
    assert caught.value.response["Error"]["Code"] in ("UnrecognizedClientException", "InvalidClientTokenId")


def test_names_cannot_leave_their_place(served: Served) -> None:
    s3 = served.client("s3")
    s3.create_bucket(Bucket="traversal")
    for key in (
        "../../credentials.json",
        "a/../../../b",
        "/etc/passwd",
        "..",
        "a//b",
        "ü/\u202e",
        "x" * 1024,
    ):
        s3.put_object(Bucket="traversal", Key=key, Body=key.encode())
        assert s3.get_object(Bucket="traversal", Key=key)["Body"].read() == key.encode()
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket="traversal", Key="x" * 1025, Body=b"")
    assert caught.value.response["Error"]["Code"] == "KeyTooLongError"
    assert json.loads((served.home / "credentials.json").read_text("utf-8"))["AccessKeyId"]
