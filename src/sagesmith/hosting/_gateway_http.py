"""An instance that runs the user's own container: plain HTTP/1.1 to ``/invocations`` (or the path that its address
names), on connections that are kept.

A connection carries one request at a time, since servers need not pipeline; up to `MAX_CONNECTIONS` are open at
once, further requests wait in the link's queue. A connection that was idle for a second is not used again: servers
close idle ones (gunicorn after two seconds), and a request sent in that moment would be lost, since none is sent
twice.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any, Final, cast

import httptools

from sagesmith.hosting._gateway_link import BIG, Invocation, Link
from sagesmith_toolkit.frames import MAX_FRAME, STREAM, WINDOW

__all__ = ["MAX_CONNECTIONS", "HttpLink"]

MAX_CONNECTIONS: Final = 64
_IDLE_S: Final = 1.0
_CONNECT_S: Final = 5.0
_FIRST_RETRY_S: Final = 0.02
_CACHED_HEADS: Final = 1024
_STREAM: Final = STREAM.encode()
_ATTRIBUTES: Final = b"x-amzn-sagemaker-custom-attributes"


class HttpLink(Link):
    """All connections to one instance; to its variant it is a link like any other."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self._up = False
        self._idle: list[HttpConnection] = []
        self._busy: dict[int, HttpConnection] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self._heads: dict[bytes, bytes] = {}
        super().__init__(*arguments, **more)

    @property
    def usable(self) -> bool:
        """Whether new requests may be sent."""
        return self._up and not self.retired

    def expire(self, before: float) -> list[Invocation]:
        """Remove and return what is overdue, and close idle connections that are old."""
        expired = super().expire(before)
        for number in self.late.difference(self.streams):
            self._busy.pop(number).close()
        self.late.intersection_update(self.streams)
        self._close_old(monotonic())
        self._settle()
        self._flush()
        return expired

    def cancel(self, invocation: Invocation) -> bool:
        """Forget *invocation*, for which nobody waits any more, and close its connection; return whether it was here."""
        found = super().cancel(invocation)
        self._flush()
        return found

    def retire(self) -> None:
        """Take no new requests, close when those in flight are answered, and never connect again."""
        self.retired = True
        self.owner.refresh()
        if self._up:
            self._settle()
        else:
            self._drop()

    def abort(self) -> None:
        """Close at once; what is in flight fails."""
        super().abort()
        for task in self._opening:
            task.cancel()
        for connection in (*self._idle, *self._busy.values()):
            connection.close()

    # ---- connections -----------------------------------------------------------------------------------

    async def _connect(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        self.connecting = True
        await self._open()
        self._task = None

    @property
    def _place(self) -> tuple[str, int]:
        host, _, port = self.address.partition(":")[2].partition("/")[0].rpartition(":")
        return host, int(port)

    async def _open(self) -> None:
        host, port = self._place
        try:
            async with asyncio.timeout(_CONNECT_S):
                await self._loop.create_connection(lambda: HttpConnection(self), host, port)
        except OSError:  # TimeoutError is one
            self.connecting = self._up = False
            if self._task is None or self._task is asyncio.current_task():
                self._retry()
            return
        self.connecting = False
        self._retry_s = _FIRST_RETRY_S
        if not self._up:
            self._up = True
            self.owner.refresh()
        self._flush()

    def _drop(self) -> None:
        """Give back what is not sent: nobody can be reached. Requests on other connections may still be answered."""
        self.owner.refresh()
        self._hand_back()
        self._settle()

    def _settle(self) -> None:
        super()._settle()
        if self.retired and not self.waiting and not self.queue and not self.streams:
            for connection in tuple(self._idle):
                connection.close()

    def _close_old(self, now: float) -> None:
        while self._idle and now - self._idle[0].idle_since > _IDLE_S:
            self._idle.pop(0).close()

    # ---- requests --------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._flushing = False
        if not self.queue or not self._up:
            return
        now = monotonic()
        self._close_old(now)
        taken = 0
        while self._idle and taken < len(self.queue):
            self._send_on(self._idle.pop(), self.queue[taken], now)
            taken += 1
        del self.queue[:taken]
        room = MAX_CONNECTIONS - len(self._busy) - len(self._opening)
        for _ in range(min(room, len(self.queue) - len(self._opening))):
            task = self._loop.create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def _send_on(self, connection: HttpConnection, invocation: Invocation, now: float) -> None:
        self._number = number = self._number + 1
        self.waiting[number], self._busy[number] = invocation, connection
        invocation.sent = now
        head, body = invocation.head, invocation.body
        self.queued_bytes -= len(body)
        invocation.body = b""
        connection.streams = head.startswith(_STREAM)
        connection.send(number, self._heads.get(head) or self._head_of(head), body)

    def _head_of(self, head: bytes) -> bytes:
        """Return the request's lines for the head of a frame, up to the length of the body."""
        path, content_type, accept, attributes, *fields = head.split(b"\0")
        place, _, own_path = self.address.partition(":")[2].encode().partition(b"/")
        path = b"/" + own_path if own_path else b"/invocations" if path == _STREAM else path
        lines = [b"POST %b HTTP/1.1" % path, b"Host: %b" % place]
        lines += [
            b"%b: %b" % (name, value.replace(b"\r", b" ").replace(b"\n", b" "))
            for name, value in (
                (b"Content-Type", content_type), (b"Accept", accept),
                (b"X-Amzn-SageMaker-Custom-Attributes", attributes),
                *((b"X-Amzn-SageMaker-" + field.partition(b"=")[0], field.partition(b"=")[2]) for field in fields),
            )
            if value
        ]  # fmt: skip
        made = b"\r\n".join(lines) + b"\r\nContent-Length: "
        if len(self._heads) >= _CACHED_HEADS:
            self._heads.clear()
        self._heads[head] = made
        return made

    # ---- from connections ------------------------------------------------------------------------------

    def opened(self, connection: HttpConnection) -> None:
        """Take a connection that nobody uses: a new one, or one whose request is answered."""
        if self.retired and not self.queue:
            connection.close()
            return
        connection.idle_since = monotonic()
        self._idle.append(connection)

    def done(self, connection: HttpConnection, number: int, status: int, head: bytes, body: bytes) -> None:
        """Take an answer; the connection is as `opened` then, or about to close."""
        self._busy.pop(number, None)
        invocation = self.waiting.pop(number, None) or self._end_stream(number)
        if connection.kept:
            self.opened(connection)
        if invocation is not None:
            self.owner.answered(self, invocation, status, head, body, monotonic())
        if self.queue:
            self._flush()
        if not self.waiting:
            self._settle()

    def part(self, connection: HttpConnection, number: int, head: bytes, body: bytes) -> None:
        """Take a part of an answer; the connection's `taken` is told when it has reached the client."""
        stream = self.streams.get(number)
        if stream is None:
            stream = self.waiting.pop(number, None)
            if stream is None:  # nobody waits for it any more
                connection.close()
                return
            self.streams[number] = stream
            self.late.add(number)
        self.owner.part(self, stream, head, body, connection.taken)

    def _end_stream(self, number: int) -> Invocation | None:
        self.late.discard(number)
        return self.streams.pop(number, None)

    def _stop(self, number: int) -> None:
        """Closing its connection tells a container that nobody wants the answer."""
        self.late.discard(number)
        connection = self._busy.pop(number, None)
        if connection is not None:
            connection.close()

    def closed(self, connection: HttpConnection, number: int) -> None:
        """Forget a connection; its request, if it had one, is lost."""
        if connection in self._idle:
            self._idle.remove(connection)
        self._busy.pop(number, None)
        invocation = self.waiting.pop(number, None) or self._end_stream(number)
        if invocation is not None:
            self.owner.lost(self, invocation)
        if self.queue:
            self._flush()
        if not self.waiting:
            self._settle()


class HttpConnection(asyncio.Protocol):
    """One connection: sends a request, parses its answer."""

    def __init__(self, link: HttpLink) -> None:
        self.idle_since = 0.0
        self.kept = True
        self.streams = False
        self._link = link
        self._number = 0
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._reset()

    def _reset(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._content_type = self._attributes = b""
        self._sized = self._begun = False
        self._ahead = 0

    def send(self, number: int, head: bytes, body: bytes) -> None:
        """Send a request, the link's *number*."""
        transport = cast(asyncio.Transport, self._transport)
        self._number = number
        if len(body) < BIG:
            transport.write(b"%b%d\r\n\r\n%b" % (head, len(body), body))
        else:
            transport.write(b"%b%d\r\n\r\n" % (head, len(body)))
            transport.write(body)

    def close(self) -> None:
        """Close it; what it was sent is not answered any more."""
        self.kept = False
        if self._transport is not None:
            self._transport.abort()

    def taken(self, size: int) -> None:
        """*size* bytes more of the answer have reached the client: read on when few are on their way."""
        before, self._ahead = self._ahead, self._ahead - size
        if before >= WINDOW > self._ahead and self._transport is not None:
            self._transport.resume_reading()

    # ---- asyncio.Protocol ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._link.opened(self)

    def data_received(self, data: bytes) -> None:
        if not self._number:  # nobody asked
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.kept = False
        if exc is None and self._number and self._begun and not self._sized:
            self._answer()  # the end of the connection is the end of the answer
        self._link.closed(self, self._number)

    # ---- httptools -------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-type":
            self._content_type = value
        elif name == _ATTRIBUTES:
            self._attributes = value
        elif name in (b"content-length", b"transfer-encoding"):
            self._sized = True

    def on_headers_complete(self) -> None:
        self._begun = self._parser.get_status_code() >= 200

    def on_body(self, body: bytes) -> None:
        if self.streams and 200 <= self._parser.get_status_code() < 300:
            before, self._ahead = self._ahead, self._ahead + len(body)
            if before < WINDOW <= self._ahead and self._transport is not None:
                self._transport.pause_reading()
            self._link.part(self, self._number, self._content_type + b"\0" + self._attributes, body)
            return
        self._parts.append(body)
        self._size += len(body)
        if self._size > MAX_FRAME:
            self.close()

    def on_message_complete(self) -> None:
        if not self._begun:  # 100 Continue
            self._reset()
            return
        self.kept = self.kept and self._parser.should_keep_alive()
        self._answer()

    def _answer(self) -> None:
        number, status, parts = self._number, self._parser.get_status_code(), self._parts
        head = self._content_type + b"\0" + self._attributes
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._number = 0
        if self._ahead >= WINDOW and self._transport is not None:
            self._transport.resume_reading()
        self._reset()
        self._link.done(self, number, status, head, body)
        if not self.kept and self._transport is not None:
            self._transport.close()
