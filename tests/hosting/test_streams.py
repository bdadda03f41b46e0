"""Answers in parts on their way through the gateway, from model servers and containers that the tests hold in their hands."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from time import monotonic

import pytest

from sagesmith.errors import AwsError
from sagesmith.hosting.gateway import MODELS, STREAM_PATH, Gateway, Stream, request_head
from sagesmith_toolkit.frames import MORE, PART, SIZE, STOP, WINDOW
from tests.hosting.test_gateway import NAME, REGION, Model, Sink, deploy, gateway, models, sink
from tests.hosting.test_gateway_http import Server, server
from tests.hosting.test_models import Agent

__all__ = ["gateway", "models", "server", "sink"]

HEAD = request_head(b"text/csv", b"a/b", b"", STREAM_PATH)


class Reader(Stream):
    """A client: `headers` is there when the answer has begun, or raises why there is none."""

    __slots__ = ("headers",)

    def __init__(self, head: bytes = HEAD, body: bytes = b"1") -> None:
        super().__init__(head, body, monotonic())
        self.headers: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def begin(self, headers: bytes) -> None:
        self.headers.set_result(headers)

    def refuse(self, error: AwsError) -> None:
        self.headers.set_exception(error)


def read(gateway: Gateway, reader: Reader) -> AsyncIterator[bytes]:
    """Submit *reader* and return its parts."""
    gateway.stream(gateway.endpoint(REGION, NAME).choose(), reader)
    return reader.parts()


async def soon(parts: AsyncIterator[bytes]) -> bytes:
    async with asyncio.timeout(5):
        return await anext(parts)


async def test_a_chain_streams_what_its_last_container_says(gateway: Gateway, models: list[Model]) -> None:
    for model in models[:2]:
        model.echo = False
    gateway.set_endpoint(REGION, NAME, {"v": 1.0})
    gateway.add_instance(REGION, NAME, "v", "i-1", f"serial|a={models[0].address}|b={models[1].address}")
    parts = read(gateway, Reader())
    number, _ = await models[0].next()
    models[0].answer(number, b"2", head=b"type/0\0")
    number, body = await models[1].next()
    assert (models[0].heads[0].split(b"\0")[0], models[1].heads[0].split(b"\0")) == (
        b"/invocations",
        [STREAM_PATH, b"type/0", b"a/b", b""],
    )
    models[1].answer(number | PART, body + b"!")
    assert await soon(parts) == b"2!"
    await asyncio.sleep(0.7)  # longer than a whole answer may take
    models[1].answer(number, b"?")
    assert [part async for part in parts] == [b"?"]


async def test_a_model_of_many_streams_and_is_told_to_stop(
    gateway: Gateway, models: list[Model], tmp_path_factory: pytest.TempPathFactory
) -> None:
    agent = Agent(tmp_path_factory.mktemp("a") / "agent.sock", echo=False)
    await agent.start()
    models[0].echo = False
    gateway.set_endpoint(REGION, NAME, {"v": 1.0}, features={"v": [MODELS]})
    gateway.add_instance(REGION, NAME, "v", "i-1", f"models|{agent.address}")
    head = request_head(b"", b"", b"", STREAM_PATH, b"target-model=m")
    waiting, reader = Reader(head), Reader(head)
    variant = gateway.endpoint(REGION, NAME).choose()
    parts = read(gateway, waiting), read(gateway, reader)
    order, _, _ = await agent.order()
    gateway.leave(variant, waiting)  # while its model is loaded
    agent.answer(order, models[0].address.encode())
    number, _ = await models[0].next()
    models[0].answer(number | PART, b"x")
    assert await soon(parts[1]) == b"x"
    gateway.leave(variant, reader)
    assert await models[0].next() == (number, b"")
    assert models[0].heads[-1].split(b"\0")[0] == STOP.encode()
    link = gateway._instances["i-1"]
    assert not link.waiting
    models[0].answer(number, b"", status=499)
    await agent.stop()


async def test_the_client_says_how_much_it_took(gateway: Gateway, models: list[Model]) -> None:
    models[0].echo = False
    deploy(gateway, models[0])
    parts = read(gateway, Reader())
    number, _ = await models[0].next()
    for _ in range(3):
        models[0].answer(number | PART, b"x" * (WINDOW // 8))
    await soon(parts)
    await soon(parts)
    assert models[0].got.empty()
    await soon(parts)  # the second is taken, then
    assert await models[0].next() == (number, SIZE.pack(WINDOW // 4))
    assert models[0].heads[-1].split(b"\0")[0] == MORE.encode()


async def test_a_stream_counts_as_load_and_is_waited_for(
    gateway: Gateway, models: list[Model], sink: Sink
) -> None:
    models[0].echo = False
    deploy(gateway, models[0])
    readers = [Reader() for _ in range(4)]
    parts = [read(gateway, reader) for reader in readers]
    numbers = [(await models[0].next())[0] for _ in readers]
    for number in numbers:
        models[0].answer(number | PART, b"x")
    assert [await soon(each) for each in parts] == [b"x"] * 4
    with pytest.raises(AwsError, match="has 4 requests in flight"):
        read(gateway, Reader())
    drained = asyncio.create_task(gateway.drain("i-0"))
    await asyncio.sleep(0.05)
    assert not drained.done()
    for number in numbers:
        models[0].answer(number, b"")
    await asyncio.wait_for(drained, 5)
    assert [[part async for part in each] for each in parts] == [[]] * 4


# ---- containers of the user's own ----------------------------------------------------------------------


@pytest.fixture
async def own(gateway: Gateway, server: Server) -> Server:
    gateway.set_endpoint(REGION, NAME, {"v": 1.0})
    gateway.add_instance(REGION, NAME, "v", "i-1", f"http:127.0.0.1:{server.port}")
    return server


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_chunks_of_a_container_come_as_they_are_sent(gateway: Gateway, own: Server) -> None:
    go = asyncio.Event()

    async def respond(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        assert head.startswith(b"POST /invocations HTTP/1.1\r\n")
        writer.write(CHUNKED + chunk(body + b"1"))
        await go.wait()
        writer.write(chunk(b"2") + b"0\r\n\r\n")
        return True

    own.respond = respond
    reader = Reader(body=b"a")
    parts = read(gateway, reader)
    assert await soon(parts) == b"a1"
    assert b"Content-Type: text/plain" in reader.headers.result()
    go.set()
    assert [part async for part in parts] == [b"2"]
    parts = read(gateway, Reader(body=b"b"))
    assert [part async for part in parts] == [b"b1", b"2"]
    assert own.connections == 1


async def test_what_a_container_does_wrong(gateway: Gateway, own: Server, sink: Sink) -> None:
    async def refuse(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 8\r\n\r\ntoo long")
        return True

    async def leave(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(CHUNKED + chunk(b"1"))
        return False

    own.respond = refuse
    reader = Reader()
    read(gateway, reader)
    with pytest.raises(AwsError, match="too long") as caught:
        await asyncio.wait_for(reader.headers, 5)
    assert (caught.value.code, caught.value.members["OriginalStatusCode"]) == ("ModelError", 400)
    own.respond = leave
    parts = read(gateway, Reader())
    assert await soon(parts) == b"1"
    with pytest.raises(AwsError, match="connection to the container was lost") as caught:
        await soon(parts)
    assert (caught.value.code, caught.value.members) == ("ModelStreamError", {"ErrorCode": "StreamBroken"})


async def test_a_container_learns_that_the_client_left(gateway: Gateway, own: Server) -> None:
    left = asyncio.Event()

    async def respond(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(CHUNKED)
        with contextlib.suppress(ConnectionError):
            while not writer.transport.is_closing():
                writer.write(chunk(b"1"))
                await writer.drain()
                await asyncio.sleep(0.01)
        left.set()
        return False

    own.respond = respond
    reader = Reader()
    parts = read(gateway, reader)
    assert await soon(parts) == b"1"
    gateway.leave(gateway.endpoint(REGION, NAME).choose(), reader)
    await asyncio.wait_for(left.wait(), 5)
    with pytest.raises(AwsError, match="The client went away"):
        await soon(parts)


async def test_a_slow_client_stops_the_container(gateway: Gateway, own: Server) -> None:
    sent = 0
    piece = b"x" * 65536

    async def respond(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        nonlocal sent
        writer.write(CHUNKED)
        for _ in range(500):
            writer.write(chunk(piece))
            await writer.drain()
            sent += len(piece)
        writer.write(b"0\r\n\r\n")
        return True

    own.respond = respond
    reader = Reader()
    parts = read(gateway, reader)
    got = len(await soon(parts))
    before = -1
    while before != sent:
        before = sent
        await asyncio.sleep(0.1)
    assert sum(map(len, reader._parts)) <= 2 * WINDOW
    assert sent < 500 * len(piece)
    async for part in parts:
        got += len(part)
    assert got == 500 * len(piece)
