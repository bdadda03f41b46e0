"""One instance as the gateway sees it: a pipelined connection to its model server, and who waits for what.

A request to an idle instance leaves at once; others gather in a queue during one turn of the loop and leave in one
write. From then on they are *written*: if the connection breaks they fail, since the model may have worked on them; a
request is never sent twice. What is still in the queue goes back to the owner, who sends it elsewhere.

An answer that comes in parts (see `frames`) leaves *waiting* with its first part: its limit in time is another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from mypy_extensions import mypyc_attr

from sagesmith.errors import AwsError
from sagesmith_toolkit.frames import MAX_FRAME, MORE, PART, REQUEST, RESPONSE, SIZE, STOP, WINDOW, FrameBuffer
from sagesmith_toolkit.sockets import unix_address

if TYPE_CHECKING:
    from sagesmith.hosting._gateway_table import AnyLink

__all__ = ["BIG", "MAX_QUEUED_BYTES", "Invocation", "Link", "Owner"]

BIG: Final = 64 * 1024
"""From here on a second write is cheaper than a copy."""
_WRITE_AHEAD: Final = 1024 * 1024
MAX_QUEUED_BYTES: Final = 128 * 1024 * 1024  # beyond, an instance does not take what it is sent
_FEW: Final = 8  # so many an instance may always have in flight
_CONNECT_S: Final = 5.0
_FIRST_RETRY_S: Final = 0.02
_LAST_RETRY_S: Final = 1.0
_LAST_NUMBER: Final = PART - 1


@mypyc_attr(allow_interpreted_subclasses=True)
class Invocation:
    """One request on its way to a model and back. Whoever submits it subclasses this to get the answer.

    Args:
        head: the frame's head, as `request_head` makes it.
        body: what the model gets.
        arrived: when the request came in, by `time.monotonic`.

    Attributes:
        begun: whether a part of the answer has come already; see `Stream`.
        sent: when it was written to the instance.
    """

    __slots__ = ("arrived", "begun", "body", "head", "sent")

    def __init__(self, head: bytes, body: bytes, arrived: float) -> None:
        self.head = head
        self.body = body
        self.arrived = arrived
        self.begun = False
        self.sent = 0.0

    def succeed(self, headers: bytes, body: bytes) -> None:
        """Take the model's answer; *headers* are lines of an HTTP response, each with its line end."""
        raise NotImplementedError

    def fail(self, error: AwsError) -> None:
        """Take the reason why there is no answer."""
        raise NotImplementedError


class Owner(Protocol):
    """What a link reports to: its variant, or the chain that it is a part of."""

    def refresh(self) -> None:
        """Look again which links can take requests."""
        ...

    def answered(
        self, link: AnyLink, invocation: Invocation, status: int, head: bytes, body: bytes, now: float
    ) -> None:
        """Take the model's answer, which arrived at time *now*."""
        ...

    def part(
        self, link: AnyLink, invocation: Invocation, head: bytes, body: bytes, more: Callable[[int], None]
    ) -> None:
        """Take a part of the model's answer; call *more* with the number of its bytes that have reached the client."""
        ...

    def lost(self, link: AnyLink, invocation: Invocation) -> None:
        """The connection broke after *invocation* was written."""
        ...

    def resubmit(self, invocation: Invocation) -> None:
        """*invocation* was not sent, and the connection broke."""
        ...


@mypyc_attr(allow_interpreted_subclasses=True)
class Link:
    """The connection to one instance. It connects, and connects again whenever it is lost, until retired."""

    def __init__(
        self,
        instance_id: str,
        address: str,
        owner: Owner,
        forget: Callable[[Any], None],
        max_in_flight: int = 1000,
    ) -> None:
        self.instance_id = instance_id
        self.address = address
        self.owner = owner
        self.waiting: dict[int, Invocation] = {}
        self.late: set[int] = set()  # what the model works on besides: what is overdue, and streams
        self.streams: dict[int, Invocation] = {}
        self._taken: dict[int, int] = {}
        self.queue: list[Invocation] = []
        self.connecting = True
        self.retired = False
        self.queued_bytes = 0
        self.limit = self._most = max_in_flight
        self._going = False
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._flushing = False
        self._frames = FrameBuffer()
        self._number = 0
        self._retry_s = _FIRST_RETRY_S
        self._settled: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = self._loop.create_task(self._connect(0.0))

    @property
    def usable(self) -> bool:
        """Whether new requests may be sent."""
        return self._transport is not None and not self._going and not self.retired

    def send(self, invocation: Invocation) -> None:
        """Send *invocation*: at once if the instance is idle, else at the end of this turn of the loop, or as soon as
        the connection is there.
        """
        self.queue.append(invocation)
        self.queued_bytes += len(invocation.body)
        if not self.waiting:
            self._flush()
        elif not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def expire(self, before: float) -> list[Invocation]:
        """Remove and return what was sent, or came in and was not sent, *before* this time."""
        expired = []
        for number, invocation in self.waiting.items():
            if invocation.sent >= before:
                break  # they are in the order in which they were sent
            expired.append(invocation)
            self.late.add(number)
        for number in self.late:
            self.waiting.pop(number, None)
        overdue = [invocation for invocation in self.queue if invocation.arrived < before]
        if overdue:
            self.queue = [invocation for invocation in self.queue if invocation.arrived >= before]
        self._settle()
        return expired + overdue

    def pace(self, overdue: float) -> None:
        """Set `limit`: take no more than there is while half of what is in flight was sent before *overdue*.

        The model is so slow, then, that what comes on top of it would not be answered in time.
        """
        self.limit = self._most
        count = len(self.waiting)
        if count >= _FEW:
            middle = next(islice(self.waiting.values(), count // 2, None))
            if middle.sent < overdue:
                self.limit = count

    def cancel(self, invocation: Invocation) -> bool:
        """Forget *invocation*, for which nobody waits any more; return whether it was here.

        The model is told to stop if it answers in parts; one that does not goes on, and counts until it answers.
        """
        if invocation in self.queue:
            self.queue.remove(invocation)
            self.queued_bytes -= len(invocation.body)
            self._settle()
            return True
        for kept in (self.waiting, self.streams):
            for number, each in kept.items():
                if each is invocation:
                    del kept[number]
                    self.late.add(number)
                    self._stop(number)
                    self._settle()
                    return True
        return False

    async def settled(self) -> None:
        """Return when nothing is in flight any more."""
        if self.waiting or self.queue or self.streams:
            future = self._loop.create_future()
            self._settled.append(future)
            await future

    def retire(self) -> None:
        """Take no new requests, close when those in flight are answered, and never connect again."""
        self.retired = True
        self.owner.refresh()
        if self._transport is None:
            self._drop()
        else:
            self._settle()

    def abort(self) -> None:
        """Close at once; what is in flight fails."""
        self.retired = True
        if self._task is not None:
            self._task.cancel()
        if self._transport is not None:
            self._transport.abort()

    # ---- connection ------------------------------------------------------------------------------------

    async def _connect(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        self.connecting = True
        kind, _, place = self.address.partition(":")
        protocol: Any = self
        try:
            async with asyncio.timeout(_CONNECT_S):
                if kind == "unix":
                    with unix_address(place) as path:
                        await self._loop.create_unix_connection(lambda: protocol, path)
                else:
                    host, _, port = place.rpartition(":")
                    await self._loop.create_connection(lambda: protocol, host, int(port))
        except OSError:  # TimeoutError is one
            self.connecting = False
            self._retry()

    def _retry(self) -> None:
        self._drop()
        if not self.retired:
            self._task = self._loop.create_task(self._connect(self._retry_s))
            self._retry_s = min(_LAST_RETRY_S, self._retry_s * 2)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = stream = cast(asyncio.Transport, transport)
        stream.set_write_buffer_limits(_WRITE_AHEAD)
        self._frames = FrameBuffer()
        self._paused = self._going = self.connecting = False
        self._retry_s = _FIRST_RETRY_S
        self._task = None
        if self.retired:
            stream.abort()
            return
        self.owner.refresh()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._retry()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    def _stopped(self) -> bool:
        return self._paused or self._transport is None

    def _drop(self) -> None:
        """Give back what is in flight: there is no connection to send it or to get its answer."""
        written, self.waiting = [*self.waiting.values(), *self.streams.values()], {}
        self.streams.clear()
        self.late.clear()
        self.owner.refresh()
        for invocation in written:
            self.owner.lost(self, invocation)
        self._hand_back()
        self._settle()

    def _hand_back(self) -> None:
        """Let the owner send elsewhere what is not written."""
        queued, self.queue, self.queued_bytes = self.queue, [], 0
        for invocation in queued:
            self.owner.resubmit(invocation)

    def _settle(self) -> None:
        if self.waiting or self.queue or self.streams:
            return
        for future in self._settled:
            if not future.done():
                future.set_result(None)
        self._settled.clear()
        if self.retired:
            self._forget(self)
            if self._task is not None:
                self._task.cancel()
                self._task = None
            if self._transport is not None:
                self._transport.close()

    # ---- frames ----------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._flushing = False
        transport = self._transport
        if transport is None or self._paused or not self.queue:
            return
        if self._going:
            self._hand_back()
            return
        queue, self.queue, self.queued_bytes = self.queue, [], 0
        number, waiting, pack, now = self._number, self.waiting, REQUEST.pack, monotonic()
        out: list[bytes] = []
        for at, invocation in enumerate(queue):
            head, body = invocation.head, invocation.body
            number = number + 1 if number < _LAST_NUMBER else 1
            waiting[number] = invocation
            invocation.sent = now
            invocation.body = b""
            out += (pack(6 + len(head) + len(body), number, len(head)), head)
            if len(body) < BIG:
                out.append(body)
                continue
            transport.write(b"".join(out))
            transport.write(body)
            out = []
            if self._stopped():  # write() has called pause_writing
                self.queue = queue[at + 1 :]
                self.queued_bytes = sum(len(left.body) for left in self.queue)
                break
        self._number = number
        if out:
            transport.write(b"".join(out))

    def data_received(self, data: bytes) -> None:
        buffer = self._frames.add(data)
        if not buffer:
            return
        now = monotonic()
        waiting, answered = self.waiting, self.owner.answered
        at, end, header = 0, len(buffer), RESPONSE.size
        while end - at >= header:
            length, number, status, head_size = RESPONSE.unpack_from(buffer, at)
            body_at = at + header + head_size
            stop = at + 4 + length
            if length > MAX_FRAME or stop < body_at:
                cast(asyncio.Transport, self._transport).abort()
                return
            if stop > end:
                self._frames.keep(buffer[at:], stop - at)
                break
            invocation = waiting.pop(number, None)
            if invocation is not None:
                answered(self, invocation, status, buffer[at + header : body_at], buffer[body_at:stop], now)
            elif number:
                self._other(number, status, buffer[at + header : body_at], buffer[body_at:stop], now)
            else:
                self._going = True
                self.owner.refresh()
            at = stop
        else:
            if at < end:
                self._frames.keep(buffer[at:], header)
        if not waiting and (self._settled or self.retired):
            self._settle()

    # ---- answers in parts ------------------------------------------------------------------------------

    def _other(self, number: int, status: int, head: bytes, body: bytes, now: float) -> None:
        """Take what is no answer to a request that waits: a part, the end of what came in parts, or what comes too late."""
        if not number & PART:
            self.late.discard(number)
            self._taken.pop(number, None)
            stream = self.streams.pop(number, None)
            if stream is not None:
                self.owner.answered(self, stream, status, head, body, now)
            return
        number -= PART
        stream = self.streams.get(number)
        if stream is None:
            stream = self.waiting.pop(number, None)
            if stream is None:  # nobody waits for it any more
                self._stop(number)
                return
            self.streams[number] = stream
            self.late.add(number)
        self.owner.part(self, stream, head, body, partial(self._more, number))

    def _more(self, number: int, size: int) -> None:
        """Let the model go on with a stream of which the client has taken *size* bytes more; told now and then."""
        taken = self._taken.get(number, 0) + size
        if taken < WINDOW // 4:
            self._taken[number] = taken
        elif number in self.streams:
            self._taken[number] = 0
            self._tell(number, MORE, SIZE.pack(taken))

    def _stop(self, number: int) -> None:
        self._taken.pop(number, None)
        self._tell(number, STOP, b"")

    def _tell(self, number: int, path: str, body: bytes) -> None:
        head = path.encode() + b"\0\0\0"
        if self._transport is not None:
            self._transport.write(REQUEST.pack(6 + len(head) + len(body), number, len(head)) + head + body)
