"""Addresses that boto3 presigns, used without boto3: with its defaults (Version 2 in us-east-1) and with Version 4."""

from __future__ import annotations

import functools
import http.client
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import botocore.session
import pytest
from botocore.config import Config

from sagesmith.aws._sigv2 import SUB_RESOURCES
from sagesmith.services.s3 import handlers
from sagesmith.store.database import Database
from sagesmith.store.objects import ObjectStore
from tests.aws.conftest import KEY, TEMPORARY, Running
from tests.services.accounts import SESSION

SIGNED: list[tuple[str, Any]] = [("v2", KEY), ("v2", TEMPORARY), ("v4", KEY), ("v4", TEMPORARY)]


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


def client(url: str, key: Any, **config: Any) -> Any:
    return SESSION.client(
        "s3",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id=key.access_key_id,
        aws_secret_access_key=key.secret_access_key,
        aws_session_token=key.session_token,
        config=Config(retries={"max_attempts": 0}, proxies={}, **config),
    )


class Presigner:
    """Presigns with boto3, and sends with nothing but HTTP."""

    def __init__(self, running: Running, plain: Any, version: str, style: str, key: Any) -> None:
        options: dict[str, Any] = {"signature_version": "s3v4"} if version == "v4" else {}
        url = f"http://localhost:{running.port}"  # boto3 puts no bucket before a number
        self.client = running.client("s3", key, endpoint_url=url, s3={"addressing_style": style}, **options)
        self.plain = running.client("s3")
        self._port = running.port

    def url(self, operation: str, *, expires_s: int = 60, **parameters: Any) -> str:
        url: str = self.client.generate_presigned_url(
            operation, {"Bucket": "bucket", **parameters}, ExpiresIn=expires_s
        )
        return url

    def send(
        self, method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request(
                method, f"{parts.path}?{parts.query}", body, {"host": parts.netloc, **(headers or {})}
            )
            answer = connection.getresponse()
            return (
                answer.status,
                {name.lower(): value for name, value in answer.getheaders()},
                answer.read(),
            )
        finally:
            connection.close()


@pytest.fixture(scope="module")
def presigner(running: Running) -> Callable[..., Presigner]:
    """Makes each presigner once: a boto3 client for S3 takes half a second to make."""
    plain = client(running.url, KEY)

    @functools.cache
    def make(version: str = "v2", style: str = "path", key: Any = KEY) -> Presigner:
        return Presigner(running, plain, version, style, key)

    return make


@pytest.fixture(params=["path", "virtual"])
def style(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=SIGNED, ids=["v2", "v2-temporary", "v4", "v4-temporary"])
def signer(request: pytest.FixtureRequest, presigner: Callable[..., Presigner], style: str) -> Presigner:
    version, key = request.param
    return presigner(version, style, key)


def test_boto3s_default_is_version_2(presigner: Callable[..., Presigner]) -> None:
    url = presigner().url("get_object", Key="k")
    assert {"AWSAccessKeyId", "Signature", "Expires"} == dict(parse_qsl(urlsplit(url).query)).keys()


def test_objects_are_put_got_and_listed(signer: Presigner) -> None:
    key = "a b/ü+%2F?&=~'(x)"
    assert signer.send("PUT", signer.url("put_object", Key=key), b"hello")[0] == 200
    status, headers, body = signer.send("GET", signer.url("get_object", Key=key))
    assert (status, body, headers["content-type"]) == (200, b"hello", "binary/octet-stream")
    status, headers, body = signer.send("HEAD", signer.url("head_object", Key=key))
    assert (status, headers["content-length"], body) == (200, "5", b"")
    status, _, body = signer.send("GET", signer.url("list_objects_v2", Prefix="a b/ü"))
    assert status == 200
    assert b"<Key>a+b/%C3%BC%2B%252F" in body
    assert signer.send("DELETE", signer.url("delete_object", Key=key))[0] == 204
    assert signer.send("GET", signer.url("get_object", Key=key))[0] == 404


def test_a_content_type_that_is_signed_must_be_sent(signer: Presigner) -> None:
    url = signer.url("put_object", Key="typed", ContentType="text/csv")
    assert signer.send("PUT", url, b"1,2", {"content-type": "text/csv"})[0] == 200
    assert signer.send("GET", signer.url("get_object", Key="typed"))[1]["content-type"] == "text/csv"
    for wrong in ({"content-type": "text/html"}, {}):
        status, _, body = signer.send("PUT", url, b"1,2", wrong)
        assert status == 403
        assert b"<Code>SignatureDoesNotMatch</Code>" in body


def test_answers_may_be_given_other_headers(signer: Presigner) -> None:
    signer.send("PUT", signer.url("put_object", Key="k"), b"x")
    disposition = 'attachment; filename="a b+c.csv"'
    url = signer.url(
        "get_object", Key="k", ResponseContentDisposition=disposition, ResponseContentType="text/x y"
    )
    headers = signer.send("GET", url)[1]
    assert (headers["content-disposition"], headers["content-type"]) == (disposition, "text/x y")
    assert signer.send("GET", url.replace("attachment", "inline"))[0] == 403


def test_parts_are_uploaded(signer: Presigner) -> None:
    upload = signer.plain.create_multipart_upload(Bucket="bucket", Key="parts")["UploadId"]
    url = signer.url("upload_part", Key="parts", UploadId=upload, PartNumber=1)
    status, headers, _ = signer.send("PUT", url, b"part")
    assert status == 200
    assert signer.send("PUT", url.replace("partNumber=1", "partNumber=2"), b"part")[0] == 403
    parts = [{"PartNumber": 1, "ETag": headers["etag"]}]
    signer.plain.complete_multipart_upload(
        Bucket="bucket", Key="parts", UploadId=upload, MultipartUpload={"Parts": parts}
    )
    assert signer.send("GET", signer.url("get_object", Key="parts"))[2] == b"part"


def test_headers_may_travel_in_the_query(presigner: Callable[..., Presigner], style: str) -> None:
    signer = presigner(style=style)
    url = signer.url("put_object", Key="meta", Metadata={"One": "a b"}, Tagging="k=v", ACL="private")
    assert signer.send("PUT", url, b"x")[0] == 200
    kept = signer.plain.head_object(Bucket="bucket", Key="meta")
    assert kept["Metadata"] == {"one": "a b"}
    assert signer.plain.get_object_tagging(Bucket="bucket", Key="meta")["TagSet"] == [
        {"Key": "k", "Value": "v"}
    ]
    url = signer.url("copy_object", Key="copy", CopySource={"Bucket": "bucket", "Key": "meta"})
    assert signer.send("PUT", url)[0] == 200
    assert signer.send("GET", signer.url("get_object", Key="copy"))[2] == b"x"


def code(answer: tuple[int, Mapping[str, str], bytes]) -> str:
    status, _, body = answer
    assert 400 <= status < 500, answer
    return body.decode().partition("<Code>")[2].partition("</Code>")[0]


def test_what_is_refused(presigner: Callable[..., Presigner], style: str) -> None:
    signer = presigner(style=style)
    signer.send("PUT", signer.url("put_object", Key="k"), b"x")
    good = signer.url("get_object", Key="k")
    mismatch, denied = "SignatureDoesNotMatch", "AccessDenied"

    def answer(url: str, method: str = "GET", **headers: str) -> str:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return code(signer.send(method, url, None, sent))

    assert signer.send("GET", good)[0] == 200
    assert signer.send("GET", good + "&prefix=not-signed")[0] == 200
    expired = signer.send("GET", signer.url("get_object", Key="k", expires_s=-1))
    assert (code(expired), b"Request has expired" in expired[2]) == (denied, True)
    assert answer(good, "DELETE") == mismatch
    assert answer(signer.url("get_object", Key="k/").replace("/k/?", "/k?")) == mismatch
    assert answer(good.replace("/k?", "/other?")) == mismatch
    assert answer(good.replace("Signature=", "Signature=x")) == mismatch
    assert answer(good.replace("Expires=", "Expires=9")) == mismatch
    assert answer(good + "&versionId=null") == mismatch
    assert answer(good, x_amz_meta_new="1") == mismatch
    assert answer(good.replace(KEY.access_key_id, "AKIDNOBODY")) == "InvalidAccessKeyId"
    assert answer(good.partition("&Signature=")[0]) == denied
    assert answer(good.partition("Expires=")[0] + "Expires=soon") == denied


def test_no_address_can_be_turned_into_one_for_another_operation(presigner: Callable[..., Presigner]) -> None:
    signer = presigner()
    listing = signer.url("list_objects_v2")
    assert signer.send("GET", listing)[0] == 200
    model = botocore.session.get_session().get_service_model("s3")
    chosen = {
        name
        for operation in model.operation_names
        for name, _ in parse_qsl(
            model.operation_model(operation).http["requestUri"].partition("?")[2], keep_blank_values=True
        )
    }
    assert len(chosen) > 30
    assert {name.encode() for name in chosen} - SUB_RESOURCES <= {b"list-type", b"x-id"}
    for name in ("encryption", "policyStatus", "publicAccessBlock"):
        assert code(signer.send("GET", f"{listing}&{name}")) == "SignatureDoesNotMatch"


def test_temporary_keys_need_their_token(presigner: Callable[..., Presigner]) -> None:
    signer = presigner(key=TEMPORARY)
    url = signer.url("list_objects_v2")
    assert signer.send("GET", url)[0] == 200
    start, _, rest = url.partition("&x-amz-security-token=")
    assert code(signer.send("GET", f"{start}&{rest.partition('&')[2]}")) == "InvalidToken"
    assert code(signer.send("GET", url.replace("x-amz-security-token=", "x-amz-security-token=x"))) == (
        "InvalidToken"
    )
