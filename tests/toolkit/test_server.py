"""The model server as the gateway sees it: frames in, frames out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from sagesmith_toolkit.frames import (
    GOING,
    MAX_FRAME,
    MORE,
    PART,
    REQUEST,
    RESPONSE,
    SIZE,
    STOP,
    STREAM,
    WINDOW,
    FrameBuffer,
)  # fmt: skip
from sagesmith_toolkit.server import MAX_BATCH, ModelServer, Request, Response
from sagesmith_toolkit.sockets import unix_address
from sagesmith_toolkit.streams import Streamed

Answer = tuple[int, int, str, bytes]  # number, status, head, body


def frame(number: int, body: bytes = b"", *, path: str = "/invocations", attributes: str = "") -> bytes:
    head = f"{path}\0text/csv\0application/json\0{attributes}".encode()
    return REQUEST.pack(6 + len(head) + len(body), number, len(head)) + head + body


class Upper:
    """Answers in capitals; fails a whole batch that holds a body starting with "bad"."""

    blocking = False

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.seen: list[Request] = []

    def predict(self, requests: Sequence[Request]) -> Sequence[Response]:
        self.batches.append(len(requests))
        self.seen += requests
        if any(request.body.startswith(b"bad") for request in requests):
            raise ValueError("row 1 has 3 columns, the model wants 4")
        return [Response(200, "text/csv", r.body.upper(), r.attributes) for r in requests]


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answers(self, count: int) -> list[Answer]:
        """Read *count* responses, ordered by number."""
        answers = []
        for _ in range(count):
            raw = await asyncio.wait_for(self.reader.readexactly(RESPONSE.size), 5)
            length, number, status, head_size = RESPONSE.unpack(raw)
            rest = await self.reader.readexactly(length - 8)
            answers.append((number, status, rest[:head_size].decode(), rest[head_size:]))
        return sorted(answers)


async def connect(path: str) -> Client:
    with unix_address(path) as address:
        return Client(*await asyncio.open_unix_connection(address))


@pytest.fixture
def predictor() -> Upper:
    return Upper()


@pytest.fixture
async def socket_path(predictor: Upper, tmp_path: Path) -> AsyncIterator[str]:
    path = str(tmp_path / "model.sock")
    server = ModelServer(predictor)
    await server.listen(path)
    yield path
    server.drain()
    await server.wait_closed()


@pytest.fixture
async def client(socket_path: str) -> AsyncIterator[Client]:
    client = await connect(socket_path)
    yield client
    client.writer.close()


async def test_a_request_is_answered_with_its_number_and_attributes(client: Client, predictor: Upper) -> None:
    client.writer.write(frame(7, b"1,2", attributes="trace=1"))
    assert await client.answers(1) == [(7, 200, "text/csv\0trace=1", b"1,2")]
    assert predictor.seen == [Request("/invocations", "text/csv", "application/json", "trace=1", b"1,2")]


async def test_what_arrives_together_is_one_batch(socket_path: str, predictor: Upper) -> None:
    one, two = await connect(socket_path), await connect(socket_path)
    one.writer.write(b"".join(frame(n, b"a%d" % n) for n in range(1, 6)))
    two.writer.write(b"".join(frame(n, b"b%d" % n) for n in range(1, 4)))
    assert [a[3] for a in await one.answers(5)] == [b"A1", b"A2", b"A3", b"A4", b"A5"]
    assert [a[3] for a in await two.answers(3)] == [b"B1", b"B2", b"B3"]
    assert len(predictor.batches) <= 2
    one.writer.close()
    two.writer.close()


async def test_a_flood_is_cut_into_batches(client: Client, predictor: Upper) -> None:
    client.writer.write(b"".join(frame(n, b"x") for n in range(1, 1001)))
    assert [a[0] for a in await client.answers(1000)] == list(range(1, 1001))
    assert max(predictor.batches) <= MAX_BATCH


async def test_a_bad_request_does_not_fail_its_neighbours(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    client.writer.write(frame(1, b"a") + frame(2, b"bad") + frame(3, b"c"))
    answers = await client.answers(3)
    assert [(a[1], a[3]) for a in answers] == [
        (200, b"A"),
        (500, b"row 1 has 3 columns, the model wants 4"),
        (200, b"C"),
    ]
    assert "Traceback" in capsys.readouterr().err, "the container's log tells where"


async def test_a_predictor_that_returns_nonsense_gives_500(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Nonsense:
        def predict(self, requests: Sequence[Request]) -> Sequence[Response]:
            return [] if requests[0].body == b"none" else [Response(200, "text/csv", "text")]  # type: ignore[arg-type]

    server = ModelServer(Nonsense())
    await server.listen(str(tmp_path / "m.sock"))
    client = await connect(str(tmp_path / "m.sock"))
    client.writer.write(frame(1, b"none") + frame(2, b"str"))
    answers = await client.answers(2)
    assert [a[1] for a in answers] == [500, 500]
    assert b"gave 0 responses to 1" in answers[0][3]
    client.writer.close()
    server.drain()
    await server.wait_closed()
    capsys.readouterr()


async def test_frames_may_arrive_in_any_pieces(client: Client) -> None:
    stream = frame(1, b"one") + frame(2, b"y" * 300_000) + frame(3, b"three")
    for piece in (stream[:3], stream[3:9], stream[9:70], stream[70:200_000], stream[200_000:]):
        client.writer.write(piece)
        await asyncio.sleep(0.002)
    answers = await client.answers(3)
    assert [a[3][:5] for a in answers] == [b"ONE", b"YYYYY", b"THREE"]
    assert len(answers[1][3]) == 300_000


@pytest.mark.parametrize(
    "nonsense",
    [
        REQUEST.pack(MAX_FRAME + 1, 1, 4),
        REQUEST.pack(8, 1, 100) + b"x" * 20,
        REQUEST.pack(2, 1, 0),
        REQUEST.pack(6 + 2, 1, 2) + b"\xff\xfe",
        REQUEST.pack(6 + 12, 1, 12) + b"/invocations",
        b"GET /ping HTTP/1.1\r\n\r\n",
    ],
    ids=["oversized", "head beyond the frame", "too short", "not UTF-8", "fields missing", "HTTP"],
)
async def test_what_is_no_frame_ends_the_connection_alone(
    socket_path: str, client: Client, nonsense: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    other = await connect(socket_path)
    other.writer.write(nonsense)
    assert await asyncio.wait_for(other.reader.read(), 5) == b""
    other.writer.close()
    client.writer.write(frame(1, b"still"))
    assert (await client.answers(1))[0][3] == b"STILL"
    assert "does not speak frames" in capsys.readouterr().err


class Slow(Upper):
    blocking = True

    def __init__(self) -> None:
        super().__init__()
        self.started, self.go_on = threading.Event(), threading.Event()

    def predict(self, requests: Sequence[Request]) -> Sequence[Response]:
        self.started.set()
        assert self.go_on.wait(5)
        return super().predict(requests)


async def test_a_slow_predictor_blocks_no_ping_and_batches_what_gathered(tmp_path: Path) -> None:
    slow, path = Slow(), str(tmp_path / "m.sock")
    server = ModelServer(slow)
    await server.listen(path)
    client = await connect(path)
    client.writer.write(frame(1, b"a"))
    await asyncio.to_thread(slow.started.wait, 5)
    client.writer.write(frame(2, b"b") + frame(3, b"c"))
    client.writer.write(frame(4, path="/ping"))
    assert [a[:2] for a in await client.answers(1)] == [(4, 200)]
    slow.go_on.set()
    assert [a[3] for a in await client.answers(3)] == [b"A", b"B", b"C"]
    assert slow.batches == [1, 2]
    client.writer.close()
    server.drain()
    await server.wait_closed()


class OneByOne(Upper):
    """Predicts at once, except a body that begins with "slow", which waits for `go_on`."""

    blocking = one_by_one = True

    def __init__(self, parallel: int) -> None:
        super().__init__()
        self.parallel = parallel
        self.go_on = threading.Event()

    def predict(self, requests: Sequence[Request]) -> Sequence[Response]:
        if requests[0].body.startswith(b"slow"):
            assert self.go_on.wait(5)
        return super().predict(requests)


@pytest.mark.parametrize("parallel", [1, 2])
async def test_answers_do_not_wait_for_a_slow_one_behind_them(tmp_path: Path, parallel: int) -> None:
    predictor, path = OneByOne(parallel), str(tmp_path / "m.sock")
    server = ModelServer(predictor)
    await server.listen(path)
    client = await connect(path)
    client.writer.write(b"".join(frame(n, b"a") for n in range(1, 41)) + frame(41, b"slow") + frame(42, b"b"))
    answered = [a[0] for a in await client.answers(40 if parallel == 1 else 41)]
    assert answered == [*range(1, 41)] + ([42] if parallel == 2 else []), (
        "a second thread goes past the slow one"
    )
    predictor.go_on.set()
    assert next(a[3] for a in await client.answers(42 - len(answered))) == b"SLOW"
    assert set(predictor.batches) == {1}
    client.writer.close()
    server.drain()
    await server.wait_closed()


async def test_drain_answers_what_is_in_flight(tmp_path: Path) -> None:
    slow, path = Slow(), str(tmp_path / "m.sock")
    server = ModelServer(slow)
    await server.listen(path)
    client = await connect(path)
    client.writer.write(frame(1, b"a") + frame(2, b"b"))
    await asyncio.to_thread(slow.started.wait, 5)
    server.drain()
    assert await client.reader.readexactly(len(GOING)) == GOING
    client.writer.write(frame(3, b"sent before the notice came"))
    slow.go_on.set()
    assert [a[0] for a in await client.answers(3)] == [1, 2, 3]
    assert await asyncio.wait_for(client.reader.read(), 5) == b""
    await server.wait_closed()
    assert not os.path.exists(path)
    client.writer.close()


async def test_a_long_socket_path_works(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    server = ModelServer(Upper())
    await server.listen(str(folder / "model.sock"))
    assert (folder / "model.sock").stat().st_mode & 0o077 == 0
    client = await connect(str(folder / "model.sock"))
    client.writer.write(frame(1, b"a"))
    assert (await client.answers(1))[0][3] == b"A"
    client.writer.close()
    server.drain()
    await server.wait_closed()
    assert not (folder / "model.sock").exists()


SERVER = """
import sys
from sagesmith_toolkit.server import Response, serve
class Echo:
    def predict(self, requests):
        return [Response(200, "text/csv", r.body) for r in requests]
serve(Echo(), sys.argv[1])
"""


async def test_sigterm_ends_the_process_with_exit_code_0(tmp_path: Path) -> None:
    path = str(tmp_path / "m.sock")
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVER, path)
    client = None
    for _ in range(1000):
        # It is not there, or there and not listening yet.
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            client = await connect(path)
            break
        await asyncio.sleep(0.01)
    assert client is not None
    client.writer.write(frame(1, b"hello"))
    assert (await client.answers(1))[0][3] == b"hello"
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 5) == 0
    client.writer.close()


def test_a_frame_buffer_gathers_until_it_has_what_it_needs() -> None:
    frames = FrameBuffer()
    assert frames.add(b"abc") == b"abc"
    frames.keep(b"c", 5)
    assert frames.add(b"de") == b""
    assert frames.add(b"fgh") == b"cdefgh"
    assert frames.add(b"next") == b"next"


def test_going_is_a_response_that_answers_nothing() -> None:
    assert RESPONSE.unpack(GOING) == (len(GOING) - 4, 0, 503, 0)
    assert struct.calcsize("<IIH") == REQUEST.size


class Teller:
    """Streams the words of what it is asked, each when the test lets it; "cut" ends with an error."""

    blocking = True

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.closed = threading.Event()

    def predict(self, requests: Sequence[Request]) -> Sequence[Response]:
        return [Response(200, "text/csv", r.body) for r in requests]

    def stream(self, request: Request) -> Streamed:
        return Streamed(200, "text/plain", self._words(request.body), "a=1")

    def _words(self, body: bytes) -> Iterator[bytes]:
        try:
            for word in body.split():
                assert self.go.acquire(timeout=20)
                if word == b"cut":
                    raise ValueError("cut off")
                yield word
        finally:
            self.closed.set()


@pytest.fixture
async def teller(tmp_path: Path) -> AsyncIterator[tuple[Teller, Client]]:
    predictor = Teller()
    server = ModelServer(predictor)
    await server.listen(str(tmp_path / "t.sock"))
    client = await connect(str(tmp_path / "t.sock"))
    yield predictor, client
    client.writer.close()
    predictor.go.release(1000)
    server.drain()
    await server.wait_closed()


async def test_parts_are_sent_as_they_are_made(teller: tuple[Teller, Client]) -> None:
    predictor, client = teller
    client.writer.write(frame(5, b"one two", path=STREAM))
    for word in (b"one", b"two"):
        client.writer.write(frame(6, path="/ping"))
        assert (await client.answers(1))[0][:2] == (6, 200), "pings are answered meanwhile"
        predictor.go.release()
        assert await client.answers(1) == [(5 | PART, 200, "text/plain\0a=1", word)]
    assert await client.answers(1) == [(5, 200, "text/plain\0a=1", b"")]
    client.writer.write(frame(7, b"1,2"))
    assert (await client.answers(1))[0][3] == b"1,2"


async def test_a_stream_that_fails_says_so_at_its_end(
    teller: tuple[Teller, Client], capsys: pytest.CaptureFixture[str]
) -> None:
    predictor, client = teller
    predictor.go.release(2)
    client.writer.write(frame(1, b"one cut", path=STREAM))
    assert [a[1:] for a in await client.answers(2)] == [
        (500, "text/plain\0a=1", b"ValueError: cut off"),
        (200, "text/plain\0a=1", b"one"),
    ]
    assert "Traceback" in capsys.readouterr().err


async def test_streams_take_turns_and_stop_at_their_window(teller: tuple[Teller, Client]) -> None:
    predictor, client = teller
    long = b"x" * (WINDOW // 2)
    predictor.go.release(1000)
    client.writer.write(frame(1, b" ".join([long] * 4), path=STREAM) + frame(2, b"a b", path=STREAM))
    answers = await client.answers(5)
    assert [a[0] for a in answers] == [2, 1 | PART, 1 | PART, 2 | PART, 2 | PART]
    client.writer.write(frame(3, b"plain"))
    assert (await client.answers(1))[0][0] == 3, "the first waits for its client"
    client.writer.write(frame(1, SIZE.pack(len(long)), path=MORE))
    assert [a[0] for a in await client.answers(1)] == [1 | PART]
    client.writer.write(frame(1, path=STOP))
    assert (await client.answers(1))[0][:2] == (1, 499)


@pytest.mark.parametrize("stop", [True, False])
async def test_a_stream_that_nobody_wants_is_closed(teller: tuple[Teller, Client], stop: bool) -> None:
    predictor, client = teller
    predictor.go.release()
    client.writer.write(frame(1, b"one two three", path=STREAM))
    await client.answers(1)
    if stop:
        client.writer.write(frame(1, path=STOP))
    else:
        client.writer.close()
    await asyncio.sleep(0.05)
    predictor.go.release()
    assert await asyncio.to_thread(predictor.closed.wait, 10), "without the third word"


async def test_a_predictor_without_streams_answers_in_one_part(client: Client) -> None:
    client.writer.write(frame(9, b"1,2", path=STREAM, attributes="x"))
    assert await client.answers(1) == [(9, 200, "text/csv\0x", b"1,2")]
