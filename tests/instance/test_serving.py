"""Endpoint instances: the model comes in, the server is kept alive, its end is orderly."""

from __future__ import annotations

import asyncio
import io
import re
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from textwrap import dedent

import pytest

from sagesmith.config import Settings
from sagesmith.containers import Sandbox
from sagesmith.instance._artifacts import unpack
from sagesmith.instance._objects import DataError
from sagesmith.instance._ping import ping
from sagesmith.instance.spec import (
    ContainerSpec,
    Finished,
    Log,
    Ready,
    ServedContainer,
    Shutdown,
    Unhealthy,
)
from sagesmith_toolkit.frames import REQUEST
from sagesmith_toolkit.sockets import unix_address
from tests.fleet.world import FIRST, Ear, World, a_world

SANDBOX, REASON = Sandbox.find()
both_kinds = pytest.mark.parametrize(
    "world",
    [
        "none",
        pytest.param(
            "bubblewrap", marks=pytest.mark.skipif(SANDBOX is None, reason=f"no sandbox here: {REASON}")
        ),
    ],
    indirect=True,
)

SERVER = """
import os, sys
from sagesmith_toolkit.server import Response, serve
base = os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml")
print("model:", open(base + "/model/weights").read(), flush=True)
class Echo:
    def predict(self, requests):
        if requests[0].body == b"die": os._exit(9)
        return [Response(200, r.content_type, r.body) for r in requests]
serve(Echo(), os.environ["SAGESMITH_SOCKET"])
print("drained", flush=True)
"""


@pytest.fixture(params=["bubblewrap" if SANDBOX else "none"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with a_world(settings=Settings(warm_instances=0, sandbox=request.param)) as world:
        world.objects["bucket/model.tar.gz"] = archive(weights=b"w")
        yield world


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@both_kinds
async def test_a_server_becomes_ready_is_restarted_and_ends_in_order(world: World) -> None:
    ear = Ear()
    await world.fleet.start(world.serving(SERVER, task={"model_data": "s3://bucket/model.tar.gz"}), ear)
    address = (await ear.until(Ready)).address
    assert address.startswith("unix:/")
    assert len(address) < 112
    assert await ping(address, 2)
    assert ear.lines == ["model: w"]

    await die(address.removeprefix("unix:"))
    assert (await ear.until(Unhealthy)).reason == "exit code 9"
    await ear.until(Ready, 2)

    await world.fleet.tell(FIRST, Shutdown())
    assert await ear.until(Finished) == Finished()
    assert "drained" in ear.lines


HUNGRY = """
import os, threading, time
from sagesmith_toolkit.server import serve
kept = []
class Nothing:
    def predict(self, requests):
        return []
def eat():
    time.sleep(0.5)
    kept.append(os.urandom(200 << 20))
if not os.path.exists("again"):
    open("again", "w").close()
    threading.Thread(target=eat).start()
serve(Nothing(), os.environ["SAGESMITH_SOCKET"])
"""


@both_kinds
async def test_a_server_that_takes_more_memory_than_it_may_is_ended(world: World) -> None:
    ear = Ear()
    spec = world.serving(HUNGRY, task={"limited": True}, memory_bytes=150 << 20)
    await world.fleet.start(spec, ear)
    await ear.until(Ready)
    reason = (await ear.until(Unhealthy)).reason
    assert re.fullmatch(r"it took [12]\d\d MB of memory, and may take 150 MB: give it more, .*", reason)
    assert any(f"The model server ended ({reason})" in line for line in ear.lines), ear.lines
    await ear.until(Ready, 2)
    await world.fleet.tell(FIRST, Shutdown())
    await ear.until(Finished)


async def die(path: str) -> None:
    with unix_address(path) as short:
        _, writer = await asyncio.open_unix_connection(short)
    head = b"/invocations\0\0\0"
    writer.write(REQUEST.pack(6 + len(head) + 3, 1, len(head)) + head + b"die")
    await writer.drain()
    writer.close()


async def test_a_server_that_never_answers_fails_the_endpoint(world: World) -> None:
    ear = await world.run(world.serving("print('no'); exit(1)"))
    finished = ear.heard[-1]
    assert isinstance(finished, Finished)
    assert "did not pass the ping health check" in finished.error
    assert "exit code 1" in finished.error
    assert ear.lines.count("no") == 3


async def test_a_server_that_hangs_fails_the_endpoint_in_time(world: World) -> None:
    ear = await world.run(world.serving("import time; time.sleep(60)", task={"startup_timeout_s": 0.3}))
    finished = ear.heard[-1]
    assert isinstance(finished, Finished)
    assert "did not pass the ping health check" in finished.error


async def test_a_model_that_is_too_long_on_its_way_is_the_clients_error(world: World) -> None:
    world.objects["bucket/m.tar.gz"] = archive(weights=b"w" * 5000)
    task = {"model_data": "s3://bucket/m.tar.gz", "download_timeout_s": 0.0}
    finished = (await world.run(world.serving(SERVER, task=task))).heard[-1]
    assert isinstance(finished, Finished)
    assert finished.client_error
    assert "could not be downloaded within 0 s" in finished.error


async def test_a_missing_model_is_the_clients_error(world: World) -> None:
    ear = await world.run(world.serving(SERVER, task={"model_data": "s3://bucket/absent.tar.gz"}))
    assert ear.heard[-1] == Finished(
        "Could not find model data at s3://bucket/absent.tar.gz.", client_error=True
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"not a tar", "valid tar.gz archive"),
        (archive(weights=b"w" * 5000)[:40], "valid tar.gz archive"),
        (archive(**{"../escape": b""}), "outside the destination"),
        (archive(**{"/etc/escape": b""}), "absolute path"),
    ],
    ids=["no-tar", "broken-off", "above", "absolute"],
)
def test_a_bad_model_archive_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "archive").write_bytes(data)
    with pytest.raises(DataError, match=words):
        unpack(tmp_path / "archive", tmp_path / "model", "s3://bucket/model.tar.gz")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_do_not_leave_the_archive(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "archive", mode="w:gz") as tar:
        member = tarfile.TarInfo("thing")
        member.type, member.linkname = kind, "../../../../../etc/passwd"
        tar.addfile(member)
    with pytest.raises(DataError, match="Failed to extract model data archive"):
        unpack(tmp_path / "archive", tmp_path / "model", "s3://bucket/model.tar.gz")


def a_stage(name: str, model: str) -> ServedContainer:
    container = ContainerSpec("process", "image", ("python", "-c", dedent(SERVER)))
    return ServedContainer(name, container, model_data=f"s3://bucket/{model}")


@both_kinds
async def test_several_containers_are_ready_together(world: World) -> None:
    world.objects["bucket/second.tar.gz"] = archive(weights=b"second")
    ear = Ear()
    task = {
        "model_data": "s3://bucket/model.tar.gz",
        "containers": (a_stage("first", "model.tar.gz"), a_stage("second", "second.tar.gz")),
    }
    await world.fleet.start(world.serving(SERVER, task=task), ear)
    address = (await ear.until(Ready)).address
    mode, *places = address.split("|")
    assert mode == "serial"
    assert [place.partition("=")[0] for place in places] == ["first", "second"]
    paths = [place.partition("=")[2] for place in places]
    assert [await ping(path, 2) for path in paths] == [True, True]
    logged = {(log.part, text) for log in ear.all(Log) for _, text in log.lines}
    assert {("first", "model: w"), ("second", "model: second")} <= logged

    await die(paths[1].removeprefix("unix:"))
    assert (await ear.until(Unhealthy)).reason == "container second: exit code 9"
    await ear.until(Ready, 2)
    assert await ping(paths[0], 2), "the other one went on"

    await world.fleet.tell(FIRST, Shutdown())
    assert await ear.until(Finished) == Finished()
    assert not await ping(paths[0], 1)


async def test_a_container_that_cannot_start_ends_the_others(world: World) -> None:
    broken = ServedContainer("broken", ContainerSpec("process", "image", ("python", "-c", "exit(3)")))
    task = {"containers": (a_stage("first", "model.tar.gz"), broken)}
    ear = await world.run(world.serving(SERVER, task=task))
    finished = ear.heard[-1]
    assert isinstance(finished, Finished)
    assert "exit code 3" in finished.error
