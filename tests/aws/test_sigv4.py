"""Verification against botocore's signer and AWS's published examples; and what must be refused."""

from __future__ import annotations

import calendar
import datetime
import hashlib
import hmac
import random
from collections.abc import Iterator, Mapping
from unittest import mock
from urllib.parse import quote, urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials

from sagesmith.aws import Caller, Key
from sagesmith.aws._bodies import BodyPipe, ChunkDecoder, StreamedBody
from sagesmith.aws._claims import SigningKey
from sagesmith.aws._sigv4 import ChunkSigner, Signed, Verifier, scope_of
from sagesmith.errors import AwsError
from sagesmith.signing import Credentials, sign

NOW = float(calendar.timegm((2024, 2, 29, 12, 0, 0)))
CALLER = Caller("123456789012", "arn:aws:iam::123456789012:user/u", "AIDA", "AK")
LONG = Key("AK", "secret/with+chars=", CALLER)
SHORT = Key("ASIA", "short", CALLER, session_token="tok/en+=", expires=NOW + 100)
KEYS = {key.access_key_id: key for key in (LONG, SHORT)}


def verifier(now: float = NOW) -> Verifier:
    return Verifier(KEYS.get, lambda: now, 900)


def wire(headers: Mapping[str, str]) -> dict[bytes, bytes]:
    return {name.lower().encode(): value.encode() for name, value in headers.items()}


def sha256(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


def signed_request(
    service: str = "sagemaker",
    body: bytes = b"{}",
    key: Key = LONG,
    now: float = NOW,
    path: str = "/a/b?x=1",
    digest: str | None = None,
) -> tuple[bytes, bytes, dict[bytes, bytes], bytes]:
    headers = sign(
        "POST",
        f"https://host:8777{path}",
        {"Content-Type": "text/csv", "X-Amz-Meta-A": "v  w "},
        digest or hashlib.sha256(body).hexdigest(),
        Credentials(key.access_key_id, key.secret_access_key, key.session_token),
        "us-east-1",
        service,
        now,
    )
    return b"POST", path.encode(), wire(headers), sha256(body)


def generated_requests() -> Iterator[tuple[str, str, dict[str, str], bytes]]:
    rng = random.Random(11)
    alphabet = "abcXYZ019-_.~ /$&+,:;=?@!*'()[]%é"
    for _ in range(150):
        path = "/" + quote("".join(rng.choices(alphabet, k=rng.randrange(12))), safe="/-_.~")
        names = ["".join(rng.choices("ab-_.~ +=&", k=2)) for _ in range(rng.randrange(4))]
        query = "&".join(
            f"{quote(name, safe='-_.~')}={quote(''.join(rng.choices(alphabet, k=3)), safe='-_.~')}"
            for name in names
        )
        headers = {
            f"x-h{n}": " ".join(rng.choices(["a", "b", "", "c d"], k=4)) for n in range(rng.randrange(3))
        }
        yield (
            rng.choice(["GET", "PUT", "POST"]),
            path + (f"?{query}" if query else ""),
            headers,
            rng.randbytes(9),
        )


@pytest.mark.parametrize("service", ["s3", "sagemaker"])
@pytest.mark.parametrize("key", [LONG, SHORT], ids=["long", "temporary"])
def test_what_botocore_signs_is_accepted_and_nothing_else(service: str, key: Key) -> None:
    credentials = BotocoreCredentials(key.access_key_id, key.secret_access_key, key.session_token)
    signer = (S3SigV4Auth if service == "s3" else SigV4Auth)(credentials, service, "eu-west-1")
    check = verifier()
    moment = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    for method, target, headers, body in generated_requests():
        request = AWSRequest(method, f"https://host:8777{target}", headers=dict(headers), data=body)
        with mock.patch("botocore.auth.get_current_datetime", return_value=moment):
            signer.add_auth(request)
        given = wire({"host": "host:8777", **dict(request.headers.items())})
        signed = check.verify(method.encode(), target.encode(), given, sha256(body))
        assert (signed.key, signed.region, signed.service) == (key, "eu-west-1", service)
        assert scope_of(given, target.encode()) == service
        for changed in (
            (b"DELETE", target.encode(), given, sha256(body)),
            (method.encode(), target.encode() + b"x", given, sha256(body)),
            (method.encode(), target.encode(), {**given, b"host": b"other"}, sha256(body)),
            (method.encode(), target.encode(), given, sha256(body + b"x")),
        ):
            with pytest.raises(AwsError):
                check.verify(*changed)


@pytest.mark.parametrize("service", ["s3", "sts"])
@pytest.mark.parametrize("key", [LONG, SHORT], ids=["long", "temporary"])
def test_addresses_presigned_by_botocore(service: str, key: Key) -> None:
    credentials = BotocoreCredentials(key.access_key_id, key.secret_access_key, key.session_token)
    signer = (S3SigV4QueryAuth if service == "s3" else SigV4QueryAuth)(
        credentials, service, "eu-west-1", expires=60
    )
    moment = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    for _, target, _, _ in generated_requests():
        request = AWSRequest("GET", f"https://host:8777{target}")
        with mock.patch("botocore.auth.get_current_datetime", return_value=moment):
            signer.add_auth(request)
        parts = urlsplit(str(request.url))
        path = f"{parts.path!s}?{parts.query!s}".encode()
        given = {b"host": b"host:8777"}
        assert verifier(NOW + 59).verify(b"GET", path, given, sha256(b"")).key is key
        assert scope_of(given, path) == service
        with pytest.raises(AwsError, match="expired"):
            verifier(NOW + 61).verify(b"GET", path, given, sha256(b""))
        with pytest.raises(AwsError, match="does not match"):
            verifier(NOW).verify(
                b"GET", path.replace(b"X-Amz-Expires=60", b"X-Amz-Expires=99"), given, sha256(b"")
            )


def refused(
    method: bytes, target: bytes, headers: dict[bytes, bytes], digest: bytes, now: float = NOW
) -> AwsError:
    with pytest.raises(AwsError) as caught:
        verifier(now).verify(method, target, headers, digest)
    return caught.value


def test_refusals_of_most_services() -> None:
    method, target, headers, digest = signed_request()
    assert refused(method, target, {}, digest).code == "MissingAuthenticationTokenException"
    late = refused(method, target, headers, digest, NOW + 901)
    assert (late.code, late.status) == ("InvalidSignatureException", 403)
    assert late.message.startswith("Signature expired: 20240229T120000Z is now earlier than 20240229T120001Z")
    assert refused(method, target, headers, digest, NOW - 901).message.startswith("Signature not yet current")
    assert refused(method, target, headers, sha256(b"other")).code == "InvalidSignatureException"
    unknown = {**headers, b"authorization": headers[b"authorization"].replace(b"=AK/", b"=AX/")}
    assert refused(method, target, unknown, digest).code == "UnrecognizedClientException"
    missing = {name: value for name, value in headers.items() if name != b"x-amz-meta-a"}
    assert "'x-amz-meta-a' is not in the request" in refused(method, target, missing, digest).message
    for broken in (
        b"Basic abc",
        b"AWS4-HMAC-SHA256 Credential=AK/x",
        b"AWS4-HMAC-SHA256 ",
        b"AWS4-HMAC-SHA256",
        b"x" * 99,
    ):
        error = refused(method, target, {**headers, b"authorization": broken}, digest)
        assert error.code == "IncompleteSignatureException", broken
    for date in (
        b"",
        b"2024",
        b"20240229T126060Z",
        b"20249929T120000Z",
        b"yesterday",
        b"2024\xff229T120000Z",
    ):
        assert refused(method, target, {**headers, b"x-amz-date": date}, digest).code in (
            "IncompleteSignatureException",
            "InvalidSignatureException",
        )


def test_refusals_of_s3() -> None:
    method, target, headers, digest = signed_request("s3")
    assert refused(method, target, headers, digest, NOW + 901).code == "RequestTimeTooSkewed"
    assert refused(method, target, headers, sha256(b"other")).code == "XAmzContentSHA256Mismatch"
    assert refused(method, target + b"&y=1", headers, digest).code == "SignatureDoesNotMatch"
    unknown = {**headers, b"authorization": headers[b"authorization"].replace(b"=AK/", b"=AX/")}
    assert refused(method, target, unknown, digest).code == "InvalidAccessKeyId"


def test_temporary_keys_need_their_token_and_end() -> None:
    method, target, headers, digest = signed_request(key=SHORT)
    assert verifier().verify(method, target, headers, digest).key is SHORT
    assert refused(method, target, headers, digest, NOW + 100).code == "ExpiredTokenException"
    for token in (b"", b"other"):
        assert refused(method, target, {**headers, b"x-amz-security-token": token}, digest).code == (
            "UnrecognizedClientException"
        )
    del headers[b"x-amz-security-token"]
    assert refused(method, target, headers, digest).code == "UnrecognizedClientException"
    method, target, headers, digest = signed_request("s3", key=SHORT)
    assert refused(method, target, headers, digest, NOW + 100).code == "ExpiredToken"


def test_the_parts_of_authorization_may_come_in_any_order_and_spacing() -> None:
    method, target, headers, digest = signed_request()
    credential, names, mark = headers[b"authorization"].removeprefix(b"AWS4-HMAC-SHA256 ").split(b", ")
    for form in (
        b"AWS4-HMAC-SHA256 " + b",".join((credential, names, mark)),
        b"AWS4-HMAC-SHA256 " + b", ".join((mark, names, credential)),
        b"AWS4-HMAC-SHA256  " + b" ,  ".join((names, credential, mark)),
    ):
        assert verifier().verify(method, target, {**headers, b"authorization": form}, digest).key is LONG


def test_odd_names_of_signed_headers() -> None:
    headers = {"x-%d-%b%": "50 % b", "x-%": "%"}
    signed = sign(
        "GET", "https://host/", headers, sha256(b"").decode(), LONG, "us-east-1", "s3", NOW
    )  # fmt: skip
    assert verifier().verify(b"GET", b"/", wire(signed), sha256(b"")).key is LONG


def test_prepared_keys_sign_as_hmac_does() -> None:
    for text in (b"", b"x" * 64, b"AWS4-HMAC-SHA256\n"):
        assert SigningKey(b"k" * 32).sign(text).decode() == hmac.new(b"k" * 32, text, "sha256").hexdigest()


def test_the_encoding_of_a_path_may_differ_from_the_signed_one_for_s3() -> None:
    headers = sign(
        "GET",
        "https://h/b/a%20b%2B",
        {},
        "UNSIGNED-PAYLOAD",
        Credentials("AK", LONG.secret_access_key),
        "r",
        "s3",
        NOW,
    )
    verifier().verify(b"GET", b"/b/a%20b+", wire(headers), None)


# "Example Calculations" of "Transferring Payload in Multiple Chunks" and of "Including trailing headers",
# Amazon S3 API Reference.
EXAMPLE_KEY = Key("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", CALLER)
EXAMPLE_TIME = float(calendar.timegm((2013, 5, 24, 0, 0, 0)))
PLAIN = (
    "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class",
    "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
    {"Content-Length": "66824", "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"},
    [
        "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
    ],
    b"",
)
TRAILER = (
    "content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class;x-amz-trailer",
    "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
    {
        "x-amz-trailer": "x-amz-checksum-crc32c",
        "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
    },
    [
        "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
        "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
        "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
    ],
    b"x-amz-checksum-crc32c:sOO8/Q==\r\n"
    b"x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n",
)


def chunked_example(
    example: tuple[str, str, dict[str, str], list[str], bytes],
) -> tuple[Signed, dict[bytes, bytes], bytes]:
    names, mark, headers, marks, trailer = example
    given = wire(
        {
            "Host": "s3.amazonaws.com",
            "x-amz-date": "20130524T000000Z",
            "x-amz-storage-class": "REDUCED_REDUNDANCY",
            "Content-Encoding": "aws-chunked",
            "x-amz-decoded-content-length": "66560",
            "Authorization": "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
            f"SignedHeaders={names},Signature={mark}",
            **headers,
        }
    )
    check = Verifier(lambda _name: EXAMPLE_KEY, lambda: EXAMPLE_TIME, 900)
    signed = check.verify(b"PUT", b"/examplebucket/chunkObject.txt", given, None)
    sizes = [65536, 1024, 0]
    body = b"".join(
        f"{size:x};chunk-signature={one}\r\n".encode() + b"a" * size + (b"\r\n" if size else b"")
        for size, one in zip(sizes, marks, strict=True)
    )
    return signed, given, body + trailer + b"\r\n"


@pytest.mark.parametrize("example", [PLAIN, TRAILER], ids=["chunks", "trailer"])
@pytest.mark.parametrize("step", [1 << 20, 1000, 7])
def test_the_chunked_examples_of_s3(
    example: tuple[str, str, dict[str, str], list[str], bytes], step: int
) -> None:
    signed, _, body = chunked_example(example)
    decoder = ChunkDecoder(ChunkSigner(signed))
    out = b"".join(piece for at in range(0, len(body), step) for piece in decoder.feed(body[at : at + step]))
    decoder.end()
    assert out == b"a" * 66560
    assert decoder.trailers == ({"x-amz-checksum-crc32c": "sOO8/Q=="} if example is TRAILER else {})


def decode(decoder: ChunkDecoder, body: bytes) -> None:
    decoder.feed(body)
    decoder.end()


@pytest.mark.parametrize("example", [PLAIN, TRAILER], ids=["chunks", "trailer"])
@pytest.mark.parametrize("place", [100, 65700, -60, -5])
def test_a_changed_chunk_is_refused(
    example: tuple[str, str, dict[str, str], list[str], bytes], place: int
) -> None:
    signed, _, body = chunked_example(example)
    if example is PLAIN and place == -5:
        body = body[:place]  # cut short instead: nothing is signed there
    else:
        changed = bytearray(body)
        changed[place] ^= 1
        body = bytes(changed)
    with pytest.raises(AwsError):
        decode(ChunkDecoder(ChunkSigner(signed)), body)


def streamed(body: bytes, headers: dict[bytes, bytes], payload: bytes, size: int | None) -> StreamedBody:
    signed = Signed(LONG, "r", "s3", b"scope", b"date", b"key", payload, b"mark")
    pipe = BodyPipe(lambda: None, lambda: None)
    for at in range(0, len(body), 1000):
        pipe.feed(body[at : at + 1000])
    pipe.end()
    return StreamedBody(pipe, headers, signed, size)


def test_an_unsigned_trailer() -> None:
    body = b"5\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n"
    headers = {b"x-amz-decoded-content-length": b"11"}
    reader = streamed(body, headers, b"STREAMING-UNSIGNED-PAYLOAD-TRAILER", len(body))
    assert reader.size == 11
    assert (reader.read(3), reader.read(), reader.read(5)) == (b"hel", b"lo world", b"")
    assert reader.trailers == {"x-amz-checksum-crc32": "DUoRhQ=="}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"5\r\nhello\r\n",
        b"5\r\nhelloo\r\n0\r\n\r\n",
        b"zz\r\n",
        b"-1\r\n",
        b"5\r\nhello\r\n0\r\nnocolon\r\n\r\n",
        b"f" * 20000,
    ],
)
def test_broken_framing(body: bytes) -> None:
    reader = streamed(body, {}, b"STREAMING-UNSIGNED-PAYLOAD-TRAILER", None)
    with pytest.raises(AwsError):
        reader.read()


def test_what_is_checked_at_the_end_of_a_body() -> None:
    assert streamed(b"abc", {}, b"UNSIGNED-PAYLOAD", 3).read() == b"abc"
    assert streamed(b"abc", {}, sha256(b"abc"), 3).read() == b"abc"
    with pytest.raises(AwsError, match="x-amz-content-sha256"):
        streamed(b"abc", {}, sha256(b"abd"), 3).read()
    with pytest.raises(AwsError, match="3 bytes, but 4"):
        streamed(b"abc", {}, b"UNSIGNED-PAYLOAD", 4).read()
    with pytest.raises(AwsError, match="Content-MD5"):
        streamed(b"abc", {b"content-md5": b"AAAA"}, b"UNSIGNED-PAYLOAD", 3).read()
    assert (
        streamed(b"abc", {b"content-md5": b"kAFQmDzST7DWlj99KOF/cg=="}, b"UNSIGNED-PAYLOAD", 3).read()
        == b"abc"
    )
