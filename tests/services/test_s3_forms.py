"""Uploads by form, as a browser sends them with what boto3's `generate_presigned_post` returned."""

from __future__ import annotations

import base64
import http.client
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.config import Config

from sagesmith.services.s3 import handlers
from sagesmith.store.database import Database
from sagesmith.store.objects import ObjectStore
from tests.aws.conftest import KEY, TEMPORARY, Running
from tests.services.accounts import SESSION

BOUNDARY = "----WebKitFormBoundary7MA4YWxkTrZu0gW"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    folder = tmp_path_factory.mktemp("s3")
    database = Database(f"sqlite:///{folder}/sagesmith.db")
    database.migrate()
    store = ObjectStore(database, folder / "objects")
    store.buckets.create("bucket", region="us-east-1", owner="123456789012")
    yield store
    store.close()
    database.close()


@pytest.fixture(scope="module")
def running(store: ObjectStore) -> Iterator[Running]:
    running = Running(handlers(store))
    yield running
    running.close()


@pytest.fixture(
    scope="module",
    params=[("path", "v2", KEY), ("virtual", "v2", TEMPORARY), ("path", "v4", TEMPORARY), ("virtual", "v4", KEY)],
    ids=["v2-path", "v2-virtual-temporary", "v4-path-temporary", "v4-virtual"],
)  # fmt: skip
def s3(request: pytest.FixtureRequest, running: Running) -> Any:
    style, version, key = request.param
    more: dict[str, Any] = {"signature_version": "s3v4"} if version == "v4" else {}
    return SESSION.client(
        "s3",
        region_name="us-east-1",
        endpoint_url=f"http://localhost:{running.port}",
        aws_access_key_id=key.access_key_id,
        aws_secret_access_key=key.secret_access_key,
        aws_session_token=key.session_token,
        config=Config(s3={"addressing_style": style}, **more),
    )


Answer = tuple[int, Mapping[str, str], str]


@pytest.fixture
def post(running: Running) -> Callable[..., Answer]:
    def send(
        form: Mapping[str, Any],
        content: bytes | None = b"hello",
        *,
        filename: str = "h.txt",
        body: bytes | None = None,
    ) -> Answer:
        parts = urlsplit(form["url"])
        sent = body if body is not None else multipart(form["fields"], content, filename)
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
        try:
            connection.request(
                "POST",
                parts.path or "/",
                sent,
                {"host": parts.netloc, "content-type": f"multipart/form-data; boundary={BOUNDARY}"},
            )
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, headers, answer.read().decode()
        finally:
            connection.close()

    return send


def multipart(fields: Mapping[str, str], content: bytes | None, filename: str = "h.txt") -> bytes:
    parts = [
        f'Content-Disposition: form-data; name="{name}"\r\n\r\n{fields[name]}'.encode() for name in fields
    ]
    if content is not None:
        head = (
            f'Content-Disposition: form-data; name="file"; filename="{filename}"\r\nContent-Type: text/plain'
        )
        parts.append(head.encode() + b"\r\n\r\n" + content)
    mark = f"--{BOUNDARY}".encode()
    return b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts) + mark + b"--\r\n"


def code(answer: Answer) -> str:
    status, _, text = answer
    assert 400 <= status < 500, answer
    return text.partition("<Code>")[2].partition("</Code>")[0]


@pytest.mark.parametrize("content", [b"", b"hello", b"\r\n--" * 200_000 + b"\r"], ids=len)
def test_a_form_puts_an_object(
    s3: Any, post: Callable[..., Answer], store: ObjectStore, content: bytes
) -> None:
    form = s3.generate_presigned_post("bucket", "up/k ü")
    status, headers, text = post(form, content)
    assert (status, text) == (204, "")
    assert headers["location"].endswith("/up/k%20%C3%BC")
    info = store.head("bucket", "up/k ü")
    assert headers["etag"] == f'"{info.etag}"'
    assert (info.size, info.properties.members["ContentType"]) == (len(content), "binary/octet-stream")
    found = store.content(info)
    assert found is not None
    assert (found.data if found.data is not None else found.path.read_bytes()) == content  # type: ignore[union-attr]


def test_fields_become_what_headers_are(s3: Any, post: Callable[..., Answer], store: ObjectStore) -> None:
    tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>b c</Value></Tag></TagSet></Tagging>"
    fields = {
        "Content-Type": "text/csv",
        "Cache-Control": "no-store",
        "acl": "private",
        "tagging": tags,
        "x-amz-meta-Who": "me",
        "success_action_status": "201",
    }
    conditions = [{name: value} for name, value in fields.items()]
    form = s3.generate_presigned_post("bucket", "in/${filename}", fields, conditions)
    status, headers, text = post(form, filename="C:\\dir\\ä b.csv")
    assert (status, headers["content-type"]) == (201, "application/xml")
    assert re.search(
        "<PostResponse><Location>http://.*/in/%C3%A4%20b.csv</Location><Bucket>bucket</Bucket>", text
    )
    properties = store.head("bucket", "in/ä b.csv").properties
    assert properties.members["ContentType"] == "text/csv"
    assert properties.members["CacheControl"] == "no-store"
    assert (properties.metadata, properties.tags) == ({"who": "me"}, {"a": "b c"})


def test_a_form_may_lead_elsewhere(s3: Any, post: Callable[..., Answer]) -> None:
    fields = {"success_action_redirect": "http://example.com/done?x=1#top"}
    form = s3.generate_presigned_post(
        "bucket", "k", fields, [["starts-with", "$success_action_redirect", "http"]]
    )
    status, headers, _ = post(form)
    assert status == 303
    assert re.fullmatch(
        r"http://example.com/done\?x=1&bucket=bucket&key=k&etag=%22.*%22#top", headers["location"]
    )


def test_a_file_must_have_the_length_that_the_policy_wants(
    s3: Any, post: Callable[..., Answer], store: ObjectStore
) -> None:
    form = s3.generate_presigned_post("bucket", "sized", Conditions=[["content-length-range", 2, 4]])
    assert code(post(form, b"1")) == "EntityTooSmall"
    assert code(post(form, b"12345")) == "EntityTooLarge"
    assert code(post(form, b"1" * 3_000_000)) == "EntityTooLarge"
    assert not store.has("bucket", "sized")
    assert post(form, b"1234")[0] == 204
    store.delete("bucket", "sized")


def test_what_the_policy_does_not_say_is_refused(s3: Any, post: Callable[..., Answer]) -> None:
    def refused(
        *, conditions: list[Any] | None = None, expires_s: int = 60, **changes: str
    ) -> tuple[str, str]:
        form = s3.generate_presigned_post("bucket", "up/a", Conditions=conditions, ExpiresIn=expires_s)
        form["fields"].update({name.replace("_", "-"): value for name, value in changes.items()})
        answer = post(form)
        return code(answer), answer[2].partition("<Message>")[2].partition("</Message>")[0]

    start = "Invalid according to Policy: "
    assert refused(key="elsewhere") == (
        "AccessDenied",
        f'{start}Policy Condition failed: ["eq", "$key", "up/a"]',
    )
    assert refused(acl="private") == ("AccessDenied", f"{start}Extra input fields: acl")
    assert refused(expires_s=-5) == ("AccessDenied", f"{start}Policy expired.")
    wrong = [["starts-with", "$Content-Type", "image/"]]
    assert refused(conditions=wrong, content_type="text/html")[0] == "AccessDenied"
    assert refused(conditions=[["between", "$key", "a"]])[0] == "InvalidPolicyDocument"
    other = json.dumps({"expiration": "2099-01-01T00:00:00Z", "conditions": [["starts-with", "$key", ""]]})
    assert refused(policy=base64.b64encode(other.encode()).decode())[0] == "SignatureDoesNotMatch"


def test_who_signed_is_checked(s3: Any, post: Callable[..., Answer]) -> None:
    def refused(change: Callable[[dict[str, str]], Any]) -> str:
        form = s3.generate_presigned_post("bucket", "k")
        change(form["fields"])
        return code(post(form))

    assert refused(lambda fields: fields.pop("policy")) == "AccessDenied"
    version_4 = "x-amz-signature" in s3.generate_presigned_post("bucket", "k")["fields"]
    signature, name = (
        ("x-amz-signature", "x-amz-credential") if version_4 else ("signature", "AWSAccessKeyId")
    )
    assert refused(lambda fields: fields.update({signature: "x"})) == "SignatureDoesNotMatch"
    assert refused(lambda fields: fields.update({name: "AKIDNOBODY" + fields[name][11:]})) in (
        "InvalidAccessKeyId",
        "InvalidToken",
    )
    if version_4:
        assert refused(lambda fields: fields.update({name: "nonsense"})) == "InvalidArgument"
    if "x-amz-security-token" in s3.generate_presigned_post("bucket", "k")["fields"]:
        assert refused(lambda fields: fields.pop("x-amz-security-token")) == "InvalidToken"


def test_forms_that_are_none(s3: Any, post: Callable[..., Answer], store: ObjectStore) -> None:
    form = s3.generate_presigned_post("bucket", "broken")
    fields = form["fields"]
    whole = multipart(fields, b"hello")
    assert code(post(form, None)) == "InvalidArgument"
    assert code(post(form, body=whole[:-20])) == "MalformedPOSTRequest"
    assert code(post(form, body=b"")) == "MalformedPOSTRequest"
    assert code(post(form, body=b"x" * 50_000)) == "MaxPostPreDataLengthExceeded"
    assert code(post(form, body=multipart({**fields, "x-ignore-me": "x" * 30_000}, b""))) == (
        "MaxPostPreDataLengthExceeded"
    )
    assert code(
        post(form, body=multipart({name: fields[name] for name in fields if name != "key"}, b""))
    ) == ("InvalidArgument")
    assert not store.has("bucket", "broken")
    nowhere = s3.generate_presigned_post("bucket", "k")
    assert code(post({**nowhere, "url": nowhere["url"].replace("bucket", "no-bucket")})) in (
        "AccessDenied",
        "NoSuchBucket",
    )
