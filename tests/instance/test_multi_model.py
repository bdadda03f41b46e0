"""Instances with many models: loaded and unloaded when told, within their memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from textwrap import dedent

import pytest

from sagesmith.config import Settings
from sagesmith.containers import Sandbox
from sagesmith.instance._ping import ping
from sagesmith.instance.spec import Finished, Ready, Shutdown
from sagesmith_toolkit.frames import REQUEST, RESPONSE
from sagesmith_toolkit.sockets import unix_address
from tests.fleet.world import FIRST, Ear, World, a_world
from tests.instance.test_serving import SERVER, archive

SANDBOX, _ = Sandbox.find()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    settings = Settings(warm_instances=0, sandbox="bubblewrap" if SANDBOX else "none")
    async with a_world(settings=settings) as world:
        for name in ("one", "two", "sub/three"):
            world.objects[f"bucket/models/{name}.tar.gz"] = archive(weights=name.encode())
        world.objects["bucket/models/broken.tar.gz"] = archive(nothing=b"")
        yield world


class Instance:
    """An instance that serves the models below a prefix, and the connection on which it is told."""

    def __init__(self, world: World, ear: Ear, path: str) -> None:
        self.world, self.ear, self._path = world, ear, path

    async def tell(self, path: str, name: str) -> tuple[int, str]:
        with unix_address(self._path) as short:
            reader, writer = await asyncio.open_unix_connection(short)
        head, body = f"{path}\0\0\0".encode(), name.encode()
        writer.write(REQUEST.pack(6 + len(head) + len(body), 1, len(head)) + head + body)
        length, _, status, size = RESPONSE.unpack(
            await asyncio.wait_for(reader.readexactly(RESPONSE.size), 30)
        )
        answer = (await reader.readexactly(length - 8))[size:].decode()
        answer = answer.partition(" ")[0] if status == 200 else answer
        writer.close()
        return status, answer


async def an_instance(world: World, **container: object) -> Instance:
    ear = Ear()
    task = {"model_data": "s3://bucket/models/", "many": True}
    await world.fleet.start(world.serving(SERVER, task=task, container=container), ear)
    mode, _, address = (await ear.until(Ready)).address.partition("|")
    assert mode == "models"
    assert await ping(address, 5)
    return Instance(world, ear, address.removeprefix("unix:"))


async def test_models_come_and_go(world: World) -> None:
    instance = await an_instance(world)
    answers = await asyncio.gather(
        *(instance.tell("/models/load", name) for name in ("one.tar.gz", "one.tar.gz", "sub/three.tar.gz"))
    )
    assert {status for status, _ in answers} == {200}
    first, again, third = (address for _, address in answers)
    assert first == again != third
    assert await ping(first, 5)
    assert sorted(line for line in instance.ear.lines if line.startswith("model:")) == [
        "model: one",
        "model: sub/three",
    ]
    assert await instance.tell("/models/unload", "one.tar.gz") == (200, "")
    assert not await ping(first, 1)
    assert await ping(third, 5)
    assert (await instance.tell("/models/load", "one.tar.gz"))[0] == 200
    await world.fleet.tell(FIRST, Shutdown())
    assert await instance.ear.until(Finished) == Finished()
    assert not await ping(third, 1)


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("absent.tar.gz", 404, "Failed to download model data (bucket: bucket, key: models/absent.tar.gz)"),
        ("../models/one.tar.gz", 404, "no path below"),
        ("", 404, "no path below"),
        ("broken.tar.gz", 500, "exit code 1"),
    ],
)
async def test_what_cannot_be_loaded(world: World, name: str, status: int, words: str) -> None:
    instance = await an_instance(world)
    found, text = await instance.tell("/models/load", name)
    assert found == status, text
    assert words in text


async def test_models_have_only_so_much_memory(world: World) -> None:
    script = dedent(SERVER).replace(
        "class Echo:", "ballast = bytearray(os.urandom(1024) * 60_000)\nclass Echo:"
    )
    ear = Ear()
    spec = world.serving(
        script,
        task={"model_data": "s3://bucket/models/", "many": True},
        container={"environment": {"SAGESMITH_MULTI_MODEL_MEMORY_MB": "150"}},
    )
    await world.fleet.start(spec, ear)
    instance = Instance(world, ear, (await ear.until(Ready)).address.removeprefix("models|unix:"))
    assert (await instance.tell("/models/load", "one.tar.gz"))[0] == 200
    status, text = await instance.tell("/models/load", "two.tar.gz")
    assert status == 507, text
    assert "of the 150 MB" in text
    await instance.tell("/models/unload", "one.tar.gz")
    assert (await instance.tell("/models/load", "two.tar.gz"))[0] == 200
