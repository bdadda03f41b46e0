"""Every operation there and back: botocore writes and we read, we write and botocore reads, nothing changes."""

from __future__ import annotations

import io
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.awsrequest import HeadersDict, create_request_object, prepare_request_dict
from botocore.loaders import Loader
from botocore.model import ServiceModel as BotocoreModel
from botocore.parsers import create_parser
from botocore.serialize import create_serializer

from sagesmith.aws import Catalog, JsonText, OperationModel, Shape
from sagesmith.aws._protocols import Request
from sagesmith.aws._router import Service

from .values import Values, for_botocore, plain

CASES = [
    ("sagemaker", "json"),
    ("sagemaker-runtime", "rest-json"),
    ("sagemaker-featurestore-runtime", "rest-json"),
    ("sagemaker-metrics", "rest-json"),
    ("sagemaker-a2i-runtime", "rest-json"),
    ("sagemaker-geospatial", "rest-json"),
    ("s3", "rest-xml"),
    ("logs", "json"),
    ("iam", "query"),
    ("sts", "query"),
    ("cloudwatch", "query"),
    ("cloudwatch", "json"),
    ("cloudwatch", "smithy-rpc-v2-cbor"),
    ("ecr", "json"),
    ("application-autoscaling", "json"),
]
ROUNDS = 2
# botocore does not read GetBucketLocation with its parser, the superseded notification operations have two
# members of one wire name, and WriteGetObjectResponse takes a host name as a value.
NOT_READ = {"GetBucketLocation", "GetBucketNotification", "PutBucketNotification", "WriteGetObjectResponse"}


@cache
def service_of(name: str) -> Service:
    model = Catalog().get(name)
    assert model is not None
    return Service(model, {})


@cache
def botocore_model(name: str) -> Any:
    return BotocoreModel(Loader().load_service_model(name, "service-2"), name)


def sent_by_botocore(name: str, protocol: str, operation: OperationModel, value: dict[str, Any]) -> Any:
    serializer = create_serializer(protocol, include_validation=False)
    boto_operation = botocore_model(name).operation_model(operation.name)
    assert operation.input is not None
    raw = serializer.serialize_to_request(for_botocore(operation.input, value), boto_operation)
    if "hostPrefix" in (raw.get("context") or {}):
        del raw["context"]
    prepare_request_dict(raw, "https://host", context={"client_config": None})
    return create_request_object(raw).prepare()


def read_by_us(service: Service, protocol: str, operation: OperationModel, sent: Any) -> dict[str, Any]:
    parts = urlsplit(sent.url)
    query = parse_qs(parts.query, keep_blank_values=True)
    headers: dict[bytes, bytes] = {}
    for key, text in sent.headers.items():
        headers[key.lower().encode()] = text if isinstance(text, bytes) else text.encode()
    body = sent.body or b""
    body = body.encode() if isinstance(body, str) else body
    request = Request(body, headers, query)
    if service.is_rest:
        flat = {key: texts[-1] for key, texts in query.items()}
        found = service.rest_router().find(sent.method, parts.path, flat, headers)
        assert found is not None, sent.url
        if found[0] != operation.name:
            assert service.model.operation(found[0]).uri == operation.uri, (found[0], operation.name)
        request.labels = found[1]
    return service.protocol(protocol).read(operation, request)


@pytest.mark.parametrize(("name", "protocol"), CASES)
def test_what_botocore_sends_is_what_we_read(name: str, protocol: str) -> None:
    service = service_of(name)
    for operation in service.model.operations():
        if operation.input is None or operation.name in NOT_READ:
            continue
        for seed in range(ROUNDS):
            value = Values(seed, millis=False).structure(operation.input)
            sent = sent_by_botocore(name, protocol, operation, value)
            found = read_by_us(service, protocol, operation, sent)
            assert plain(found) == expected_input(operation, value, protocol), operation.name


def expected_input(operation: OperationModel, value: dict[str, Any], protocol: str) -> Any:
    del operation
    return without_empty(plain(value)) if protocol == "query" else plain(value)


def without_empty(value: Any) -> Any:
    """Return *value* without empty structures, which a form cannot express."""
    if isinstance(value, dict):
        kept = {key: without_empty(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item != {}}
    if isinstance(value, list):
        return [without_empty(item) for item in value]
    return value


@pytest.mark.parametrize(("name", "protocol"), CASES)
def test_what_we_answer_is_what_botocore_reads(name: str, protocol: str) -> None:
    service = service_of(name)
    parser = create_parser(protocol)
    for operation in service.model.operations():
        if operation.output is None or operation.event_output is not None or operation.name in NOT_READ:
            continue
        boto_operation = botocore_model(name).operation_model(operation.name)
        for seed in range(ROUNDS):
            value = Values(seed, millis=True).structure(operation.output)
            drop_status(operation.output, value)
            answer = service.protocol(protocol).write(operation, value, "the-id")
            assert isinstance(answer.body, bytes)
            body = io.BytesIO(answer.body) if boto_operation.has_streaming_output else answer.body
            raw = {"status_code": answer.status, "headers": HeadersDict(dict(answer.headers)), "body": body}
            parsed = parser.parse(raw, boto_operation.output_shape)
            parsed.pop("ResponseMetadata", None)
            assert plain(parsed) == plain(for_botocore(operation.output, value)), operation.name


def drop_status(shape: Shape, value: dict[str, Any]) -> None:
    for name, member in shape.members.items():
        if member.location == "statusCode":
            value[name] = 200


@pytest.mark.parametrize("protocol", ["json", "query", "smithy-rpc-v2-cbor"])
def test_output_that_is_json_already_is_answered_in_every_protocol(protocol: str) -> None:
    service = service_of("cloudwatch")
    operation = service.model.operation("DescribeAlarms")
    members = {"MetricAlarms": [{"AlarmName": "\u00e9", "Threshold": 2.5}], "NextToken": "more"}
    answer = service.protocol(protocol).write(operation, JsonText.of(members), "request-1")
    assert answer == service.protocol(protocol).write(operation, members, "request-1")
