"""A transform job's instance with a real model server: payloads, answers, failures, resuming and stopping."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sagesmith.config import Settings
from sagesmith.containers import Sandbox
from sagesmith.instance.spec import Finished, Log, Shutdown, Stop
from sagesmith_algorithms.formats import recordio
from tests.fleet.world import FIRST, Ear, World, a_world

SANDBOX, _ = Sandbox.find()

SERVER = r"""
import json, os, time
from sagesmith_toolkit.server import Response, serve
state = {"seen": 0, "busy": 0, "most": 0}
class Model:
    blocking = True
    def predict(self, requests):
        return [self.answer(r) for r in requests]
    def answer(self, r):
        text = r.body.decode("latin-1")
        if r.path == "/execution-parameters":
            said = os.environ.get("PARAMETERS")
            return Response(200, "application/json", said.encode()) if said else Response(404, "", b"")
        state["seen"] += 1
        if "flaky" in text and state["seen"] < 4:
            return Response((503, 429, 400)[state["seen"] - 1], "text/plain", b"not now")
        if "bad" in text: return Response(400, "text/plain", b"bad row")
        if "broken" in text: return Response(500, "text/plain", b"it is broken")
        if "slow" in text: time.sleep(30)
        if "die" in text and not os.path.exists(os.environ["TMPDIR"] + "/died"):
            open(os.environ["TMPDIR"] + "/died", "w").close()
            os._exit(9)
        print(f"[{len(r.body)}] {r.content_type} -> {r.accept}", flush=True)
        if r.accept == "application/jsonlines":
            return Response(200, r.accept, "\n".join('{"n": %d}' % len(x) for x in text.split("\n")).encode())
        if r.accept == "application/json":
            return Response(200, r.accept, json.dumps({"n": len(text)}).encode())
        if r.accept == "application/octet-stream":
            return Response(200, r.accept, r.body)
        return Response(200, "text/csv", "\n".join(str(len(x)) for x in text.split("\n")).encode())
serve(Model(), os.environ["SAGESMITH_SOCKET"])
"""


@pytest.fixture
async def world() -> AsyncIterator[World]:
    kind = "bubblewrap" if SANDBOX else "none"
    async with a_world(settings=Settings(warm_instances=0, sandbox=kind)) as world:
        yield world


async def transform(world: World, files: dict[str, bytes], **task: Any) -> tuple[Finished, Ear]:
    """Transform *files*, and return the last word and everything that was heard."""
    world.objects.update({f"bucket/in/{name}": data for name, data in files.items()})
    environment = {"TMPDIR": "/tmp", **task.pop("environment", {})}
    spec = world.transform(SERVER, task=task, container={"environment": environment})
    ear = await world.run(spec)
    finished = ear.heard[-1]
    assert isinstance(finished, Finished)
    return finished, ear


def outputs(world: World) -> dict[str, bytes]:
    return {k.removeprefix("bucket/out/"): v for k, v in world.objects.items() if k.startswith("bucket/out/")}


def data_log(ear: Ear) -> list[str]:
    return [text.split("[sagemaker logs]: ")[1] for log in ear.all(Log) if log.part for _, text in log.lines]


async def test_objects_become_outputs(world: World) -> None:
    finished, ear = await transform(
        world, {"a": b"12\n345\n", "sub/b": b"1", "empty": b""}, accept="text/csv", content_type="text/csv"
    )
    assert finished == Finished()
    assert outputs(world) == {"a.out": b"2\n3\n0", "sub/b.out": b"1", "empty.out": b""}
    assert "MaxConcurrentTransforms=1, MaxPayloadInMB=6, BatchStrategy=MULTI_RECORD" in data_log(ear)
    assert sum("text/csv -> text/csv" in line for line in ear.lines) == 2


async def test_lines_in_batches_that_fit(world: World) -> None:
    rows = [b"x" * 1000 + b"%04d" % i for i in range(2500)]
    finished, ear = await transform(
        world, {"rows": b"\n".join(rows) + b"\n"}, split_type="Line", assemble_with="Line",
        environment={"PARAMETERS": json.dumps({"MaxConcurrentTransforms": 4, "MaxPayloadInMB": 1})},
    )  # fmt: skip
    assert finished == Finished()
    assert outputs(world) == {"rows.out": b"1004\n" * 2500}
    sizes = [int(line[1 : line.index("]")]) for line in ear.lines if line.startswith("[")]
    assert len(sizes) == 3
    assert max(sizes) <= 2**20
    assert "MaxConcurrentTransforms=4, MaxPayloadInMB=1, BatchStrategy=MULTI_RECORD" in data_log(ear)


async def test_single_records_in_their_order(world: World) -> None:
    finished, ear = await transform(
        world, {"rows.gz": gzip.compress(b"".join(b"%s\r\n" % (b"x" * i) for i in range(1, 40)))},
        split_type="Line", batch_strategy="SingleRecord", assemble_with="Line", compression="Gzip", max_concurrent=5,
    )  # fmt: skip
    assert finished == Finished()
    assert outputs(world)["rows.gz.out"] == b"".join(b"%d\n" % i for i in range(1, 40))
    assert sum(line.startswith("[") for line in ear.lines) == 39


async def test_recordio_keeps_its_frames(world: World) -> None:
    data = b"".join(recordio.frame(b"p" * n) for n in (3, 4, 5))
    finished, _ = await transform(
        world, {"x": data}, split_type="RecordIO", accept="application/octet-stream"
    )
    assert finished == Finished()
    assert outputs(world)["x.out"] == data


async def test_filters_and_joins(world: World) -> None:
    common = {"split_type": "Line", "assemble_with": "Line", "join_source": "Input"}
    finished, _ = await transform(
        world, {"t.csv": b'7,"a,b",xx\n8,c,y\n'}, content_type="text/csv", accept="text/csv",
        input_filter="$[1:]", output_filter="$[0,-1]", **common,
    )  # fmt: skip
    assert finished == Finished()
    assert outputs(world)["t.csv.out"] == b"7,8\n8,3\n"
    finished, _ = await transform(
        world, {"t.csv": b'7,"a,b",xx\n'}, content_type="text/csv", accept="text/csv", **common
    )
    assert outputs(world)["t.csv.out"] == b'7,"a,b",xx,10\n'

    lines = b'{"id": 1, "features": [1.0, 2]}\n{"id": 2, "features": []}\n'
    del world.objects["bucket/in/t.csv"]
    finished, _ = await transform(
        world, {"t.jsonl": lines}, content_type="application/jsonlines", accept="application/jsonlines",
        input_filter="$.features", output_filter="$['id','SageMakerOutput']", **common,
    )  # fmt: skip
    assert finished == Finished()
    assert [json.loads(line) for line in outputs(world)["t.jsonl.out"].splitlines()] == [
        {"id": 1, "SageMakerOutput": {"n": 7}},
        {"id": 2, "SageMakerOutput": {"n": 2}},
    ]
    del world.objects["bucket/in/t.jsonl"]
    finished, _ = await transform(
        world, {"t.json": b"[1,\n 2]"}, content_type="application/json", accept="application/json",
        join_source="Input", identify=True, capture_uri="s3://bucket/captured", created=0.0,
    )  # fmt: skip
    found = json.loads(outputs(world)["t.json.out"])
    assert (found["SageMakerInput"], found["SageMakerOutput"]) == ([1, 2], {"n": 7})
    assert len(found["SageMakerInferenceId"]) == 36
    manifests = {k: json.loads(v) for k, v in world.objects.items() if k.startswith("bucket/captured")}
    assert manifests == {
        "bucket/captured/input/1970/01/01/00/job-algo-1.json": [{"prefix": "s3://bucket/in/"}, "t.json"],
        "bucket/captured/output/1970/01/01/00/job-algo-1.json": [
            {"prefix": "s3://bucket/out/"},
            "t.json.out",
        ],
    }


@pytest.mark.parametrize(
    ("files", "task", "words"),
    [
        ({"t": b"1,2\n"}, {"output_filter": "$[5]", "content_type": "text/csv"}, "there is no element 5"),
        ({"t": b"x" * (2**20 + 1)}, {"max_payload_mb": 1}, "Too much data for max payload size: the object"),
        ({"t": b"x"}, {"compression": "Gzip"}, "is not gzip data"),
        ({"t": b"bad"}, {}, "Bad HTTP status returned from invoke: 400\nbad row"),
        ({}, {}, "No S3 objects found"),
        ({}, {"input_uri": "s3://bucket/m", "input_type": "ManifestFile"}, "there is no manifest"),
    ],
)
async def test_what_the_client_did_wrong(
    world: World, files: dict[str, bytes], task: dict[str, Any], words: str
) -> None:
    finished, ear = await transform(world, files, **task)
    assert words in finished.error
    assert finished.client_error
    assert not outputs(world)
    if files:
        assert finished.error.startswith("ClientError: See job logs for more information.")
        assert any(line.startswith("bucket/in/t: ") for line in data_log(ear))


async def test_a_failed_object_leaves_the_others(world: World) -> None:
    files = {"a": b"x", "b": b"broken", "c": b"bad", "d": b"y"}
    finished, ear = await transform(world, files, max_retries=1, max_concurrent=2)
    assert set(outputs(world)) == {"a.out", "d.out"}
    assert finished.error.startswith(
        "AlgorithmError: See job logs for more information. 2 of 4 objects failed: s3://bucket/in/b and 1 more: "
        "Bad HTTP status returned from invoke: 500\nit is broken"
    )
    assert "bucket/in/b: it is broken" in data_log(ear)


async def test_faults_that_pass_are_tried_again(world: World) -> None:
    finished, _ = await transform(world, {"a": b"flaky", "b": b"die"})
    assert finished == Finished()
    assert set(outputs(world)) == {"a.out", "b.out"}


async def test_an_answer_that_takes_too_long(world: World) -> None:
    finished, _ = await transform(world, {"a": b"slow"}, invocation_timeout_s=0.3, max_retries=0)
    assert "Model server did not respond to /invocations request within 0.3 seconds" in finished.error
    assert finished.error.startswith("AlgorithmError")


async def test_a_server_that_never_comes_up(world: World) -> None:
    world.objects["bucket/in/a"] = b"1"
    ear = await world.run(world.transform("exit(3)"))
    finished = ear.heard[-1]
    assert isinstance(finished, Finished)
    assert "did not pass the ping health check (exit code 3)" in finished.error
    assert "this job" in finished.error


async def test_stopping_writes_nothing_more(world: World) -> None:
    world.objects.update({"bucket/in/a": b"1", "bucket/in/b": b"slow", "bucket/in/c": b"3"})
    ear = Ear()
    await world.fleet.start(world.transform(SERVER), ear)
    await ear.until_true(lambda: "bucket/out/a.out" in world.objects)
    await world.fleet.tell(FIRST, Stop())
    assert await ear.until(Finished, timeout_s=10) == Finished()
    assert set(outputs(world)) == {"a.out"}
    await world.fleet.release(FIRST)

    await world.fleet.start(world.transform("import time; time.sleep(60)", "i-2"), ear)
    await asyncio.sleep(0.2)
    await world.fleet.tell("i-2", Shutdown())
    assert await ear.until(Finished, 2, timeout_s=10) == Finished()


async def test_a_successor_goes_on_where_its_predecessor_ended(world: World) -> None:
    files = {"a": b"1", "b": b"22"}
    await transform(world, files)
    del world.objects["bucket/out/b.out"]
    world.written.clear()
    finished, ear = await transform(world, files, attempt=1)
    assert finished == Finished()
    assert world.written == ["bucket/out/b.out"]
    assert sum(line.startswith("[") for line in ear.lines) == 1


async def test_hosts_share_the_objects(world: World) -> None:
    world.objects.update({f"bucket/in/{n}": b"1" for n in "abcde"})
    hosts = ("algo-1", "algo-2")
    for host, share in (("algo-1", "ace"), ("algo-2", "bd")):
        world.written.clear()
        ear = await world.run(world.transform(SERVER, f"i-{host}", host=host, hosts=hosts))
        assert ear.heard[-1] == Finished()
        assert sorted(world.written) == [f"bucket/out/{n}.out" for n in share]
