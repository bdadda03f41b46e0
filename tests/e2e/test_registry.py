"""ECR through boto3, and its registry through plain HTTP, as Docker and other clients speak to it."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest
from botocore.exceptions import ClientError

from tests.e2e.served import Served

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["errors"][0]["code"])


class Client:
    """Speaks to the registry of *served*, logged in with *keys*."""

    def __init__(self, served: Served, keys: Mapping[str, str] | None = None) -> None:
        self.ecr = served.client("ecr", keys=keys)
        token = self.ecr.get_authorization_token()["authorizationData"][0]
        self.authorization = f"Basic {token['authorizationToken']}"
        self._context = ssl.create_default_context(cafile=served.ca_file)
        self._port = served.port

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, context=self._context, timeout=30)
        try:
            given = {
                "Authorization": self.authorization,
                **{k.replace("_", "-"): v for k, v in headers.items()},
            }
            connection.request(method, path, body, {k: v for k, v in given.items() if v})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def push_blob(self, repository: str, content: bytes) -> str:
        """As Docker does it: begin, one piece in chunks, end."""
        begun = self.send("POST", f"/v2/{repository}/blobs/uploads/")
        assert begun.status == 202, begun
        place = begun.headers["location"]
        pieces = iter([content[: len(content) // 2], content[len(content) // 2 :]])
        assert self.send("PATCH", place, pieces).status == 202
        digest = digest_of(content)
        done = self.send("PUT", f"{place}?digest={digest}")
        assert (done.status, done.headers["docker-content-digest"]) == (201, digest)
        return digest

    def push_image(self, repository: str, tag: str, content: bytes = b"layer") -> str:
        config, layer = b"{}", content
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {"digest": self.push_blob(repository, config), "size": len(config)},
                "layers": [{"digest": self.push_blob(repository, layer), "size": len(layer)}],
            }
        ).encode()
        put = self.send("PUT", f"/v2/{repository}/manifests/{tag}", manifest, Content_Type=MANIFEST)
        assert put.status == 201, put
        return put.headers["docker-content-digest"]


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture(scope="module")
def client(served: Served) -> Client:
    return Client(served)


@pytest.fixture
def repository(client: Client, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"team/{request.node.name.partition('[')[0].replace('_', '-')}"
    client.ecr.create_repository(repositoryName=name)
    yield name
    client.ecr.delete_repository(repositoryName=name, force=True)


def refusal(caught: pytest.ExceptionInfo[ClientError]) -> tuple[str, str]:
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def test_a_repository_is_made_described_and_deleted(client: Client, served: Served) -> None:
    ecr = client.ecr
    made = ecr.create_repository(repositoryName="life", tags=[{"Key": "team", "Value": "a"}])["repository"]
    assert made["repositoryArn"] == f"arn:aws:ecr:us-east-1:{served.account}:repository/life"
    assert made["repositoryUri"] == f"127.0.0.1:{served.port}/life"
    assert made["imageTagMutability"] == "MUTABLE"
    assert ecr.list_tags_for_resource(resourceArn=made["repositoryArn"])["tags"] == [
        {"Key": "team", "Value": "a"}
    ]
    with pytest.raises(ClientError) as caught:
        ecr.create_repository(repositoryName="life")
    assert refusal(caught)[0] == "RepositoryAlreadyExistsException"
    pages = ecr.get_paginator("describe_repositories").paginate(PaginationConfig={"PageSize": 1})
    assert "life" in [found["repositoryName"] for page in pages for found in page["repositories"]]
    assert ecr.delete_repository(repositoryName="life")["repository"]["repositoryName"] == "life"
    with pytest.raises(ClientError) as caught:
        ecr.describe_repositories(repositoryNames=["life"])
    assert refusal(caught) == (
        "RepositoryNotFoundException",
        f"The repository with name 'life' does not exist in the registry with id '{served.account}'",
    )


def test_an_image_goes_in_and_comes_out(client: Client, repository: str) -> None:
    layer = os.urandom(3_000_000)
    digest = client.push_image(repository, "v1", layer)
    manifest = client.send("GET", f"/v2/{repository}/manifests/v1")
    assert (manifest.status, manifest.headers["content-type"]) == (200, MANIFEST)
    assert digest_of(manifest.body) == digest == manifest.headers["docker-content-digest"]
    assert client.send("GET", f"/v2/{repository}/manifests/{digest}").body == manifest.body
    head = client.send("HEAD", f"/v2/{repository}/manifests/v1")
    assert (head.headers["content-length"], head.body) == (str(len(manifest.body)), b"")
    place = f"/v2/{repository}/blobs/{digest_of(layer)}"
    assert client.send("GET", place).body == layer
    assert client.send("HEAD", place).headers["content-length"] == "3000000"
    part = client.send("GET", place, Range="bytes=10-19")
    assert (part.status, part.body, part.headers["content-range"]) == (
        206,
        layer[10:20],
        "bytes 10-19/3000000",
    )
    assert client.send("GET", place, Range="bytes=3000000-").status == 416

    (found,) = client.ecr.describe_images(repositoryName=repository)["imageDetails"]
    assert (found["imageDigest"], found["imageTags"]) == (digest, ["v1"])
    assert found["imageSizeInBytes"] == 3_000_002
    (got,) = client.ecr.batch_get_image(repositoryName=repository, imageIds=[{"imageTag": "v1"}])["images"]
    assert got["imageManifest"].encode() == manifest.body


def test_an_upload_in_pieces_can_be_taken_up_again(client: Client, repository: str) -> None:
    content = os.urandom(100_000)
    place = client.send("POST", f"/v2/{repository}/blobs/uploads/").headers["location"]
    first = client.send("PATCH", place, content[:60_000], Content_Range="0-59999")
    assert (first.status, first.headers["range"]) == (202, "0-59999")
    wrong = client.send("PATCH", place, b"x", Content_Range="1000-1000")
    assert (wrong.status, wrong.headers["range"]) == (416, "0-59999")
    asked = client.send("GET", place)
    assert (asked.status, asked.headers["range"]) == (204, "0-59999")
    digest = digest_of(content)
    bad = client.send("PUT", f"{place}?digest={digest_of(b'other')}")
    assert (bad.status, bad.code) == (400, "DIGEST_INVALID")
    done = client.send("PUT", f"{place}?digest={digest}", content[60_000:], Content_Range="60000-99999")
    assert done.status == 201, done
    assert client.send("GET", f"/v2/{repository}/blobs/{digest}").body == content
    assert client.send("GET", place).code == "BLOB_UPLOAD_UNKNOWN"


def test_a_blob_in_one_request_and_one_that_is_given_up(client: Client, repository: str) -> None:
    digest = digest_of(b"whole")
    whole = client.send("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", b"whole")
    assert whole.status == 201
    assert client.send("GET", f"/v2/{repository}/blobs/{digest}").body == b"whole"
    place = client.send("POST", f"/v2/{repository}/blobs/uploads/").headers["location"]
    assert client.send("DELETE", place).status == 204
    assert client.send("PATCH", place, b"x").code == "BLOB_UPLOAD_UNKNOWN"


def test_a_layer_of_another_repository_is_mounted(client: Client, repository: str) -> None:
    digest = client.push_blob(repository, b"shared" * 10_000)
    client.ecr.create_repository(repositoryName="other")
    query = f"mount={digest}&from={repository}"
    assert client.send("POST", f"/v2/other/blobs/uploads/?{query}").status == 201
    assert client.send("GET", f"/v2/other/blobs/{digest}").body == b"shared" * 10_000
    assert client.send("POST", f"/v2/other/blobs/uploads/?mount={digest}&from=nowhere").status == 202
    client.ecr.delete_repository(repositoryName="other", force=True)


def test_tags_come_in_pages_and_move(client: Client, repository: str) -> None:
    old = client.push_image(repository, "a", b"old")
    new = client.push_image(repository, "b", b"new")
    manifest = client.send("GET", f"/v2/{repository}/manifests/b").body
    put = client.ecr.put_image(repositoryName=repository, imageManifest=manifest.decode(), imageTag="c")
    assert put["image"]["imageId"] == {"imageDigest": new, "imageTag": "c"}
    first = client.send("GET", f"/v2/{repository}/tags/list?n=2")
    assert json.loads(first.body) == {"name": repository, "tags": ["a", "b"]}
    following = first.headers["link"].partition(">")[0].removeprefix("<")
    assert json.loads(client.send("GET", following).body)["tags"] == ["c"]

    client.ecr.put_image(repositoryName=repository, imageManifest=manifest.decode(), imageTag="a")
    untagged = client.ecr.list_images(repositoryName=repository, filter={"tagStatus": "UNTAGGED"})["imageIds"]
    assert untagged == [{"imageDigest": old}]
    deleted = client.ecr.batch_delete_image(
        repositoryName=repository,
        imageIds=[{"imageTag": "a"}, {"imageDigest": old}, {"imageTag": "never"}],
    )
    assert deleted["imageIds"] == [{"imageDigest": new, "imageTag": "a"}, {"imageDigest": old}]
    assert [failure["failureCode"] for failure in deleted["failures"]] == ["ImageNotFound"]
    assert client.send("HEAD", f"/v2/{repository}/blobs/{digest_of(b'old')}").status == 404
    assert client.send("HEAD", f"/v2/{repository}/blobs/{digest_of(b'new')}").status == 200
    assert client.send("HEAD", f"/v2/{repository}/blobs/{digest_of(b'{}')}").status == 200


def test_tags_that_do_not_move(client: Client, repository: str) -> None:
    client.push_image(repository, "v1", b"one")
    client.ecr.put_image_tag_mutability(repositoryName=repository, imageTagMutability="IMMUTABLE")
    config = client.push_blob(repository, b"{}")
    manifest = json.dumps(
        {"schemaVersion": 2, "config": {"digest": config, "size": 2}, "layers": []}
    ).encode()
    refused = client.send("PUT", f"/v2/{repository}/manifests/v1", manifest, Content_Type=MANIFEST)
    assert (refused.status, refused.code) == (400, "TAG_INVALID")
    assert "cannot be overwritten because the tag is immutable" in refused.body.decode()


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"{", 400, "MANIFEST_INVALID"),
        (b"[]", 400, "MANIFEST_INVALID"),
        (b'{"layers": [{"digest": "../../etc"}]}', 400, "MANIFEST_INVALID"),
        (b'{"layers": [{"digest": "sha256:%064d"}]}' % 0, 404, "MANIFEST_BLOB_UNKNOWN"),
        (b"x" * (5 << 20), 413, "SIZE_INVALID"),
    ],
)
def test_bad_manifests_are_refused(
    client: Client, repository: str, content: bytes, status: int, code: str
) -> None:
    refused = client.send("PUT", f"/v2/{repository}/manifests/bad", content, Content_Type=MANIFEST)
    assert (refused.status, refused.code) == (status, code)
    assert client.send("GET", f"/v2/{repository}/manifests/bad").code == "MANIFEST_UNKNOWN"


def test_what_is_not_there_is_said_in_the_specifications_words(client: Client, repository: str) -> None:
    assert client.send("GET", "/v2/").status == 200
    absent = client.send("POST", "/v2/no/such/blobs/uploads/")
    assert (absent.status, absent.code) == (404, "NAME_UNKNOWN")
    assert client.send("GET", f"/v2/{repository}/blobs/sha256:{'0' * 64}").code == "BLOB_UNKNOWN"
    assert client.send("PUT", f"/v2/{repository}/tags/list").status == 405
    assert client.send("GET", "/v2/elsewhere").status == 404


def test_who_has_no_good_password_is_told_to_log_in(client: Client, repository: str) -> None:
    for wrong in (
        "",
        "Basic !",
        "Basic " + base64.b64encode(b"AWS:AKIA.99999999999.00").decode(),
        "Bearer x",
    ):
        refused = client.send("GET", "/v2/", Authorization=wrong)
        assert (refused.status, refused.code) == (401, "UNAUTHORIZED")
        assert refused.headers["www-authenticate"].startswith("Basic realm=")
    _, password = base64.b64decode(client.authorization[6:]).decode().split(":")
    key, expires, mac = password.split(".")
    later = base64.b64encode(f"AWS:{key}.{int(expires) + 1}.{mac}".encode()).decode()
    assert client.send("GET", "/v2/", Authorization=f"Basic {later}").status == 401


def test_policies_decide_who_may_push(served: Served, client: Client, repository: str) -> None:
    iam = served.client("iam")
    iam.create_user(UserName="puller")
    statement = {"Effect": "Allow", "Action": ["ecr:GetAuthorizationToken", "ecr:BatchGetImage",
                 "ecr:GetDownloadUrlForLayer"], "Resource": "*"}  # fmt: skip
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName="puller", PolicyName="pull", PolicyDocument=document)
    keys = iam.create_access_key(UserName="puller")["AccessKey"]
    puller = Client(served, keys)
    digest = client.push_image(repository, "v1")
    assert puller.send("GET", f"/v2/{repository}/manifests/v1").headers["docker-content-digest"] == digest
    refused = puller.send("POST", f"/v2/{repository}/blobs/uploads/")
    assert (refused.status, refused.code) == (403, "DENIED")
    assert "ecr:InitiateLayerUpload" in refused.body.decode()
    with pytest.raises(ClientError, match="is not authorized to perform: ecr:DeleteRepository"):
        puller.ecr.delete_repository(repositoryName=repository, force=True)
    iam.delete_access_key(UserName="puller", AccessKeyId=keys["AccessKeyId"])
    assert puller.send("GET", "/v2/").status == 401


def test_a_repository_of_another_region_has_the_region_in_its_address(served: Served) -> None:
    elsewhere = served.session().client(
        "ecr", region_name="eu-west-1", endpoint_url=served.url, verify=served.ca_file
    )
    made = elsewhere.create_repository(repositoryName="far")["repository"]
    assert made["repositoryUri"] == f"127.0.0.1:{served.port}/eu-west-1/far"
    client = Client(served)
    client.push_image("eu-west-1/far", "v1")
    assert client.send("GET", "/v2/far/manifests/v1").code == "NAME_UNKNOWN"
    with pytest.raises(ClientError) as caught:
        elsewhere.delete_repository(repositoryName="far")
    assert refusal(caught)[0] == "RepositoryNotEmptyException"
    elsewhere.delete_repository(repositoryName="far", force=True)
    assert client.send("GET", "/v2/eu-west-1/far/manifests/v1").code == "NAME_UNKNOWN"


def test_policies_of_repositories_are_kept(client: Client, repository: str) -> None:
    ecr, text = client.ecr, json.dumps({"rules": []}) + " " * 100
    with pytest.raises(ClientError) as caught:
        ecr.get_lifecycle_policy(repositoryName=repository)
    assert refusal(caught)[0] == "LifecyclePolicyNotFoundException"
    with pytest.raises(ClientError) as caught:
        ecr.put_lifecycle_policy(repositoryName=repository, lifecyclePolicyText="{" + " " * 100)
    assert refusal(caught)[0] == "InvalidParameterException"
    ecr.put_lifecycle_policy(repositoryName=repository, lifecyclePolicyText=text)
    assert ecr.get_lifecycle_policy(repositoryName=repository)["lifecyclePolicyText"] == text
    ecr.delete_lifecycle_policy(repositoryName=repository)
    policy = json.dumps({"Version": "2012-10-17", "Statement": []})
    ecr.set_repository_policy(repositoryName=repository, policyText=policy)
    assert ecr.get_repository_policy(repositoryName=repository)["policyText"] == policy
