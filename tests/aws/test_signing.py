"""Our signer against AWS's published examples and botocore's own signer."""

from __future__ import annotations

import calendar
import datetime
import random
from unittest import mock

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials

from sagesmith.signing import EMPTY_SHA256, UNSIGNED_PAYLOAD, Credentials, presign, sign

SUITE = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
SUITE_TIME = calendar.timegm((2015, 8, 30, 12, 36, 0))
FORM = "application/x-www-form-urlencoded"
FORM_SHA256 = "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e"

# From AWS's public "Signature Version 4 test suite": (name, method, target, headers, body's hash, signature).
# The suite asks for normalized paths, as every service but S3 does, and does not send X-Amz-Content-SHA256.
VECTORS = [
    (
        "get-vanilla",
        "GET",
        "/",
        {},
        EMPTY_SHA256,
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    (
        "get-vanilla-empty-query-key",
        "GET",
        "/?Param1=value1",
        {},
        EMPTY_SHA256,
        "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
    ),
    (
        "get-vanilla-query-order-key-case",
        "GET",
        "/?Param2=value2&Param1=value1",
        {},
        EMPTY_SHA256,
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    (
        "get-unreserved",
        "GET",
        "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
        {},
        EMPTY_SHA256,
        "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
    ),
    (
        "post-vanilla",
        "POST",
        "/",
        {},
        EMPTY_SHA256,
        "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
    ),
    (
        "post-header-key-sort",
        "POST",
        "/",
        {"My-Header1": "value1"},
        EMPTY_SHA256,
        "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
    ),
    (
        "post-x-www-form-urlencoded",
        "POST",
        "/",
        {"Content-Type": FORM},
        FORM_SHA256,
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    ),
    (
        "normalize-path/get-slash-dot-slash",
        "GET",
        "/./",
        {},
        EMPTY_SHA256,
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    (
        "normalize-path/get-relative-relative",
        "GET",
        "/example1/example2/../..",
        {},
        EMPTY_SHA256,
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    (
        "normalize-path/get-slashes",
        "GET",
        "//example//",
        {},
        EMPTY_SHA256,
        "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84",
    ),
]


def signature_of(headers: dict[str, str]) -> str:
    return headers["Authorization"].rpartition("=")[2]


@pytest.mark.parametrize(
    ("name", "method", "target", "headers", "digest", "expected"), VECTORS, ids=lambda v: str(v)[:30]
)
def test_the_published_suite(
    name: str, method: str, target: str, headers: dict[str, str], digest: str, expected: str
) -> None:
    signed = sign(
        method,
        f"https://example.amazonaws.com{target}",
        headers,
        digest,
        SUITE,
        "us-east-1",
        "service",
        SUITE_TIME,
    )
    assert signature_of(signed) == expected


S3_KEY = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
S3_TIME = calendar.timegm((2013, 5, 24, 0, 0, 0))
S3_URL = "https://examplebucket.s3.amazonaws.com"

# The examples of "Authenticating Requests: Using the Authorization Header", Amazon S3 API Reference.
S3_EXAMPLES = [
    (
        "GET",
        "/test.txt",
        {"Range": "bytes=0-9"},
        EMPTY_SHA256,
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    (
        "PUT",
        "/test%24file.text",
        {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
        "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    ),
    (
        "GET",
        "/?lifecycle",
        {},
        EMPTY_SHA256,
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    ),
    (
        "GET",
        "/?max-keys=2&prefix=J",
        {},
        EMPTY_SHA256,
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ),
]


@pytest.mark.parametrize(("method", "target", "headers", "digest", "expected"), S3_EXAMPLES)
def test_the_examples_of_s3(
    method: str, target: str, headers: dict[str, str], digest: str, expected: str
) -> None:
    signed = sign(method, S3_URL + target, headers, digest, S3_KEY, "us-east-1", "s3", S3_TIME)
    assert signature_of(signed) == expected


def test_the_presigned_example_of_s3() -> None:
    url = presign("GET", f"{S3_URL}/test.txt", S3_KEY, "us-east-1", "s3", S3_TIME, 86400)
    assert url.endswith("&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404")


def a_request(rng: random.Random) -> tuple[str, str, dict[str, str], bytes]:
    alphabet = "abcXYZ019-_.~ /$&+,:;=?@!*'()[]%é"
    from urllib.parse import quote

    path = "/" + quote("".join(rng.choices(alphabet, k=rng.randrange(12))), safe="/-_.~")
    pairs = [
        (
            quote("".join(rng.choices("abc-_.~ +=&", k=3)), safe="-_.~"),
            quote("".join(rng.choices(alphabet, k=4)), safe="-_.~"),
        )
        for _ in range(rng.randrange(4))
    ]
    query = "&".join(f"{name}={value}" for name, value in pairs)
    headers = {f"x-h{n}": " ".join(rng.choices(["a", "b", "", "c d"], k=4)) for n in range(rng.randrange(3))}
    body = rng.randbytes(rng.randrange(20))
    return (
        rng.choice(["GET", "PUT", "POST"]),
        f"https://host:8777{path}" + (f"?{query}" if query else ""),
        headers,
        body,
    )


@pytest.mark.parametrize("service", ["s3", "sagemaker"])
@pytest.mark.parametrize("token", [None, "a-token/+="])
def test_we_sign_as_botocore_does(service: str, token: str | None) -> None:
    import hashlib

    rng = random.Random(7)
    signer = S3SigV4Auth if service == "s3" else SigV4Auth
    for _ in range(200):
        method, url, headers, body = a_request(rng)
        request = AWSRequest(method, url, headers=dict(headers), data=body)
        moment = datetime.datetime(2024, 2, 29, 23, 59, 58)
        with mock.patch("botocore.auth.get_current_datetime", return_value=moment, create=True):
            signer(BotocoreCredentials("AK", "secret", token), service, "eu-west-1").add_auth(request)
        ours = sign(
            method,
            url,
            headers,
            hashlib.sha256(body).hexdigest(),
            Credentials("AK", "secret", token),
            "eu-west-1",
            service,
            moment.replace(tzinfo=datetime.UTC).timestamp(),
        )
        assert ours["Authorization"] == request.headers["Authorization"], (method, url, headers)


def test_an_unsigned_body_is_said_to_be_unsigned() -> None:
    signed = sign("PUT", "https://h/b/k", {}, UNSIGNED_PAYLOAD, SUITE, "us-east-1", "s3", 0)
    assert signed["X-Amz-Content-SHA256"] == "UNSIGNED-PAYLOAD"
