"""Every operation of every service, over HTTPS, with malformed and with odd but valid input: never a 5xx."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import json
import random
import ssl
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from sagesmith.aws import Catalog, OperationModel, Shape
from sagesmith.aws._patterns import PatternTimeoutError, full_match
from sagesmith.signing import Credentials, sign
from tests.aws import malformed
from tests.e2e.served import Served

PER_OPERATION = 8
TEXTS = [
    "a", "name-1", "1", "../../etc/passwd", "x" * 63, "é😀", "s3://some-bucket/some/key", "s3://b/../../x",
    "arn:aws:iam::123456789012:role/SagesmithExecutionRole",
    "arn:aws:sagemaker:us-east-1:123456789012:model/none",
    "arn:aws:s3:::bucket/key", "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1",
    "2026-01-01T00:00:00Z", "https://example.com/x", "{}", "[]", "\u202e", "%2e%2e%2f", "-", "_", "0" * 12,
    "AKIAIOSFODNN7EXAMPLE", "text/csv", "key=value",
]  # fmt: skip


@pytest.fixture(scope="module")
def victim() -> Iterator[Served]:
    server = Served(settings={"warm_instances": 0})
    try:
        yield server.up()
    finally:
        server.remove()


class Wire:
    """One signed keep-alive connection for JSON services."""

    def __init__(self, served: Served) -> None:
        found = json.loads((served.home / "credentials.json").read_text("utf-8"))
        self._key = Credentials(found["AccessKeyId"], found["SecretAccessKey"])
        self._url = served.url
        context = ssl.create_default_context(cafile=served.ca_file)
        self._connection = http.client.HTTPSConnection("127.0.0.1", served.port, context=context, timeout=30)

    def post(self, service: str, target: str, body: bytes, version: str) -> tuple[int, bytes]:
        headers = {"X-Amz-Target": target, "Content-Type": f"application/x-amz-json-{version}"}
        signed = sign(
            "POST",
            self._url + "/",
            headers,
            hashlib.sha256(body).hexdigest(),
            self._key,
            "us-east-1",
            service,
            time.time(),
        )
        self._connection.request("POST", "/", body, dict(signed))
        answer = self._connection.getresponse()
        return answer.status, answer.read()


def _check(answer: tuple[int, bytes], what: str, *, must_refuse: bool) -> None:
    status, body = answer
    assert status < 500, f"{what}: {status} {body[:500]!r}"
    if must_refuse:
        assert status >= 400, f"{what}: accepted with {status}"
    if status >= 400:
        error = json.loads(body)
        assert error["__type"], what
        assert len(error.get("message") or error.get("Message") or "") > 10, what
    assert b"Traceback" not in body, what


def plausible(shape: Shape, rng: random.Random, depth: int = 0) -> Any:
    """Return a value that fits the model as far as simple means go."""
    kind = shape.type
    if kind == "structure":
        members = [
            (name, member)
            for name, member in shape.members.items()
            if name in shape.required or (depth < 3 and rng.random() < 0.3)
        ]
        return {name: plausible(member.shape, rng, depth + 1) for name, member in members}
    if kind == "list":
        return [plausible(shape.member.shape, rng, depth + 1) for _ in range(int(max(1, shape.min or 0)))]
    if kind == "map":
        return {str(plausible(shape.key.shape, rng, depth + 1)): plausible(shape.value.shape, rng, depth + 1)}
    if kind == "string":
        if shape.enum:
            return rng.choice(shape.enum)
        fitting = [text for text in TEXTS if _fits(shape, text)]
        return rng.choice(fitting) if fitting else "a" * int(max(1, shape.min or 1))
    if kind in ("integer", "long"):
        low = int(shape.min if shape.min is not None else 0)
        high = int(shape.max if shape.max is not None else low + 10)
        return rng.choice([low, high, min(high, low + 1)])
    if kind in ("float", "double"):
        return float(rng.choice([shape.min or 0.0, shape.max or 1.0]))
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "timestamp":
        return rng.choice([0, 1_700_000_000, 4_000_000_000])
    return "AAAA"


def _fits(shape: Shape, text: str) -> bool:
    if (shape.min is not None and len(text) < shape.min) or (shape.max is not None and len(text) > shape.max):
        return False
    try:
        return shape.pattern is None or bool(full_match(shape.pattern)(text))
    except PatternTimeoutError:
        return False


def _operations(service: str) -> Iterator[OperationModel]:
    model = Catalog().get(service)
    assert model is not None
    yield from model.operations()


TARGETS = {"sagemaker": ("SageMaker", "1.1"), "logs": ("Logs_20140328", "1.1")}


@pytest.mark.parametrize("service", list(TARGETS))
def test_malformed_json(victim: Served, service: str) -> None:
    wire, (prefix, version) = Wire(victim), TARGETS[service]
    sent = 0
    for operation in _operations(service):
        rng = random.Random(zlib.crc32(operation.name.encode()))
        faults = list(itertools.islice(malformed.inputs(operation), 400))
        for what, value in rng.sample(faults, min(PER_OPERATION, len(faults))):
            body = json.dumps(value).encode()
            answer = wire.post(service, f"{prefix}.{operation.name}", body, version)
            _check(answer, f"{operation.name}: {what}", must_refuse=True)
            sent += 1
    for what, body in malformed.bodies():
        _check(wire.post(service, f"{prefix}.{operation.name}", body, version), what, must_refuse=True)
    status, _ = wire.post(service, f"{prefix}.NoSuchOperation", b"{}", version)
    assert 400 <= status < 500
    assert sent > 300


@pytest.mark.parametrize("service", list(TARGETS))
def test_odd_but_valid_json(victim: Served, service: str) -> None:
    wire, (prefix, version) = Wire(victim), TARGETS[service]
    for operation in _operations(service):
        rng = random.Random(zlib.crc32(operation.name.encode()) + 1)
        for _ in range(4):
            value = plausible(operation.input, rng) if operation.input is not None else {}
            answer = wire.post(service, f"{prefix}.{operation.name}", json.dumps(value).encode(), version)
            _check(answer, f"{operation.name}: {value}", must_refuse=False)


@pytest.mark.parametrize("service", ["iam", "sts", "s3", "cloudwatch", "sagemaker-runtime"])
def test_odd_input_of_other_protocols(victim: Served, service: str) -> None:
    """Input as a client without validation of its own sends it."""
    client = victim.client(service, parameter_validation=False)
    refused = 0
    methods = {name: method for method, name in client.meta.method_to_api_mapping.items()}
    for operation in _operations(service):
        if operation.name not in methods:
            continue
        rng = random.Random(zlib.crc32(operation.name.encode()))
        faults = [value for _, value in itertools.islice(malformed.inputs(operation), 200)]
        odd = [plausible(operation.input, rng) for _ in range(3)] if operation.input is not None else [{}]
        for value in [*rng.sample(faults, min(6, len(faults))), *odd]:
            if not isinstance(value, dict):
                continue
            try:
                getattr(client, methods[operation.name])(**value)
            except ClientError as error:
                answer = error.response
                status = answer["ResponseMetadata"]["HTTPStatusCode"]
                code = answer["Error"]["Code"]
                assert status < 500 or (status, code) == (501, "NotImplemented"), (
                    operation.name,
                    value,
                    answer,
                )
                assert code, (operation.name, value, answer)
                refused += 1
            except (BotoCoreError, AttributeError, TypeError, ValueError, KeyError, RuntimeError):
                continue  # botocore itself could not put such a value into a request
    assert refused > 3


def test_the_server_has_logged_no_failure_of_its_own(victim: Served) -> None:
    log = (victim.home / "logs" / "server.log").read_text("utf-8")
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:3000]
