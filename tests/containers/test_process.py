"""Processes keep the runtime contract with and without bubblewrap; the sandbox keeps more."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from sagesmith.containers import ContainerRuntime, ProcessRuntime, Sandbox
from tests.containers.contract import ContainerRuntimeContract, Lines, alive, plan, run

SANDBOX, REASON = Sandbox.find()
needs_bubblewrap = pytest.mark.skipif(SANDBOX is None, reason=f"no sandbox on this machine: {REASON}")


class ProcessContract(ContainerRuntimeContract):
    """What processes keep beyond the contract."""

    async def test_both_streams_are_one(self, runtime: ContainerRuntime, tmp_path: Path) -> None:
        script = r"import os; [os.write(1 + i % 2, b'%d\n' % i) for i in range(200)]"
        assert await run(runtime, plan(tmp_path, script)) == (0, [*map(str, range(200))])


class TestPlainProcess(ProcessContract):
    @pytest.fixture
    def runtime(self) -> ContainerRuntime:
        return ProcessRuntime(None)


@needs_bubblewrap
class TestSandboxedProcess(ProcessContract):
    @pytest.fixture
    def runtime(self) -> ContainerRuntime:
        return ProcessRuntime(SANDBOX)

    async def test_it_sees_nothing_but_its_own(self, runtime: ContainerRuntime, tmp_path: Path) -> None:
        mine = tmp_path / "mine"
        mine.mkdir()
        secret = tmp_path / "other" / "secret"
        secret.parent.mkdir()
        secret.write_text("of another job")
        script = f"""
            import os, sys
            for path in ({str(secret)!r}, {str(tmp_path)!r}, {__file__!r}, "/etc/shadow", "/root/.bashrc",
                         {os.path.expanduser("~/.bashrc")!r}, "/etc/ssl/private"):
                print(os.path.exists(path), end=" ")
            alone = sorted(p for p in os.listdir("/proc") if p.isdigit()) == ["1", str(os.getpid())]
            pythons = {sys.prefix.split("/")[2]!r}  # where Python itself lies below /tmp, the way to it is seen
            print(alone, [name for name in os.listdir("/tmp") if name != pythons])
        """
        code, lines = await run(runtime, plan(mine, script))
        assert (code, lines) == (0, ["False " * 7 + "True []"])

    async def test_the_system_is_read_only_and_it_has_no_rights(
        self, runtime: ContainerRuntime, tmp_path: Path
    ) -> None:
        script = """
            import os, subprocess, sys
            def refused(what, *arguments):
                try:
                    what(*arguments)
                except OSError:
                    return True
            for path in ("/usr/x", "/etc/x", "/etc/hosts", "/x", sys.prefix + "/x", "/opt/x", "/sys/x"):
                assert refused(open, path, "w"), path
            for path in ("/tmp/x", os.path.expanduser("~/x"), "/opt/ml/x", "/dev/shm/x"):
                open(path, "w").close()
            status = dict(line.split(":\\t", 1) for line in open("/proc/self/status"))
            assert int(status["CapEff"], 16) == 0 and int(status["CapBnd"], 16) == 0, status
            assert status["NoNewPrivs"].strip() == "1"
            assert subprocess.run(["mount", "-o", "remount,rw", "/usr"], capture_output=True).returncode
            print(os.getuid(), os.uname().nodename)
        """
        assert await run(runtime, plan(tmp_path, script, hostname="algo-2")) == (0, ["1000 algo-2"])

    async def test_read_only_parts_of_opt_ml(self, runtime: ContainerRuntime, tmp_path: Path) -> None:
        data = tmp_path / "ml" / "input" / "data" / "train"
        data.mkdir(parents=True)
        (data / "file").write_text("row")
        script = """
            import os
            try:
                os.chmod("/opt/ml/input/data/train/file", 0o777)
            except OSError as error:
                print(error.strerror)
            open("/opt/ml/input/data/other", "w")
        """
        what = plan(tmp_path, script, read_only=("input/data/train",))
        assert await run(runtime, what) == (0, ["Read-only file system"])

    async def test_the_hosts_of_the_job_resolve(self, runtime: ContainerRuntime, tmp_path: Path) -> None:
        script = "import socket; print(socket.gethostbyname('algo-2'), socket.gethostbyname('localhost'))"
        what = plan(tmp_path, script, hosts={"algo-1": "127.3.4.1", "algo-2": "127.3.4.2"})
        assert await run(runtime, what) == (0, ["127.3.4.2 127.0.0.1"])

    async def test_without_network_only_unix_sockets_are_left(
        self, runtime: ContainerRuntime, tmp_path: Path
    ) -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        script = f"""
            import os, socket
            try:
                socket.create_connection(("127.0.0.1", {port}), 2); print("connected")
            except OSError:
                print("refused")
            listening = socket.create_server(("127.0.0.1", 0))
            socket.create_connection(listening.getsockname(), 2)
            unix = socket.socket(socket.AF_UNIX); unix.bind("/run/sagesmith/model.sock"); unix.listen()
            connection, _ = unix.accept(); connection.sendall(b"hello")
        """
        async with server:
            assert await run(
                runtime, plan(tmp_path, script.split("unix =", maxsplit=1)[0].replace("listening", "own"))
            ) == (0, ["connected"])
            lines = Lines()
            container = await runtime.start(plan(tmp_path, script, network=False), lines)
            await lines.until("refused")
            path = tmp_path / "run" / "model.sock"
            while not path.exists():
                await asyncio.sleep(0.01)
            reader, writer = await asyncio.open_unix_connection(str(path))
            assert await reader.read() == b"hello"
            writer.close()
            assert await container.wait() == 0

    async def test_a_warm_process_takes_one_job(self, tmp_path: Path) -> None:
        runtime = ProcessRuntime(SANDBOX)
        (tmp_path / "ml").mkdir()
        warm = await runtime.prepare(plan(tmp_path, ""), ("json", "tarfile"))
        assert await warm.wait_ready()
        (tmp_path / "ml" / "given").write_text("later")
        moved = tmp_path.with_name(tmp_path.name + "-moved")
        tmp_path.rename(moved)
        (moved / "ml" / "job.py").write_text(
            "import os, sys, socket\n"
            "print('tarfile' in sys.modules, open('/opt/ml/given').read(), os.environ['GIVEN'], "
            "'SAGESMITH_WARM_FD' in os.environ, socket.gethostbyname('algo-2'))\nsys.exit(5)\n"
        )
        lines = Lines()
        what = plan(
            moved,
            "",
            command=("python", "/opt/ml/job.py"),
            environment={"GIVEN": "now"},
            hosts={"algo-2": "127.9.9.2"},
        )
        container = warm.take(what, lines)
        assert await container.wait() == 5
        assert lines == ["True later now False 127.9.9.2"]


@pytest.mark.parametrize("sandbox", [pytest.param(SANDBOX, marks=needs_bubblewrap, id="bubblewrap"), None])
async def test_it_dies_with_its_agent(sandbox: Sandbox | None, tmp_path: Path) -> None:
    """The agent is killed by SIGKILL: nobody is left who could clean up."""
    mark = f"mark-of-{tmp_path.name}-{'sandbox' if sandbox else 'plain'}"
    (tmp_path / "ml").mkdir()
    agent = dedent(
        f"""
        import asyncio
        from pathlib import Path
        from sagesmith.containers import ContainerPlan, ProcessRuntime, Sandbox
        async def main():
            script = "import time; print('ready', flush=True); time.sleep(60) # {mark}"
            plan = ContainerPlan("i-x", Path({str(tmp_path)!r}), ("python", "-c", script))
            runtime = ProcessRuntime({sandbox!r})
            await runtime.start(plan, lambda lines: print("ready", flush=True))
            await asyncio.sleep(60)
        asyncio.run(main())
        """
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", agent, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 20) == b"ready\n"
    assert len(alive(mark)) >= 2
    process.send_signal(signal.SIGKILL)
    await process.wait()
    async with asyncio.timeout(2):
        while alive(mark):
            await asyncio.sleep(0.01)


async def test_without_bubblewrap_the_search_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    sandbox, reason = Sandbox.find()
    assert sandbox is None
    assert "apt-get install bubblewrap" in reason
