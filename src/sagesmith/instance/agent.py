"""The agent: the process that is an instance.

It lives in the instance's folder::

    spec.json     what to do (an `InstanceSpec`)
    node.json     what the fleet says about the place (a `Node`)
    agent.json    its pid, start time and boot: how a later server finds it again
    agent.log     what it wrote to its standard output and error: nothing, unless something is wrong with it
    journal       what it said and nobody acknowledged yet
    ml/ run/ tmp/ home/ etc/    the container's

It needs no server while it works: what it has to say waits in the journal. It ends when its last message
is acknowledged, or ten minutes after its work when nobody came to hear it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import signal
import socket
import ssl
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from sagesmith.containers import ContainerError, ContainerPlan, ProcessRuntime
from sagesmith.containers.process import WarmProcess
from sagesmith.containers.processes import adopt_orphans, boot_id, start_time
from sagesmith.containers.sandbox import prepare_for_forks
from sagesmith.errors import AwsError
from sagesmith.images import metric_definitions
from sagesmith.instance._host import Host
from sagesmith.instance._link import Link
from sagesmith.instance._metrics import MetricScanner
from sagesmith.instance._multi_model import MultiModel
from sagesmith.instance._notebook import Notebook
from sagesmith.instance._objects import DataError, Objects
from sagesmith.instance._own_multi_model import OwnMultiModel
from sagesmith.instance._pipeline import Pipeline
from sagesmith.instance._serving import Serving
from sagesmith.instance._training import Training
from sagesmith.instance._transform import Transform
from sagesmith.instance._vacant import Vacant
from sagesmith.instance.folder import AGENT, JOURNAL, NODE, SPEC
from sagesmith.instance.node import Node
from sagesmith.instance.spec import (
    ChannelSpec,
    ContainerSpec,
    Credentials,
    Finished,
    InstanceSpec,
    NotebookTask,
    ServerAddress,
    ServingTask,
    TrainingTask,
    TransformTask,
    from_json,
    to_json,
)
from sagesmith.store.client import ObjectClient, ServerAway

__all__ = [
    "ObjectsFactory",
    "main",
    "preload",
    "run",
    "wait_warm",
]

_ALONE_S: Final = 600.0
_LOOK_S: Final = 2.0
_SIGNAL_GRACE_S: Final = 5.0

ObjectsFactory = Callable[[InstanceSpec], Objects]
Work: TypeAlias = Training | Serving | Pipeline | MultiModel | Vacant | Transform | Notebook


def main(folder: Path, token: str = "", control: int = -1, modules: Sequence[str] = ()) -> None:
    """Be the agent of *folder*, on the main thread; never returns.

    With a *token*, do nothing unless the spec there has it as its `agent_token`. With a socket *control*, first wait with a warm process that has imported *modules* until a job comes.
    """
    code = 1
    try:
        code = asyncio.run(_main(folder, token, control, modules))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)  # threads that wait for a peer must not hold the process


def preload() -> None:
    """Do once, in the process that forks agents, what each of them would otherwise do at its start."""
    for name in ("encodings.idna", "encodings.ascii"):  # imported to connect, and to start a container
        importlib.import_module(name)
    _begin_handshake()
    prepare_for_forks()
    MetricScanner(metric_definitions())
    for task in (
        TrainingTask("", "", {}, (ChannelSpec("", ""),), ""),
        ServingTask("", ""),
        TransformTask("", "", "", ""),
    ):
        container = ContainerSpec("process", "", ())
        role, server = Credentials("", ""), ServerAddress("")
        spec = InstanceSpec("", "", "", "", "", server, "", role, container, task, "", "")
        from_json(InstanceSpec, to_json(spec))  # looks up the types of every member


def _begin_handshake() -> None:
    """Say hello to no server: OpenSSL makes ready at its first handshake what every later one needs, in 6 ms."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()


async def _main(folder: Path, token: str, control: int, modules: Sequence[str]) -> int:
    warm = None
    if control >= 0:
        found = await wait_warm(folder, control, modules)
        if found is None:
            return 0
        folder, token, warm = found
    await run(folder, token=token, warm=warm)
    return 0


async def wait_warm(
    folder: Path, control: int, modules: Sequence[str]
) -> tuple[Path, str, WarmProcess] | None:
    """Wait in *folder* with a warm process; return where the job is, and its token, or None if there will be none.

    The server sends the token, a space and the folder's new path as a line; end of file means that nobody will. If the process ends first,
    the socket is closed on this side, and whatever the server has sent by then is still done, without it.
    """
    node = Node.from_json(json.loads((folder / NODE).read_bytes()))
    plan = ContainerPlan(folder.name, folder, (), read_only=("input/data",))
    (folder / "ml" / "input" / "data").mkdir(parents=True)
    warm = await ProcessRuntime(node.sandbox).prepare(plan, modules)
    reader, writer = await asyncio.open_unix_connection(sock=_socket(control))
    writer.write(b"begun\n")  # this needs the folder's name no more: the server may change it
    watching = asyncio.create_task(_report(warm, writer))
    line = await reader.readline()
    watching.cancel()
    writer.close()
    if not line.endswith(b"\n"):
        await warm.discard()
        return None
    token, _, path = line[:-1].partition(b" ")
    return Path(os.fsdecode(path)), token.decode(), warm


async def _report(warm: WarmProcess, writer: asyncio.StreamWriter) -> None:
    """Tell the server when *warm* is ready, and when it has ended."""
    if await warm.wait_ready():
        writer.write(b"ready uncompiled\n" if warm.uncompiled else b"ready\n")
    print(await warm.wait_ended(), file=sys.stderr, flush=True)
    writer.write_eof()


async def run(
    folder: Path,
    *,
    token: str = "",
    warm: WarmProcess | None = None,
    objects: ObjectsFactory | None = None,
) -> None:
    """Do what ``spec.json`` of *folder* says, to the end; nothing if it is not the one with this *token*."""
    spec = _identify(folder, token)
    if spec is None:
        if warm is not None:
            await warm.discard()
        return
    adopt_orphans()
    node = Node.from_json(json.loads((folder / NODE).read_bytes()))
    link = Link(spec, folder / JOURNAL)
    make_objects = objects or _object_client
    host = Host.of(spec, folder, node, link, make_objects(spec), warm)
    work = _work(host)
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    if me is None:
        raise RuntimeError("an agent runs as a task")
    doing = asyncio.create_task(work.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, me.cancel)
    link.open()
    obeying = asyncio.create_task(_obey(link, work))
    watching = asyncio.create_task(_watch_home(folder, link, me))
    try:
        finished = await _outcome(doing)
        link.send(finished)
        await link.drain(_ALONE_S)
    except asyncio.CancelledError:  # told to end by a signal: whoever sent it needs no message
        await asyncio.gather(*(_stop(each) for each in work.hosts))
    finally:
        for task in (obeying, watching):
            task.cancel()
        await link.close()


async def _stop(host: Host) -> None:
    if host.container is not None:
        with contextlib.suppress(ContainerError):
            await host.container.stop(_SIGNAL_GRACE_S)


def _work(host: Host) -> Work:
    task = host.spec.task
    if isinstance(task, TrainingTask):
        return Training(host, task)
    if isinstance(task, TransformTask):
        return Transform(host, task)
    if isinstance(task, NotebookTask):
        return Notebook(host, task)
    if task.vacant:
        return Vacant(host)
    if task.many:
        return MultiModel(host, task) if host.own_image is None else OwnMultiModel(host, task)
    return Pipeline(host, task) if task.containers else Serving(host, task)


async def _outcome(doing: asyncio.Task[Finished]) -> Finished:
    """Wait for the work; a fault of it becomes its last message."""
    try:
        return await doing
    except DataError as error:
        return Finished(error=str(error), client_error=True)
    except ContainerError as error:
        return Finished(error=str(error), client_error=error.client_error)
    except AwsError as error:
        return Finished(error=f"{error.message} ({error.code})", client_error=error.status < 500)
    except ServerAway as error:
        return Finished(error=f"S3 could not be reached: {error}")
    except Exception as error:
        traceback.print_exc()
        return Finished(error=f"{type(error).__name__}: {error}")


async def _obey(link: Link, work: Work) -> None:
    while True:
        work.obey(await link.commands.get())


async def _watch_home(folder: Path, link: Link, agent: asyncio.Task[Any]) -> None:
    """End the agent if its folder is gone, or if it serves an endpoint that no server has asked about for long."""
    while (folder / SPEC).exists():
        await asyncio.sleep(_LOOK_S)
        alone = time.monotonic() - link.last_contact > _ALONE_S
        if alone and '"kind":"serving"' in (folder / SPEC).read_text("utf-8"):
            break
    agent.cancel()


def _identify(folder: Path, token: str) -> InstanceSpec | None:
    """Write into *folder* who its agent is, and return its spec; None if the agent comes too late.

    A server that was killed may have left it to start in a folder that the next server has replaced. So all is done
    in the folder that was there at first, and holds if that is still there afterwards.
    """
    try:
        place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        with open(os.open(SPEC, os.O_RDONLY | os.O_CLOEXEC, dir_fd=place), "rb") as file:
            spec = from_json(InstanceSpec, json.loads(file.read()))
        if token and spec.agent_token != token:
            return None
        me = os.getpid()
        identity = {"pid": me, "start_time": start_time(me), "boot_id": boot_id()}
        new = f"{AGENT}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with open(os.open(new, flags, 0o600, dir_fd=place), "w", encoding="utf-8") as file:
            file.write(json.dumps(identity))
        os.rename(new, AGENT, src_dir_fd=place, dst_dir_fd=place)
        return spec if os.stat(folder).st_ino == os.fstat(place).st_ino else None
    except FileNotFoundError:
        return None
    finally:
        os.close(place)


def _socket(descriptor: int) -> socket.socket:
    return socket.socket(fileno=descriptor)


def _object_client(spec: InstanceSpec) -> Objects:
    return ObjectClient(spec.server, spec.role, spec.region)
