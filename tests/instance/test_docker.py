"""Instances that run the user's own image: the same agents, with Docker below them."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import tarfile
from collections.abc import AsyncIterator
from dataclasses import replace
from textwrap import dedent

import pytest

from sagesmith.config import Settings
from sagesmith.containers import Engine
from sagesmith.fleet.api import InstanceLost
from sagesmith.instance._ping import ping
from sagesmith.instance.spec import (
    ChannelSpec,
    ContainerSpec,
    Exited,
    Finished,
    InstanceSpec,
    Ready,
    ServedContainer,
    ServingTask,
    Shutdown,
    Stop,
    Unhealthy,
    Uploaded,
)
from tests.containers.engine import BASE, needs_docker
from tests.fleet.world import FIRST, Ear, World, a_world

pytestmark = needs_docker


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world(settings=Settings(warm_instances=0)) as world:
        yield world
    assert await containers_of(world) == []


async def containers_of(world: World) -> list[str]:
    filters = json.dumps({"label": [f"sagesmith.folder={world.home.instances}"]})
    found = await Engine().call("GET", "/containers/json", {"all": "1", "filters": filters})
    return [container["State"] for container in found]


def in_docker(spec: InstanceSpec, script: str = "", **more: object) -> InstanceSpec:
    members = {"command": ("python", "-c", dedent(script)), "image": BASE, **more}
    return replace(spec, container=ContainerSpec("docker", **members))  # type: ignore[arg-type]


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


async def test_a_job_from_its_channel_to_its_artifact(world: World) -> None:
    world.objects["bucket/data/train.csv"] = b"1,2"
    script = """
        import json, os, urllib.request
        print(open("/opt/ml/input/data/train/train.csv").read(), os.environ["AWS_ACCESS_KEY_ID"], os.environ["MINE"])
        print(json.load(open("/opt/ml/input/config/resourceconfig.json"))["network_interface_name"])
        print(urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL"] + "/bucket/data/train.csv").read())
        open("/opt/ml/model/weights", "w").write("w")
    """
    task = {"channels": (ChannelSpec("train", "s3://bucket/data"),)}
    ear = await world.run(in_docker(world.spec("", task=task), script, environment={"MINE": "x"}))
    assert ear.lines == ["1,2 AKIA x", "eth0", "b'1,2'"]
    assert ear.stages == ["Downloading", "Training", "Uploading"]
    assert ear.all(Exited) == [Exited(0)]
    assert ear.all(Uploaded)[0].model_uri == "s3://bucket/out/job/output/model.tar.gz"


async def test_an_image_that_runs_as_another_user_can_write_its_model(world: World) -> None:
    made = await Engine().call(
        "POST", "/containers/create", body={"Image": BASE, "Cmd": ["true"], "User": "1234:1234"}
    )
    query = {"container": made["Id"], "repo": f"{BASE}-user"}
    await Engine().call("POST", "/commit", query, {"User": "1234:1234"})
    await Engine().call("DELETE", f"/containers/{made['Id']}")
    script = "import os; print(os.getuid()); open('/opt/ml/model/weights', 'w').close()"
    ear = await world.run(in_docker(world.spec(""), script, image=f"{BASE}-user"))
    assert ear.lines == ["1234"]
    assert ear.all(Exited) == [Exited(0)]
    await Engine().call("DELETE", f"/images/{BASE}-user")


async def test_a_container_without_train_fails_the_job(world: World) -> None:
    ear = await world.run(in_docker(world.spec(""), command=("train",)))
    finished = ear.heard[-1]
    assert isinstance(finished, Finished)
    assert finished.client_error
    assert "exec train failed: No such file or directory" in finished.error


async def test_an_image_that_nobody_has_fails_the_job(world: World) -> None:
    image = "127.0.0.1:1/nobody-has:this"
    finished = (await world.run(in_docker(world.spec(""), image=image))).heard[-1]
    assert isinstance(finished, Finished)
    assert finished.client_error
    assert finished.error.startswith(f"Cannot pull the image {image!r}: ")


async def test_stopping_lets_it_save_its_work(world: World) -> None:
    script = """
        import signal, sys, time
        def end(*_):
            open("/opt/ml/model/weights", "w").close(); sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        print("ready"); time.sleep(60)
    """
    ear = Ear()
    await world.fleet.start(in_docker(world.spec(""), script), ear)
    await ear.until_line("ready")
    await world.fleet.tell(FIRST, Stop(grace_s=10))
    await ear.until(Finished)
    assert ear.all(Exited) == [Exited(0, stopped=True)]
    assert ear.all(Uploaded)


async def test_the_container_of_a_killed_agent_ends(world: World) -> None:
    ear = Ear()
    await world.fleet.start(in_docker(world.spec(""), "import time; print('ready'); time.sleep(60)"), ear)
    await ear.until_line("ready")
    assert await containers_of(world) == ["running"]
    os.kill(world.fleet._instances[FIRST].pid, signal.SIGKILL)
    await ear.until(InstanceLost)
    assert await containers_of(world) == []


async def test_the_container_of_an_agent_that_was_killed_without_a_server_ends(world: World) -> None:
    ear, later = Ear(), Ear()
    await world.fleet.start(in_docker(world.spec(""), "import time; print('ready'); time.sleep(60)"), ear)
    await ear.until_line("ready")
    pid = world.fleet._instances[FIRST].pid
    await world.vanish()
    os.kill(pid, signal.SIGKILL)
    assert await containers_of(world) == ["running"]
    await world.up()
    assert await world.fleet.attach(FIRST, later)
    await later.until(InstanceLost)
    assert await containers_of(world) == []


async def test_the_servers_orderly_end_takes_containers_with_it(world: World) -> None:
    ear = Ear()
    await world.fleet.start(in_docker(world.spec(""), "import time; print('ready'); time.sleep(60)"), ear)
    await ear.until_line("ready")
    await world.fleet.close(end_instances=True)
    await world.vanish()
    assert await containers_of(world) == []
    await world.up()


SERVER = """
    import http.server, os
    class Model(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        def do_GET(self):
            self.answer(200 if self.path == "/ping" else 404, b"")
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if body == b"die": os._exit(9)
            self.answer(200, open("/opt/ml/model/weights", "rb").read() + body)
        def answer(self, status, body):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        def log_message(self, *_): pass
    print("serving")
    http.server.ThreadingHTTPServer(("", 8080), Model).serve_forever()
"""


@pytest.mark.parametrize("network", [True, False])
async def test_a_server_becomes_ready_is_restarted_and_ends_in_order(world: World, network: bool) -> None:
    world.objects["bucket/model.tar.gz"] = archive(weights=b"w")
    ear = Ear()
    spec = world.serving("", task={"model_data": "s3://bucket/model.tar.gz"})
    await world.fleet.start(in_docker(spec, SERVER, network=network), ear)
    ready = await ear.until(Ready)
    assert ready.protocol == "http"
    assert ready.address.startswith("http:")
    assert await ping(ready.address, 2)
    assert await post(ready.address, b"+") == b"w+"

    assert await post(ready.address, b"die") == b""
    assert (await ear.until(Unhealthy)).reason == "exit code 9"
    assert await post((await ear.until(Ready, 2)).address, b"-") == b"w-"

    await world.fleet.tell(FIRST, Shutdown(grace_s=1))
    assert await ear.until(Finished) == Finished()


async def test_several_containers_of_an_instance_end_with_it(world: World) -> None:
    world.objects["bucket/model.tar.gz"] = archive(weights=b"w")
    spec = in_docker(world.serving("", task={"model_data": "s3://bucket/model.tar.gz"}), SERVER)
    parts = tuple(
        ServedContainer(name=name, container=spec.container, model_data="s3://bucket/model.tar.gz")
        for name in ("first", "second")
    )
    assert isinstance(spec.task, ServingTask)
    ear = Ear()
    await world.fleet.start(replace(spec, task=replace(spec.task, containers=parts)), ear)
    address = (await ear.until(Ready)).address
    assert [place.partition("=")[0] for place in address.split("|")] == ["serial", "first", "second"]
    for place in address.split("|")[1:]:
        assert await post(place.partition("=")[2], b"+") == b"w+"
    assert await containers_of(world) == ["running", "running"]
    os.kill(world.fleet._instances[FIRST].pid, signal.SIGKILL)
    await ear.until(InstanceLost)
    assert await containers_of(world) == []


async def post(address: str, body: bytes) -> bytes:
    host, _, port = address.removeprefix("http:").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /invocations HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n\r\n")[2]


async def test_a_server_that_never_answers_ping_fails(world: World) -> None:
    spec = world.serving("", task={"startup_timeout_s": 1.0})
    finished = (await world.run(in_docker(spec, "import time; time.sleep(60)"))).heard[-1]
    assert isinstance(finished, Finished)
    assert "did not pass the ping health check (no answer to /ping in 1 s)" in finished.error


async def test_several_hosts_reach_each_other_and_nobody_else_without_network(world: World) -> None:
    script = """
        import os, socket, time
        me = socket.gethostname()
        if me == "algo-1":
            listening = socket.create_server(("0.0.0.0", 7777))
            print(listening.accept()[0].recv(99).decode())
        else:
            for _ in range(100):
                try:
                    socket.create_connection(("algo-1", 7777), 1).sendall(b"hello")
                    break
                except OSError:
                    time.sleep(0.1)
            else:
                raise SystemExit("nobody there")
        open("/opt/ml/model/" + me, "w").close()
    """
    hosts = ("algo-1", "algo-2")
    ears = {host: Ear() for host in hosts}
    starts = [
        world.fleet.start(
            replace(
                in_docker(world.spec("", f"i-{host}"), script, network=False),
                host=host,
                hosts=hosts,
                owner_arn="arn:of:both",
            ),
            ears[host],
        )
        for host in hosts
    ]
    await asyncio.gather(*starts)
    for host in hosts:
        await ears[host].until(Exited)
        assert ears[host].all(Exited) == [Exited(0)]
    assert ears["algo-1"].lines == ["hello"]
    for host in hosts:
        await ears[host].until(Uploaded)
        await world.fleet.tell(f"i-{host}", Shutdown())
        await ears[host].until(Finished)
    networks = [network["Name"] for network in await Engine().call("GET", "/networks")]
    assert not [name for name in networks if name.startswith("sagesmith-isolated-")]
