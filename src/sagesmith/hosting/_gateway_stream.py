"""An invocation whose answer comes in parts, from the first of them to the last.

Parts come from the link as fast as the model makes them and leave as fast as the client takes them. What is between
is no more than a window: the link has the model wait until `more` was said of what the client took.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

from sagesmith.errors import AwsError
from sagesmith.hosting._gateway_link import Invocation

__all__ = ["Stream"]

BROKEN: Final = "StreamBroken"
TOO_LONG: Final = "ModelInvocationTimeExceeded"


class Stream(Invocation):
    """Whoever submits it subclasses this to learn that the answer has begun, and reads it from `parts`."""

    __slots__ = ("_error", "_more", "_over", "_parts", "_timer", "_waiter")

    def __init__(self, head: bytes, body: bytes, arrived: float) -> None:
        super().__init__(head, body, arrived)
        self._parts: deque[bytes] = deque()
        self._more: Callable[[int], None] | None = None
        self._error: AwsError | None = None
        self._over = False
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, headers: bytes) -> None:
        """The answer begins: *headers* as of `Invocation.succeed`."""
        raise NotImplementedError

    def refuse(self, error: AwsError) -> None:
        """There will be no answer, for the reason that *error* gives."""
        raise NotImplementedError

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the answer's parts; the next is asked for when the last is on its way to the client.

        Raises:
            AwsError: `ModelStreamError`, the answer breaks off.
        """
        while True:
            while self._parts:
                part = self._parts.popleft()
                yield part
                if self._more is not None:
                    self._more(len(part))
            if self._over:
                break
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._error is not None:
            raise self._error

    # ---- from the gateway ------------------------------------------------------------------------------

    def part(self, headers: bytes, body: bytes, more: Callable[[int], None]) -> None:
        """Take a part; *more* is to be called with the bytes of it that the client has taken."""
        self._more = more
        self._put(headers, body)

    def succeed(self, headers: bytes, body: bytes) -> None:
        """Take the last part, which may be all there is."""
        self._more = None
        self._end()
        self._put(headers, body)

    def fail(self, error: AwsError) -> None:
        """Take the reason why there is no answer, or no more of it."""
        self.break_off(BROKEN, error)

    def break_off(self, code: str, error: AwsError) -> None:
        """End the answer with *error*; once it has begun, as `ModelStreamError` with the error code *code*."""
        self._more = None
        self._end()
        if self.begun:
            self._error = AwsError("ModelStreamError", error.message, members={"ErrorCode": code})
            self._wake()
        else:
            self.refuse(error)

    def close(self) -> None:
        """Nobody reads the rest: `parts` breaks off."""
        self._more = None
        self._error = AwsError("ModelStreamError", "The client went away.", members={"ErrorCode": BROKEN})
        self._parts.clear()
        self._end()
        self._wake()

    def limit(self, timer: asyncio.TimerHandle) -> None:
        """Cancel *timer* when the answer is complete."""
        if self._over:
            timer.cancel()
        self._timer = timer

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self._over

    def _put(self, headers: bytes, body: bytes) -> None:
        if body:
            self._parts.append(body)
        if not self.begun:
            self.begun = True
            self.begin(headers)
        self._wake()

    def _end(self) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
