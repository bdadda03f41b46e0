"""Asynchronous inference: requests wait in the database, answers go to S3, and the caller is long gone.

A request is accepted when its row is written; a server that starts again finds it there. An endpoint's requests are
sent in the order they came, so many at a time as its instances may have; what no instance can take now waits. The row
goes when the answer, or the failure, is in S3. Whoever scales the endpoint looks at the backlog metrics.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, Protocol

from sagesmith.background import Background
from sagesmith.clock import Clock, system_clock
from sagesmith.errors import AwsError
from sagesmith.hosting.gateway import NAMESPACE, Answer, Gateway, request_head
from sagesmith.store.metrics import Datum
from sagesmith.store.resources import Resource, Resources
from sagesmith.store.threads import in_thread
from sagesmith_toolkit.frames import MAX_FRAME

__all__ = ["LONGEST_S", "Accepted", "AsyncInference", "ObjectAccess"]

KIND: Final = "async-invocation"
PENDING: Final = "Pending"
DEFAULT_TTL_S: Final = 21_600
DEFAULT_TIMEOUT_S: Final = 900
LONGEST_S: Final = 3_600.0
PER_INSTANCE: Final = 4
"""How many requests an instance has at a time unless the configuration says; SageMaker's own choice is not documented."""
LARGEST_BYTES: Final = MAX_FRAME - 64 * 1024
PAUSE_S: Final = 0.2

_log = logging.getLogger(__name__)


class ObjectAccess(Protocol):
    """What is needed of S3, as `store.ObjectStore` has it. Called in threads; raises `AwsError`."""

    def get(self, bucket: str, key: str) -> BinaryIO:
        """Return a reader of an object's content."""
        ...

    def find(self, bucket: str, key: str) -> object | None:
        """Return something if there is such an object."""
        ...

    def put_bytes(self, bucket: str, key: str, data: bytes, *, content_type: str) -> object:
        """Store an object."""
        ...


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the caller learns at once: where to look later. *failure* is "" if failures are not written."""

    inference_id: str
    output: str
    failure: str


@dataclass(slots=True)
class _Queue:
    """One endpoint's requests."""

    region: str
    endpoint: str
    config: Mapping[str, Any] = field(default_factory=dict)
    waiting: deque[Resource] = field(default_factory=deque)
    in_flight: int = 0
    timer: asyncio.TimerHandle | None = None

    @property
    def backlog(self) -> int:
        """`ApproximateBacklogSize`: what waits and what is being worked on."""
        return len(self.waiting) + self.in_flight


class AsyncInference:
    """The asynchronous requests of all endpoints. On the event loop.

    Args:
        sink: takes metrics, in a thread: `store.Metrics.put`.
        metrics_s: how often the backlog is told.
    """

    def __init__(
        self,
        resources: Resources,
        gateway: Gateway,
        objects: ObjectAccess,
        sink: Callable[..., None],
        *,
        clock: Clock = system_clock,
        metrics_s: float = 10.0,
    ) -> None:
        self._resources = resources
        self._gateway = gateway
        self._objects = objects
        self._sink = sink
        self._clock = clock
        self._metrics_s = metrics_s
        self._queues: dict[tuple[str, str], _Queue] = {}
        self._background = Background(_log, "a step of asynchronous inference failed")
        self._started = False

    async def start(self) -> None:
        """Take up what an earlier server accepted; the endpoints are known by now. Call it once."""
        self._started = True
        rows = await in_thread(self._resources.with_status, KIND, (PENDING,))
        for row in sorted(rows, key=lambda row: (row.created, row.name)):
            self._enqueue(row)
        self._background.spawn(self._tell_backlogs())

    async def close(self) -> None:
        """Stop; what is accepted stays, and is taken up after the next start."""
        self._started = False
        for queue in self._queues.values():
            if queue.timer is not None:
                queue.timer.cancel()
        await asyncio.gather(*self._background.cancel(), return_exceptions=True)

    def set(self, region: str, endpoint: str, config: Mapping[str, Any]) -> None:
        """Learn an endpoint's `AsyncInferenceConfig`; an empty one ends what waits with a failure."""
        queue = self._queues.get((region, endpoint))
        if queue is None:
            if not config:
                return
            queue = self._queues[region, endpoint] = _Queue(region, endpoint)
        queue.config = config
        known = self._gateway.endpoint(region, endpoint)
        known.asynchronous = bool(config)
        known.timeout_s = LONGEST_S if config else None
        self._work(queue)

    async def accept(self, region: str, endpoint: str, request: Mapping[str, Any]) -> Accepted:
        """Accept a request of InvokeEndpointAsync, which is kept when this returns.

        Raises:
            AwsError: `ValidationError`.
        """
        known = self._gateway.endpoint(region, endpoint)
        known.choose()
        queue = self._queues.get((region, endpoint))
        if queue is None or not queue.config:
            raise AwsError(
                "ValidationError",
                f"Endpoint {endpoint} is not configured for asynchronous inference. Use InvokeEndpoint, or update "
                "it to a configuration with AsyncInferenceConfig.",
            )
        if bool(request.get("InputLocation")) == bool(request.get("Body")):
            raise AwsError("ValidationError", "Exactly one of InputLocation and Body must be given.")
        request_head(*(request.get(m, "").encode() for m in ("ContentType", "Accept", "CustomAttributes")))
        name, inference_id = str(uuid.uuid4()), request.get("InferenceId") or str(uuid.uuid4())
        output = queue.config["OutputConfig"]
        folder = "/".join(
            filter(
                None,
                (output["S3OutputPath"].rstrip("/"), request.get("S3OutputPathExtension", "").strip("/")),
            )
        )
        failures = output.get("S3FailurePath", "").rstrip("/")
        document = {
            **{m: value for m, value in request.items() if m not in ("EndpointName", "Body")},
            **({"Body": base64.b64encode(request["Body"]).decode()} if request.get("Body") else {}),
            "InferenceId": inference_id,
            "OutputLocation": f"{folder}/{request.get('Filename') or f'{name}.out'}",
            "FailureLocation": f"{failures}/{name}-error.out" if failures else "",
        }
        row = await in_thread(
            lambda: self._resources.create(
                KIND, region, name, arn=f"{known.arn}/{KIND}/{name}", document=document, status=PENDING,
                parent=endpoint, why=inference_id,
            )
        )  # fmt: skip
        self._enqueue(row)
        return Accepted(inference_id, document["OutputLocation"], document["FailureLocation"])

    # ---- the queues ----

    def _enqueue(self, row: Resource) -> None:
        queue = self._queues.setdefault((row.region, row.parent), _Queue(row.region, row.parent))
        queue.waiting.append(row)
        self._work(queue)

    def _work(self, queue: _Queue) -> None:
        """Start as many requests as there is room for, and look again later for the rest."""
        if queue.timer is not None:
            queue.timer.cancel()
            queue.timer = None
        if not self._started:
            return
        room = self._room(queue)
        while queue.waiting and (not queue.config or queue.in_flight < room):
            row = queue.waiting.popleft()
            queue.in_flight += 1
            self._background.spawn(self._process(queue, row))
        if queue.waiting and not queue.in_flight:
            queue.timer = asyncio.get_running_loop().call_later(PAUSE_S, self._work, queue)

    def _room(self, queue: _Queue) -> int:
        client = queue.config.get("ClientConfig") or {}
        per_instance: int = client.get("MaxConcurrentInvocationsPerInstance") or PER_INSTANCE
        return per_instance * self._instances(queue)

    def _instances(self, queue: _Queue) -> int:
        variants = self._gateway.endpoint(queue.region, queue.endpoint).variants.values()
        return sum(link.usable for variant in variants for link in variant.links)

    async def _process(self, queue: _Queue, row: Resource) -> None:
        """Answer one request and forget it, or put it back in front."""
        done = False
        try:
            done = await self._answered(queue, row)
            if done:
                await in_thread(self._resources.delete, row)
        except AwsError:  # S3 or the database: what is accepted is tried until it is done
            _log.exception("an asynchronous request of %s could not be ended; it is tried again", row.parent)
        finally:
            queue.in_flight -= 1
            if not done:
                queue.waiting.appendleft(row)
                if self._started and queue.timer is None:
                    queue.timer = asyncio.get_running_loop().call_later(PAUSE_S, self._work, queue)
            else:
                self._work(queue)

    async def _answered(self, queue: _Queue, row: Resource) -> bool:
        """Bring the request to its end; False if no instance takes it now."""
        asked, objects = row.document, self._objects
        if not queue.config:
            await self._fail(row, f"Endpoint {row.parent} does not exist, or is not asynchronous, any more.")
            return True
        place = _place(asked["OutputLocation"])
        if not asked.get("Filename") and await in_thread(objects.find, *place) is not None:
            return True  # by a server that died before it could forget the request
        if self._clock() - row.created > asked.get("RequestTTLSeconds", DEFAULT_TTL_S):
            await self._fail(row, "The request expired: it waited longer than RequestTTLSeconds.")
            return True
        try:
            body = await self._body(asked)
            answer = await self._invoke(queue, asked, body)
        except ValueError as error:
            await self._fail(row, str(error))
        except TimeoutError:
            limit = asked.get("InvocationTimeoutSeconds", DEFAULT_TIMEOUT_S)
            await self._fail(row, f"The model did not answer within {limit} seconds.")
        except AwsError as error:
            if error.code in ("ServiceUnavailable", "ThrottlingException"):
                return False
            await self._fail(row, error.message)
        else:
            headers = dict(
                line.split(": ", 1) for line in answer.headers.decode("latin-1").split("\r\n") if line
            )
            await in_thread(objects.put_bytes, *place, answer.body, content_type=headers["Content-Type"])
        return True

    async def _body(self, asked: Mapping[str, Any]) -> bytes:
        if "Body" in asked:
            return base64.b64decode(asked["Body"])
        location = asked["InputLocation"]
        try:
            body = await in_thread(self._read, *_place(location))
        except AwsError as error:
            raise ValueError(f"Unable to download the input {location}: {error.message}") from error
        if len(body) > LARGEST_BYTES:
            raise ValueError(f"The input {location} is larger than {LARGEST_BYTES} bytes.")
        return body

    def _read(self, bucket: str, key: str) -> bytes:
        with self._objects.get(bucket, key) as content:
            return content.read(LARGEST_BYTES + 1)

    async def _invoke(self, queue: _Queue, asked: Mapping[str, Any], body: bytes) -> Answer:
        head = request_head(
            asked.get("ContentType", "application/octet-stream").encode(),
            asked.get("Accept", "").encode(),
            asked.get("CustomAttributes", "").encode(),
        )
        async with asyncio.timeout(asked.get("InvocationTimeoutSeconds", DEFAULT_TIMEOUT_S)):
            return await self._gateway.call(queue.region, queue.endpoint, head, body)

    async def _fail(self, row: Resource, reason: str) -> None:
        location = row.document["FailureLocation"]
        if location:
            await in_thread(
                self._objects.put_bytes, *_place(location), reason.encode(), content_type="text/plain"
            )

    # ---- metrics ----

    async def _tell_backlogs(self) -> None:
        while True:
            await asyncio.sleep(self._metrics_s)
            for queue in [q for q in self._queues.values() if q.config]:
                await in_thread(self._sink, NAMESPACE, [*self._backlog(queue)], region=queue.region)

    def _backlog(self, queue: _Queue) -> Iterable[Datum]:
        instances, backlog, now = self._instances(queue), queue.backlog, self._clock()
        dimensions = {"EndpointName": queue.endpoint}
        yield Datum("ApproximateBacklogSize", dimensions, now, float(backlog), "Count")
        yield Datum(
            "HasBacklogWithoutCapacity", dimensions, now, float(backlog > 0 and not instances), "Count"
        )
        if instances:
            yield Datum("ApproximateBacklogSizePerInstance", dimensions, now, backlog / instances, "Count")


def _place(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.partition("://")[2].partition("/")
    return bucket, key
