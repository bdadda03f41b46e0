"""The model server: one process and one event loop that answers frames on a Unix socket.

What comes in: frames (see `frames`) from the gateway, pipelined on few connections. What goes out: one
response for each, in any order. The rule that makes it quick: all requests that arrived in one turn of the
loop are predicted as one batch. No timer gathers them, so that a lonely request never waits, and the more
arrive the larger the batches get by themselves.

A quick predictor runs on the loop. One that takes longer than some milliseconds says ``blocking = True`` and
runs in a thread, so that ``/ping`` is answered meanwhile; whenever it is free it gets all that has gathered. One
that predicts its requests one after the other anyway says ``one_by_one = True``: each answer leaves when it is
there, and does not wait for those behind it.

Answers that may come in parts (`streams`) are made one by one, beside the batches.
"""

from __future__ import annotations

import asyncio
import functools
import os
import queue
import signal
import sys
import threading
import traceback
from collections import deque
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Callable, Mapping, NamedTuple, Protocol, Sequence, Tuple

from sagesmith_toolkit.frames import (
    GOING,
    MAX_FRAME,
    MORE,
    REQUEST,
    RESPONSE,
    SIZE,
    STOP,
    STREAM,
    FrameBuffer,
)
from sagesmith_toolkit.sockets import unix_address
from sagesmith_toolkit.streams import Made, Stream, Streamed

__all__ = ["ModelServer", "Predictor", "Request", "Response", "serve"]

if TYPE_CHECKING:
    _Item = Tuple["_Connection", int, "Request"]
    _Head = Tuple[str, str, str, str, Mapping[str, str]]

MAX_BATCH = 256
_ONE_BY_ONE = 16
MAX_BATCH_BYTES = 4 * 1024 * 1024
_QUIET_S = 0.05
_DRAIN_S = 25.0  # AWS ends a container 30 s after SIGTERM
_CACHED_HEADS = 1024
_NOTHING: Mapping[str, str] = MappingProxyType({})


class Request(NamedTuple):
    """One request as the client sent it; texts it left out are empty. `fields` holds what else the head said."""

    path: str
    content_type: str
    accept: str
    attributes: str
    body: bytes
    fields: Mapping[str, str] = _NOTHING


class Response(NamedTuple):
    """The answer to one request. A status other than 2xx reaches the client as `ModelError` with *body* as text."""

    status: int
    content_type: str
    body: bytes
    attributes: str = ""


class Predictor(Protocol):
    """A loaded model. The server calls it from one thread at a time.

    An attribute ``blocking = True`` moves `predict` from the event loop into a thread, and ``parallel`` says from how
    many threads at once it may be called then. With ``one_by_one = True`` as well, each call gets one request, and no
    request waits for another while one of these threads is free.

    A method ``stream(request)`` that returns `streams.Streamed` answers requests whose answers may come in parts; without
    it they come in one. Its iterators are advanced where `predict` is called.
    """

    def predict(self, requests: Sequence[Request]) -> Sequence[Response]:
        """Return one response for each of *requests*, in their order.

        A bad request is answered with a 4xx response. If the call raises, each request is tried again alone,
        and those that raise alone are answered with status 500 and the exception's text: one bad request never
        fails its neighbours.
        """
        ...


def serve(predictor: Predictor, socket_path: str) -> None:
    """Answer requests on the Unix socket *socket_path* until SIGTERM, then finish what was begun and return.

    uvloop is used if it is installed; it roughly doubles the requests per second.
    """
    loop = _new_loop()
    asyncio.set_event_loop(loop)
    try:
        server = ModelServer(predictor)
        loop.run_until_complete(server.listen(socket_path))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.drain)
        loop.run_until_complete(server.wait_closed())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


class ModelServer:
    """The server on a running event loop, for :func:`serve` and for tests."""

    def __init__(self, predictor: Predictor) -> None:
        self._predict = predictor.predict
        self._stream: Callable[[Request], Streamed] = getattr(predictor, "stream", self._as_one_part)
        self._loop = asyncio.get_event_loop()
        blocking = bool(getattr(predictor, "blocking", False))
        self._parallel: int = getattr(predictor, "parallel", 1) if blocking else 1
        self._one_by_one = blocking and bool(getattr(predictor, "one_by_one", False))
        self._threads = _Threads(self._loop, self._parallel) if blocking else None
        self._waiting: list[_Item] = []
        self._scheduled = False
        self._running = 0
        self._connections: set[_Connection] = set()
        self._listener: Any = None
        self._socket_path = ""
        self._arrivals = 0
        self._drain_until = 0.0  # until drain() is called
        self._closed = self._loop.create_future()
        self._request_heads: dict[bytes, _Head] = {}
        self._response_heads: dict[tuple[str, str], bytes] = {}

    async def listen(self, socket_path: str) -> None:
        """Start to accept connections on *socket_path*, which only this user can reach."""
        if os.path.exists(socket_path):
            os.unlink(socket_path)
        with unix_address(socket_path) as address:
            mask = os.umask(0o177)
            try:
                self._listener = await self._loop.create_unix_server(lambda: _Connection(self), address)
            finally:
                os.umask(mask)
        self._socket_path = socket_path

    def drain(self) -> None:
        """Accept nothing new, answer what was sent, then close; `wait_closed` returns after that."""
        if self._drain_until:
            return
        self._drain_until = self._loop.time() + _DRAIN_S
        self._listener.close()
        for connection in self._connections:
            connection.write(GOING)
        self._end_when_quiet(self._arrivals - 1)

    async def wait_closed(self) -> None:
        """Return after :meth:`drain` has finished."""
        await self._closed

    def _end_when_quiet(self, arrivals: int) -> None:
        """Close the connections once nothing came in for a while since *arrivals* and all is answered."""
        in_time = self._loop.time() < self._drain_until
        busy = self._scheduled or self._running or any(each.streams for each in self._connections)
        if self._connections and in_time and (busy or arrivals != self._arrivals):
            self._loop.call_later(_QUIET_S, self._end_when_quiet, self._arrivals)
            return
        for connection in tuple(self._connections):
            connection.close()
        self._end_when_closed()

    def _end_when_closed(self) -> None:
        if self._connections and self._loop.time() < self._drain_until:  # they still send
            self._loop.call_later(_QUIET_S / 10, self._end_when_closed)
            return
        if self._threads is not None:
            self._threads.end()
        if os.path.exists(self._socket_path):
            os.unlink(self._socket_path)
        self._closed.set_result(None)

    # ---- requests in -----------------------------------------------------------------------------------

    def parse_head(self, head: bytes) -> _Head:
        """Return path, content type, accept, attributes and further fields of a request's *head*.

        Raises:
            ValueError: it is not UTF-8, or has fewer than four fields.
        """
        path, content_type, accept, attributes, *more = head.decode().split("\0")
        fields = dict(field.partition("=")[::2] for field in more)
        parsed = (sys.intern(path), content_type, accept, attributes, fields)
        if len(self._request_heads) >= _CACHED_HEADS:
            self._request_heads.clear()
        self._request_heads[head] = parsed
        return parsed

    def received(self, connection: _Connection, buffer: bytes) -> None:
        """Take the whole frames at the start of *buffer*; leave the rest with the connection.

        Raises:
            ValueError: these are not frames.
        """
        at, end = 0, len(buffer)
        heads, waiting, header = self._request_heads, self._waiting, REQUEST.size
        while end - at >= header:
            length, number, head_size = REQUEST.unpack_from(buffer, at)
            body_at = at + header + head_size
            stop = at + 4 + length
            if length > MAX_FRAME or stop < body_at:
                raise ValueError(f"a frame of {length} bytes with a head of {head_size}")
            if stop > end:
                connection.frames.keep(buffer[at:], stop - at)
                break
            head = buffer[at + header : body_at]
            path, content_type, accept, attributes, fields = heads.get(head) or self.parse_head(head)
            request = Request(path, content_type, accept, attributes, buffer[body_at:stop], fields)
            if path == "/invocations":
                waiting.append((connection, number, request))
            else:
                self._take_other(connection, number, request)
            at = stop
        else:
            if at < end:
                connection.frames.keep(buffer[at:], header)
        self._arrivals += 1
        if len(self._connections) == 1 and self._threads is None and not self._scheduled:
            self._turn()  # all that came is in this buffer: another turn of the loop would bring nothing more
        else:
            self._schedule()

    def _take_other(self, connection: _Connection, number: int, request: Request) -> None:
        """Take a request that is no plain invocation: a ping, a stream, what is said of one, or for the predictor."""
        if request.path == "/ping":
            connection.write(self._encode(number, _PONG))
        elif request.path == STREAM:
            asked = request._replace(path="/invocations")
            stream = Stream(_Streams(self, connection), lambda: self._stream(asked), connection.write, number)
            connection.streams[number] = stream
            stream.advance()
        elif request.path in (MORE, STOP):
            found = connection.streams.get(number)
            if found is not None and request.path == MORE:
                found.more(SIZE.unpack(request.body)[0])
            elif found is not None:
                found.stop()
        else:
            self._waiting.append((connection, number, request))

    # ---- streams ---------------------------------------------------------------------------------------

    def _as_one_part(self, request: Request) -> Streamed:
        (response,) = self._predict([request])
        return Streamed(*response)

    def run(self, work: Callable[[], Made], then: Callable[[Made], None]) -> None:
        """Do *work*, a part of a stream, where the predictor is called; then tell *then*."""
        if self._threads is None:
            self._loop.call_soon(lambda: then(work()))
        elif not self._closed.done():
            self._threads.run(work, then)

    # ---- batches ---------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        """Let the loop predict what waits in its next turn, once the predictor is free."""
        if self._waiting and not self._scheduled and self._running < self._parallel:
            self._scheduled = True
            # Through the loop, so that pings and new requests are read between two batches.
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        batch = self._take()
        if not batch:  # who asked has gone
            return
        self._running += 1
        if self._threads is None:
            self._answer(batch, self._frames(batch))
            return
        if self._one_by_one and len(batch) > 1:
            work, answered = functools.partial(self._frames_one_by_one, batch), batch[-1:]
        else:
            work, answered = functools.partial(self._frames, batch), batch
        self._threads.run(work, functools.partial(self._answer, answered))
        self._schedule()

    def _take(self) -> list[_Item]:
        """Remove and return the oldest requests: as many as one call of the predictor should get."""
        waiting = self._waiting
        size = count = 0
        most = min(MAX_BATCH, -(-len(waiting) // (self._parallel - self._running)))
        if self._one_by_one:
            # What is taken along waits for a slow one, though another thread may become free; and streams wait for all.
            most = 1 if self._parallel > 1 else min(most, _ONE_BY_ONE)
        for item in waiting:
            size += len(item[2].body)
            if count and (count == most or size > MAX_BATCH_BYTES):
                break
            count += 1
        batch = waiting[:count]
        del waiting[:count]
        return batch

    def _frames(self, batch: list[_Item]) -> list[bytes]:
        """Predict *batch* and return the response frames; what the predictor returns is checked on the way."""
        try:
            responses = self._predict([item[2] for item in batch])
            if len(responses) != len(batch):
                raise RuntimeError(f"the predictor gave {len(responses)} responses to {len(batch)} requests")
            return list(map(self._encode, [item[1] for item in batch], responses))
        except (Exception, SystemExit) as error:  # the predictor is other people's code
            if len(batch) > 1:
                return [self._frames([item])[0] for item in batch]
            traceback.print_exc(file=sys.stderr)
            sys.stderr.flush()
            sentence = str(error) or type(error).__name__
            return [self._encode(batch[0][1], Response(500, "text/plain", sentence.encode()))]

    def _frames_one_by_one(self, batch: list[_Item]) -> list[bytes]:
        """Predict *batch*, in a thread; let each frame be sent when it is there, and return the last."""
        ready: deque[tuple[_Item, bytes]] = deque()
        told = threading.Event()

        def send() -> None:
            told.clear()  # first: what is added from now on is told again
            while ready:
                item, frame = ready.popleft()
                item[0].write(frame)

        for item in batch[:-1]:
            ready.append((item, self._frames([item])[0]))
            if not told.is_set():
                told.set()
                self._loop.call_soon_threadsafe(send)
        return self._frames(batch[-1:])

    def _answer(self, batch: list[_Item], frames: list[bytes]) -> None:
        """Send each connection its *frames*, those that follow each other in one write."""
        connection, start = batch[0][0], 0
        for at, item in enumerate(batch):
            if item[0] is not connection:
                connection.write(b"".join(frames[start:at]))
                connection, start = item[0], at
        connection.write(b"".join(frames[start:]))
        self._running -= 1
        self._schedule()

    def _encode(self, number: int, response: Response) -> bytes:
        status, content_type, body, attributes = response
        head = self._response_heads.get((content_type, attributes))
        if head is None:
            head = f"{content_type}\0{attributes}".encode()
            if len(self._response_heads) >= _CACHED_HEADS:
                self._response_heads.clear()
            self._response_heads[content_type, attributes] = head
        return b"".join((RESPONSE.pack(8 + len(head) + len(body), number, status, len(head)), head, body))

    # ---- connections -----------------------------------------------------------------------------------

    def connected(self, connection: _Connection) -> None:
        """Remember *connection*."""
        self._connections.add(connection)
        if self._drain_until:
            connection.write(GOING)

    def disconnected(self, connection: _Connection) -> None:
        """Forget *connection* and what it still waited for."""
        self._connections.discard(connection)
        self._waiting[:] = [item for item in self._waiting if item[0] is not connection]
        for stream in connection.streams.values():
            stream.stop()


class _Threads:
    """Threads that do what they are given in its order, and tell the loop.

    A `ThreadPoolExecutor` makes a future with a lock of its own for each piece of work, and the loop another beside it; and
    the end of the process waits for its threads, whatever they do.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int) -> None:
        self._tell = loop.call_soon_threadsafe
        self._work: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._count = count
        for _ in range(count):
            threading.Thread(target=self._serve, name="predict", daemon=True).start()

    def run(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Do *work*, which raises nothing, and call *then* on the loop with what it returns."""
        self._work.put((work, then))

    def end(self) -> None:
        """Let the threads end after what they were given."""
        for _ in range(self._count):
            self._work.put(None)

    def _serve(self) -> None:
        for work, then in iter(self._work.get, None):
            result = work()
            try:
                self._tell(then, result)
            except RuntimeError:  # the loop is closed: it waited for this work as long as it may
                return


class _Streams:
    """What the streams of one connection ask of the server."""

    __slots__ = ("_connection", "run")

    def __init__(self, server: ModelServer, connection: _Connection) -> None:
        self.run = server.run
        self._connection = connection

    def ended(self, stream: Stream) -> None:
        self._connection.streams.pop(stream.number, None)


class _Connection(asyncio.Protocol):
    """One stream of frames. It reads no further while its peer does not take the answers."""

    def __init__(self, server: ModelServer) -> None:
        self.frames = FrameBuffer()
        self.streams: dict[int, Stream] = {}
        self._server = server
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._server.connected(self)

    def data_received(self, data: bytes) -> None:
        buffer = self.frames.add(data)
        if buffer:
            try:
                self._server.received(self, buffer)
            except ValueError as error:
                print(
                    f"model server: closing a connection that does not speak frames: {error}", file=sys.stderr
                )
                self.close()

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._server.disconnected(self)

    def write(self, data: bytes) -> None:
        """Send *data*; nothing if the peer is gone."""
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """Close after what was written is sent."""
        if self._transport is not None:
            self._transport.close()


_PONG = Response(200, "text/plain", b"")


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    new: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return new()
