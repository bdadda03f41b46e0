"""Requests of a transform job to a container that speaks HTTP, and to one that is away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sagesmith.instance._invocations import Answer, Cancelled, Invocations, NotAnsweredError


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self._answer(f"{self.path} {self.headers['content-type']} {self.headers['accept']} ".encode() + body)

    def do_GET(self) -> None:
        self._answer(b"{}" if self.path == "/execution-parameters" else b"")

    def _answer(self, body: bytes) -> None:
        self.send_response(418 if b"tea" in body else 200)
        self.send_header("content-type", "text/csv")
        self.send_header("content-length", str(len(body)))
        if b"once" in body:
            self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http:127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_http(address: str) -> None:
    way = Invocations(5, 5)
    way.ready(address, "http")
    for body in (b"1", b"once", b"2"):
        expected = Answer(200, "text/csv", b"/invocations text/csv a/b " + body)
        assert way.ask("/invocations", "text/csv", "a/b", body) == expected
    assert way.ask("/execution-parameters", "", "", b"").body == b"{}"
    assert not way.ask("/invocations", "", "", b"tea").is_good
    way.close()


def test_a_server_that_is_away_and_comes_back(address: str) -> None:
    way = Invocations(5, 0.05)
    with pytest.raises(NotAnsweredError, match="no model server for"):
        way.ask("/invocations", "", "", b"1")
    way.ready("http:127.0.0.1:9", "http")
    with pytest.raises(NotAnsweredError, match="Unable to get response from algorithm"):
        way.ask("/invocations", "", "", b"1")
    way.away()
    way.ready(address, "http")
    assert way.ask("/invocations", "", "", b"1").is_good
    way.cancel()
    with pytest.raises(Cancelled):
        way.ask("/invocations", "", "", b"1")
