"""The HTTP server: listens, plans each request for a fast route, a raw route or the API, ends gracefully."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
import time
from binascii import hexlify
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeAlias

from sagesmith.aws._api import Api
from sagesmith.aws._bodies import BodyPipe, PipedBody
from sagesmith.aws._connection import Connection
from sagesmith.aws._exchange import (
    Exchange,
    FastRoute,
    HttpRequest,
    HttpResponse,
    TextHeaders,
    date_line,
    internal_failure,
)
from sagesmith.aws._limits import Limits
from sagesmith.aws._tls import Rounds, TlsTransport
from sagesmith.aws._tunnel import Tunnel
from sagesmith.aws.call import BodyReader, Call
from sagesmith.errors import AwsError
from sagesmith_toolkit.sockets import unix_address

__all__ = ["HttpServer", "RawHandler", "StreamHandler", "SwitchingHandler"]

logger = logging.getLogger(__name__)

RawHandler: TypeAlias = Callable[[HttpRequest], Awaitable[HttpResponse]]
"""Answers requests under one path prefix. Called on the loop; checks by itself who calls."""

StreamHandler: TypeAlias = Callable[[Call, BodyReader], HttpResponse]
"""The same for bodies of any size, which it reads as they arrive. Called in a worker thread; *call* has no caller."""

SwitchingHandler: TypeAlias = Callable[[HttpRequest], Awaitable[HttpResponse | Tunnel]]
"""A raw handler that may lead a connection, whose client asked for it, on to somebody else."""

FAST_LIMIT: Final = 26 * 1024 * 1024
RAW_LIMIT: Final = 64 * 1024 * 1024
STREAM_LIMIT: Final = 1024**4
_HEALTH: Final = b"/_sagesmith/health"
_UNREAD_S: Final = 0.1
_SWEEP_S: Final = 0.5
BIG_BODY: Final = 1024 * 1024  # its hash takes 0.6 ms: too long for the loop


class HttpServer:
    """Serves an `Api`, raw routes by path prefix, and fast routes, on one or several ports.

    Belongs to one event loop, which must be uvloop's. A client that leaves does not cancel what was begun for it.
    """

    def __init__(
        self,
        api: Api,
        *,
        raw_routes: Mapping[str, RawHandler] | None = None,
        fast_routes: Sequence[FastRoute] = (),
        stream_routes: Mapping[str, StreamHandler] | None = None,
        switching_routes: Mapping[str, SwitchingHandler] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.date = date_line()
        self.connections: set[Connection] = set()
        self.closing = False
        self.reading = ThreadPoolExecutor(32, "sending")
        self._api = api
        # The longest prefix wins.
        routes = sorted((raw_routes or {}).items(), key=lambda item: len(item[0]), reverse=True)
        self._raw_routes = [(prefix.encode(), handler) for prefix, handler in routes]
        self._switching_routes = [
            (prefix.encode(), handler) for prefix, handler in (switching_routes or {}).items()
        ]
        self._fast_routes = [(route.matches, self._fast(route)) for route in fast_routes]
        self._stream_routes = [
            (prefix.encode(), handler) for prefix, handler in (stream_routes or {}).items()
        ]
        self._streams = ThreadPoolExecutor(32, "stream")
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop

    async def start(self, host: str, port: int, ssl_context: ssl.SSLContext | None = None) -> int:
        """Listen on *host* and *port* (0: any free one), with TLS if a context is given; return the port.

        Raises:
            OSError: the address cannot be listened on.
        """
        loop = asyncio.get_running_loop()
        rounds = Rounds(loop)

        def connection() -> Any:
            if ssl_context is None:
                return Connection(self, loop, secure=False)
            return TlsTransport(
                Connection(self, loop, secure=True), ssl_context, loop, rounds, self.limits.head_s
            )

        server = await loop.create_server(connection, host, port, backlog=1024)
        self._begin(loop, server)
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    async def start_unix(self, path: Path) -> None:
        """Listen on a Unix socket at *path*; one that is there is replaced.

        Who may connect is up to the folder. Nobody else can listen, so policies take it for a secure transport.
        """
        loop = asyncio.get_running_loop()
        path.unlink(missing_ok=True)

        def connection() -> Any:
            return Connection(self, loop, secure=True)

        with unix_address(str(path)) as address:
            server = await loop.create_unix_server(connection, address, backlog=1024)
        self._begin(loop, server)

    def _begin(self, loop: asyncio.AbstractEventLoop, server: asyncio.Server) -> None:
        self._loop = loop
        self._servers.append(server)
        if self._sweeper is None:
            self._api.start(loop)
            self._sweep()

    async def close(self, grace_s: float = 5.0) -> None:
        """Stop listening, let running requests end within *grace_s* seconds, then close what is left."""
        self.closing = True
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.close_soon()
        if self._servers:
            await self._let_end(grace_s)
        for connection in list(self.connections):
            connection.abort()
        await asyncio.sleep(0)
        if self._sweeper is not None:
            self._sweeper.cancel()
        for task in list(self._tasks):
            task.cancel()
        self._api.close()
        self._streams.shutdown(wait=False, cancel_futures=True)
        self.reading.shutdown(wait=False, cancel_futures=True)

    async def _let_end(self, grace_s: float) -> None:
        """Wait until every request is answered and the answers are sent; a client that does not read them is not waited for."""
        began = busy = self._loop.time()
        while self.connections and (now := self._loop.time()) < began + grace_s:
            if any(not connection.is_idle() for connection in self.connections):
                busy = now
            elif now > busy + _UNREAD_S:
                break
            await asyncio.sleep(0.01)

    def _sweep(self) -> None:
        self.date = date_line()
        now = self._loop.time()
        for connection in list(self.connections):
            connection.watch(now)
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)

    def plan(self, exchange: Exchange) -> None:
        """Say who takes *exchange*."""
        method, target = exchange.method, exchange.target
        for matches, begin in self._fast_routes:
            if matches(method, target):
                exchange.begin, exchange.limit = begin, FAST_LIMIT
                return
        if target == _HEALTH:
            exchange.begin, exchange.limit = _health, 1024
            return
        for prefix, handler in self._raw_routes:
            if target.startswith(prefix):
                exchange.begin, exchange.limit = self._raw(handler), RAW_LIMIT
                return
        for prefix, switching_handler in self._switching_routes:
            if target.startswith(prefix):
                exchange.begin, exchange.limit = self._raw(switching_handler), RAW_LIMIT
                exchange.switches = b"upgrade" in exchange.headers
                return
        for prefix, stream_handler in self._stream_routes:
            if target.startswith(prefix):
                exchange.limit = STREAM_LIMIT
                exchange.begin = self._streamed(stream_handler, exchange.open_pipe())
                return
        self._api.plan(exchange)

    def refuse(self, exchange: Exchange, error: AwsError) -> None:
        """Answer *error* in the words of the protocol that the request speaks."""
        self._api.refuse(exchange, error)

    def _raw(self, handler: SwitchingHandler) -> Callable[[Exchange], None]:
        def begin(exchange: Exchange) -> None:
            task = self._loop.create_task(_run_raw(handler, exchange))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return begin

    def _streamed(self, handler: StreamHandler, pipe: BodyPipe) -> Callable[[Exchange], None]:
        def begin(exchange: Exchange) -> None:
            call = exchange.call("", "", time.time(), account=self._api.account_id)
            body, request_id = PipedBody(pipe), exchange.request_id

            def work() -> None:
                response = _run_stream(handler, call, body, request_id)
                self._loop.call_soon_threadsafe(
                    lambda: exchange.send(response.status, list(response.headers.items()), response.body)
                )

            self._streams.submit(work)

        return begin

    def _fast(self, route: FastRoute) -> Callable[[Exchange], None]:
        verify = self._api.verifier.verify
        sha256 = hashlib.sha256
        handle = route.handle

        def begin(exchange: Exchange, digest: bytes | None = None) -> None:
            if digest is None:
                if len(exchange.body) > BIG_BODY:
                    task = self._loop.create_task(hashed(exchange))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                    return
                digest = hexlify(sha256(exchange.body).digest())
            try:
                signed = verify(exchange.method, exchange.target, exchange.headers, digest)
                exchange.caller = signed.key.caller
                exchange.region = signed.region
                handle(exchange)
            except AwsError as error:
                exchange.fail(error)
            except Exception:
                logger.exception("a fast route failed (request %s)", exchange.request_id)
                exchange.fail(internal_failure(exchange.request_id))

        async def hashed(exchange: Exchange) -> None:
            digest = await self._loop.run_in_executor(self.reading, lambda: sha256(exchange.body).hexdigest())
            begin(exchange, digest.encode())

        return begin


def _run_stream(handler: StreamHandler, call: Call, body: PipedBody, request_id: str) -> HttpResponse:
    try:
        return handler(call, body)
    except ConnectionError:
        return HttpResponse(400)  # nobody reads it
    except Exception:
        logger.exception("a route failed on %s %s (request %s)", call.method, call.path, request_id)
        fault = internal_failure(request_id)
        return HttpResponse(fault.status, {"content-type": "text/plain"}, fault.message.encode())


def _health(exchange: Exchange) -> None:
    exchange.reply(200, b"content-type: text/plain\r\n", b"ok")


async def _run_raw(handler: SwitchingHandler, exchange: Exchange) -> None:
    path, _, query = exchange.target.decode("latin-1").partition("?")
    request = HttpRequest(
        exchange.method.decode("latin-1"),
        path,
        query,
        TextHeaders(exchange.headers),
        exchange.body,
        exchange.request_id,
    )
    try:
        response = await handler(request)
    except AwsError as error:
        exchange.fail(error)
    except Exception:
        logger.exception(
            "a raw route failed on %s %s (request %s)", request.method, path, exchange.request_id
        )
        exchange.fail(internal_failure(exchange.request_id))
    else:
        if isinstance(response, Tunnel):
            exchange.switch(response)
            return
        cookies = [("set-cookie", value) for value in response.cookies]
        exchange.send(response.status, [*response.headers.items(), *cookies], response.body)
