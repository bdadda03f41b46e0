"""TLS connections under real clients: pieces of all sizes both ways, goodbyes, faults."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from sagesmith.aws._tls import Rounds, TlsTransport
from tests.aws.test_http import a_certificate

SIZES = (1, 100, 16_383, 16_384, 16_385, 70_000, 262_144, 262_145, 3_000_000)


class Echo:
    """Sends back what it gets; what starts with "bye" ends the connection after the answer."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.transport: Any = None
        self.lost = threading.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.events.append("made")

    def received(self, data: bytes | memoryview) -> None:
        self.transport.write(bytes(data))
        if bytes(data[:3]) == b"bye":
            self.transport.close()

    def eof_received(self) -> None:
        self.events.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")
        self.lost.set()

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class Server:
    """An echo server on a loop of its own."""

    def __init__(self, certificate: Path, handshake_s: float = 60.0) -> None:
        self.handshake_s = handshake_s
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)
        self.trusting = ssl.create_default_context(cafile=str(certificate))
        self.protocols: list[Echo] = []
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._listening = asyncio.run_coroutine_threadsafe(self._listen(), self.loop).result(10)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def _listen(self) -> Any:
        loop = asyncio.get_running_loop()
        rounds = Rounds(loop)

        def connection() -> Any:
            self.protocols.append(Echo())
            return TlsTransport(self.protocols[-1], self.context, loop, rounds, self.handshake_s)

        return await loop.create_server(connection, "127.0.0.1", 0)

    async def _close(self) -> None:
        self._listening.close()
        for echo in self.protocols:
            if echo.transport is not None:
                echo.transport.abort()
        await asyncio.sleep(0.01)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    def connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        return self.trusting.wrap_socket(plain, server_hostname="localhost")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(a_certificate(tmp_path))
    yield running
    running.close()


def read(client: ssl.SSLSocket, size: int) -> bytes:
    pieces = []
    while size > 0:
        pieces.append(client.recv(min(size, 65_536)))
        assert pieces[-1], "the connection ended too early"
        size -= len(pieces[-1])
    return b"".join(pieces)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_pieces_of_all_sizes_come_back_in_order(server: Server, version: ssl.TLSVersion) -> None:
    server.trusting.maximum_version = version
    reader, writer = await asyncio.open_connection("localhost", server.port, ssl=server.trusting)
    for size in SIZES:
        data = random.Random(size).randbytes(size)
        writer.write(data)  # of large ones much comes back before all is sent
        assert await asyncio.wait_for(reader.readexactly(size), 60) == data
    writer.close()
    await asyncio.wait_for(writer.wait_closed(), 60)


def test_connections_in_one_round_do_not_mix(server: Server) -> None:
    clients = [server.connect() for _ in range(20)]
    for turn in range(20):
        for number, client in enumerate(clients):
            client.sendall(b"%d:%d;" % (number, turn) * (turn + 1))
        for number, client in enumerate(clients):
            expected = b"%d:%d;" % (number, turn) * (turn + 1)
            assert read(client, len(expected)) == expected
    for client in clients:
        client.close()


def test_both_sides_say_goodbye(server: Server) -> None:
    with server.connect() as client:
        client.sendall(b"bye and more")
        assert read(client, 12) == b"bye and more"
        assert client.recv(10) == b""  # not a broken connection, which would raise
    with server.connect() as client:
        client.sendall(b"last words")
        assert read(client, 10) == b"last words"
        client.unwrap()  # returns when the server has said goodbye as well
    for echo in server.protocols:
        assert echo.lost.wait(30)
    assert [echo.events for echo in server.protocols] == [["made", "lost"], ["made", "eof", "lost"]]


def test_who_does_not_speak_tls_is_sent_away(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(100) == b""
    assert [echo.events for echo in server.protocols] == [[]]


def test_who_says_nothing_is_not_waited_for(tmp_path: Path) -> None:
    server = Server(a_certificate(tmp_path), handshake_s=0.2)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        assert client.recv(100) == b""
    assert [echo.events for echo in server.protocols] == [[]]
    server.close()


def test_a_forged_record_ends_only_its_connection(server: Server) -> None:
    with server.connect() as honest, server.connect() as client:
        raw = socket.socket(fileno=client.detach())
        raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        raw.settimeout(30)
        while raw.recv(1000):
            pass
        raw.close()
        honest.sendall(b"still here")
        assert read(honest, 10) == b"still here"
    assert server.protocols[1].lost.wait(30)
