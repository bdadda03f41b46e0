"""InvokeEndpointWithResponseStream with boto3: through HTTP, gateway and model server to a user's generator and back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from botocore.exceptions import ClientError, EventStreamError

from sagesmith.aws import Caller
from sagesmith.errors import access_denied
from sagesmith.hosting.capture import Captures
from sagesmith.hosting.gateway import Gateway
from sagesmith.services.sagemaker_runtime import Exchange, StreamRoute
from sagesmith.store.metrics import Datum
from sagesmith_toolkit.frames import WINDOW
from sagesmith_toolkit.server import ModelServer
from sagesmith_toolkit.serving import Handlers, UserModel
from tests.aws.conftest import TEMPORARY, Running

REGION, NAME = "us-east-1", "writer"
PIECE = b"x" * 10_000


class Author:
    """A user's model whose every chunk waits until the test wants it."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.made = 0
        self.closed = threading.Event()
        self.begun = threading.Event()

    def module(self) -> ModuleType:
        module = ModuleType("inference")
        module.__dict__.update(
            {"model_fn": lambda _: self, "input_fn": lambda body, _: body, "predict_fn": self.predict}
        )
        return module

    def predict(self, data: bytes, model: Author) -> Any:
        if data == b"whole":
            return [1, 2]
        if data == b"bad":
            raise ValueError("no such prompt")
        return self.flood() if data == b"flood" else self.words(data)

    def words(self, data: bytes) -> Iterator[str]:
        self.begun.set()
        try:
            for number in range(3):
                assert self.go.acquire(timeout=20)
                if data == b"breaks" and number == 2:
                    raise RuntimeError("out of words")
                yield f"word {number}"
        finally:
            self.closed.set()

    def flood(self) -> Iterator[bytes]:
        try:
            while self.made < 2000:
                self.made += 1
                yield PIECE
        finally:
            self.closed.set()


class Sink:
    def __init__(self) -> None:
        self.data: list[Datum] = []

    def __call__(self, namespace: str, data: Any, *, region: str) -> None:
        self.data += data

    def sum(self, name: str) -> float:
        return sum(
            value * count
            for datum in self.data
            if datum.name == name
            for value, count in zip(datum.values, datum.counts, strict=True)
        )


class Stand:
    """A server with one endpoint, all on one loop in a thread."""

    def __init__(self, folder: Path, author: Author) -> None:
        self.author = author
        self.sink = Sink()
        self.stored: dict[str, bytes] = {}
        self._folder = folder
        self.allowed = True

    async def start(self) -> StreamRoute:
        self.gateway = Gateway("123456789012", sink=self.sink, timeout_s=10.0, stream_s=1.0)
        self.gateway.start()
        model = UserModel("/opt/ml/model", self.author.module(), Handlers(), {})
        self.server = ModelServer(model)
        await self.server.listen(str(self._folder / "m.sock"))
        self.captures = Captures(lambda bucket, key, data: self.stored.update({key: data}))
        self.gateway.set_endpoint(REGION, NAME, {"a": 1.0, "b": 0.0})
        for variant in "ab":
            self.gateway.add_instance(REGION, NAME, variant, variant, f"unix:{self._folder}/m.sock")
        return StreamRoute(self.gateway, self.authorize, self.captures)

    def authorize(self, caller: Caller, action: str, resource: str, request: Exchange) -> None:
        assert (action, resource.rsplit("/", maxsplit=1)[-1]) == ("sagemaker:InvokeEndpoint", NAME)
        if caller is TEMPORARY.caller:
            raise access_denied("not authorized")

    async def end(self) -> None:
        await self.captures.close()
        await self.gateway.close()
        self.server.drain()
        await self.server.wait_closed()


@pytest.fixture
def author() -> Author:
    return Author()


@pytest.fixture
def stand(tmp_path: Path, author: Author) -> Stand:
    return Stand(tmp_path, author)


class _Late:
    """A route that is made on the server's loop."""

    service, operation = "sagemaker-runtime", "InvokeEndpointWithResponseStream"
    route: StreamRoute

    def matches(self, method: bytes, target: bytes) -> bool:
        return self.route.matches(method, target)

    def handle(self, exchange: Any) -> None:
        self.route.handle(exchange)


@pytest.fixture
def running(stand: Stand) -> Iterator[Running]:
    late = _Late()
    running = Running([], fast_routes=[late])
    late.route = running.run(stand.start())
    yield running
    running.run(stand.end())
    running.close()


_open: list[Any] = []


@pytest.fixture
def runtime(running: Running) -> Iterator[Any]:
    yield running.client("sagemaker-runtime")
    while _open:
        _open.pop().close()


def invoke(runtime: Any, body: bytes, **more: Any) -> Any:
    answer = runtime.invoke_endpoint_with_response_stream(EndpointName=NAME, Body=body, **more)
    _open.append(answer["Body"])
    return answer


def payloads(answer: Any) -> list[bytes]:
    return [event["PayloadPart"]["Bytes"] for event in answer["Body"]]


def test_each_chunk_comes_before_the_next_is_made(runtime: Any, author: Author, stand: Stand) -> None:
    author.go.release()
    answer = invoke(
        runtime,
        b"hi",
        ContentType="image/png",
        Accept="text/plain",
        CustomAttributes="n=1",
        TargetVariant="b",
    )
    assert (answer["ContentType"], answer["InvokedProductionVariant"]) == ("text/plain", "b")
    events = iter(answer["Body"])
    for number in range(3):
        assert next(events) == {"PayloadPart": {"Bytes": f"word {number}".encode()}}
        author.go.release()
    assert list(events) == []


def test_what_the_model_returns_whole_is_one_part(runtime: Any) -> None:
    answer = invoke(runtime, b"whole")
    assert answer["ContentType"] == "application/json"
    assert payloads(answer) == [b"[1, 2]"]


def test_errors_before_the_first_chunk_are_answers(runtime: Any, running: Running) -> None:
    with pytest.raises(runtime.exceptions.ModelError) as caught:
        invoke(runtime, b"bad")
    assert caught.value.response["OriginalStatusCode"] == 500
    assert caught.value.response["OriginalMessage"] == "ValueError: no such prompt"
    for arguments, code, message in (
        ({"TargetVariant": "c"}, "ValidationError", "variant c does not exist"),
        ({"SessionId": "NEW_SESSION"}, "ValidationError", "SessionId is not supported"),
        ({"TargetContainerHostname": "x"}, "ValidationError", "TargetContainerHostname cannot be used"),
        ({"Body": b"x" * 6291457}, "ValidationError", "less than or equal to 6291456"),
    ):
        request = {"EndpointName": NAME, "Body": b"", **arguments}
        with pytest.raises(ClientError, match=message) as refused:
            runtime.invoke_endpoint_with_response_stream(**request)
        assert refused.value.response["Error"]["Code"] == code
    stranger = running.client("sagemaker-runtime", TEMPORARY)
    with pytest.raises(ClientError, match="not authorized"):
        invoke(stranger, b"whole")


def test_an_error_after_the_first_chunk_is_the_last_event(
    runtime: Any, running: Running, author: Author, stand: Stand
) -> None:
    author.go.release(3)
    answer = invoke(runtime, b"breaks")
    events = iter(answer["Body"])
    assert [next(events)["PayloadPart"]["Bytes"] for _ in range(2)] == [b"word 0", b"word 1"]
    with pytest.raises(EventStreamError, match="RuntimeError: out of words") as caught:
        next(events)
    assert caught.value.response["Error"]["Code"] == "ModelStreamError"
    running.run(flushed(stand))
    assert [stand.sink.sum(name) for name in ("Invocations", "MidStreamErrors", "Invocation5XXErrors")] == [
        1,
        1,
        0,
    ]
    assert stand.sink.sum("FirstChunkLatency") > 0
    assert stand.sink.sum("ModelLatency") > 0


async def flushed(stand: Stand) -> None:
    await asyncio.sleep(0)
    stand.gateway.flush()
    while stand.gateway._sinking is not None:
        await asyncio.sleep(0.01)


def test_a_fault_of_ours_is_the_last_event(
    runtime: Any,
    running: Running,
    author: Author,
    stand: Stand,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(part: bytes) -> Iterator[bytes]:
        raise KeyError("ours")

    monkeypatch.setattr("sagesmith.services.sagemaker_runtime._stream_route.payload_parts", fails)
    author.go.release(3)
    with pytest.raises(EventStreamError, match="Try the request again") as caught:
        payloads(invoke(runtime, b"hi"))
    assert caught.value.response["Error"]["Code"] == "InternalStreamFailure"
    assert "KeyError: 'ours'" in caplog.text
    running.run(nothing_in_flight(stand))


def test_a_stream_that_takes_too_long_breaks_off(runtime: Any, author: Author) -> None:
    author.go.release()
    events = iter(invoke(runtime, b"hi")["Body"])
    next(events)
    with pytest.raises(EventStreamError, match="did not finish its response within the time") as caught:
        next(events)
    assert caught.value.response["Error"]["Code"] == "ModelStreamError"
    author.go.release(2)
    assert author.closed.wait(10)


def test_an_instance_that_is_lost_breaks_the_stream(
    runtime: Any, running: Running, author: Author, stand: Stand
) -> None:
    author.go.release()
    events = iter(invoke(runtime, b"hi")["Body"])
    next(events)

    async def lose() -> None:
        for link in list(stand.gateway._links):
            link.abort()

    running.run(lose())
    with pytest.raises(EventStreamError, match="connection to the container was lost"):
        next(events)
    author.go.release(2)


@pytest.mark.parametrize("begun", [True, False])
def test_a_client_that_goes_away_ends_the_work(
    runtime: Any, running: Running, author: Author, stand: Stand, begun: bool
) -> None:
    if begun:
        author.go.release()
        answer = invoke(runtime, b"hi")
        next(iter(answer["Body"]))
        answer["Body"].close()
        runtime.close()
    else:
        impatient = running.client("sagemaker-runtime")
        impatient.meta.config.read_timeout = 0.2
        thread = threading.Thread(target=lambda: swallow(impatient))
        thread.start()
        assert author.begun.wait(10)
        running.run(hang_up(running))
        thread.join(10)
    running.run(nothing_in_flight(stand))
    author.go.release()
    assert author.closed.wait(10), "the generator was closed after its present chunk"


def swallow(runtime: Any) -> None:
    with contextlib.suppress(Exception):
        invoke(runtime, b"hi")


async def hang_up(running: Running) -> None:
    """Break all connections, as clients do that leave."""
    for connection in list(running.server.connections):
        connection.abort()


async def nothing_in_flight(stand: Stand) -> None:
    async with asyncio.timeout(10):
        for link in list(stand.gateway._links):
            await link.settled()


def test_a_slow_client_slows_the_model_down(
    runtime: Any, running: Running, author: Author, stand: Stand
) -> None:
    answer = invoke(runtime, b"flood")
    events = iter(answer["Body"])
    next(events)
    made = -1
    while made != author.made:  # until it stands still
        made = author.made
        running.run(asyncio.sleep(0.2))
    # What is on its way: sockets' buffers on both sides, the server's, the window and the client's own.
    assert made * len(PIECE) < WINDOW + 12 * 1024 * 1024
    assert made < 2000
    assert payloads(invoke(runtime, b"whole")) == [b"[1, 2]"], "others are answered meanwhile"
    answer["Body"].close()
    runtime.close()
    assert author.closed.wait(10)


def test_long_answers_come_whole(runtime: Any, author: Author, stand: Stand) -> None:
    stand.gateway._stream_s = 30.0
    body = b"".join(payloads(invoke(runtime, b"flood")))
    assert body == PIECE * 2000


def test_streams_are_captured_whole(runtime: Any, running: Running, author: Author, stand: Stand) -> None:
    config = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": "s3://b/p",
        "CaptureOptions": [{"CaptureMode": "InputAndOutput"}],
        "CaptureContentTypeHeader": {"JsonContentTypes": ["text/plain"]},
    }

    async def capture() -> None:
        stand.captures.set(REGION, NAME, config)

    running.run(capture())
    author.go.release(3)
    payloads(invoke(runtime, b"hi", ContentType="text/plain", Accept="text/plain"))
    running.run(stand.captures.close() if stand.captures._task else stand.captures._flush())
    (line,) = [json.loads(text) for text in stand.stored.values()]
    assert line["captureData"]["endpointOutput"]["data"] == "word 0word 1word 2"
