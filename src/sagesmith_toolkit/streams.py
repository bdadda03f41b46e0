"""An answer that is made piece by piece, on its way from the predictor to the gateway; see `frames` for the wire.

The model's iterator is advanced one piece at a time, wherever the predictor is called: streams take turns with each
other and with other requests, and a model is never in two calls at once. Each piece is sent as soon as it is
there. One that nobody reads is not advanced beyond its window, and costs no turns.
"""

from __future__ import annotations

import sys
import traceback
from typing import Callable, Iterator, NamedTuple, Optional, Protocol, Union

from sagesmith_toolkit.frames import PART, RESPONSE, WINDOW

__all__ = ["Made", "Server", "Stream", "Streamed"]


class Streamed(NamedTuple):
    """The answer to a request that may be answered in parts: a `server.Response` whose body may be an iterator."""

    status: int
    content_type: str
    body: Union[bytes, Iterator[bytes]]
    attributes: str = ""


class Made(NamedTuple):
    """A piece of an answer; the last one has the answer's status, all others 0."""

    status: int
    body: bytes


class Server(Protocol):
    """What a stream asks of its model server."""

    def run(self, work: Callable[[], Made], then: Callable[[Made], None]) -> None:
        """Do *work* where predictors are called, and call *then* with what it returns, on the event loop."""
        ...

    def ended(self, stream: Stream) -> None:
        """Forget *stream*: its last piece is written."""
        ...


class Stream:
    """One streamed answer. On the event loop, but for what `Server.run` runs elsewhere.

    Args:
        predict: begins the answer; called once, elsewhere.
        write: sends bytes to the gateway.
        number: the request's.
    """

    def __init__(
        self, server: Server, predict: Callable[[], Streamed], write: Callable[[bytes], None], number: int
    ) -> None:
        self.number = number
        self._server = server
        self._predict = predict
        self._write = write
        self._pieces: Optional[Iterator[bytes]] = None
        self._answer = Streamed(500, "text/plain", b"")
        self._ahead = 0
        self._busy = False
        self._stopped = False
        self._over = False

    def advance(self) -> None:
        """Have the next piece made, unless one is being made or enough is on its way to the client."""
        if not self._busy and not self._over and (self._ahead < WINDOW or self._stopped):
            self._busy = True
            self._server.run(self._make, self._made)

    def more(self, size: int) -> None:
        """*size* bytes more have reached the client."""
        self._ahead -= size
        self.advance()

    def stop(self) -> None:
        """Nobody wants the rest: close the model's iterator."""
        self._stopped = True
        self.advance()

    def _make(self) -> Made:
        """Return the next piece; where predictors are called."""
        try:
            if self._stopped:
                close = getattr(self._pieces, "close", None)
                if close is not None:
                    close()
                return Made(499, b"")
            if self._pieces is None:
                self._answer = self._predict()
                if isinstance(self._answer.body, bytes):
                    return Made(self._answer.status, self._answer.body)
                self._pieces = iter(self._answer.body)
            for piece in self._pieces:
                if piece:
                    return Made(0, piece)
            return Made(self._answer.status, b"")
        except (Exception, SystemExit) as error:  # the predictor is other people's code
            traceback.print_exc(file=sys.stderr)
            sys.stderr.flush()
            return Made(500, ("%s: %s" % (type(error).__name__, error)).encode())

    def _made(self, made: Made) -> None:
        self._busy = False
        self._ahead += len(made.body)
        status, body = made
        number = self.number if status else self.number | PART
        head = ("%s\0%s" % (self._answer.content_type, self._answer.attributes)).encode()
        self._write(
            b"".join((RESPONSE.pack(8 + len(head) + len(body), number, status or 200, len(head)), head, body))
        )
        if status:
            self._over = True
            self._server.ended(self)
        else:
            self.advance()
