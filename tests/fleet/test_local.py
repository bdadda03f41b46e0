"""Who is killed when: agents, containers, the server, in every combination."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from sagesmith.config import Settings
from sagesmith.containers import Sandbox
from sagesmith.containers.processes import descendants
from sagesmith.errors import AwsError
from sagesmith.fleet._nursery import Nursery
from sagesmith.fleet.api import InstanceLost
from sagesmith.instance.spec import ChannelSpec, Exited, Finished, Message
from tests.containers.contract import alive
from tests.fleet.world import FIRST, Ear, HttpRequest, World, a_world

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


@pytest.fixture(params=["bubblewrap" if SANDBOX else "none"])
async def world(request: pytest.FixtureRequest, mark: str) -> AsyncIterator[World]:
    """A world that is gone before `mark` looks for what it left."""
    async with a_world(settings=Settings(warm_instances=0, sandbox=request.param)) as world:
        yield world


@pytest.fixture
def mark(request: pytest.FixtureRequest) -> Iterator[str]:
    """A word in the command line of a test's processes; none of them may be left."""
    mark = f"mark-{os.getpid()}-{request.node.name}"
    yield mark
    deadline = time.monotonic() + 2
    while alive(mark) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert alive(mark) == []


def sleeper(mark: str) -> str:
    return (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60) # {mark}'], start_new_session=True)\n"
        f"print('ready'); time.sleep(60) # {mark}"
    )


@both_kinds
async def test_a_killed_agent_takes_its_container_with_it_and_is_noticed_at_once(
    world: World, mark: str
) -> None:
    ear = Ear()
    await world.fleet.start(world.spec(sleeper(mark)), ear)
    await ear.until_line("ready")
    assert len(alive(mark)) >= 2
    os.kill(world.fleet.status()["instances"][0]["pid"], signal.SIGKILL)
    before = time.monotonic()
    lost = await ear.until(InstanceLost)
    assert not lost.shutdown
    assert time.monotonic() - before < 0.5


async def test_work_goes_on_without_the_server_and_nothing_is_missed(world: World) -> None:
    script = """
        import os, time
        print("ready")
        while not os.path.exists(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml") + "/output/go"): time.sleep(0.01)
        for i in range(3000): print(i)
    """
    first = Ear()
    await world.fleet.start(world.spec(script), first)
    await first.until_line("ready")
    await world.vanish()
    instance = world.home.instances / FIRST
    (instance / "ml/output/go").touch()
    await in_time(lambda: b'"kind":"exited"' in (instance / "journal").read_bytes())

    fleet = await world.up()
    second = Ear()
    assert await fleet.attach(FIRST, second)
    assert await second.until(Finished) == Finished()
    assert [*first.lines, *second.lines] == ["ready", *map(str, range(3000))]
    assert second.all(Exited) == [Exited(0)]


async def test_a_server_that_forgot_what_it_took_goes_on_with_what_comes(world: World) -> None:
    script = """
        import os, time
        print("ready")
        while not os.path.exists(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml") + "/output/go"): time.sleep(0.01)
    """
    await world.fleet.start(world.spec(script), first := Ear())
    await first.until_line("ready")
    await world.vanish()
    instance = world.home.instances / FIRST
    (instance / "delivered").write_text("")
    (instance / "ml/output/go").touch()
    fleet = await world.up()
    assert await fleet.attach(FIRST, ear := Ear())
    assert await ear.until(Finished) == Finished()
    assert ear.all(Exited) == [Exited(0)]


async def test_an_agent_that_a_killed_server_forks_late_does_nothing(world: World) -> None:
    script = "import os, time; print(os.getpid(), flush=True); time.sleep(1)"
    await world.fleet.start(world.spec(script), ear := Ear())
    await ear.until_true(lambda: bool(ear.lines))
    folder = world.home.instances / FIRST
    identity = (folder / "agent.json").read_bytes()
    nursery = Nursery()
    try:
        late = await nursery.fork(folder, "the token of the start before")
        await in_time(lambda: bool(select.select([late], [], [], 0)[0]))
        os.close(late)
    finally:
        nursery.close()
    assert (folder / "agent.json").read_bytes() == identity
    assert await ear.until(Finished) == Finished()
    assert len(ear.lines) == 1


async def test_an_agent_that_began_in_a_folder_that_was_replaced_is_ended(world: World, mark: str) -> None:
    await world.fleet.start(world.spec(sleeper(mark)), first := Ear())
    await first.until_line("ready")
    pid = world.fleet.status()["instances"][0]["pid"]
    await world.vanish()
    folder = world.home.instances / FIRST
    (folder / "agent.json").rename(folder / "hidden")
    fleet = await world.up()  # finds no agent
    (folder / "hidden").rename(folder / "agent.json")
    await fleet._make_way(folder)
    await in_time(lambda: not running(pid))
    assert not folder.exists()


async def test_what_ended_meanwhile_still_says_how(world: World, mark: str) -> None:
    await world.fleet.start(world.spec(sleeper(mark), "i-killed"), first := Ear())
    await first.until_line("ready")
    pid = world.fleet.status()["instances"][0]["pid"]
    await world.vanish()
    os.kill(pid, signal.SIGKILL)
    fleet = await world.up()
    ear = Ear()
    assert await fleet.attach("i-killed", ear)
    assert not (await ear.until(InstanceLost)).shutdown
    assert not await fleet.attach("i-never", ear)


async def test_a_reboot_is_not_the_instances_fault(world: World, mark: str) -> None:
    await world.fleet.start(world.spec(sleeper(mark)), first := Ear())
    await first.until_line("ready")
    pid = world.fleet.status()["instances"][0]["pid"]
    await world.vanish()
    os.kill(pid, signal.SIGKILL)
    identity = world.home.instances / FIRST / "agent.json"
    identity.write_text(json.dumps({**json.loads(identity.read_text()), "boot_id": "of an earlier boot"}))
    fleet = await world.up()
    ear = Ear()
    assert await fleet.attach(FIRST, ear)
    assert (await ear.until(InstanceLost)).shutdown


@both_kinds
async def test_an_orderly_shutdown_ends_everything_and_is_remembered(world: World, mark: str) -> None:
    await world.fleet.start(world.spec(sleeper(mark)), first := Ear())
    await first.until_line("ready")
    await world.fleet.close(end_instances=True)
    assert alive(mark) == []
    await world.vanish()
    assert first.all(InstanceLost) == []
    fleet = await world.up()
    ear = Ear()
    assert await fleet.attach(FIRST, ear)
    assert (await ear.until(InstanceLost)).shutdown


@both_kinds
async def test_sweeping_ends_what_nobody_wants(world: World, mark: str) -> None:
    await world.fleet.start(world.spec(sleeper(mark), "i-unwanted"), first := Ear())
    await first.until_line("ready")
    await world.vanish()
    (world.home.instances / "i-half-made").mkdir()
    fleet = await world.up()
    await fleet.sweep(["i-kept"])
    assert alive(mark) == []
    assert list(world.home.instances.iterdir()) == []


async def test_an_agent_whose_folder_is_removed_ends(world: World, mark: str) -> None:
    """Somebody deleted the home folder."""
    await world.fleet.start(world.spec(sleeper(mark)), ear := Ear())
    await ear.until_line("ready")
    pid = world.fleet.status()["instances"][0]["pid"]
    (world.home.instances / FIRST / "spec.json").unlink()
    await in_time(lambda: not running(pid), 15)


async def test_a_message_that_was_not_taken_comes_again(world: World) -> None:
    class Deaf(Ear):
        async def __call__(self, instance_id: str, message: Message | InstanceLost) -> None:
            raise RuntimeError("cannot now")

    await world.fleet.start(world.spec("print('hello')"), Deaf())
    await asyncio.sleep(0.3)
    ear = Ear()
    assert await world.fleet.attach(FIRST, ear)
    await ear.until(Finished)
    assert ear.lines == ["hello"]
    assert ear.stages == ["Downloading", "Training", "Uploading"]


async def test_starting_again_what_runs_only_listens(world: World) -> None:
    spec = world.spec("import time; time.sleep(0.5); print('once')")
    await world.fleet.start(spec, Ear())
    await world.fleet.start(spec, ear := Ear())
    await ear.until(Finished)
    assert ear.lines == ["once"]


async def test_jobs_wait_for_room_in_order(world: World) -> None:
    ears = {name: Ear() for name in (FIRST, "i-2")}
    await world.fleet.start(world.spec("input()", FIRST, command=("sleep", "60")), ears[FIRST])
    waiting = asyncio.create_task(world.fleet.start(world.spec("", "i-2"), ears["i-2"]))
    await asyncio.sleep(0.05)
    assert world.fleet.status()["queue"] == ["i-2"]
    await world.fleet.release(FIRST)
    await waiting
    await ears["i-2"].until(Finished)


async def test_the_agents_route_knows_its_agents(world: World, mark: str) -> None:
    await world.fleet.start(world.spec(sleeper(mark)), Ear())
    for path, token, wanted in (
        (f"/_sagesmith/instances/{FIRST}/messages", "wrong", 403),
        (f"/_sagesmith/instances/{FIRST}/messages", "", 403),
        ("/_sagesmith/instances/i-2/messages", "", 404),
        ("/_sagesmith/instances/../messages", "", 404),
    ):
        request = HttpRequest("POST", path, {"authorization": f"Bearer {token}"}, b'{"messages": []}')
        assert (await world.fleet.raw_handler(request))[0] == wanted


async def test_shapes_are_clamped_to_the_machine(world: World) -> None:
    assert world.fleet.shape("ml.m5.24xlarge").vcpus == 2
    with pytest.raises(AwsError, match="gigantic"):
        world.fleet.shape("ml.m5.gigantic")


@pytest.mark.skipif(SANDBOX is None, reason=f"no sandbox on this machine: {REASON}")
async def test_a_warm_process_takes_the_job_and_another_takes_its_place() -> None:
    async with a_world(
        settings=Settings(warm_instances=1), warm_modules={"algorithms": ("colorsys",)}
    ) as world:
        script = "import sys; print('colorsys' in sys.modules)"
        await in_time(lambda: [w["ready"] for w in world.fleet.status()["warm"]] == [True])
        (warm,) = world.fleet.status()["warm"]
        assert warm["memory_bytes"] > 1_000_000
        # A warm process runs modules and files, not -c.
        world.objects["bucket/code/job.py"] = script.encode()
        spec = world.spec(
            "",
            command=("python", "/opt/ml/input/data/code/job.py"),
            container={"warm": "algorithms"},
            task={"channels": (ChannelSpec("code", "s3://bucket/code/"),)},
        )
        ear = await world.run(spec)
        assert ear.lines == ["True"]
        await in_time(lambda: [w["pid"] != warm["pid"] for w in world.fleet.status()["warm"]] == [True])


@pytest.mark.skipif(SANDBOX is None, reason=f"no sandbox on this machine: {REASON}")
async def test_jobs_right_after_each_other_take_no_process_that_is_just_being_made() -> None:
    async with a_world(settings=Settings(warm_instances=1), warm_modules={"x": ("colorsys",)}) as world:
        ears = [Ear() for _ in range(10)]
        for number, ear in enumerate(ears):
            command = ("python", "-m", "colorsys")
            spec = world.spec("", f"{FIRST}-{number}", command=command, container={"warm": "x"})
            await world.fleet.start(spec, ear)
            await asyncio.sleep(0.002 * number)
        for ear in ears:
            await ear.until(Finished)


@pytest.mark.skipif(SANDBOX is None, reason=f"no sandbox on this machine: {REASON}")
async def test_idle_processes_end_when_the_server_is_killed(tmp_path: Path) -> None:
    server = dedent(
        f"""
        import asyncio, json
        from pathlib import Path
        from sagesmith.config import Home, Settings
        from sagesmith.fleet.local import LocalFleet
        async def main():
            fleet = LocalFleet(Home(Path({str(tmp_path)!r})), Settings(), warm_modules={{"x": ("colorsys",)}})
            await fleet.open()
            while not (warm := fleet.status()["warm"]) or not warm[0]["ready"]:
                await asyncio.sleep(0.01)
            print(json.dumps([fleet.status()["nursery"]["pid"], warm[0]["pid"]]), flush=True)
            await asyncio.sleep(60)
        asyncio.run(main())
        """
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", server, stdout=subprocess.PIPE)
    assert process.stdout is not None
    pids = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
    assert all(running(pid) for pid in pids)
    process.kill()
    await process.wait()
    await in_time(lambda: not any(running(pid) for pid in pids), 1.0)


@pytest.mark.skipif(SANDBOX is None, reason=f"no sandbox on this machine: {REASON}")
async def test_sweeping_leaves_the_warm_process_that_is_being_made() -> None:
    async with a_world(settings=Settings(warm_instances=1), warm_modules={"x": ("colorsys",)}) as world:
        for _ in range(20):
            await world.fleet.sweep([])
            await asyncio.sleep(0)
        await in_time(lambda: [w["ready"] for w in world.fleet.status()["warm"]] == [True])
        await world.fleet.sweep([])
        assert [w["ready"] for w in world.fleet.status()["warm"]] == [True]


@both_kinds
async def test_a_kept_instance_that_is_about_to_start_is_not_swept(world: World) -> None:
    (world.home.instances / FIRST).mkdir()
    await world.fleet.sweep([FIRST])
    assert (world.home.instances / FIRST).exists()


@pytest.mark.skipif(SANDBOX is None, reason=f"no sandbox on this machine: {REASON}")
async def test_a_warm_process_that_ends_is_replaced_and_said(caplog: pytest.LogCaptureFixture) -> None:
    async with a_world(settings=Settings(warm_instances=1), warm_modules={"x": ("colorsys",)}) as world:
        warm = world.fleet.status
        await in_time(lambda: [w["ready"] for w in warm()["warm"]] == [True])
        first = warm()["warm"][0]["pid"]
        os.kill(descendants(first)[0], signal.SIGKILL)
        await in_time(lambda: [(w["ready"], w["pid"] == first) for w in warm()["warm"]] == [(True, False)])
        await in_time(lambda: not running(first))
    assert [record.message for record in caplog.records] == [
        "a warm process ended while it waited: exit code 137; it said: nothing"
    ]


async def test_a_nursery_whose_server_ended_in_the_middle_says_nothing(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        nursery = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sagesmith.fleet.nursery", str(theirs.fileno())),
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
        )
    for folder in (tmp_path, tmp_path / "gone"):
        ours.send(json.dumps({"folder": str(folder), "token": "", "modules": []}).encode())
    ours.close()
    _, said = await asyncio.wait_for(nursery.communicate(), 20)
    assert (nursery.returncode, said) == (0, b"")


def running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


async def in_time(condition: object, timeout_s: float = 10.0) -> None:
    assert callable(condition)
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.skipif(SANDBOX is None, reason=f"no sandbox on this machine: {REASON}")
async def test_jobs_of_one_name_at_two_servers_have_addresses_of_their_own(world: World) -> None:
    script = "import socket; print(socket.gethostbyname('algo-1'))"
    found = []
    async with a_world(settings=world.settings) as other:
        for side, each in enumerate((world, other)):
            spec = each.spec(script, f"{FIRST}-{side}", hosts=("algo-1", "algo-2"), owner_arn="arn:of:job")
            ear = Ear()
            await each.fleet.start(spec, ear)
            await ear.until(Exited)
            await each.fleet.release(spec.instance_id)
            found += ear.lines
    assert len(set(found)) == 2
