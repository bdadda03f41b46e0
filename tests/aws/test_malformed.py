"""Bad input is the client's error, with a code and a sentence, whatever it is."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import cbor2
import orjson
import pytest

from sagesmith.aws import Api, Catalog, operation
from sagesmith.aws._patterns import PatternTimeoutError, full_match
from sagesmith.aws._protocols import Request
from sagesmith.aws._router import Service
from sagesmith.errors import AwsError
from sagesmith.signing import Credentials, sign

from . import malformed
from .conftest import ACCOUNT, KEY, KEYS, Running, allow_all


class Nothing:
    service = "sagemaker"

    @operation("ListTags")
    def nothing(self, call: Any, request: Mapping[str, Any]) -> None:
        raise AssertionError("a malformed request reached its handler")


@pytest.fixture
def api() -> Api:
    return Api(
        [Nothing()], keys=KEYS.get, authorize=allow_all, account_id=ACCOUNT, default_region="us-east-1"
    )


def service_of(name: str) -> Service:
    model = Catalog().get(name)
    assert model is not None
    return Service(model, {})


def flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Return *value* as the fields of a form."""
    if isinstance(value, dict):
        parts = [flat(item, f"{prefix}{key}.") for key, item in value.items() if item is not None]
    elif isinstance(value, list):
        parts = [flat(item, f"{prefix}member.{number}.") for number, item in enumerate(value, 1)]
    else:
        return {prefix[:-1]: str(value)}
    return {key: text for part in parts for key, text in part.items()} or {prefix[:-1]: ""}


def answer_to(api: Api, entry: Any, body: bytes) -> AwsError | None:
    """Return the error that *body* makes, None if it is valid; anything else that is raised is a bug."""
    try:
        api.read(entry, Request(body))
    except AwsError as error:
        return error
    return None


def refuse(api: Api, entry: Any, body: bytes, what: str) -> AwsError:
    started = time.perf_counter()
    error = answer_to(api, entry, body)
    assert time.perf_counter() - started < 2, what
    assert error is not None, f"{entry.operation.name} took {body[:200]!r}: {what}"
    assert 400 <= error.status < 500, what
    assert error.code
    assert 10 < len(error.message) < 200_000, what
    return error


def test_all_of_sagemaker(api: Api) -> None:
    service = service_of("sagemaker")
    count = 0
    for name in service.model.operation_names:
        entry = service.entry(name, "json")
        for what, value in malformed.inputs(entry.operation):
            try:
                body = orjson.dumps(value)
            except TypeError:  # an integer that orjson cannot write
                continue
            refuse(api, entry, body, f"{name}: {what}")
            count += 1
    assert count > 20_000


@pytest.mark.parametrize(
    ("service", "protocol"),
    [("logs", "json"), ("ecr", "json"), ("application-autoscaling", "json"), ("cloudwatch", "json"),
     ("cloudwatch", "smithy-rpc-v2-cbor")],
)  # fmt: skip
def test_other_services(api: Api, service: str, protocol: str) -> None:
    compiled = service_of(service)
    for name in compiled.model.operation_names:
        entry = compiled.entry(name, protocol)
        for what, value in malformed.inputs(entry.operation):
            if protocol == "smithy-rpc-v2-cbor" and _only_wrong_in_json(what):
                continue
            try:
                body = orjson.dumps(value) if protocol == "json" else cbor2.dumps(value)
            except TypeError:
                continue
            refuse(api, entry, body, f"{name}: {what}")


def _only_wrong_in_json(what: str) -> bool:
    # CBOR has blobs and integers of its own; a float may be written as an integer there.
    return "no blob" in what or "no double" in what or "no long" in what or "no integer" in what


@pytest.mark.parametrize("service", ["iam", "sts"])
def test_query_services_never_fail(api: Api, service: str) -> None:
    """In a form everything is text, so some of this is valid; nothing may be a fault of ours."""
    compiled = service_of(service)
    for name in compiled.model.operation_names:
        entry = compiled.entry(name, "query")
        for what, value in malformed.inputs(entry.operation):
            body = urlencode(flat(value)).encode()
            if "missing" in what and "." not in what and not value and entry.operation.input.required:  # type: ignore[union-attr]
                refuse(api, entry, body, what)
                continue
            error = answer_to(api, entry, body)
            assert error is None or 400 <= error.status < 500, what


def test_bodies_that_are_nothing(api: Api) -> None:
    entry = service_of("sagemaker").entry("AddTags", "json")
    for what, body in malformed.bodies():
        assert refuse(api, entry, body, what).code in ("SerializationException", "ValidationException"), what


def test_no_pattern_hangs(api: Api) -> None:
    service = service_of("sagemaker")
    patterns = {
        shape.name: shape
        for name in service.model._shapes
        if (shape := service.model.shape(name)).pattern and shape.type == "string"
    }
    texts = [
        "a" * 60 + "!",
        "a-" * 1000 + "!",
        "/" * 3000 + "!",
        " \t" * 1000 + "\x00",
        "a." * 1000 + "!",
        "0" * 2000 + "x!",
    ]
    for shape in patterns.values():
        match = full_match(shape.pattern or "")
        for text in texts:
            started = time.perf_counter()
            with contextlib.suppress(PatternTimeoutError):
                match(text)
            assert time.perf_counter() - started < 1, (shape.name, shape.pattern, text[:10])


def post(connection: http.client.HTTPConnection, target: str, body: bytes) -> tuple[int, dict[str, Any], str]:
    headers = sign(
        "POST",
        f"http://127.0.0.1:{connection.port}/",
        {"X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.1"},
        hashlib.sha256(body).hexdigest(),
        Credentials(KEY.access_key_id, KEY.secret_access_key),
        "us-east-1",
        "sagemaker",
        time.time(),
    )
    connection.request("POST", "/", body, headers)
    response = connection.getresponse()
    return response.status, orjson.loads(response.read()), response.headers["x-amzn-ErrorType"]


def test_over_http(serve: Callable[..., Running]) -> None:
    running = serve(Nothing())
    service = service_of("sagemaker")
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    for name in service.model.operation_names[::20]:
        cases = [
            (what, orjson.dumps(value))
            for what, value in malformed.inputs(service.model.operation(name))
            if "10000" not in what
        ]
        if service.model.operation(name).input is None:
            continue
        for what, body in [*cases[::10], *malformed.bodies()]:
            if what == "closed deep lists":  # in a member that most operations do not have
                continue
            status, answer, kind = post(connection, f"SageMaker.{name}", body)
            assert 400 <= status < 500, (name, what, answer)
            assert answer["__type"] == kind
            assert answer["message"]
    status, answer, kind = post(connection, "SageMaker.NoSuchThing", b"{}")
    assert (status, kind) == (400, "UnknownOperationException")
    status, answer, kind = post(connection, "Else.ListTags", b"{}")
    assert (status, kind) == (400, "UnknownOperationException")
    connection.close()
