"""A small world for real agents: an HTTP server with the fleet's route and an S3 made of a dictionary."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import dedent
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from sagesmith.config import Home, Settings
from sagesmith.fleet.api import InstanceLost, InstanceShape
from sagesmith.fleet.local import LocalFleet
from sagesmith.instance.spec import (
    ContainerSpec,
    Credentials,
    Finished,
    InstanceSpec,
    Log,
    Message,
    ServerAddress,
    ServingTask,
    Stage,
    TrainingTask,
    TransformTask,
)

T = TypeVar("T")
MACHINE = InstanceShape(2, 8 * 1024**3)
FIRST = f"i-{os.getpid()}"
"""The name of an instance, of this run alone: leftovers are found by it, among all processes of the machine."""


@dataclass
class HttpRequest:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    query: str = ""

    def taken_apart(self) -> HttpRequest:
        path, _, query = self.path.partition("?")
        return HttpRequest(self.method, path, self.headers, self.body, query)


class Ear:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.heard: list[Message | InstanceLost] = []
        self._more = asyncio.Event()

    async def __call__(self, instance_id: str, message: Message | InstanceLost) -> None:
        self.heard.append(message)
        self._more.set()

    def all(self, kind: type[T]) -> list[T]:
        return [message for message in self.heard if isinstance(message, kind)]

    @property
    def lines(self) -> list[str]:
        return [text for log in self.all(Log) for _, text in log.lines]

    @property
    def stages(self) -> list[str]:
        return [stage.stage for stage in self.all(Stage)]

    async def until(self, kind: type[T], count: int = 1, timeout_s: float = 20) -> T:
        await self.until_true(lambda: len(self.all(kind)) >= count, timeout_s)
        return self.all(kind)[count - 1]

    async def until_line(self, text: str) -> None:
        await self.until_true(lambda: text in self.lines)

    async def until_true(self, condition: Callable[[], bool], timeout_s: float = 20) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise AssertionError(f"not heard; heard only {self.heard}") from None


@dataclass
class World:
    """One home with a server that can go away and come back."""

    folder: Path
    settings: Settings = field(default_factory=lambda: Settings(warm_instances=0))
    warm_modules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    metadata: dict[str, Mapping[str, str]] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home = Home(self.folder)
        self.fleet: LocalFleet
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def up(self) -> LocalFleet:
        self.fleet = LocalFleet(self.home, self.settings, warm_modules=self.warm_modules, machine=MACHINE)
        await self.fleet.open()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.home.runtime.mkdir(parents=True, exist_ok=True)
        self.home.server_file.write_text(json.dumps({"url": self.url, "http_url": self.url}))
        return self.fleet

    async def vanish(self) -> None:
        """Go away as by SIGKILL: nothing is told to anybody."""
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await self.fleet.close(end_instances=False)

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def spec(self, script: str, name: str = FIRST, **more: Any) -> InstanceSpec:
        """A training instance that runs *script*; `task`, `container` and the spec's own members may be given."""
        members: dict[str, Any] = {
            "job_name": "job",
            "job_arn": "arn:aws:sagemaker:us-east-1:123456789012:training-job/job",
            "hyperparameters": {"k": "3"},
            "channels": (),
            "output_uri": "s3://bucket/out/job/output",
        }
        task = TrainingTask(**{**members, **more.pop("task", {})})
        return self._spec(name, script, task, more)

    def serving(self, script: str, name: str = FIRST, **more: Any) -> InstanceSpec:
        task = ServingTask("endpoint", "AllTraffic", **more.pop("task", {}))
        return self._spec(name, script, task, more)

    def transform(self, script: str, name: str = FIRST, **more: Any) -> InstanceSpec:
        members = {"input_uri": "s3://bucket/in/", "output_uri": "s3://bucket/out"}
        task = TransformTask("job", "uid", **{**members, **more.pop("task", {})})
        return self._spec(name, script, task, more)

    def _spec(
        self, name: str, script: str, task: TrainingTask | ServingTask | TransformTask, more: dict[str, Any]
    ) -> InstanceSpec:
        command = more.pop("command", ("python", "-c", dedent(script)))
        container = ContainerSpec("process", "image", command, **more.pop("container", {}))
        spec = InstanceSpec(
            instance_id=name,
            owner_arn=f"arn:of:{name}",
            instance_type="ml.m5.large",
            region="us-east-1",
            account_id="123456789012",
            server=ServerAddress(self.url, server_file=str(self.home.server_file)),
            agent_token="",
            role=Credentials("AKIA", "secret", "token"),
            container=container,
            task=task,
            log_group="/aws/sagemaker/TrainingJobs",
            log_stream=f"job/{name}",
            memory_bytes=8 * 1024**3,
        )
        return replace(spec, **more)

    async def run(self, spec: InstanceSpec) -> Ear:
        """Run *spec* to its end, release it, and return what was heard."""
        ear = Ear()
        await self.fleet.start(spec, ear)
        await ear.until_true(lambda: len(ear.all(Finished)) + len(ear.all(InstanceLost)) > 0)
        await self.fleet.release(spec.instance_id)
        return ear

    # ---- HTTP ----------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            while True:
                request = await _read_request(reader)
                if request.path.startswith("/_sagesmith/"):
                    status, headers, body = await self.fleet.raw_handler(request.taken_apart())
                else:
                    status, headers, body = self._s3(request)
                length = headers.get("content-length", str(len(body)))
                head = "".join(f"{k}: {v}\r\n" for k, v in {**headers, "content-length": length}.items())
                writer.write(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body)
        writer.close()

    def _s3(self, request: HttpRequest) -> tuple[int, Mapping[str, str], bytes]:
        url = urlsplit(request.path)
        name, query = unquote(url.path).lstrip("/"), parse_qs(url.query)
        upload = query.get("uploadId", [""])[0]
        if request.method == "POST" and "uploads" in parse_qs(url.query, keep_blank_values=True):
            upload = f"upload-{len(self.uploads)}"
            self.uploads[upload] = {}
            self.metadata[name] = _metadata(request.headers)
            return 200, {}, f"<R><UploadId>{upload}</UploadId></R>".encode()
        if request.method == "PUT" and upload:
            self.uploads[upload][int(query["partNumber"][0])] = request.body
            return 200, {"etag": '"e"'}, b""
        if request.method == "POST":
            self.objects[name] = b"".join(part for _, part in sorted(self.uploads[upload].items()))
            self.written.append(name)
            return 200, {}, b"<R><ETag>e</ETag></R>"
        if request.method == "PUT":
            self.objects[name] = request.body
            self.written.append(name)
            self.metadata[name] = _metadata(request.headers)
            return 200, {"etag": '"e"'}, b""
        if request.method == "DELETE":
            self.objects.pop(name, None)
            return 204, {}, b""
        if "list-type" in query:
            prefix = f"{name}/{query.get('prefix', [''])[0]}"
            found = sorted(key for key in self.objects if key.startswith(prefix))
            return 200, {}, _listing(name, {key: self.objects[key] for key in found})
        if name not in self.objects:
            return 404, {}, b"<Error><Code>NoSuchKey</Code><Message>no</Message></Error>"
        data = self.objects[name]
        if request.method == "HEAD":
            more = {f"x-amz-meta-{key}": value for key, value in self.metadata.get(name, {}).items()}
            return 200, {"etag": '"e"', "content-length": str(len(data)), **more}, b""
        if wanted := request.headers.get("range"):
            first, last = wanted.removeprefix("bytes=").split("-")
            return 206, {"etag": '"e"'}, data[int(first) : int(last) + 1 if last else None]
        return 200, {"etag": '"e"'}, data


def _metadata(headers: Mapping[str, str]) -> dict[str, str]:
    return {k.removeprefix("x-amz-meta-"): v for k, v in headers.items() if k.startswith("x-amz-meta-")}


def _listing(bucket: str, found: Mapping[str, bytes]) -> bytes:
    contents = "".join(
        f"<Contents><Key>{escape(key.removeprefix(bucket + '/'))}</Key><Size>{len(data)}</Size></Contents>"
        for key, data in found.items()
    )
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>".encode()


async def _read_request(reader: asyncio.StreamReader) -> HttpRequest:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, path, _ = lines[0].split(" ")
    pairs = (line.partition(":") for line in lines[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return HttpRequest(method, path, headers, body)


@contextlib.asynccontextmanager
async def a_world(**more: Any) -> AsyncIterator[World]:
    """A world that is up, in a folder whose path is as long as a user's may be."""
    folder = Path(tempfile.mkdtemp(prefix="sagesmith-test-home-"))
    world = World(folder / "home-folder-with-a-rather-long-name" / ".sagesmith", **more)
    world.folder.mkdir(parents=True)
    await world.up()
    try:
        yield world
    finally:
        await world.fleet.sweep([])
        await world.vanish()
        shutil.rmtree(folder)
