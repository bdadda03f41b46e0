"""What every container runtime does. Subclass `ContainerRuntimeContract` and provide the `runtime` fixture."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

import pytest

from sagesmith.containers import Container, ContainerError, ContainerPlan, ContainerRuntime, Line


class Lines(list[str]):
    """Collects what a container writes."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[int] = []
        self._more = asyncio.Event()

    def __call__(self, lines: Sequence[Line]) -> None:
        self.extend(text for _, text in lines)
        self.times.extend(at for at, _ in lines)
        self._more.set()

    async def until(self, text: str) -> None:
        async with asyncio.timeout(10):
            while text not in self:
                self._more.clear()
                await self._more.wait()


def plan(folder: Path, script: str, **more: object) -> ContainerPlan:
    (folder / "ml").mkdir(exist_ok=True)
    command = ("python", "-c", dedent(script))
    return ContainerPlan(**{"name": f"i-{folder.name}", "folder": folder, "command": command, **more})  # type: ignore[arg-type]


async def run(runtime: ContainerRuntime, what: ContainerPlan) -> tuple[int, list[str]]:
    lines = Lines()
    container = await runtime.start(what, lines)
    async with asyncio.timeout(20):
        return await container.wait(), lines


def alive(mark: str) -> list[int]:
    """Processes whose command line has *mark*."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


class ContainerRuntimeContract:
    """Commands start with ``python``: a runtime's container has one."""

    async def test_the_exit_code_is_the_commands(self, runtime: ContainerRuntime, tmp_path: Path) -> None:
        assert await run(runtime, plan(tmp_path, "raise SystemExit(7)")) == (7, [])

    async def test_a_signal_is_reported_as_a_shell_does(
        self, runtime: ContainerRuntime, tmp_path: Path
    ) -> None:
        code, _ = await run(runtime, plan(tmp_path, "import os; os.kill(os.getpid(), 9)"))
        assert code == 137

    async def test_both_streams_come_as_lines_in_order(
        self, runtime: ContainerRuntime, tmp_path: Path
    ) -> None:
        script = r"""
            import os, sys
            for i in range(200):
                os.write(1 + i % 2, f"{i}\n".encode())
            os.write(1, b"first\tsecond\r\n\xff\xfe bad \x1b[1m\n")
            os.write(2, b"no end")
        """
        before = time.time_ns() // 1_000_000
        lines = Lines()
        container = await runtime.start(plan(tmp_path, script), lines)
        assert await container.wait() == 0
        output = [*map(str, range(0, 200, 2)), "first#011second", "\ufffd\ufffd bad #033[1m"]
        errors = [*map(str, range(1, 200, 2)), "no end"]
        assert [line for line in lines if line not in errors] == output
        assert [line for line in lines if line in errors] == errors
        assert lines.times == sorted(lines.times)
        assert before <= lines.times[0] <= lines.times[-1] <= time.time_ns() // 1_000_000

    async def test_a_very_long_line_is_cut(self, runtime: ContainerRuntime, tmp_path: Path) -> None:
        code, lines = await run(runtime, plan(tmp_path, "print('x' * 5_000_000); print('next')"))
        assert code == 0
        assert len(lines[0]) < 256 * 1024
        assert lines[0].endswith("more bytes]")
        assert lines[1:] == ["next"]

    async def test_it_gets_its_environment_and_no_other(
        self, runtime: ContainerRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SECRET_OF_THE_SERVER", "1")
        script = "import os; print(os.environ.get('SECRET_OF_THE_SERVER'), os.environ['GIVEN'])"
        _, lines = await run(runtime, plan(tmp_path, script, environment={"GIVEN": "a=b\nc"}))
        assert lines == ["None a=b", "c"]

    async def test_opt_ml_is_the_folder_of_its_instance(
        self, runtime: ContainerRuntime, tmp_path: Path
    ) -> None:
        what = plan(tmp_path, "", environment={"WHERE": ""})
        (tmp_path / "ml" / "input").mkdir()
        (tmp_path / "ml" / "input" / "given").write_text("hello")
        base = runtime.path_inside(what, tmp_path / "ml")
        script = f"print(open('{base}/input/given').read()); open('{base}/made', 'w').write('made')"
        assert await run(runtime, plan(tmp_path, script)) == (0, ["hello"])
        assert (tmp_path / "ml" / "made").read_text() == "made"

    async def test_stop_lets_it_end_in_its_own_way(self, runtime: ContainerRuntime, tmp_path: Path) -> None:
        script = """
            import signal, sys, time
            def end(*_):
                print("saving"); sys.exit(3)
            signal.signal(signal.SIGTERM, end)
            print("ready"); time.sleep(60)
        """
        assert await self.stopped(runtime, plan(tmp_path, script), grace_s=10) == (3, ["ready", "saving"])

    async def test_a_shell_around_the_command_does_not_keep_the_signal(
        self, runtime: ContainerRuntime, tmp_path: Path
    ) -> None:
        inner = "import signal,time; signal.signal(15, lambda *_: exit(4)); print('ready', flush=True); time.sleep(60)"
        what = plan(tmp_path, "", command=("/bin/sh", "-c", f'true && python -c "{inner}"; exit $?'))
        assert await self.stopped(runtime, what, grace_s=10) == (4, ["ready"])

    async def test_what_ignores_sigterm_is_killed(self, runtime: ContainerRuntime, tmp_path: Path) -> None:
        script = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready'); time.sleep(60)"
        assert await self.stopped(runtime, plan(tmp_path, script), grace_s=0.2) == (137, ["ready"])

    async def stopped(
        self, runtime: ContainerRuntime, what: ContainerPlan, grace_s: float
    ) -> tuple[int, list[str]]:
        lines = Lines()
        container: Container = await runtime.start(what, lines)
        await lines.until("ready")
        async with asyncio.timeout(20):
            return await container.stop(grace_s), lines

    @pytest.mark.parametrize("how", ["exit", "stop"])
    async def test_no_process_is_left(self, runtime: ContainerRuntime, tmp_path: Path, how: str) -> None:
        mark = f"mark-{tmp_path.name}-{how}"
        script = f"""
            import os, signal, subprocess, sys, time
            stubborn = "import signal,time; signal.signal(15, signal.SIG_IGN); time.sleep(60) # {mark}"
            subprocess.Popen([sys.executable, "-c", stubborn])
            if os.fork() == 0:                 # a daemon: new session, parent gone
                os.setsid()
                if os.fork() == 0:
                    os.execv(sys.executable, [sys.executable, "-c", stubborn])
                os._exit(0)
            os.wait()
            print("ready")
            sys.stdout.flush()
            time.sleep(0 if {how == "exit"} else 60)
        """
        lines = Lines()
        container = await runtime.start(plan(tmp_path, script), lines)
        await lines.until("ready")
        async with asyncio.timeout(20):
            await (container.wait() if how == "exit" else container.stop(0.2))
        assert alive(mark) == []

    async def test_usage_counts_the_children_too(self, runtime: ContainerRuntime, tmp_path: Path) -> None:
        script = """
            import os, time
            if os.fork() == 0:
                block = b"x" * 60_000_000
                print("ready"); time.sleep(60)
            end = time.process_time() + 0.2
            while time.process_time() < end: pass
            os.wait()
        """
        lines = Lines()
        container = await runtime.start(plan(tmp_path, script), lines)
        await lines.until("ready")
        while container.usage().cpu_s < 0.2:
            await asyncio.sleep(0.02)
        assert container.usage().memory_bytes > 60_000_000
        assert container.memory() > 60_000_000
        await container.stop(0)

    async def test_a_command_that_does_not_exist_is_the_callers_fault(
        self, runtime: ContainerRuntime, tmp_path: Path
    ) -> None:
        with pytest.raises(ContainerError) as caught:
            await run(runtime, plan(tmp_path, "", command=("/no/such/program",)))
        assert caught.value.client_error
