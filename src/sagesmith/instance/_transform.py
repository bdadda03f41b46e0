"""A transform job's part on this instance: its own model server, its share of the objects, and their outputs.

The model server is kept alive as an endpoint's is; what it says goes to the requests that wait for it instead of to
the control plane. An instance that fails some of its objects still writes the others' outputs.
"""

from __future__ import annotations

import asyncio
import json
import posixpath
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sagesmith.instance._data_processing import DataProcessing
from sagesmith.instance._host import Host, LogShipper
from sagesmith.instance._invocations import Cancelled, Invocations, NotAnsweredError
from sagesmith.instance._objects import split_uri
from sagesmith.instance._serving import Serving
from sagesmith.instance._staging import Item, list_items
from sagesmith.instance._transform_objects import Failure, ObjectTransformer, Parameters
from sagesmith.instance.spec import (
    ChannelSpec,
    Command,
    Finished,
    Log,
    Message,
    Ready,
    ServingTask,
    Shutdown,
    TransformTask,
    Unhealthy,
)

__all__ = ["Transform"]

DATA_LOG: Final = "data-log"
_GRACE_S: Final = 5.0
_DEFAULT_MB: Final = 6
_LARGEST_MB: Final = 100
_MOST_AT_ONCE: Final = 100
_EXECUTION_PARAMETERS: Final = "/execution-parameters"


class Transform:
    """Runs one :class:`TransformTask`; `obey` takes commands meanwhile."""

    def __init__(self, host: Host, task: TransformTask) -> None:
        self._host = host
        self._task = task
        self._invocations = Invocations(task.invocation_timeout_s, task.startup_timeout_s)
        self._link = host.link
        host.link = _Tap(host.link.send, self._hear)
        self._log = LogShipper(host.link)
        self._serving = Serving(host, _serving_task(task))
        self._may_begin = asyncio.Event()
        self._stopped = False

    @property
    def hosts(self) -> list[Host]:
        """Where its containers run."""
        return [self._host]

    def obey(self, command: Command) -> None:
        """Take *command*: each of them ends the work; what is not whole is not written."""
        self._stopped = True
        self._invocations.cancel()
        self._may_begin.set()

    async def run(self) -> Finished:
        """Do the work, and return how it ended."""
        serving = asyncio.create_task(self._serving.run())
        working = asyncio.create_task(self._work())
        await asyncio.wait({serving, working}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done() and not working.done():
            self._invocations.cancel()  # there will be no model server
            self._may_begin.set()
            await asyncio.wait({working})
        try:
            finished = await working
        except Cancelled:
            finished = Finished()
        finally:
            self._serving.obey(Shutdown(_GRACE_S))
            await asyncio.wait({serving})
        if self._stopped:
            return Finished()
        ended = serving.result()
        return ended if ended.error and not finished.error else finished

    # ---- the work ----------------------------------------------------------------------------------------

    async def _work(self) -> Finished:
        task, host = self._task, self._host
        items = await asyncio.to_thread(self._items)
        await self._may_begin.wait()
        self._invocations.check()
        parameters = await asyncio.to_thread(self._parameters)
        self._note(
            f"MaxConcurrentTransforms={parameters.max_concurrent}, MaxPayloadInMB={parameters.max_payload_mb}, "
            f"BatchStrategy={'SINGLE_RECORD' if parameters.single else 'MULTI_RECORD'}"
        )
        processing = DataProcessing(
            task.content_type,
            split=task.split_type != "None",
            input_filter=task.input_filter,
            output_filter=task.output_filter,
            join=task.join_source == "Input",
            identify=task.identify,
        )
        folder = host.folder / "transform"
        folder.mkdir(exist_ok=True)
        loop = asyncio.get_running_loop()

        def note(text: str) -> None:
            loop.call_soon_threadsafe(self._note, text)

        transformer = ObjectTransformer(
            host.objects,
            self._invocations,
            parameters,
            processing,
            folder=folder,
            uid=task.uid,
            place=self._place,
            skip_marked=task.attempt > 0,
            note=note,
        )
        failures = await asyncio.to_thread(transformer.run, items)
        if task.capture_uri and items:
            failed = {failure.uri for failure in failures}
            good = [item for item in items if f"s3://{item.bucket}/{item.key}" not in failed]
            await asyncio.to_thread(self._capture, good)
        self._invocations.close()
        return _finished(failures, len(items))

    def _items(self) -> list[Item]:
        task, spec = self._task, self._host.spec
        channel = ChannelSpec("", task.input_uri, task.input_type, "ShardedByS3Key")
        return list_items(self._host.objects, channel, spec.hosts, spec.host)

    def _place(self, item: Item) -> tuple[str, str]:
        """The bucket and key of the item's output."""
        bucket, prefix = split_uri(self._task.output_uri)
        return bucket, posixpath.join(prefix, f"{item.path}.out")

    def _parameters(self) -> Parameters:
        """What the request says, else the model server, else the defaults."""
        task = self._task
        said: dict[str, Any] = {}
        if not task.max_concurrent or task.max_payload_mb is None or not task.batch_strategy:
            said = self._asked()
        at_once = task.max_concurrent or _number(said.get("MaxConcurrentTransforms"), 1, _MOST_AT_ONCE) or 1
        payload = task.max_payload_mb
        if payload is None:
            payload = _number(said.get("MaxPayloadInMB"), 0, _LARGEST_MB)
        strategy = task.batch_strategy or str(said.get("BatchStrategy", ""))
        return Parameters(
            content_type=task.content_type,
            accept=task.accept,
            split_type=task.split_type,
            single=strategy.replace("_", "").lower() == "singlerecord",
            compression=task.compression,
            max_payload_mb=_DEFAULT_MB if payload is None else payload,
            max_concurrent=at_once,
            max_retries=task.max_retries,
            add_newline=task.assemble_with == "Line",
        )

    def _asked(self) -> dict[str, Any]:
        try:
            answer = self._invocations.ask(_EXECUTION_PARAMETERS, "", "application/json", b"")
            said = json.loads(answer.body) if answer.is_good else {}
        except (NotAnsweredError, ValueError):
            return {}
        return said if isinstance(said, dict) else {}

    def _capture(self, items: Sequence[Item]) -> None:
        """Write the manifests that name inputs and outputs: of what was captured, without a second copy of it."""
        task = self._task
        bucket, prefix = split_uri(task.capture_uri)
        hour = datetime.fromtimestamp(task.created, UTC).strftime("%Y/%m/%d/%H")
        name = f"{task.job_name}-{self._host.spec.host}.json"
        outputs = [(target, key) for target, key in map(self._place, items)]
        for kind, places in (("input", [(i.bucket, i.key) for i in items]), ("output", outputs)):
            common = posixpath.commonprefix([f"s3://{b}/{k}" for b, k in places])
            common = common[: common.rfind("/") + 1]
            names = [f"s3://{b}/{k}"[len(common) :] for b, k in places]
            manifest = json.dumps([{"prefix": common}, *names])
            self._host.objects.put(bucket, posixpath.join(prefix, kind, hour, name), manifest.encode())

    # ---- what the model server and the user say ----------------------------------------------------------

    def _hear(self, message: Message) -> bool:
        """Take what the model server says of itself; False if it is for the control plane."""
        match message:
            case Ready(address, protocol):
                self._invocations.ready(address, protocol)
                self._may_begin.set()
            case Unhealthy():
                self._invocations.away()
            case _:
                return False
        return True

    def _note(self, text: str) -> None:
        now = time.time()
        stamp = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        line = (int(now * 1000), f"{stamp}:[sagemaker logs]: {text}")
        self._link.send(Log((line,), part=DATA_LOG))


class _Tap:
    """The way home, with somebody who hears first."""

    def __init__(self, send: Callable[[Message], None], hear: Callable[[Message], bool]) -> None:
        self._send = send
        self._hear = hear

    def send(self, message: Message) -> None:
        """Say *message*, if nobody here takes it."""
        if not self._hear(message):
            self._send(message)


def _serving_task(task: TransformTask) -> ServingTask:
    return ServingTask(
        endpoint_name="",
        variant_name="",
        model_data=task.model_data,
        model_data_type=task.model_data_type,
        model_data_compression=task.model_data_compression,
        startup_timeout_s=task.startup_timeout_s,
        invocation_timeout_s=task.invocation_timeout_s,
        workers=task.workers,
        code_uri=task.code_uri,
    )


def _number(value: object, low: int, high: int) -> int | None:
    return max(low, min(value, high)) if isinstance(value, int) and not isinstance(value, bool) else None


def _finished(failures: Sequence[Failure], count: int) -> Finished:
    if not failures:
        return Finished()
    first = failures[0]
    others = f" and {len(failures) - 1} more" if len(failures) > 1 else ""
    return Finished(
        f"{first.fault}: See job logs for more information. {len(failures)} of {count} objects failed: "
        f"{first.uri}{others}: {first.reason}",
        client_error=first.fault == "ClientError",
    )
