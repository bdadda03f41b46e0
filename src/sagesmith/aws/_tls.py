"""TLS between the transports of the event loop and a protocol of ours: OpenSSL does the work, this moves the bytes.

The loop could do it as well (`ssl=` of `create_server`), at a higher price: it reads until OpenSSL raises that nothing
more is there, an exception for every request, and it takes each connection from the socket to the answer before it looks
at the next, so that the kernel's code, OpenSSL's and the interpreter's drive each other out of the processor's caches.
Here one kind of work is done for all connections before the next kind: decrypt, parse and begin; encrypt; send.

Closing differs, too: the client need not answer our goodbye.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol, cast

__all__ = ["Rounds", "TlsTransport", "Wrapped"]

logger = logging.getLogger(__name__)

_RECORD: Final = 16 * 1024
"""The most that one record of TLS carries, and what is small here. Source: RFC 8446, section 5.1."""
_MANY_RECORDS: Final = 256 * 1024
# Shared by all connections: what lies in them is handed on before anything else is read.
_SECRET: Final = memoryview(bytearray(_MANY_RECORDS))
_PLAIN: Final = memoryview(bytearray(_MANY_RECORDS + _RECORD))


class Wrapped(Protocol):
    """A protocol that reads and writes plain text through a `TlsTransport`."""

    def connection_made(self, transport: Any) -> None:
        """The client has shaken hands."""
        ...

    def received(self, data: bytes | memoryview) -> None:
        """Take what the client said; a view is good for the length of the call."""
        ...

    def eof_received(self) -> bool | None:
        """The client says nothing more."""
        ...

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        ...

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        ...

    def resume_writing(self) -> None:
        """The client has caught up."""
        ...


class Rounds:
    """The small pieces that came or are to go in one round of the loop, on all connections.

    A client that is alone, while no other waits for an answer, does not wait for a round either.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._came: list[TlsTransport] = []
        self._going: list[TlsTransport] = []
        self._asking: set[TlsTransport] = set()

    def came(self, transport: TlsTransport) -> None:
        """Let *transport* decrypt what it got when all others have got theirs."""
        self._came.append(transport)
        asking = self._asking
        asking.add(transport)
        if len(asking) == 1:
            self._take_in()
        elif len(self._came) == 1:
            self._loop.call_soon(self._take_in)

    def going(self, transport: TlsTransport) -> None:
        """Let *transport* send what it was given when all others have been given theirs."""
        self._going.append(transport)
        asking = self._asking
        asking.discard(transport)
        if not asking:
            self._send_out()
        elif len(self._going) == 1:
            self._loop.call_soon(self._send_out)

    def gone(self, transport: TlsTransport) -> None:
        """*transport* is closed: it waits for nothing."""
        self._asking.discard(transport)

    def _take_in(self) -> None:
        came, self._came = self._came, []
        pieces = [transport.decrypted() for transport in came]
        for transport, piece in zip(came, pieces, strict=True):
            try:
                transport.hand_on(piece)
            except Exception:
                transport.broke()

    def _send_out(self) -> None:
        going, self._going = self._going, []
        for transport in going:
            try:
                transport.encrypt()
            except Exception:
                transport.broke()
        for transport in going:
            transport.send()


class TlsTransport:
    """The server's end of one TLS connection: to the loop, which must be uvloop's, a protocol, to *protocol* a transport.

    It does not derive from `asyncio.BufferedProtocol`, since then it could be compiled only in part.

    Args:
        protocol: hears of the connection once the client has shaken hands.
        context: holds the server's certificate.
        rounds: those of the loop.
        handshake_s: how long the client may take for that.
    """

    __slots__ = (
        "_decrypt",
        "_encrypt",
        "_greeted",
        "_incoming",
        "_late",
        "_outgoing",
        "_over",
        "_protocol",
        "_rounds",
        "_take",
        "_tls",
        "_transport",
        "_unsent",
        "_write",
    )

    def __init__(
        self,
        protocol: Wrapped,
        context: ssl.SSLContext,
        loop: asyncio.AbstractEventLoop,
        rounds: Rounds,
        handshake_s: float,
    ) -> None:
        self._protocol = protocol
        self._rounds = rounds
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._decrypt: Any = self._tls.read
        self._encrypt: Callable[[bytes | memoryview], int] = self._tls.write
        self._take = self._outgoing.read
        self._unsent: list[bytes] = []
        self._greeted = self._over = False
        self._late: asyncio.TimerHandle | None = loop.call_later(handshake_s, self.abort)
        self._transport: Any = None
        self._write: Any = None

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client is there; to begin the handshake is its part."""
        self._transport = transport
        self._write = cast(asyncio.Transport, transport).write

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next piece is to be put."""
        return _SECRET

    def buffer_updated(self, nbytes: int) -> None:
        """Take what has come: a small piece waits for those of the other connections."""
        self._incoming.write(_SECRET[:nbytes])
        if not self._greeted and not self._shake_hands():
            return
        if nbytes <= _RECORD:
            self._rounds.came(self)
        else:
            self._read()

    def eof_received(self) -> bool:
        """The client says nothing more. TLS knows no half-closed connections: this ends it."""
        if self._greeted:
            self._read()
            if not self._over:
                self._protocol.eof_received()
        self.close()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed: the protocol learns so if it knew of it."""
        self._over = True
        self._unsent.clear()
        self._stop_waiting()
        self._rounds.gone(self)
        if self._greeted:
            self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        if self._greeted:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._greeted:
            self._protocol.resume_writing()

    def _shake_hands(self) -> bool:
        """Go on with the handshake; return whether it is complete."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self.send()
            return False
        except ssl.SSLError as error:
            self._break_off(error)
            return False
        self.send()
        self._stop_waiting()
        self._greeted = True
        self._protocol.connection_made(self)
        return True

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _break_off(self, error: ssl.SSLError) -> None:
        """End a connection whose client does not speak TLS as we do; it is told so, where TLS has a word for that."""
        logger.debug("a client's TLS failed: %s", error)
        self._over = True
        self._unsent.clear()
        self.send()
        self._transport.close()

    # What a round calls

    def decrypted(self) -> bytes | None:
        """Return the next record's text; empty if the client said goodbye, None if there is no whole record."""
        if self._over:
            return None
        try:
            piece: bytes = self._decrypt(_RECORD)
        except ssl.SSLWantReadError:
            self.send()  # OpenSSL answers by itself when the client asks for new keys
            return None
        except ssl.SSLError as error:
            self._break_off(error)
            return None
        return piece

    def hand_on(self, piece: bytes | None) -> None:
        """Give the protocol *piece*, and what has come after it."""
        if piece is None or self._over:
            return
        if not piece:
            self._protocol.eof_received()
            self.close()
            return
        self._protocol.received(piece)
        if self._incoming.pending or len(piece) == _RECORD:
            self._read()

    def _read(self) -> None:
        """Decrypt all that has come, and give it to the protocol in pieces as large as possible."""
        size, count = 0, -1
        while count and not self._over:
            try:
                count = self._decrypt(_RECORD, _PLAIN[size:])
            except ssl.SSLWantReadError:
                self.send()
                break
            except ssl.SSLError as error:
                self._break_off(error)
                break
            size += count
            if size > _MANY_RECORDS:
                self._protocol.received(_PLAIN[:size])
                size = 0
        if size:
            self._protocol.received(_PLAIN[:size])
        if not count and not self._over:
            self._protocol.eof_received()
            self.close()

    def encrypt(self) -> None:
        """Encrypt what was written."""
        unsent = self._unsent
        if unsent:
            self._encrypt_all(unsent[0] if len(unsent) == 1 else b"".join(unsent))
            unsent.clear()

    def _encrypt_all(self, data: bytes | memoryview) -> None:
        while (done := self._encrypt(data)) < len(data):
            data = memoryview(data)[done:]

    def send(self) -> None:
        """Send what is encrypted."""
        if self._outgoing.pending:
            self._write(self._take())

    def broke(self) -> None:
        """End a connection at which something failed that should not: the others of the round go on."""
        logger.exception("a connection failed")
        self.abort()

    # What the protocol calls

    def write(self, data: bytes) -> None:
        """Send *data*: a small piece when the other connections have theirs, a large one at once."""
        if self._over:
            return
        if len(data) <= _RECORD:
            self._unsent.append(data)
            if len(self._unsent) == 1:
                self._rounds.going(self)
            return
        self.encrypt()
        view = memoryview(data)
        for start in range(0, len(data), _MANY_RECORDS):
            self._encrypt_all(view[start : start + _MANY_RECORDS])
            self.send()

    def close(self) -> None:
        """Send what was written and say goodbye."""
        if not self._over and not self._transport.is_closing():
            self.encrypt()
            self._over = True
            with suppress(ssl.SSLError):  # the client has not said goodbye yet
                self._tls.unwrap()
            self.send()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._over = True
        self._unsent.clear()
        if self._transport is not None:
            self._transport.abort()

    def is_closing(self) -> bool:
        """Whether the connection is closed or about to be."""
        return self._over

    def pause_reading(self) -> None:
        """Take nothing more from the client for now; what has come already is still handed on."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on taking."""
        self._transport.resume_reading()

    def can_write_eof(self) -> bool:
        """Whether one side alone can end."""
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the loop's transport knows, such as ``peername``, or the ``ssl_object``."""
        return self._tls if name == "ssl_object" else self._transport.get_extra_info(name, default)
