"""The policy of an upload by form: who signed it, until when it is good, and what the other fields may be.

Signed is the policy's text as it stands in the form, in base64, with Version 4 or (as boto3 does in us-east-1)
Version 2. Every field must be named by a condition of the policy, so that nobody can add one.

Source: "Creating a POST policy" and "POST Object", Amazon S3 API Reference; for Version 2 "Browser-based uploads using
POST", Amazon S3 User Guide.
"""

from __future__ import annotations

import base64
import calendar
import hmac
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol, TypeAlias

from sagesmith.aws.call import Key
from sagesmith.errors import AwsError
from sagesmith.signing import signing_key

__all__ = ["FindKey", "SizeRange", "check_policy", "key_of_form"]

SizeRange: TypeAlias = "tuple[int, int] | None"
"""The least and the most bytes that a file may have; None: any number."""

_FREE: Final = frozenset({"awsaccesskeyid", "bucket", "policy", "signature", "x-amz-signature"})
_EXPIRATION: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.\d+)?Z")


class FindKey(Protocol):
    """Finds the key that is said to have signed."""

    def __call__(self, access_key_id: str, token: bytes | None, *, s3: bool) -> Key:
        """Return the key of that name, whose session token must be *token*.

        Raises:
            AwsError: there is no such key, or it is not good now.
        """
        ...


def key_of_form(fields: Mapping[str, str], find_key: FindKey) -> tuple[Key, str]:
    """Return the key that signed the policy in a form's *fields* (lower-case names), and the region ("" in Version 2).

    Raises:
        AwsError: nobody signed it, or something else was signed.
    """
    policy = fields.get("policy")
    if policy is None:
        raise AwsError("AccessDenied", "Access Denied", status=403)
    token = fields["x-amz-security-token"].encode() if "x-amz-security-token" in fields else None
    region = ""
    if "x-amz-signature" in fields:
        name, day, region = _credential(fields)
        key = find_key(name, token, s3=True)
        given = fields["x-amz-signature"]
        signing = signing_key(key.secret_access_key, day, region, "s3")
        mark = hmac.digest(signing, policy.encode(), "sha256").hex()
    else:
        key = find_key(fields.get("awsaccesskeyid", ""), token, s3=True)
        given = fields.get("signature", "")
        mark = base64.b64encode(hmac.digest(key.secret_access_key.encode(), policy.encode(), "sha1")).decode()
    if not hmac.compare_digest(given.encode(), mark.encode()):
        raise AwsError(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. Check your key and "
            "signing method.",
            status=403,
        )
    return key, region


def _credential(fields: Mapping[str, str]) -> tuple[str, str, str]:
    """Return access key, day and region."""
    algorithm, text = fields.get("x-amz-algorithm", ""), fields.get("x-amz-credential", "")
    if algorithm != "AWS4-HMAC-SHA256":
        raise AwsError("InvalidArgument", 'X-Amz-Algorithm only supports "AWS4-HMAC-SHA256"')
    parts = text.rsplit("/", 4)
    if (
        len(parts) != 5
        or parts[3:] != ["s3", "aws4_request"]
        or not fields.get("x-amz-date", "").startswith(parts[1])
    ):
        raise AwsError(
            "InvalidArgument",
            "Error parsing the X-Amz-Credential parameter: it must be KEY/DAY/REGION/s3/aws4_request, of the day that "
            f"X-Amz-Date names, not '{text[:200]}'",
        )
    return parts[0], parts[1], parts[2]


def check_policy(fields: Mapping[str, str], now: float) -> SizeRange:
    """Check a form's *fields* (``bucket`` among them) against the policy in them; return how large the file may be.

    Raises:
        AwsError: `AccessDenied`, the policy's time is over or a field is not as it says; `InvalidPolicyDocument`.
    """
    try:
        policy = json.loads(base64.b64decode(fields["policy"], validate=True))
        end = _EXPIRATION.fullmatch(policy["expiration"])
        if end is None:
            raise ValueError(f"{policy['expiration']!r} is no time")
        ends = calendar.timegm(tuple(int(part) for part in end.groups()))
        conditions = list(_conditions(policy["conditions"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AwsError("InvalidPolicyDocument", f"Invalid Policy: {error}") from error
    if now > ends:
        raise _forbidden("Policy expired.")
    allowed: SizeRange = None
    named = set(_FREE)
    for operator, name, value in conditions:
        if operator == "content-length-range":
            allowed = value
            continue
        named.add(name)
        given = fields.get(name, "")
        if not (given == value if operator == "eq" else given.startswith(value)):
            raise _forbidden(f"Policy Condition failed: {json.dumps([operator, f'${name}', value])}")
    extra = [name for name in fields if name not in named and not name.startswith("x-ignore-")]
    if extra:
        raise _forbidden(f"Extra input fields: {', '.join(extra)}")
    return allowed


def _conditions(given: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield operator, field (lower-case) and value of each condition."""
    for condition in given:
        if isinstance(condition, dict):
            for name, value in condition.items():
                yield "eq", name.lower(), str(value)
            continue
        operator, name, value = condition
        operator = operator.lower()
        if operator == "content-length-range":
            yield operator, "", (int(name), int(value))
        elif operator in ("eq", "starts-with") and name.startswith("$"):
            yield operator, name[1:].lower(), str(value)
        else:
            raise ValueError(f"{condition!r} is no condition")


def _forbidden(why: str) -> AwsError:
    return AwsError("AccessDenied", f"Invalid according to Policy: {why}", status=403)
