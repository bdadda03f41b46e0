"""Data capture: lines in SageMaker's form, sampled, gathered, and written off the way of the answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from sagesmith.hosting.capture import MOST_BYTES, Capture, Captured, Captures

HEADERS = b"Content-Type: application/json\r\nx-Amzn-Invoked-Production-Variant: blue\r\n"
ASKED = Captured(1_700_000_000.5, b"1,2", b"text/csv; label_size=0", b"who=me", b"id-7", HEADERS, b'{"p":1}')


def config(**more: Any) -> dict[str, Any]:
    return {
        "EnableCapture": True,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": "s3://bucket/captured/",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {
            "CsvContentTypes": ["text/csv"],
            "JsonContentTypes": ["application/json"],
        },
        **more,
    }


def line_of(captured: Captured, **more: Any) -> dict[str, Any]:
    [(_, content)] = Capture("churn", config(**more), lambda: None).files([captured]).items()
    found: dict[str, Any] = json.loads(content)
    return found


def test_a_line() -> None:
    line = line_of(ASKED)
    assert line["eventMetadata"].pop("eventId")
    assert line == {
        "captureData": {
            "endpointInput": {
                "observedContentType": "text/csv; label_size=0", "mode": "INPUT", "data": "1,2", "encoding": "CSV",
            },
            "endpointOutput": {
                "observedContentType": "application/json", "mode": "OUTPUT", "data": '{"p":1}', "encoding": "JSON",
            },
        },
        "eventMetadata": {
            "customAttributes": ["who=me"], "inferenceId": "id-7", "inferenceTime": "2023-11-14T22:13:20Z",
        },
        "eventVersion": "0",
    }  # fmt: skip


def test_encodings_and_directions() -> None:
    line = line_of(ASKED, CaptureContentTypeHeader={}, CaptureOptions=[{"CaptureMode": "InputAndOutput"}])
    assert line["captureData"]["endpointInput"]["data"] == "MSwy"
    assert line["captureData"]["endpointOutput"]["encoding"] == "BASE64"
    only = line_of(ASKED, CaptureOptions=[{"CaptureMode": "Output"}])
    assert set(only["captureData"]) == {"endpointOutput"}
    binary = Captured(0.0, b"\xff", b"text/csv", b"", b"", HEADERS, b"")
    assert line_of(binary)["captureData"]["endpointInput"]["encoding"] == "BASE64"


def test_keys() -> None:
    later = Captured(1_700_003_600.0, *(b"",) * 4, HEADERS, b"")
    keys = sorted(Capture("churn", config(), lambda: None).files([ASKED, ASKED, later]))
    assert [key.rsplit("/", 1)[0] for key in keys] == ["churn/blue/2023/11/14/22", "churn/blue/2023/11/14/23"]
    assert keys[0].rsplit("/", 1)[1].startswith("13-20-500-")
    assert keys[0].endswith(".jsonl")


def test_sampling_and_a_limit() -> None:
    capture = Capture("churn", config(InitialSamplingPercentage=30), lambda: None)
    share = sum(capture.wants() for _ in range(5000)) / 5000
    assert 0.25 < share < 0.35
    assert not Capture("churn", config(InitialSamplingPercentage=0), lambda: None).wants()
    capture = Capture("churn", config(), lambda: None)
    capture.add(Captured(0.0, bytes(MOST_BYTES), b"", b"", b"", HEADERS, b""))
    assert not capture.wants()
    capture.take()
    assert capture.wants()


async def test_what_is_gathered_is_written() -> None:
    written: dict[str, bytes] = {}

    def put(bucket: str, key: str, content: bytes) -> None:
        if bucket == "absent":
            raise LookupError(bucket)
        written[f"{bucket}/{key}"] = content

    captures = Captures(put, flush_s=0.01)
    captures.start()
    captures.set("us-east-1", "churn", config())
    captures.set("us-east-1", "lost", config(DestinationS3Uri="s3://absent"))
    captures.set("us-east-1", "off", config(EnableCapture=False))
    assert captures.find("us-east-1", "off") is None
    assert captures.find("eu-west-1", "churn") is None
    for name in ("lost", "churn"):
        found = captures.find("us-east-1", name)
        assert found is not None
        found.add(ASKED)
    while not written:
        await asyncio.sleep(0.005)
    assert next(iter(written)).startswith("bucket/captured/churn/blue/2023/11/14/22/")

    found = captures.find("us-east-1", "churn")
    assert found is not None
    found.add(ASKED)
    captures.set("us-east-1", "churn", {})
    assert captures.find("us-east-1", "churn") is None
    await captures.close()
    assert len(written) == 2
