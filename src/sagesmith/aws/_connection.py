"""One HTTP/1.1 connection: parses requests, begins them in order, writes their answers.

httptools calls back for each part of a request. When its headers are complete the server plans it: who will
take it, how large it may be, whether its body streams. It begins when its body is here (or, if it
streams, at once) and when all requests before it on this connection are answered.

What clients send without TLS is read into one buffer that all connections share: a piece is parsed before the next is
read, and the parser copies what is to be kept. What they send with TLS comes decrypted from `_tls`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any, Final, Protocol

import httptools

from sagesmith.aws._bodies import BodyPipe
from sagesmith.aws._exchange import (
    Exchange,
    header_block,
    internal_failure,
    status_line,
)
from sagesmith.aws._limits import Limits
from sagesmith.aws._sending import Pieces, close_body, read_pieces, stream_headers
from sagesmith.aws._tunnel import Passage, Tunnel
from sagesmith.errors import AwsError

__all__ = ["Connection", "Planner"]

logger = logging.getLogger(__name__)

_FOREVER: Final = float("inf")
_BUFFER: Final = memoryview(bytearray(256 * 1024))


class Planner(Protocol):
    """What a connection asks of its server."""

    date: bytes
    connections: set[Connection]
    closing: bool

    @property
    def limits(self) -> Limits:
        """What clients may take."""
        ...

    @property
    def reading(self) -> Executor:
        """The threads that read answers' bodies."""
        ...

    def plan(self, exchange: Exchange) -> None:
        """Set the exchange's `begin` and `limit`; call its `open_pipe` if its body is to be streamed.

        Raises:
            AwsError: the request is refused before its body.
        """
        ...

    def refuse(self, exchange: Exchange, error: AwsError) -> None:
        """Answer *error* in the words of the protocol that the request speaks."""
        ...


class Connection:
    """One client's connection: to the loop, which must be uvloop's, a buffered protocol, as `TlsTransport` is."""

    __slots__ = (
        "_active",
        "_can_write",
        "_current",
        "_draining",
        "_head_bytes",
        "_headers",
        "_limits",
        "_loop",
        "_parser",
        "_passage",
        "_paused",
        "_pending",
        "_piece",
        "_sender",
        "_transport",
        "closed",
        "deadline",
        "secure",
        "server",
        "source_ip",
        "write",
    )

    def __init__(self, server: Planner, loop: asyncio.AbstractEventLoop, *, secure: bool) -> None:
        self.server = server
        self._limits = server.limits
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._current: Exchange | None = None
        self._headers: dict[bytes, bytes] = {}
        self._active: Exchange | None = None
        self._pending: deque[Exchange] = deque()
        self._head_bytes = 0
        self._piece = 0
        self._paused = 0
        self._draining = False
        self._can_write: asyncio.Event | None = None
        self._passage: Passage | None = None
        self.closed = False
        self.secure = secure
        self.source_ip = ""
        self.deadline: float | None = None
        self.write: Callable[[bytes], None] = lambda _data: None

    # asyncio.BufferedProtocol

    def connection_made(self, transport: Any) -> None:
        """Remember the transport; the client has `head_s` to say something."""
        self._transport = transport
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):  # else it is a Unix socket
            self.source_ip = peer[0].removeprefix("::ffff:").partition("%")[0]
        self.write = transport.write
        self.deadline = self._loop.time() + self._limits.head_s
        self.server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left: whoever still reads or writes for it learns so."""
        self.closed = True
        self.write = lambda _data: None
        self.server.connections.discard(self)
        for exchange in (self._current, self._active, *self._pending):
            if exchange is not None and exchange.pipe is not None:
                exchange.pipe.break_off()
            if exchange is not None and exchange.gone is not None:
                exchange.gone()
        self._pending.clear()
        if self._passage is not None:
            self._passage.close()
        if self._can_write is not None:
            self._can_write.set()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next piece is to be put."""
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Take what the buffer holds now."""
        self.received(_BUFFER[:nbytes])

    def received(self, data: bytes | memoryview) -> None:
        """Parse what the client said; whatever is wrong with it is answered and ends the connection."""
        nbytes = len(data)
        if self._passage is not None:
            self._passage.carry_in(bytes(data))
            return
        if self._draining:
            return
        self._piece = nbytes
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade_asked(bytes(data[upgrade.args[0] :]))
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, Exception) and not isinstance(
                error.__context__, httptools.HttpParserError
            ):
                logger.error("an HTTP callback failed", exc_info=error.__context__)
            self._malformed()
        if self._current is not None:
            self._wait_for_more(self._current, nbytes)
        if self._pending and len(self._pending) > self._limits.pipelined:
            self.pause()

    def _wait_for_more(self, exchange: Exchange, size: int) -> None:
        """Give the client time for the rest of *exchange*, of which *size* bytes came now."""
        limits = self._limits
        if exchange.begin is not None:
            if self._active is None or exchange is self._active:
                self._expect_body()
            return
        if not self._head_bytes and self._active is None:
            self.deadline = self._loop.time() + limits.head_s
        self._head_bytes += size
        if self._head_bytes > limits.head_bytes + limits.target_bytes:
            self._refuse(exchange, _head_too_large(limits))

    def _expect_body(self) -> None:
        """Give the client time for the next piece of a body, unless it is we who stopped it."""
        self.deadline = _FOREVER if self._paused else self._loop.time() + self._limits.body_s

    def eof_received(self) -> bool:
        """The client has said all; it may still read, unless it speaks another protocol, where this is the end."""
        if (
            self._passage is None
            and self._active is not None
            and not self.secure
            and not (self._current and not self._current.complete)
        ):
            self._last_request()
            return True
        return False

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        if self._can_write is None:
            self._can_write = asyncio.Event()
        self._can_write.clear()
        self.deadline = self._loop.time() + self._limits.write_s

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._can_write is not None:
            self._can_write.set()
        self.deadline = _FOREVER if self._active is not None else None

    # httptools

    def on_message_begin(self) -> None:
        """A request starts."""
        self._current = exchange = Exchange(self)
        self._headers = exchange.headers
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Part of the target."""
        exchange = self._current
        if exchange is not None:
            exchange.target = exchange.target + url if exchange.target else url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        name = name.lower()
        headers = self._headers
        if name in headers:
            value = headers[name] + b"," + value
        headers[name] = value

    def on_headers_complete(self) -> None:
        """Plan the request."""
        exchange = self._current
        if exchange is None:
            return
        exchange.method = self._parser.get_method()
        if self.server.closing or not self._parser.should_keep_alive():
            exchange.keep_alive = False
        limits, headers = self._limits, self._headers
        try:
            if len(exchange.target) > limits.target_bytes:
                raise AwsError(
                    "URITooLong", f"The request target exceeds {limits.target_bytes} bytes.", status=414
                )
            if self._head_bytes + self._piece > limits.head_bytes and _size_of(headers) > limits.head_bytes:
                raise _head_too_large(limits)
            self.server.plan(exchange)
            length = headers.get(b"content-length")
            if length is not None and length.isdigit() and int(length) > exchange.limit:
                raise _too_large(exchange)
        except AwsError as error:
            self._refuse(exchange, error)
            return
        except Exception:
            logger.exception("planning a request failed (request %s)", exchange.request_id)
            self._refuse(exchange, internal_failure(exchange.request_id))
            return
        if b"expect" in headers and headers[b"expect"].lower() == b"100-continue" and self._active is None:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if exchange.pipe is not None:
            self._enqueue(exchange)

    def on_body(self, body: bytes) -> None:
        """Part of the body."""
        exchange = self._current
        if exchange is None:
            return
        exchange.limit -= len(body)
        if exchange.pipe is not None:
            exchange.pipe.feed(body)
            if exchange.limit < 0:
                exchange.pipe.break_off()
                self.abort()
        elif exchange.limit < 0:
            exchange.parts = None
            self._refuse(exchange, _too_large(exchange))
        elif not exchange.body:
            exchange.body = body
        elif exchange.parts is None:
            exchange.parts = [exchange.body, body]
        else:
            exchange.parts.append(body)

    def on_message_complete(self) -> None:
        """The request is complete: begin it, or let it wait its turn."""
        exchange = self._current
        if exchange is None:
            return
        self._current = None
        exchange.complete = True
        if exchange.pipe is not None:
            exchange.pipe.end()
            if exchange is self._active:
                self.deadline = _FOREVER
            return
        if exchange.parts is not None:
            exchange.body = b"".join(exchange.parts)
            exchange.parts = None
        self._enqueue(exchange)

    # Order of requests and answers

    def _enqueue(self, exchange: Exchange) -> None:
        """Begin *exchange* if it is its turn, else let it wait."""
        if self._active is not None:
            self._pending.append(exchange)
            return
        self._active = exchange
        self.deadline = _FOREVER
        begin = exchange.begin
        if begin is not None:
            begin(exchange)

    def finished(self, exchange: Exchange) -> None:
        """The answer of *exchange* was written: go on with the next request, or close."""
        self._active = None
        if self.closed:
            return
        if not exchange.complete or self._draining:
            self._linger()
        elif not exchange.keep_alive:
            self._transport.close()
        elif self._pending:
            # Not at once: a client that pipelines much must not make this recursion deep.
            self._loop.call_soon(self._next)
        else:
            self.deadline = None
        if self._paused and len(self._pending) < self._limits.pipelined:
            self.resume()

    def _next(self) -> None:
        if self._active is None and self._pending and not self.closed:
            self._enqueue(self._pending.popleft())

    def _refuse(self, exchange: Exchange, error: AwsError) -> None:
        """Answer a request whose body was not read, and end the connection after it."""
        self._current = None
        self._draining = True
        exchange.keep_alive = False
        exchange.begin = lambda exchange: self.server.refuse(exchange, error)
        self._enqueue(exchange)

    def _malformed(self) -> None:
        if self._draining:
            return
        self._draining = True
        if self._current is not None and self._current.pipe is not None:
            self._current.pipe.break_off()
            self.abort()
            return
        if self._active is not None or self._pending:
            self._last_request()
            return
        body = b'{"__type":"BadRequest","message":"The request is not valid HTTP/1.1."}'
        self.write(
            status_line(400)
            + b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
            % (len(body), body)
        )
        self._linger()

    def _last_request(self) -> None:
        last = self._pending[-1] if self._pending else self._active
        if last is not None:
            last.keep_alive = False
        elif not self._draining:
            self._linger()
        self._draining = True

    def _linger(self) -> None:
        """Close when the client has had time to read the answer: closing over unread data would reset it."""
        self._draining = True
        self._current = None
        self._paused = 0
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self.deadline = self._loop.time() + self._limits.linger_s

    def is_idle(self) -> bool:
        """Whether no request is being received or answered."""
        return self._active is None and self._current is None and not self._pending

    def close_soon(self) -> None:
        """Close now if idle, else after the present answer."""
        if self.is_idle() or (self._passage is not None and self._passage.is_open):
            self._transport.close()
        else:
            for exchange in (self._current, self._active, *self._pending):
                if exchange is not None:
                    exchange.keep_alive = False

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None and not self.closed:
            self._transport.abort()

    def watch(self, now: float) -> None:
        """End what has taken too long; called now and then. An idle connection's time starts here."""
        deadline = self.deadline
        if deadline is None:
            self.deadline = now + self._limits.idle_s
        elif deadline < now:
            self._timed_out()

    def _timed_out(self) -> None:
        self.deadline = _FOREVER
        current = self._current
        if current is not None and self._active is None and current.pipe is None and not self._draining:
            error = AwsError("RequestTimeout", "The request was not received completely in time.", status=408)
            self._refuse(current, error)
        elif self._draining or self.is_idle():
            self._transport.close()
        else:
            self.abort()

    # Other protocols

    def _upgrade_asked(self, rest: bytes) -> None:
        """The request was complete, and *rest* after it is of another protocol, if that is agreed to."""
        last = self._pending[-1] if self._pending else self._active
        if last is None or not last.switches or last.replied:
            # No protocol is offered to upgrade to; the request itself is answered.
            self._last_request()
            return
        last.keep_alive = False
        self._passage = Passage(self, rest)

    def switch(self, tunnel: Tunnel, request_id: str) -> None:
        """Answer 101 and pipe both ways from now on."""
        passage = self._passage
        if self.closed or passage is None:
            tunnel.writer.close()
            self.abort()
            return
        self.deadline = _FOREVER
        lines = [
            *tunnel.headers,
            ("connection", "Upgrade"),
            ("upgrade", tunnel.protocol),
            ("x-amzn-RequestId", request_id),
            ("date", self.server.date.decode()),
        ]
        self.write(status_line(101) + header_block(lines) + b"\r\n" + tunnel.rest)
        passage.open(tunnel, self._loop)

    def close(self) -> None:
        """Close when what was written has reached the client."""
        if not self.closed:
            self._transport.close()

    # Streams in

    def open_pipe(self) -> BodyPipe:
        """Return a pipe that stops the client when much is waiting in it."""
        loop = self._loop

        def resume() -> None:
            loop.call_soon_threadsafe(self.resume)

        return BodyPipe(self.pause, resume)

    def pause(self) -> None:
        """Read nothing more from the client until `resume` was called as often."""
        if self._transport is not None and not self.closed:
            self._paused += 1
            if self._paused == 1:
                self._transport.pause_reading()

    def resume(self) -> None:
        """Read on, if nobody else has paused."""
        if self._paused and not self.closed:
            self._paused -= 1
            if self._paused == 0:
                self._transport.resume_reading()
                if self._current is not None and self._current is self._active:
                    self._expect_body()

    # Streams out

    async def writable(self) -> None:
        """Return when the client has taken most of what was written."""
        if self._can_write is not None and not self._can_write.is_set():
            await self._can_write.wait()

    def send_stream(self, exchange: Exchange, status: int, headers: list[tuple[str, str]], body: Any) -> None:
        """Send an answer piece by piece."""
        self._sender = self._loop.create_task(self._stream(exchange, status, headers, body))

    async def _stream(
        self, exchange: Exchange, status: int, headers: list[tuple[str, str]], body: Any
    ) -> None:
        lines, sized = stream_headers(headers, body)
        chunked = not sized and not exchange.head_only and self._parser.get_http_version() != "1.0"
        if chunked:
            lines.append(("transfer-encoding", "chunked"))
        elif not sized:
            exchange.keep_alive = False  # the end of the connection is the end of the body
        lines.append(("x-amzn-RequestId", exchange.request_id))
        lines.append(("date", self.server.date.decode()))
        if not (exchange.keep_alive and exchange.complete):
            lines.append(("connection", "close"))
        whole = False
        try:
            self.write(status_line(status) + header_block(lines) + b"\r\n")
            if not exchange.head_only and not isinstance(body, bytes):
                await self._write_pieces(body, chunked)
            whole = not self.closed
        except Exception:
            logger.exception("sending an answer failed (request %s)", exchange.request_id)
        finally:
            exchange.detach()
            await close_body(body)
        if whole:
            self.finished(exchange)
        else:
            # The headers promised more than came: only a broken connection tells the client so.
            self.abort()

    async def _write_pieces(self, body: Pieces, chunked: bool) -> None:
        async for piece in read_pieces(body, self.server.reading):
            if self.closed:
                return
            if piece:
                self.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await self.writable()
        if chunked:
            self.write(b"0\r\n\r\n")


def _size_of(headers: Mapping[bytes, bytes]) -> int:
    return sum(len(name) + len(value) for name, value in headers.items())


def _head_too_large(limits: Limits) -> AwsError:
    return AwsError(
        "RequestHeaderSectionTooLarge", f"The request headers exceed {limits.head_bytes} bytes.", status=431
    )


def _too_large(exchange: Exchange) -> AwsError:
    length = exchange.headers.get(b"content-length")
    said = f" of {length.decode('latin-1')} bytes" if length is not None else ""
    return AwsError("RequestEntityTooLargeException", f"The request body{said} is too large.", status=413)
