"""Docker keeps the runtime contract, and the limits that processes have not."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest

from sagesmith.containers import ContainerError, ContainerPlan, DockerRuntime, Output, remove_containers
from sagesmith.containers._engine import Engine
from sagesmith.containers.docker import DockerContainer
from tests.containers.contract import ContainerRuntimeContract, Lines, alive, plan, run
from tests.containers.engine import BASE, needs_docker

pytestmark = needs_docker


class WithImage(DockerRuntime):
    """Runs plans that name no image in the tests' own."""

    async def start(self, plan: ContainerPlan, output: Output) -> DockerContainer:
        return await super().start(replace(plan, image=plan.image or BASE), output)


@pytest.fixture
async def runtime() -> WithImage:
    return WithImage()


class TestDocker(ContainerRuntimeContract):
    async def test_it_has_the_limits_of_its_instance(self, runtime: WithImage, tmp_path: Path) -> None:
        script = """
            import os
            def read(*paths):
                return next(open(p).read().split() for p in paths if os.path.exists(p))
            memory = read("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max")
            quota = read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu.max")[0]
            shm = os.statvfs("/dev/shm")
            print(memory[0], quota, shm.f_blocks * shm.f_frsize, os.uname().nodename)
        """
        what = plan(tmp_path, script, vcpus=1.5, memory_bytes=256 << 20, hostname="algo-2")
        assert await run(runtime, what) == (0, [f"{256 << 20} 150000 {128 << 20} algo-2"])

    async def test_what_takes_more_memory_is_killed(self, runtime: WithImage, tmp_path: Path) -> None:
        code, _ = await run(runtime, plan(tmp_path, "b'x' * (200 << 20)", memory_bytes=64 << 20))
        assert code == 137

    async def test_an_entrypoint_replaces_the_images(self, runtime: WithImage, tmp_path: Path) -> None:
        what = plan(tmp_path, "", entrypoint=("python", "-c"), command=("print('entered')",))
        assert await run(runtime, what) == (0, ["entered"])

    async def test_read_only_parts_of_opt_ml(self, runtime: WithImage, tmp_path: Path) -> None:
        (tmp_path / "ml" / "input" / "data" / "train").mkdir(parents=True)
        script = """
            open("/opt/ml/input/data/other", "w")
            try:
                open("/opt/ml/input/data/train/x", "w")
            except OSError as error:
                print(error.strerror)
        """
        what = plan(tmp_path, script, read_only=("input/data/train",))
        assert await run(runtime, what) == (0, ["Read-only file system"])

    async def test_an_image_that_is_not_there_is_the_callers_fault(
        self, runtime: WithImage, tmp_path: Path
    ) -> None:
        with pytest.raises(ContainerError, match="has no image 'no-such-image'") as caught:
            await run(runtime, plan(tmp_path, "", image="no-such-image"))
        assert caught.value.client_error

    async def test_without_an_engine_it_says_so(self, tmp_path: Path) -> None:
        runtime = WithImage(Engine(str(tmp_path / "none.sock")))
        with pytest.raises(ContainerError, match=r"none\.sock \(No such file.*Start Docker"):
            await run(runtime, plan(tmp_path, ""))


@pytest.fixture
async def server() -> AsyncIterator[str]:
    """What listens on the loopback of this machine and says who connects."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        host = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"host:"))
        body = b"you asked " + host[6:]
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body)
        )
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


async def test_the_control_plane_is_reached_from_inside(server: str, tmp_path: Path) -> None:
    runtime = WithImage(server_url=server)
    script = """
        import os, urllib.request
        url = os.environ["AWS_ENDPOINT_URL"]
        print(urllib.request.urlopen(url).read().decode() == "you asked " + url[7:], os.environ["OTHER"])
    """
    environment = {"AWS_ENDPOINT_URL": server, "OTHER": "http://elsewhere"}
    assert await run(runtime, plan(tmp_path, script, environment=environment)) == (
        0,
        ["True http://elsewhere"],
    )


async def test_nobody_else_gets_through_a_containers_way_to_the_control_plane(
    server: str, tmp_path: Path
) -> None:
    runtime = WithImage(server_url=server)
    (tmp_path / "a").mkdir()
    lines = Lines()
    script = "import os, time; print(os.environ['URL']); time.sleep(60)"
    first = await runtime.start(plan(tmp_path / "a", script, environment={"URL": server}), lines)
    while not lines:
        await asyncio.sleep(0.01)
    host, _, port = lines[0].removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    await first.stop(0)


async def test_without_network_there_is_nothing_to_reach(runtime: WithImage, tmp_path: Path) -> None:
    script = "import os; print(sorted(os.listdir('/sys/class/net')))"
    assert await run(runtime, plan(tmp_path, script, network=False)) == (0, ["['lo']"])


@pytest.mark.parametrize("network", [True, False])
async def test_the_gateway_reaches_its_port(runtime: WithImage, tmp_path: Path, network: bool) -> None:
    script = """
        import socket
        listening = socket.create_server(("0.0.0.0", 8080))
        print("ready", flush=True)
        connection, _ = listening.accept()
        connection.sendall(b"hello")
        try:
            socket.create_connection(("192.0.2.1", 80), 1)
        except OSError:
            print("no way")
    """
    lines = Lines()
    container = await runtime.start(plan(tmp_path, script, network=network, port=8080), lines)
    await lines.until("ready")
    reader, writer = await asyncio.open_connection(container.address, 8080)
    assert await reader.read(5) == b"hello"
    writer.close()
    await container.wait()
    if not network:
        assert lines == ["ready", "no way"]


async def test_the_hosts_of_a_job_meet_in_a_network_of_their_own(runtime: WithImage, tmp_path: Path) -> None:
    for host in ("one", "two", "three"):
        (tmp_path / host).mkdir()
    listener = """
        import socket
        listening = socket.create_server(("0.0.0.0", 7777))
        print("ready", flush=True)
        print(listening.accept()[0].recv(5))
    """
    lines, other = Lines(), Lines()
    group = f"job-{tmp_path.name}"
    first = await runtime.start(plan(tmp_path / "one", listener, group=group, hostname="algo-1"), lines)
    await lines.until("ready")
    talker = "import socket; socket.create_connection(('algo-1', 7777), 5).sendall(b'hello')"
    second = await runtime.start(plan(tmp_path / "two", talker, group=group, hostname="algo-2"), other)
    stranger = "import socket; socket.create_connection(('algo-1', 7777), 1)"
    code, _ = await run(runtime, plan(tmp_path / "three", stranger, hostname="algo-3"))
    assert (await second.wait(), await first.wait(), other) == (0, 0, [])
    assert lines == ["ready", "b'hello'"]
    assert code == 1
    names = [network["Name"] for network in await Engine().call("GET", "/networks")]
    assert not [name for name in names if name.startswith("sagesmith-") and name != "sagesmith-isolated"]


async def test_what_a_killed_agent_leaves_is_found(tmp_path: Path) -> None:
    mark = f"mark-of-{tmp_path.name}"
    folder = tmp_path / "i-x"
    (folder / "ml").mkdir(parents=True)
    agent = dedent(
        f"""
        import asyncio
        from pathlib import Path
        from sagesmith.containers import ContainerPlan, DockerRuntime
        async def main():
            script = "import time; print('ready', flush=True); time.sleep(60) # {mark}"
            plan = ContainerPlan("i-x", Path({str(folder)!r}), ("python", "-c", script), image={BASE!r})
            await DockerRuntime().start(plan, lambda lines: print("ready", flush=True))
            await asyncio.sleep(60)
        asyncio.run(main())
        """
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", agent, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 20) == b"ready\n"
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert remove_containers("i-x", tmp_path / "elsewhere") == 0
    assert await asyncio.to_thread(remove_containers, "i-x", tmp_path) == 1
    assert alive(mark) == []
    assert await asyncio.to_thread(remove_containers, "i-x", tmp_path) == 0
