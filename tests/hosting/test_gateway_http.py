"""The gateway against containers of the user's own, which speak HTTP: real sockets, servers that tests can end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from sagesmith.errors import AwsError
from sagesmith.hosting._gateway_http import MAX_CONNECTIONS
from sagesmith.hosting.gateway import Answer, Gateway, request_head

REGION, NAME = "us-east-1", "own"
HEAD = request_head(b"text/csv", b"application/json", b"")

Respond = Callable[[bytes, bytes, asyncio.StreamWriter], Awaitable[bool]]


class Server:
    """An HTTP server; *respond* writes the answer to a head and a body, and says whether the connection goes on."""

    def __init__(self) -> None:
        self.connections = self.open = self.most_open = 0
        self.heads: list[bytes] = []
        self.respond: Respond = self.echo
        self.writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server

    async def start(self, port: int = 0) -> Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def stop(self) -> None:
        self._server.close()
        for writer in self.writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        self.writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                length = next(
                    int(line[15:])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length:")
                )
                if not await self.respond(head, await reader.readexactly(length), writer):
                    break
        except (EOFError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()

    @staticmethod
    async def echo(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        return True


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = await Server().start()
    yield server
    server.stop()
    await asyncio.sleep(0)


@pytest.fixture(params=[20.0])
async def gateway(server: Server, request: pytest.FixtureRequest) -> AsyncIterator[Gateway]:
    gateway = Gateway("123456789012", sink=lambda *_, **__: None, timeout_s=request.param)
    gateway.start()
    gateway.set_endpoint(REGION, NAME, {"AllTraffic": 1.0})
    gateway.add_instance(REGION, NAME, "AllTraffic", "i-1", f"http:127.0.0.1:{server.port}")
    yield gateway
    await gateway.close()


async def invoke(gateway: Gateway, body: bytes = b"1,2", head: bytes = HEAD) -> Answer:
    return await asyncio.wait_for(gateway.call(REGION, NAME, head, body), 30)


async def refusal(gateway: Gateway, body: bytes = b"1,2") -> AwsError:
    with pytest.raises(AwsError) as caught:
        await invoke(gateway, body)
    return caught.value


async def test_requests_one_after_the_other_share_a_connection(gateway: Gateway, server: Server) -> None:
    for body in (b"", b"1", b"x" * 6_000_000):
        assert (await invoke(gateway, body)).body == body
    assert server.connections == 1


async def test_what_the_container_is_told(gateway: Gateway, server: Server) -> None:
    head = request_head(b"text/csv", b"application/json", b"trace=1")
    answer = await invoke(gateway, b"1,2", head)
    assert answer.headers.startswith(b"Content-Type: text/csv\r\n")
    lines = server.heads[0].split(b"\r\n")
    assert lines[:2] == [b"POST /invocations HTTP/1.1", b"Host: 127.0.0.1:%d" % server.port]
    assert set(lines[2:]) >= {
        b"Content-Type: text/csv", b"Accept: application/json", b"Content-Length: 3",
        b"X-Amzn-SageMaker-Custom-Attributes: trace=1",
    }  # fmt: skip


async def test_many_at_once_use_a_bounded_number_of_connections(gateway: Gateway, server: Server) -> None:
    await invoke(gateway)
    bodies = [b"%d" % n for n in range(3 * MAX_CONNECTIONS)]
    answers = await asyncio.gather(*(invoke(gateway, body) for body in bodies))
    assert [answer.body for answer in answers] == bodies
    assert 1 < server.most_open <= MAX_CONNECTIONS


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nabcde",
        b"HTTP/1.0 200 OK\r\n\r\nabcde",
    ],
    ids=["chunked", "continue", "close", "until the end"],
)
async def test_forms_of_answers(gateway: Gateway, server: Server, raw: bytes) -> None:
    async def respond(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(raw)
        return b"close" not in raw and b"1.0" not in raw

    server.respond = respond
    assert [(await invoke(gateway)).body for _ in range(3)] == [b"abcde"] * 3


async def test_an_error_of_the_model_is_a_model_error(gateway: Gateway, server: Server) -> None:
    async def respond(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 415 Unsupported\r\nContent-Length: 4\r\n\r\nnope")
        return True

    server.respond = respond
    error = await refusal(gateway)
    assert (error.code, error.status, error.members["OriginalStatusCode"]) == ("ModelError", 424, 415)
    assert error.members["OriginalMessage"] == "nope"


async def test_a_connection_that_breaks_loses_its_request_alone(gateway: Gateway, server: Server) -> None:
    async def respond(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        if body == b"die":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            return False
        await asyncio.sleep(0.1)
        return await Server.echo(head, body, writer)

    server.respond = respond
    bad, good = await asyncio.gather(refusal(gateway, b"die"), invoke(gateway, b"live"))
    assert bad.code == "ModelError"
    assert "connection to the container was lost" in bad.message
    assert good.body == b"live"
    assert len([head for head in server.heads if head.endswith(b"Length: 3\r\n\r\n")]) == 1


@pytest.mark.parametrize("gateway", [0.6], indirect=True)
async def test_a_request_is_given_up_in_time_and_its_connection_not_used_again(
    gateway: Gateway, server: Server
) -> None:
    async def respond(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(1.0 if body == b"slow" else 0.0)
        return await Server.echo(head, body, writer)

    server.respond = respond
    error = await refusal(gateway, b"slow")
    assert "timed out" in error.message
    assert (await invoke(gateway, b"next")).body == b"next"
    assert server.connections == 2


async def test_idle_connections_are_closed(gateway: Gateway, server: Server) -> None:
    await invoke(gateway)
    await asyncio.sleep(1.4)
    await invoke(gateway)
    assert server.connections == 2


async def test_a_server_that_is_gone_and_comes_back(gateway: Gateway, server: Server) -> None:
    await invoke(gateway)
    server.stop()
    await asyncio.sleep(0.05)
    assert (await refusal(gateway)).code == "ServiceUnavailable"
    again = await Server().start(server.port)
    try:
        async with asyncio.timeout(5):
            while True:
                try:
                    assert (await invoke(gateway, b"back")).body == b"back"
                    break
                except AwsError:
                    await asyncio.sleep(0.05)
    finally:
        again.stop()


async def test_draining_waits_for_what_is_in_flight(gateway: Gateway, server: Server) -> None:
    async def respond(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(0.2)
        return await Server.echo(head, body, writer)

    server.respond = respond
    call = asyncio.create_task(invoke(gateway, b"last"))
    await asyncio.sleep(0.1)
    await asyncio.wait_for(gateway.drain("i-1"), 2)
    assert (await asyncio.wait_for(call, 0.1)).body == b"last"
    assert (await refusal(gateway)).code == "ServiceUnavailable"
