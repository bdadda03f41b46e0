"""What a transform job sends and keeps of its records: splitting, filtering and joining, without a server."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from sagesmith.instance._data_processing import DataProcessing
from sagesmith.instance._objects import DataError
from sagesmith.instance._split import payloads
from sagesmith_algorithms.formats import recordio

FRAMES = [recordio.frame(b"p" * n) for n in (3, 4, 5)]
RECORDS = [n.to_bytes(8, "little") + b"crc4" + b"d" * n + b"crc4" for n in (1, 9)]


def split(data: bytes, split_type: str, *, single: bool = False, limit: int = 0) -> list[bytes]:
    return list(payloads(io.BytesIO(data), split_type, single=single, limit=limit))


@pytest.mark.parametrize(("split_type", "parts"), [("RecordIO", FRAMES), ("TFRecord", RECORDS)])
def test_framed_records(split_type: str, parts: list[bytes]) -> None:
    data = b"".join(parts)
    assert split(data, split_type, single=True) == parts
    assert split(data, split_type) == [data]
    in_batches = split(data, split_type, limit=len(parts[0]) + len(parts[1]))
    assert in_batches == [parts[0] + parts[1], *parts[2:]]
    with pytest.raises(DataError, match="cut short"):
        split(data[:-5], split_type)
    with pytest.raises(DataError, match="Too much data for max payload size: record"):
        split(data, split_type, limit=10)


def test_lines() -> None:
    assert split(b"1\r\n\n2\n3", "Line", single=True) == [b"1", b"2", b"3"]
    assert split(b"1\n2\n3\n", "Line") == [b"1\n2\n3"]
    assert split(b"11\n22\n33\n", "Line", limit=5) == [b"11\n22", b"33"]
    assert split(b"11\n22\n33", "Line", limit=8) == [b"11\n22\n33"]
    assert split(b"\n\n", "Line") == split(b"", "Line") == split(b"", "None") == []
    for single in (True, False):
        with pytest.raises(DataError, match="is larger than MaxPayloadInMB"):
            split(b"1\n22222\n", "Line", single=single, limit=4)


def test_a_stream_in_small_pieces_is_split_alike() -> None:
    class Dribble(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(3, size if size is not None and size >= 0 else 3))

    data = b"".join(b"%d\n" % n for n in range(1000))
    found = list(payloads(Dribble(data), "Line", single=False, limit=100))
    assert b"\n".join(found) + b"\n" == data
    assert max(map(len, found)) <= 100
    assert b"".join(payloads(Dribble(b"".join(FRAMES)), "RecordIO", single=True, limit=0)) == b"".join(FRAMES)


def processing(content_type: str, *, split: bool = True, **more: Any) -> DataProcessing:
    return DataProcessing(content_type, split=split, **more)


def test_csv_keeps_its_texts() -> None:
    work = processing("text/csv", input_filter="$[1:]", output_filter="$[0,-1]", join=True)
    payload = b'id1,1.50,"a, b"\r\nid2,2e3,c'
    assert work.request(payload) == b'1.50,"a, b"\n2e3,c'
    assert work.result(payload, b"0.10\n0.20\n", "text/csv; charset=utf-8") == b"id1,0.10\nid2,0.20\n"


def test_json_documents() -> None:
    work = processing("application/json", split=False, input_filter="$.instances[*].x", join=True)
    payload = json.dumps({"instances": [{"x": 1}, {"x": 2}]}, indent=1).encode()
    assert work.request(payload) == b"[1,2]"
    found = json.loads(work.result(payload, b'{"predictions": [3, 4]}', "application/json"))
    assert found == {"instances": [{"x": 1}, {"x": 2}], "SageMakerOutput": {"predictions": [3, 4]}}


def test_json_lines() -> None:
    work = processing("application/jsonlines", join=True, output_filter="$.SageMakerOutput")
    found = work.result(b'{"a":1}\n[2]', b'{"p":0.5}\n"\xc3\xa9"', "application/jsonlines")
    assert found == '{"p":0.5}\n"\u00e9"\n'.encode()
    wrapped = processing("application/jsonlines", join=True).result(b"[2]", b"7", "application/jsonlines")
    assert json.loads(wrapped) == {"SageMakerInput": [2], "SageMakerOutput": 7}


def test_ids() -> None:
    row = processing("text/csv", identify=True).result(b"1", b"0.5", "text/csv").decode().strip().split(",")
    assert (row[0], len(row[1]), row[2][-1]) == ("0.5", 36, "Z")
    found = json.loads(processing("application/json", identify=True).result(b"1", b"{}", "application/json"))
    assert set(found) == {"SageMakerInferenceId", "SageMakerInferenceTime"}


@pytest.mark.parametrize(
    ("content_type", "options", "payload", "answer", "answer_type", "words"),
    [
        ("text/csv", {"output_filter": "$[2]"}, b"1", b"1,2", "text/csv", "there is no element 2, but only 2"),
        ("text/csv", {"join": True}, b"1\n2", b"1", "text/csv", "the model gave 1 records for 2"),
        ("text/csv", {"join": True}, b"1", b"{}", "application/json", "TransformOutput.Accept"),
        ("application/json", {"output_filter": "$.x"}, b"1", b"{}", "application/json", "no member 'x'"),
        ("application/json", {"join": True}, b"{", b"{}", "application/json", "Record 1 is not JSON"),
        ("text/csv", {"output_filter": "$[0]"}, b"1", b"x", "image/png", "Accept is image/png"),
        ("image/png", {"input_filter": "$[0]"}, b"1", b"x", "text/csv", "ContentType is image/png"),
        ("text/csv", {"input_filter": "$[9]"}, b"1", b"x", "text/csv", "no element 9"),
    ],
)  # fmt: skip
def test_what_does_not_belong_together(
    content_type: str, options: dict[str, Any], payload: bytes, answer: bytes, answer_type: str, words: str
) -> None:
    work = processing(content_type, **options)
    with pytest.raises(DataError, match=words):
        work.result(work.request(payload), answer, answer_type)
