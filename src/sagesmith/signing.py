"""Signature Version 4 as pure functions: what our own small clients sign with, and `aws/` verifies with.

A signature is an HMAC over a *string to sign*, which holds the hash of the *canonical request*: method, path,
query, the signed headers and the hash of the body, each written in one agreed way. Everything here works on
bytes, because that is what lies on the wire. S3 takes the path as it was sent; every other service
normalizes it and encodes it a second time.

Source: "Create a signed AWS API request", IAM User Guide; for S3 "Authenticating Requests (AWS Signature Version 4)",
Amazon S3 API Reference.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time as _time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit

__all__ = [
    "ALGORITHM",
    "EMPTY_SHA256",
    "UNSIGNED_PAYLOAD",
    "Credentials",
    "CredentialsLike",
    "amz_date",
    "canonical_path",
    "canonical_query",
    "canonical_request",
    "canonical_value",
    "presign",
    "sign",
    "signature",
    "signing_key",
    "string_to_sign",
]

ALGORITHM: Final = "AWS4-HMAC-SHA256"
UNSIGNED_PAYLOAD: Final = "UNSIGNED-PAYLOAD"
EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()

# Proxies and HTTP clients add or change these after signing (the list is botocore's).
_NEVER_SIGNED: Final = frozenset(
    {"expect", "transfer-encoding", "user-agent", "x-amzn-trace-id", "connection"}
)
_PLAIN_PATH: Final = re.compile(rb"[A-Za-z0-9/_~-]*(?:\.(?!\.|/|$)[A-Za-z0-9/_~-]*)*")
_PLAIN_QUERY: Final = re.compile(rb"[A-Za-z0-9_.~%=&-]*")


class CredentialsLike(Protocol):
    """Whatever has an access key and perhaps a session token."""

    @property
    def access_key_id(self) -> str:
        """The key's public name."""
        ...

    @property
    def secret_access_key(self) -> str:
        """The secret that signs."""
        ...

    @property
    def session_token(self) -> str | None:
        """The token of temporary keys, else None."""
        ...


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key to sign with; temporary keys come with a session token."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None


def amz_date(time: float) -> str:
    """Return *time* (seconds since 1970) as ``20130524T000000Z``."""
    return _time.strftime("%Y%m%dT%H%M%SZ", _time.gmtime(time))


def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """Return the key that signs for one day (*date* is ``YYYYMMDD``), region and service."""
    key = ("AWS4" + secret).encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def canonical_path(path: bytes, *, s3: bool) -> bytes:
    """Return *path*, as sent (percent-encoded, without query), in canonical form."""
    if s3:
        return path or b"/"
    if b"//" not in path and _PLAIN_PATH.fullmatch(path):
        return path or b"/"
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            if parts:
                parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    normal = b"/" + b"/".join(parts) + (b"/" if parts and path.endswith((b"/", b"/.", b"/..")) else b"")
    return quote_from_bytes(normal, safe="/-_.~").encode()


def canonical_query(query: bytes) -> bytes:
    """Return *query*, as sent, in canonical form: encoded in the one agreed way, sorted by name, then value."""
    if not query:
        return b""
    pairs = [part.partition(b"=")[::2] for part in query.split(b"&") if part]
    if _PLAIN_QUERY.fullmatch(query) is None:
        pairs = [(_encode(name), _encode(value)) for name, value in pairs]
    pairs.sort()
    return b"&".join([name + b"=" + value for name, value in pairs])


def _encode(text: bytes) -> bytes:
    return quote_from_bytes(unquote_to_bytes(text), safe="-_.~").encode()


def canonical_value(value: bytes) -> bytes:
    """Return a header's *value* without outer spaces and with single inner ones."""
    value = value.strip()
    return b" ".join(value.split()) if b"  " in value else value


def canonical_request(
    method: bytes,
    path: bytes,
    query: bytes,
    headers: Iterable[tuple[bytes, bytes]],
    signed: bytes,
    payload_hash: bytes,
) -> bytes:
    """Join the canonical parts of a request.

    Args:
        method: ``GET``, ``POST``, ...
        path: from :func:`canonical_path`.
        query: from :func:`canonical_query`.
        headers: the signed headers in the order of *signed*: lower-case names, canonical values.
        signed: their names joined by semicolons.
        payload_hash: hexadecimal SHA-256 of the body, or the word that stands for it.
    """
    lines = b"".join([name + b":" + value + b"\n" for name, value in headers])
    return b"\n".join((method, path, query, lines, signed, payload_hash))


def string_to_sign(date: bytes, scope: bytes, request: bytes) -> bytes:
    """Return what is signed: *date* (``20130524T000000Z``), *scope* and the hash of the canonical *request*."""
    digest = hashlib.sha256(request).hexdigest().encode()
    return b"AWS4-HMAC-SHA256\n" + date + b"\n" + scope + b"\n" + digest


def signature(key: bytes, text: bytes) -> str:
    """Return the hexadecimal signature of *text* under the signing *key*."""
    return hmac.digest(key, text, "sha256").hex()


def sign(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body_sha256: str,
    credentials: CredentialsLike,
    region: str,
    service: str,
    time: float,
) -> dict[str, str]:
    """Return *headers* with Host, X-Amz-Date and Authorization added, so that the request is signed.

    Args:
        method: ``GET``, ``POST``, ...
        url: the absolute address, its path and query percent-encoded as they will be sent.
        headers: what will be sent; all of it is signed but what proxies change (User-Agent, Expect, ...).
        body_sha256: hexadecimal SHA-256 of the body, :data:`EMPTY_SHA256` or :data:`UNSIGNED_PAYLOAD`.
        credentials: the key; a session token is sent along.
        region: such as ``us-east-1``.
        service: the service's signing name, such as ``sagemaker`` or ``s3``.
        time: now, in seconds since 1970.
    """
    parts = urlsplit(url)
    result = {
        name: value for name, value in headers.items() if name.lower() not in ("authorization", "x-amz-date")
    }
    known = {name.lower() for name in result}
    if "host" not in known:
        result["Host"] = _host(parts.scheme, parts.netloc)
    date = amz_date(time)
    result["X-Amz-Date"] = date
    if (service == "s3" or body_sha256 == UNSIGNED_PAYLOAD) and "x-amz-content-sha256" not in known:
        result["X-Amz-Content-SHA256"] = body_sha256
    if credentials.session_token and "x-amz-security-token" not in known:
        result["X-Amz-Security-Token"] = credentials.session_token
    signed = sorted(
        (name.lower(), value) for name, value in result.items() if name.lower() not in _NEVER_SIGNED
    )
    names = ";".join(name for name, _ in signed)
    scope = f"{date[:8]}/{region}/{service}/aws4_request"
    mark = _signature(
        method, parts.path, parts.query, signed, names, body_sha256, credentials, region, service, date, scope
    )
    result["Authorization"] = (
        f"{ALGORITHM} Credential={credentials.access_key_id}/{scope}, SignedHeaders={names}, Signature={mark}"
    )
    return result


def presign(
    method: str,
    url: str,
    credentials: CredentialsLike,
    region: str,
    service: str,
    time: float,
    expires_s: int,
    headers: Mapping[str, str] | None = None,
) -> str:
    """Return *url* with a signature in its query that is good for *expires_s* seconds from *time* on.

    The *headers*, if any, are signed too: whoever uses the address must send them.
    """
    parts = urlsplit(url)
    date = amz_date(time)
    scope = f"{date[:8]}/{region}/{service}/aws4_request"
    given = {name.lower(): value for name, value in (headers or {}).items()}
    given.setdefault("host", _host(parts.scheme, parts.netloc))
    signed = sorted(given.items())
    names = ";".join(name for name, _ in signed)
    added = [
        ("X-Amz-Algorithm", ALGORITHM),
        ("X-Amz-Credential", f"{credentials.access_key_id}/{scope}"),
        ("X-Amz-Date", date),
        ("X-Amz-Expires", str(expires_s)),
        ("X-Amz-SignedHeaders", names),
    ]
    if credentials.session_token:
        added.append(("X-Amz-Security-Token", credentials.session_token))
    query = "&".join(f"{name}={_encode(value.encode()).decode()}" for name, value in added)
    query = f"{parts.query}&{query}" if parts.query else query
    payload = UNSIGNED_PAYLOAD if service == "s3" else EMPTY_SHA256
    mark = _signature(
        method, parts.path, query, signed, names, payload, credentials, region, service, date, scope
    )
    return parts._replace(query=f"{query}&X-Amz-Signature={mark}").geturl()


def _signature(
    method: str,
    path: str,
    query: str,
    signed: Sequence[tuple[str, str]],
    names: str,
    payload_hash: str,
    credentials: CredentialsLike,
    region: str,
    service: str,
    date: str,
    scope: str,
) -> str:
    request = canonical_request(
        method.encode(),
        canonical_path(path.encode(), s3=service == "s3"),
        canonical_query(query.encode()),
        [(name.encode(), canonical_value(value.encode())) for name, value in signed],
        names.encode(),
        payload_hash.encode(),
    )
    key = signing_key(credentials.secret_access_key, date[:8], region, service)
    return signature(key, string_to_sign(date.encode(), scope.encode(), request))


def _host(scheme: str, netloc: str) -> str:
    default = {"http": ":80", "https": ":443"}.get(scheme, "")
    return netloc.removesuffix(default) if default else netloc
