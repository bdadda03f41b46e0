"""Filter patterns, after the examples of the CloudWatch Logs user guide."""

from __future__ import annotations

import pytest

from sagesmith.errors import AwsError
from sagesmith.store.log_patterns import compile_pattern

EVENT = (
    '{"eventType": "UpdateTrail", "sourceIPAddress": "111.111.111.111", "arrayKey": ["value", "another"], '
)
EVENT += (
    '"objectList": [{"name": "a", "id": 1}, {"name": "b", "id": 2}], "some": null, "flag": true, "n": 4e2}'
)
LINE = '127.0.0.1 - frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534'


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("", "anything", True),
        ("ERROR", "[ERROR 400] BAD REQUEST", True),
        ("ERROR", "[error 400]", False),
        ("ERROR ARGUMENTS", "[ERROR 419] MISSING ARGUMENTS", True),
        ("ERROR ARGUMENTS", "[ERROR 401] UNAUTHORIZED REQUEST", False),
        ('"INTERNAL SERVER ERROR"', "[ERROR 500] INTERNAL SERVER ERROR", True),
        ('"INTERNAL SERVER ERROR"', "SERVER ERROR INTERNAL", False),
        (r'"say \"hi\""', 'they say "hi" too', True),
        ("?ERROR ?WARN", "WARN it", True),
        ("?ERROR ?WARN", "INFO it", False),
        ("ERROR -ARGUMENTS", "[ERROR 400] BAD REQUEST", True),
        ("ERROR -ARGUMENTS", "[ERROR 419] MISSING ARGUMENTS", False),
        ('-"no no"', "no yes", True),
        (r"%4\d\d%", "code 419", True),
        (r"%4\d\d%", "code 519", False),
        ('{ $.eventType = "UpdateTrail" }', EVENT, True),
        ('{ $.eventType = "Update*" }', EVENT, True),
        ('{ $.eventType = "*date*Tr*l" }', EVENT, True),
        ('{ $.eventType = "*date*Tr*x" }', EVENT, False),
        ('{ $.eventType = "UpdateTrail*Trail" }', EVENT, False),
        ('{ $.eventType != "UpdateTrail" }', EVENT, False),
        ('{ $.absent != "x" }', EVENT, False),
        ("{ $.sourceIPAddress = 111.111.* }", EVENT, True),
        ('{ $.arrayKey[0] = "value" }', EVENT, True),
        ('{ $.arrayKey[*] = "another" }', EVENT, True),
        ("{ $.objectList[1].id = 2 }", EVENT, True),
        ("{ $.objectList[*].id > 2 }", EVENT, False),
        ("{ $.some IS NULL }", EVENT, True),
        ("{ $.flag IS TRUE && $.absent NOT EXISTS }", EVENT, True),
        ("{ $.flag IS FALSE || ($.n >= 400 && $.n < 1e3) }", EVENT, True),
        ("{ $.n = 400 }", EVENT, True),
        ("{ $.eventType = %Up.*il% }", EVENT, True),
        ("{ $.a = 1 }", "not JSON", False),
        ("[ip, user, name, time, request, status, size]", LINE, True),
        ("[ip, user, name]", LINE, False),
        ('[ip, user, name = frank, time, request = "GET*", status = 4*, size > 1000]', LINE, True),
        ("[ip, ..., status != 4*, size]", LINE, False),
        ("[..., status = 404 || status = 410, size]", LINE, True),
        ("[..., size <= 1533]", LINE, False),
    ],
)
def test_patterns(pattern: str, text: str, expected: bool) -> None:
    matches = compile_pattern(pattern)
    assert (matches is None or matches(text)) is expected


@pytest.mark.parametrize(
    "pattern",
    [
        '"open',
        "{ $.a }",
        "{ a = 1 }",
        "{ $.a = 1 &&}",
        "{ ($.a = 1 }",
        "{ $.a < x }",
        "{ $..a = 1 }",
        "%(%",
        "[a,, b]",
        "[..., ...]",
        "[a ! b]",
        "x" * 1025,
    ],
)
def test_a_pattern_without_sense_is_refused(pattern: str) -> None:
    with pytest.raises(AwsError, match="Invalid filter pattern") as caught:
        compile_pattern(pattern)
    assert caught.value.code == "InvalidParameterException"


def test_an_expression_that_takes_too_long_is_given_up() -> None:
    matches = compile_pattern("%(a|aa)+$%")
    assert matches is not None
    with pytest.raises(AwsError, match="takes too long"):
        matches("a" * 200 + "b")
