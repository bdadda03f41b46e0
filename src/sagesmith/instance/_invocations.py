"""Requests to the instance's own model server, from threads: a connection each, one request at a time on it.

Frames go over the Unix socket of our model server, HTTP to a container that listens on a port. While the server is
started again, requests wait for it.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from sagesmith_toolkit.frames import REQUEST, RESPONSE
from sagesmith_toolkit.sockets import unix_address

__all__ = ["Answer", "Cancelled", "Invocations", "NotAnsweredError"]

_LOOK_S: Final = 0.5


class Cancelled(Exception):
    """The work was told to end."""


class NotAnsweredError(Exception):
    """The model server closed the connection, does not come up, or took too long."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model server said."""

    status: int
    content_type: str
    body: bytes

    @property
    def is_good(self) -> bool:
        """Whether it is a prediction."""
        return 200 <= self.status < 300


class _Connection(Protocol):
    address: str

    def ask(self, path: str, content_type: str, accept: str, body: bytes) -> Answer: ...
    def close(self) -> None: ...


class Invocations:
    """The way to the model server; thread-safe.

    Args:
        timeout_s: how long an answer may take.
        wait_s: how long a request waits for a server that is being started.
    """

    def __init__(self, timeout_s: float, wait_s: float) -> None:
        self._timeout_s = timeout_s
        self._wait_s = wait_s
        self._changed = threading.Condition()
        self._address = self._protocol = ""
        self._cancelled = False
        self._mine = threading.local()
        self._all: set[_Connection] = set()

    def ready(self, address: str, protocol: str) -> None:
        """The server answers at *address*, ``unix:/path`` or ``tcp:host:port``."""
        with self._changed:
            self._address, self._protocol = address, protocol
            self._changed.notify_all()

    def away(self) -> None:
        """The server ended, and will be back."""
        with self._changed:
            self._address = ""

    def cancel(self) -> None:
        """Break off what waits for an answer; it and everything later raises `Cancelled`."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()
            connections = [*self._all]
        for connection in connections:
            connection.close()

    def pause(self, seconds: float) -> None:
        """Wait, but not longer than until :meth:`cancel`.

        Raises:
            Cancelled: it was called.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._cancelled, seconds)
        self.check()

    def check(self) -> None:
        """Raise `Cancelled` if :meth:`cancel` was called."""
        if self._cancelled:
            raise Cancelled

    def ask(self, path: str, content_type: str, accept: str, body: bytes) -> Answer:
        """Send one request and return the answer.

        Raises:
            Cancelled: :meth:`cancel` was called.
            NotAnsweredError: there was none.
        """
        address, protocol = self._where()
        connection: _Connection | None = getattr(self._mine, "connection", None)
        try:
            if connection is None or connection.address != address:
                if connection is not None:
                    self._forget(connection)
                connection = (_Http if protocol == "http" else _Frames)(address, self._timeout_s)
                self._mine.connection = connection
                with self._changed:
                    self._all.add(connection)
                self.check()
            return connection.ask(path, content_type, accept, body)
        except (OSError, EOFError, http.client.HTTPException) as error:
            if connection is not None:
                self._forget(connection)
            self.check()
            if isinstance(error, TimeoutError):
                reason = f"Model server did not respond to {path} request within {self._timeout_s:g} seconds"
            else:
                reason = (
                    f"Unable to get response from algorithm: the model server closed the connection ({error})"
                )
            raise NotAnsweredError(reason) from error

    def close(self) -> None:
        """Close every connection; nobody must be waiting."""
        for connection in [*self._all]:
            self._forget(connection)

    def _where(self) -> tuple[str, str]:
        end = time.monotonic() + self._wait_s
        with self._changed:
            while not self._address and not self._cancelled:
                left = end - time.monotonic()
                if left <= 0:
                    raise NotAnsweredError(
                        f"Unable to get response from algorithm: no model server for {self._wait_s:g} s"
                    )
                self._changed.wait(min(left, _LOOK_S))
        self.check()
        return self._address, self._protocol

    def _forget(self, connection: _Connection) -> None:
        connection.close()
        if getattr(self._mine, "connection", None) is connection:
            self._mine.connection = None
        with self._changed:
            self._all.discard(connection)


class _Frames:
    """Frames on a Unix socket."""

    def __init__(self, address: str, timeout_s: float) -> None:
        self.address = address
        self._numbers = itertools.count(1)
        self._socket = _connected(address, timeout_s)

    def ask(self, path: str, content_type: str, accept: str, body: bytes) -> Answer:
        head = f"{path}\0{content_type}\0{accept}\0".encode()
        number = next(self._numbers)
        length = REQUEST.size - 4 + len(head) + len(body)
        self._socket.sendall(REQUEST.pack(length, number, len(head)) + head)
        if body:
            self._socket.sendall(body)
        while True:
            length, found, status, head_size = RESPONSE.unpack(self._receive(RESPONSE.size))
            rest = self._receive(length - (RESPONSE.size - 4))
            if found == number:  # 0 says that the server will end soon; it still answers
                kind = rest[:head_size].decode().partition("\0")[0]
                return Answer(status, kind, rest[head_size:])

    def close(self) -> None:
        _shut(self._socket)

    def _receive(self, size: int) -> bytes:
        buffer = bytearray(size)
        view, at = memoryview(buffer), 0
        while at < size:
            count = self._socket.recv_into(view[at:])
            if not count:
                raise EOFError("end of stream")
            at += count
        return bytes(buffer)


class _Http:
    """HTTP/1.1 to the user's own container."""

    def __init__(self, address: str, timeout_s: float) -> None:
        self.address = address
        self._connection = http.client.HTTPConnection("localhost", timeout=timeout_s)
        self._connect: Callable[[], socket.socket] = lambda: _connected(address, timeout_s)
        self._connection.sock = self._connect()

    def ask(self, path: str, content_type: str, accept: str, body: bytes) -> Answer:
        if self._connection.sock is None:  # closed after the last answer, as its headers said
            self._connection.sock = self._connect()
        headers = {"Content-Type": content_type, "Accept": accept}
        method = "POST" if path == "/invocations" else "GET"
        self._connection.request(
            method, path, body or None, {name: value for name, value in headers.items() if value}
        )
        response = self._connection.getresponse()
        return Answer(response.status, response.headers.get("content-type", ""), response.read())

    def close(self) -> None:
        if self._connection.sock is not None:
            _shut(self._connection.sock)
        self._connection.close()


def _connected(address: str, timeout_s: float) -> socket.socket:
    scheme, _, place = address.partition(":")
    if scheme == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout_s)
        with unix_address(place) as short:
            connection.connect(short)
        return connection
    host, _, port = place.rpartition(":")
    return socket.create_connection((host, int(port)), timeout_s)


def _shut(connection: socket.socket) -> None:
    """Close *connection*, and wake a thread that waits on it."""
    with contextlib.suppress(OSError):  # it is closed already
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
