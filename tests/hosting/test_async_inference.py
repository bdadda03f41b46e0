"""Asynchronous inference on a real database and gateway, with a model server that may be missing."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from sagesmith.errors import AwsError
from sagesmith.hosting.async_inference import AsyncInference
from sagesmith.hosting.gateway import Gateway
from sagesmith.store.database import Database
from sagesmith.store.metrics import Datum
from sagesmith.store.resources import Resources
from sagesmith_toolkit.server import ModelServer, Request, Response

REGION = "us-east-1"
CONFIG = {
    "OutputConfig": {"S3OutputPath": "s3://b/out/", "S3FailurePath": "s3://b/failed"},
    "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 2},
}


class Objects:
    def __init__(self) -> None:
        self.content: dict[str, bytes] = {"b/in": b"1,2"}
        self.puts: list[str] = []

    def get(self, bucket: str, key: str) -> BinaryIO:
        if f"{bucket}/{key}" not in self.content:
            raise AwsError("NoSuchKey", "The specified key does not exist.", status=404)
        return io.BytesIO(self.content[f"{bucket}/{key}"])

    def find(self, bucket: str, key: str) -> object | None:
        return self.content.get(f"{bucket}/{key}")

    def put_bytes(self, bucket: str, key: str, data: bytes, *, content_type: str) -> object:
        self.content[f"{bucket}/{key}"] = data
        self.puts.append(f"{bucket}/{key}")
        return None

    async def until(self, uri: str) -> bytes:
        async with asyncio.timeout(20):
            while (found := self.content.get(uri.removeprefix("s3://"))) is None:
                await asyncio.sleep(0.01)
        return found


class Echo:
    def predict(self, requests: Sequence[Request]) -> Sequence[Response]:
        return [
            Response(500, "text/plain", b"broken") if r.body == b"bad"
            else Response(200, r.accept or "text/csv", r.content_type.encode() + b"|" + r.body)
            for r in requests
        ]  # fmt: skip


class World:
    """One endpoint, one database, and servers that come and go."""

    def __init__(self, folder: Path) -> None:
        self.socket = str(folder / "s")
        self.objects = Objects()
        self.metrics: list[Datum] = []
        self.database = Database(f"sqlite:///{folder}/db")
        self.database.migrate()
        self.resources = Resources(self.database)
        self.model: ModelServer | None = None

    async def up(self, **more: Any) -> None:
        self.gateway = Gateway("123456789012", sink=lambda *a, **b: None)
        self.gateway.start()
        self.work = AsyncInference(
            self.resources, self.gateway, self.objects, self._sink, metrics_s=0.05, **more
        )
        self.gateway.set_endpoint(REGION, "slow", {"v": 1.0})
        self.gateway.set_endpoint(REGION, "quick", {"v": 1.0})
        self.work.set(REGION, "slow", CONFIG)
        await self.work.start()

    async def down(self) -> None:
        await self.work.close()
        await self.gateway.close()

    async def serve(self) -> None:
        self.model = ModelServer(Echo())
        await self.model.listen(self.socket)
        self.gateway.add_instance(REGION, "slow", "v", "i-1", f"unix:{self.socket}")

    def _sink(self, namespace: str, data: Sequence[Datum], *, region: str) -> None:
        assert (namespace, region) == ("AWS/SageMaker", REGION)
        self.metrics += data


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    await world.up()
    yield world
    await world.down()
    if world.model is not None:
        world.model.drain()
        await world.model.wait_closed()
    world.database.close()


async def test_answers_and_failures_go_to_s3(world: World) -> None:
    await world.serve()
    request: dict[str, Any] = {"InputLocation": "s3://b/in", "ContentType": "text/csv", "InferenceId": "mine"}
    accepted = await world.work.accept(REGION, "slow", request)
    assert accepted.inference_id == "mine"
    assert accepted.output.startswith("s3://b/out/")
    assert accepted.failure.startswith("s3://b/failed/")
    assert await world.objects.until(accepted.output) == b"text/csv|1,2"

    inline: dict[str, Any] = {"Body": b"9", "S3OutputPathExtension": "mine", "Filename": "x.csv"}
    accepted = await world.work.accept(REGION, "slow", inline)
    assert accepted.output == "s3://b/out/mine/x.csv"
    assert await world.objects.until(accepted.output) == b"application/octet-stream|9"

    for request, words in (
        ({"InputLocation": "s3://b/absent"}, b"Unable to download the input s3://b/absent"),
        ({"Body": b"bad"}, b"Received server error (500) from primary"),
    ):
        accepted = await world.work.accept(REGION, "slow", request)
        assert words in await world.objects.until(accepted.failure)
        assert accepted.output.removeprefix("s3://") not in world.objects.content
    async with asyncio.timeout(10):
        while world.resources.with_status("async-invocation", ("Pending",)):
            await asyncio.sleep(0.01)


async def test_requests_wait_for_an_instance_and_survive_the_server(world: World) -> None:
    found = [await world.work.accept(REGION, "slow", {"Body": b"%d" % i}) for i in range(10)]
    async with asyncio.timeout(10):
        while not any(d.name == "ApproximateBacklogSize" and d.value == 10 for d in world.metrics):
            await asyncio.sleep(0.01)
    assert any(d.name == "HasBacklogWithoutCapacity" and d.value == 1 for d in world.metrics)
    await world.down()
    await world.up()
    await world.serve()
    for i, accepted in enumerate(found):
        assert await world.objects.until(accepted.output) == b"application/octet-stream|%d" % i
    assert len(world.objects.puts) == 10
    async with asyncio.timeout(10):
        while not any(d.name == "ApproximateBacklogSizePerInstance" and d.value == 0 for d in world.metrics):
            await asyncio.sleep(0.01)


async def test_what_is_written_already_is_not_written_again(world: World) -> None:
    accepted = await world.work.accept(REGION, "slow", {"Body": b"1"})
    world.objects.content[accepted.output.removeprefix("s3://")] = b"by the server before"
    await world.serve()
    async with asyncio.timeout(10):
        while world.resources.with_status("async-invocation", ("Pending",)):
            await asyncio.sleep(0.01)
    assert world.objects.puts == []


async def test_the_time_a_request_may_wait(world: World) -> None:
    world.work._clock = lambda: 4e9
    accepted = await world.work.accept(REGION, "slow", {"Body": b"1", "RequestTTLSeconds": 60})
    await world.serve()
    assert b"RequestTTLSeconds" in await world.objects.until(accepted.failure)


async def test_an_endpoint_that_is_gone(world: World) -> None:
    accepted = await world.work.accept(REGION, "slow", {"Body": b"1"})
    world.work.set(REGION, "slow", {})
    assert b"does not exist" in await world.objects.until(accepted.failure)


async def test_what_is_refused(world: World) -> None:
    for endpoint, request, words in (
        ("absent", {"Body": b"1"}, "not found"),
        ("quick", {"Body": b"1"}, "is not configured for asynchronous inference"),
        ("slow", {}, "Exactly one of InputLocation and Body"),
        ("slow", {"Body": b"1", "InputLocation": "s3://b/in"}, "Exactly one of InputLocation and Body"),
        ("slow", {"Body": b"1", "Accept": "\u00e9"}, "accept"),
    ):
        with pytest.raises(AwsError, match=words):
            await world.work.accept(REGION, endpoint, request)
    assert world.gateway.endpoint(REGION, "slow").asynchronous
    assert not world.gateway.endpoint(REGION, "quick").asynchronous
