"""A training job's part on this instance: channels in, container, artifacts out.

A straight line from top to bottom; commands come in between: `Stop` ends the wait that is going on (or the
container), and what follows goes on with what there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from sagesmith.containers import Container, ContainerError
from sagesmith.instance import _artifacts
from sagesmith.instance._host import Host, LogShipper, watch_utilization
from sagesmith.instance._layout import lay_out_training
from sagesmith.instance._objects import split_uri
from sagesmith.instance._pipes import Pipe
from sagesmith.instance._staging import fetch_code, stage
from sagesmith.instance._sync import SyncedFolder
from sagesmith.instance.spec import (
    Command,
    Exited,
    Finished,
    MergeArtifacts,
    Shutdown,
    Stage,
    Stop,
    TrainingTask,
    Uploaded,
)

__all__ = ["Training"]

_FAILURE_CHARACTERS: Final = 1024
_STOPPED_BEFORE_START: Final = 143
_PARTS: Final = ".parts"
_KINDS: Final = (("model", "model", "model.tar.gz"), ("output", "output/data", "output.tar.gz"))
"""What is uploaded: its name in a part, its folder below /opt/ml, and its name below the output path."""


class Training:
    """Runs one :class:`TrainingTask`; `obey` takes commands meanwhile."""

    def __init__(self, host: Host, task: TrainingTask) -> None:
        self._host = host
        self._task = task
        self._base = host.folder / "ml"
        self._log = LogShipper(host.link, task.metric_definitions)
        self._container: Container | None = None
        self._stopping: Stop | None = None
        self._cancelled = threading.Event()
        self._pipes: list[Pipe] = []
        self._told: asyncio.Future[tuple[str, ...] | None] = asyncio.get_running_loop().create_future()
        self._synced = self._synced_folders()

    @property
    def hosts(self) -> list[Host]:
        """Where its containers run."""
        return [self._host]

    def obey(self, command: Command) -> None:
        """Take *command*; one that came before does nothing."""
        if isinstance(command, MergeArtifacts):
            self._tell(command.part_uris)
            return
        if isinstance(command, Shutdown):
            self._tell(None)
        if self._stopping is None:
            self._stopping = Stop(grace_s=command.grace_s)
            self._cancelled.set()
            if self._container is not None:
                asyncio.get_running_loop().create_task(_stopped(self._container, command.grace_s))

    async def run(self) -> Finished:
        """Do the work, and return how it ended."""
        host, link = self._host, self._host.link
        host.check()
        link.send(Stage("Downloading", "Downloading input data"))
        lay_out_training(self._base, host.spec, self._task)
        linked = await asyncio.to_thread(self._stage)
        if self._stopping is None:
            try:
                await host.prepare(self._log, self._cancelled.is_set)
            except ContainerError:
                if not self._cancelled.is_set():
                    raise
        if self._stopping is not None:
            link.send(Exited(_STOPPED_BEFORE_START, stopped=True))
            return Finished()
        link.send(Stage("Training", "Training image download completed. Training in progress."))
        code = await self._run_container(linked)
        stopped = self._stopping is not None
        link.send(Exited(code, self._failure() if code else "", stopped=stopped))
        if not self._leaving:
            await self._upload(succeeded=code == 0 or stopped)
        return Finished()

    # ---- in ----------------------------------------------------------------------------------------------

    def _stage(self) -> list[str]:
        task, host = self._task, self._host
        if task.checkpoint_uri:
            self._synced[0].download()
        if task.code_uri:
            fetch_code(host.objects, task.code_uri, host.folder / "code.tar.gz", self._base / "code")
        target, piped = self._base / "input" / "data", [c for c in task.channels if c.input_mode == "Pipe"]
        for channel in piped:
            self._pipes.append(
                Pipe(host.objects, channel, target, hosts=host.spec.hosts, host=host.spec.host)
            )
        return stage(
            host.objects,
            [channel for channel in task.channels if channel not in piped],
            target,
            hosts=host.spec.hosts,
            host=host.spec.host,
            may_link=host.may_link,
            cancelled=self._cancelled,
        )

    async def _run_container(self, linked: list[str]) -> int:
        task, host = self._task, self._host
        environment = {"TRAINING_JOB_NAME": task.job_name, "TRAINING_JOB_ARN": task.job_arn}
        folders: Mapping[str, Path] = {}
        checkpoints, inside = self._checkpoints
        if task.checkpoint_uri and checkpoints == host.folder:
            folders = {task.checkpoint_path: checkpoints / inside}
            if not host.sandboxed:
                raise ContainerError(
                    f"CheckpointConfig.LocalPath {task.checkpoint_path!r} is not below /opt/ml, which needs bubblewrap",
                    client_error=True,
                )
        plan = host.plan(
            environment, read_only=tuple(f"input/data/{name}" for name in linked), folders=folders
        )
        container = self._container = await host.start(plan, self._log)
        for pipe in self._pipes:
            pipe.start(lambda text: self._call_soon(self._log.note, text))
        if self._stopping is not None:
            self.obey(self._stopping)
        beside = [asyncio.create_task(watch_utilization(host, container))]
        beside += [asyncio.create_task(folder.keep_uploading()) for folder in self._synced]
        try:
            return await container.wait()
        finally:
            self._log.flush()
            for each in beside:
                each.cancel()
            for pipe in self._pipes:
                pipe.close()
            await asyncio.gather(*beside, return_exceptions=True)
            for folder in self._synced:
                await asyncio.to_thread(folder.upload)

    def _failure(self) -> str:
        """The first characters of /opt/ml/output/failure."""
        for entry in _artifacts.walk(self._base, "output"):
            if entry.name == "failure" and stat.S_ISREG(entry.status.st_mode):
                with _artifacts.open_file(entry) as file:
                    return file.read(4 * _FAILURE_CHARACTERS).decode("utf-8", "replace")[:_FAILURE_CHARACTERS]
        return ""

    # ---- out ---------------------------------------------------------------------------------------------

    async def _upload(self, *, succeeded: bool) -> None:
        host, task = self._host, self._task
        if not succeeded and _artifacts.is_empty(self._base, "model") and self._no_output:
            if len(host.spec.hosts) > 1:
                await self._told
            return
        host.link.send(Stage("Uploading", "Uploading generated training model"))
        if len(host.spec.hosts) == 1:
            host.link.send(await asyncio.to_thread(self._upload_alone, succeeded))
            return
        part = posixpath.join(task.output_uri, _PARTS, host.spec.host)
        host.link.send(await asyncio.to_thread(self._upload_part, part))
        parts = await self._told
        if parts is not None:
            host.link.send(await asyncio.to_thread(self._merge, parts))

    @property
    def _leaving(self) -> bool:
        """True once `Shutdown` was heard: nobody wants the artifacts."""
        return self._told.done() and self._told.result() is None

    @property
    def _no_output(self) -> bool:
        return _artifacts.is_empty(self._base, "output/data")

    def _upload_alone(self, succeeded: bool) -> Uploaded:
        task, size, uri = self._task, 0, ""
        for name, inside, archive in _KINDS:
            wanted = name == "model" and succeeded
            if not wanted and _artifacts.is_empty(self._base, inside):
                continue
            if task.compression == "NONE":
                target = posixpath.join(task.output_uri, name)
                size += _artifacts.put_files(self._host.objects, self._base, inside, target)
                target += "/"
            else:
                target = posixpath.join(task.output_uri, archive)
                size += self._put_archive(inside, target)
            uri = target if name == "model" else uri
        return Uploaded(model_uri=uri, size_bytes=size)

    def _upload_part(self, part: str) -> Uploaded:
        size = 0
        for _, inside, archive in _KINDS:
            if not _artifacts.is_empty(self._base, inside):
                size += self._put_archive(inside, posixpath.join(part, archive))
        return Uploaded(part_uri=part if size else "", size_bytes=size)

    def _put_archive(self, inside: str, uri: str) -> int:
        archive = self._host.folder / "archive.tar.gz"
        for fault in _artifacts.pack(self._base, inside, archive):
            self._call_soon(self._log.note, f"WARNING: not uploaded: /opt/ml/{inside}/{fault}")
        return self._put(archive, uri)

    def _put(self, archive: Path, uri: str) -> int:
        self._host.objects.put(*split_uri(uri), archive)
        size = archive.stat().st_size
        archive.unlink()
        return size

    def _merge(self, parts: tuple[str, ...]) -> Uploaded:
        """Make one artifact of each kind from the parts of all hosts; of equal names the first host's is taken."""
        objects, task, size, model_uri = self._host.objects, self._task, 0, ""
        folder = self._host.folder / "parts"
        folder.mkdir()
        for name, _, archive in _KINDS:
            here = []
            for number, part in enumerate(filter(None, parts)):
                bucket, key = split_uri(posixpath.join(part, archive))
                if objects.head(bucket, key) is not None:
                    here.append(folder / f"{number}-{archive}")
                    objects.get(bucket, key, here[-1], link=False)
            if not here and name != "model":
                continue
            merged = folder / archive
            for twice in _artifacts.merge(here, merged):
                self._call_soon(
                    self._log.note, f"WARNING: several hosts wrote {twice}; the first host's is kept"
                )
            if task.compression == "NONE":
                uri = posixpath.join(task.output_uri, name) + "/"
                _artifacts.unpack(merged, self._host.folder / "merged" / name, uri)
                size += _artifacts.put_files(objects, self._host.folder, f"merged/{name}", uri)
            else:
                uri = posixpath.join(task.output_uri, archive)
                size += self._put(merged, uri)
            model_uri = uri if name == "model" else model_uri
        for part in filter(None, parts):
            for _, _, archive in _KINDS:
                objects.delete(*split_uri(posixpath.join(part, archive)))
        return Uploaded(model_uri=model_uri, size_bytes=size)

    # ---- checkpoints -------------------------------------------------------------------------------------

    @property
    def _checkpoints(self) -> tuple[Path, str]:
        """The folder of the checkpoints: a trusted one, and the path below it."""
        path = posixpath.normpath(self._task.checkpoint_path)
        if path.startswith("/opt/ml/"):
            return self._base, path.removeprefix("/opt/ml/")
        return self._host.folder, "checkpoints"

    def _synced_folders(self) -> list[SyncedFolder]:
        """The checkpoints, if the job has some, and what a script leaves for others to see while it runs."""
        task, objects = self._task, self._host.objects
        intermediate = SyncedFolder(
            objects, self._base, "output/intermediate", posixpath.join(task.output_uri, "intermediate")
        )
        if not task.checkpoint_uri:
            return [intermediate]
        return [SyncedFolder(objects, *self._checkpoints, task.checkpoint_uri), intermediate]

    # ---- plumbing ----------------------------------------------------------------------------------------

    def _tell(self, parts: tuple[str, ...] | None) -> None:
        if not self._told.done():
            self._told.set_result(parts)

    def _call_soon(self, call: Callable[..., None], *arguments: Any) -> None:
        self._told.get_loop().call_soon_threadsafe(call, *arguments)


async def _stopped(container: Container, grace_s: float) -> None:
    with contextlib.suppress(ContainerError):
        await container.stop(grace_s)
