"""Verifies Signature Version 4: in the Authorization header, in a presigned address, in chunks of a body.

Addresses that are presigned with Version 2 are told apart here, and read in `_sigv2`.

What comes in is a request's raw parts; what comes out is who signed it, or an `AwsError` in the words of the
service that was addressed. The hot path is one dictionary look-up for everything in Authorization but the
signature itself, one for the signing key, two SHA-256 and one HMAC: 7 us for a body of 1 KB.
"""

from __future__ import annotations

import calendar
import hashlib
import time
from binascii import hexlify
from collections.abc import Mapping
from hashlib import sha256 as sha256_of
from hmac import compare_digest
from typing import Final
from urllib.parse import parse_qsl, quote_from_bytes, unquote_to_bytes

from sagesmith.aws._claims import ALGORITHM, Claim, SigningKey, claim_of, parse_authorization, reordered
from sagesmith.aws._sigv2 import PresignedV2, is_presigned_v2
from sagesmith.aws.call import Key, KeyFinder
from sagesmith.clock import Clock
from sagesmith.errors import AwsError
from sagesmith.signing import (
    canonical_path,
    canonical_query,
    canonical_value,
    signature,
    signing_key,
    string_to_sign,
)

__all__ = ["STREAMING_PREFIX", "ChunkSigner", "Signed", "Verifier", "scope_of"]

STREAMING_PREFIX: Final = b"STREAMING-"
_UNSIGNED: Final = b"UNSIGNED-PAYLOAD"
_EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest().encode()
_MAX_CACHED: Final = 4096
_MAX_EXPIRES_S: Final = 7 * 24 * 3600
# Asked for as numbers: looking for bytes in bytes raises an exception inside, and takes ten times as long.
_SPACE: Final = ord(" ")
_QUESTION_MARK: Final = ord("?")


class Signed:
    """A verified signature. `payload` is what stood for the body's hash, `mark` the signature itself."""

    __slots__ = ("date", "key", "mark", "payload", "region", "scope", "service", "signing_key")

    def __init__(
        self,
        key: Key,
        region: str,
        service: str,
        scope: bytes,
        date: bytes,
        signing_key: bytes,
        payload: bytes,
        mark: bytes,
    ) -> None:
        self.key = key
        self.region = region
        self.service = service
        self.scope = scope
        self.date = date
        self.signing_key = signing_key
        self.payload = payload
        self.mark = mark


class ChunkSigner:
    """Continues a verified signature over the chunks of a body, each signed with the one before it.

    Source: "Transferring payload in multiple chunks", Amazon S3 API Reference.
    """

    def __init__(self, signed: Signed) -> None:
        self._key = signed.signing_key
        self._prefix = signed.date + b"\n" + signed.scope + b"\n"
        self._last = signed.mark

    def accepts_chunk(self, mark: bytes, sha256: bytes) -> bool:
        """Whether *mark* signs a chunk whose hexadecimal hash is *sha256*."""
        return self._accepts(b"AWS4-HMAC-SHA256-PAYLOAD\n", mark, _EMPTY_SHA256 + b"\n" + sha256)

    def accepts_trailer(self, mark: bytes, trailer: bytes) -> bool:
        """Whether *mark* signs the trailing headers, written as ``name:value`` lines."""
        return self._accepts(
            b"AWS4-HMAC-SHA256-TRAILER\n", mark, hashlib.sha256(trailer).hexdigest().encode()
        )

    def _accepts(self, kind: bytes, mark: bytes, rest: bytes) -> bool:
        text = kind + self._prefix + self._last + b"\n" + rest
        self._last = signature(self._key, text).encode()
        return compare_digest(self._last, mark)


def scope_of(headers: Mapping[bytes, bytes], target: bytes) -> str | None:
    """Return the service that the credential scope names, without verifying anything, or None."""
    text = headers.get(b"authorization")
    if text is not None:
        text = text.partition(b"Credential=")[2].partition(b",")[0]
    elif b"X-Amz-Credential=" in target:
        text = unquote_to_bytes(target.partition(b"X-Amz-Credential=")[2].partition(b"&")[0])
    else:
        return "s3" if is_presigned_v2(headers, target) else None
    parts = text.strip().split(b"/")
    return parts[-2].decode("latin-1") if len(parts) >= 5 else None


class Verifier:
    """Verifies signatures against the keys that *keys* finds. For one thread at a time or several."""

    def __init__(self, keys: KeyFinder, clock: Clock, max_skew_s: int) -> None:
        self._keys = keys
        self._clock = clock
        self._max_skew_s = max_skew_s
        self._claims: dict[bytes, Claim] = {}
        self._times: dict[bytes, float] = {}
        self._paths: dict[bytes, bytes] = {}

    def verify(
        self, method: bytes, target: bytes, headers: Mapping[bytes, bytes], sha256: bytes | None
    ) -> Signed:
        """Return the signature of a request.

        Args:
            method: the HTTP method.
            target: path and query as sent.
            headers: lower-case names; values of repeated headers joined by commas.
            sha256: hexadecimal hash of the body; None if the body is not here yet, and
                X-Amz-Content-SHA256 must say what it will be.

        Raises:
            AwsError: nothing is signed, or not by a key that is good now, or something was changed.
        """
        path, query = target, b""
        if _QUESTION_MARK in target:
            path, _, query = target.partition(b"?")
        authorization = headers.get(b"authorization")
        if authorization is None:
            if b"X-Amz-Signature=" in query or b"X-Amz-Credential=" in query:
                return self._verify_presigned(method, path, query, headers, sha256)
            if is_presigned_v2(headers, target):
                return self._verify_presigned_v2(method, target, headers, sha256)
            raise AwsError(
                "MissingAuthenticationTokenException", "Request is missing Authentication Token", status=403
            )
        head, found, mark = authorization.rpartition(b"Signature=")
        claim = self._claims.get(head)
        if claim is None:
            if not found or len(mark) != 64:
                head, mark = reordered(authorization)
            claim = self._remember(head)
        s3 = claim.s3
        date = headers.get(b"x-amz-date") or _date_header(headers.get(b"date"))
        declared = headers.get(b"x-amz-content-sha256")
        payload = declared or sha256
        if payload is None:
            raise AwsError("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
        key = self._keys(claim.access_key_id)
        if key is None or key.session_token is not None or b"x-amz-security-token" in headers:
            key = self.key(claim.access_key_id, headers.get(b"x-amz-security-token"), s3=s3)
        signed_at = self._times.get(date)
        if (
            signed_at is None
            or not date.startswith(claim.day)
            or abs(self._clock() - signed_at) > self._max_skew_s
        ):
            self._check_time(date, claim, s3)
        if query:
            query = canonical_query(query)
        signing = self._compare(claim, key, method, path, query, headers, payload, date, mark)
        if declared is not None and sha256 is not None and declared != sha256:
            _check_body(declared, sha256, s3)
        return Signed(key, claim.region, claim.service, claim.scope, date, signing, payload, mark)

    def _verify_presigned(
        self, method: bytes, path: bytes, query: bytes, headers: Mapping[bytes, bytes], sha256: bytes | None
    ) -> Signed:
        fields = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
        try:
            if fields["X-Amz-Algorithm"].encode() != ALGORITHM:
                raise AwsError(
                    "IncompleteSignature", "Unsupported AWS 'algorithm': only AWS4-HMAC-SHA256 is known."
                )
            credential, names = fields["X-Amz-Credential"].encode(), fields["X-Amz-SignedHeaders"].encode()
            date, mark = fields["X-Amz-Date"].encode(), fields["X-Amz-Signature"].encode()
            expires = int(fields.get("X-Amz-Expires", "900"))
        except KeyError as error:
            raise AwsError(
                "AuthorizationQueryParametersError",
                f"Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, "
                f"X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters; {error.args[0]} is missing.",
            ) from error
        except ValueError as error:
            raise AwsError("AuthorizationQueryParametersError", "X-Amz-Expires should be a number") from error
        if not 0 <= expires <= _MAX_EXPIRES_S:
            raise AwsError(
                "AuthorizationQueryParametersError",
                f"X-Amz-Expires must be between 0 and a week (in seconds) that is {_MAX_EXPIRES_S}, not {expires}",
            )
        claim = claim_of(credential, names)
        text = fields.get("X-Amz-Security-Token")
        token = text.encode() if text is not None else headers.get(b"x-amz-security-token")
        s3 = claim.s3
        key = self.key(claim.access_key_id, token, s3=s3)
        signed_at, now = self._time(date, claim, s3), self._clock()
        if now > signed_at + expires:
            raise _refused(s3, "AccessDenied", "Request has expired")
        if signed_at > now + self._max_skew_s:
            raise _refused(s3, "AccessDenied", "Request is not valid yet")
        rest = b"&".join(part for part in query.split(b"&") if not part.startswith(b"X-Amz-Signature="))
        declared = headers.get(b"x-amz-content-sha256")
        payload = declared or (_UNSIGNED if s3 else sha256 or _UNSIGNED)
        signing = self._compare(claim, key, method, path, canonical_query(rest), headers, payload, date, mark)
        if declared is not None and sha256 is not None and declared != sha256:
            _check_body(declared, sha256, s3)
        return Signed(key, claim.region, claim.service, claim.scope, date, signing, payload, mark)

    def _verify_presigned_v2(
        self, method: bytes, target: bytes, headers: Mapping[bytes, bytes], sha256: bytes | None
    ) -> Signed:
        address = PresignedV2(method, target, headers)
        key = self.key(address.access_key_id, address.session_token, s3=True)
        if not address.is_signed_with(key.secret_access_key):
            raise _mismatch(s3=True)
        now = self._clock()
        if now > address.expires:
            times = {"Expires": _iso_date(address.expires), "ServerTime": _iso_date(now)}
            raise AwsError("AccessDenied", "Request has expired", status=403, members=times)
        declared = headers.get(b"x-amz-content-sha256")
        if declared is not None and sha256 is not None and declared != sha256:
            _check_body(declared, sha256, s3=True)
        return Signed(key, "", "s3", b"", b"", b"", declared or _UNSIGNED, address.signature)

    def _remember(self, head: bytes) -> Claim:
        claim = parse_authorization(head)
        if len(self._claims) >= _MAX_CACHED:
            self._claims.clear()
        self._claims[head] = claim
        return claim

    def key(self, access_key_id: str, token: bytes | None, *, s3: bool) -> Key:
        """Return the key of that name, if *token* is its session token and it is good now.

        Raises:
            AwsError: it is not; in S3's words if *s3*.
        """
        key = self._keys(access_key_id)
        if key is None:
            if s3:
                raise AwsError(
                    "InvalidAccessKeyId",
                    "The AWS Access Key Id you provided does not exist in our records.",
                    status=403,
                    members={"AWSAccessKeyId": access_key_id},
                )
            raise _unrecognized()
        if key.session_token is not None:
            if token is None or not compare_digest(key.session_token.encode(), token):
                raise _bad_token(s3)
            if key.expires is not None and self._clock() >= key.expires:
                if s3:
                    raise AwsError("ExpiredToken", "The provided token has expired.")
                raise AwsError(
                    "ExpiredTokenException",
                    "The security token included in the request is expired",
                    status=403,
                )
        elif token:
            raise _bad_token(s3)
        return key

    def _check_time(self, date: bytes, claim: Claim, s3: bool) -> None:
        signed_at, now = self._time(date, claim, s3), self._clock()
        if abs(now - signed_at) <= self._max_skew_s:
            return
        if s3:
            raise AwsError(
                "RequestTimeTooSkewed",
                "The difference between the request time and the current time is too large.",
                status=403,
                members={"RequestTime": date.decode(), "MaxAllowedSkewMilliseconds": self._max_skew_s * 1000},
            )
        shown = date.decode()
        limit = _amz_date(now - self._max_skew_s if signed_at < now else now + self._max_skew_s)
        if signed_at < now:
            sentence = f"Signature expired: {shown} is now earlier than {limit} ({_amz_date(now)} - {self._max_skew_s} s.)"
        else:
            sentence = f"Signature not yet current: {shown} is still later than {limit} ({_amz_date(now)} + {self._max_skew_s} s.)"
        raise AwsError("InvalidSignatureException", sentence, status=403)

    def _time(self, date: bytes, claim: Claim, s3: bool) -> float:
        seconds = self._times.get(date)
        if seconds is None:
            seconds = _parse_date(date, s3)
            if len(self._times) > 64:  # the few seconds around now
                self._times.clear()
            self._times[date] = seconds
        if not date.startswith(claim.day):
            raise _refused(
                s3,
                "AuthorizationHeaderMalformed",
                "Date in Credential scope does not match the date of the request.",
            )
        return seconds

    def _compare(
        self,
        claim: Claim,
        key: Key,
        method: bytes,
        path: bytes,
        query: bytes,
        headers: Mapping[bytes, bytes],
        payload: bytes,
        date: bytes,
        mark: bytes,
    ) -> bytes:
        """Return the signing key with which *mark* was made, or raise."""
        s3 = claim.s3
        secret, signing = claim.derived
        if signing is None or secret != key.secret_access_key:
            signing = SigningKey(signing_key(key.secret_access_key, claim.date, claim.region, claim.service))
            claim.derived = (key.secret_access_key, signing)
        try:
            lines = claim.lines % claim.values(headers)
        except KeyError as error:
            name = error.args[0].decode("latin-1")
            raise _mismatch(s3, f" The signed header '{name}' is not in the request.") from None
        # Rare: values with spaces to be normalized.
        if _SPACE in lines and (b"  " in lines or b" \n" in lines or b": " in lines):
            lines = b"".join([name + b":" + canonical_value(headers[name]) + b"\n" for name in claim.names])
        plain = path if s3 else self._paths.get(path) or self._remember_path(path)
        # What `signing.canonical_request` and `string_to_sign` do, without their calls.
        request = b"\n".join((method, plain, query, lines, claim.signed, payload))
        text = b"\n".join((ALGORITHM, date, claim.scope, hexlify(sha256_of(request).digest())))
        if not compare_digest(signing.sign(text), mark):
            # Some clients encode the path otherwise than they send it: S3 takes it decoded and encoded anew.
            again = quote_from_bytes(unquote_to_bytes(path), safe="/-_.~").encode()
            request = b"\n".join((method, again, query, lines, claim.signed, payload))
            if again == plain or not compare_digest(
                signing.sign(string_to_sign(date, claim.scope, request)), mark
            ):
                raise _mismatch(s3)
        return signing.key

    def _remember_path(self, path: bytes) -> bytes:
        if len(self._paths) >= _MAX_CACHED:
            self._paths.clear()
        plain = self._paths[path] = canonical_path(path, s3=False)
        return plain


def _check_body(declared: bytes, sha256: bytes, s3: bool) -> None:
    if declared == _UNSIGNED or declared.startswith(STREAMING_PREFIX):
        return
    if s3:
        raise AwsError(
            "XAmzContentSHA256Mismatch",
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
            members={
                "ClientComputedContentSHA256": declared.decode("latin-1"),
                "S3ComputedContentSHA256": sha256.decode(),
            },
        )
    raise _mismatch(s3, " The body is not the one that was signed.")


def _parse_date(date: bytes, s3: bool) -> float:
    text = date.decode("latin-1")
    try:
        if len(text) != 16 or text[8] != "T" or text[15] != "Z":
            raise ValueError
        parts = [int(part) for part in (text[:4], text[4:6], text[6:8], text[9:11], text[11:13], text[13:15])]
        if not (1 <= parts[1] <= 12 and 1 <= parts[2] <= 31 and parts[3] < 24):
            raise ValueError
        return float(calendar.timegm((*parts, 0, 0, 0)))
    except ValueError:
        raise _refused(
            s3,
            "AccessDenied",
            f"Date must be in ISO-8601 'basic format'. Got '{text[:40]}'. See http://en.wikipedia.org/wiki/ISO_8601",
            other="IncompleteSignatureException",
        ) from None


def _iso_date(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _amz_date(seconds: float) -> str:
    from sagesmith.signing import amz_date

    return amz_date(seconds)


def _date_header(value: bytes | None) -> bytes:
    if value is None:
        raise AwsError(
            "IncompleteSignatureException",
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.",
            status=403,
        )
    from email.utils import parsedate_to_datetime

    try:
        return _amz_date(parsedate_to_datetime(value.decode("latin-1")).timestamp()).encode()
    except (ValueError, TypeError, OverflowError):
        return value


def _refused(s3: bool, code: str, sentence: str, other: str = "InvalidSignatureException") -> AwsError:
    return AwsError(code if s3 else other, sentence, status=403)


def _unrecognized() -> AwsError:
    return AwsError(
        "UnrecognizedClientException", "The security token included in the request is invalid.", status=403
    )


def _bad_token(s3: bool) -> AwsError:
    if s3:
        return AwsError("InvalidToken", "The provided token is malformed or otherwise invalid.", status=400)
    return _unrecognized()


def _mismatch(s3: bool, more: str = "") -> AwsError:
    code = "SignatureDoesNotMatch" if s3 else "InvalidSignatureException"
    return AwsError(
        code,
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
        f"Access Key and signing method. Consult the service documentation for details.{more}",
        status=403,
    )
