"""The API: authenticates each request, finds its operation, reads and checks its input, runs the handler.

Handlers that are marked inline run on the event loop (all, or for some input), coroutines are awaited on it, all
others run in worker threads; parsing and writing happen where the handler runs. Bodies of S3 objects stream into their
handler, which for that reason has threads of its own: a slow upload must not keep a job from being described.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import logging
import threading
from binascii import hexlify
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from sagesmith.aws._bodies import BodyPipe, StreamedBody, collected, inflated
from sagesmith.aws._exchange import NOBODY, Exchange, internal_failure
from sagesmith.aws._json import WrongTypeError
from sagesmith.aws._model import Catalog, ServiceModel
from sagesmith.aws._patterns import PatternTimeoutError
from sagesmith.aws._post_form import PostForm, boundary_of
from sagesmith.aws._post_policy import check_policy, key_of_form
from sagesmith.aws._protocols import Answer, JsonProtocol, QueryProtocol, Request, WireProtocol
from sagesmith.aws._router import Entry, Found, Router
from sagesmith.aws._s3 import S3Protocol, bucket_and_path
from sagesmith.aws._sending import opened
from sagesmith.aws._sigv2 import is_presigned_v2, move_headers
from sagesmith.aws._sigv4 import Signed, Verifier, scope_of
from sagesmith.aws._validation import Fault, message_of
from sagesmith.aws._words import in_words_of, serialization_error, validation_fault
from sagesmith.aws.call import (
    Authorizer,
    BodyReader,
    Call,
    Caller,
    FileSlice,
    Inline,
    KeyFinder,
    OperationMark,
    marked_operations,
)
from sagesmith.clock import Clock, system_clock
from sagesmith.errors import AwsError, not_implemented

__all__ = ["Api"]

logger = logging.getLogger(__name__)

BODY_LIMIT: Final = 6 * 1024 * 1024
OBJECT_LIMIT: Final = 5 * 1024**3 + 64 * 1024**2  # 5 GiB, and the framing of its chunks
_BIG_BODY: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Handler:
    mark: OperationMark
    function: Callable[[Call, Mapping[str, Any]], Any]
    inline: Inline
    is_async: bool


class Api:
    """All services on one address. Belongs to one event loop once a server has started it.

    Args:
        handlers: objects with a `service` and methods marked by `operation`.
        keys: finds the access keys that may sign.
        authorize: decides whether a caller may do what it asks.
        account_id: the account that everything belongs to.
        default_region: the region of calls that name none.
        max_skew_s: how much the clocks of client and server may differ.
        clock: the server's clock.
        catalog: the service models; one of its own unless given.
        inline_reads: whether handlers marked inline run on the event loop. False when what they read does not lie
            on this machine: they run in worker threads then, as all others do.

    Raises:
        ValueError: two handlers claim one operation.
    """

    def __init__(
        self,
        handlers: Iterable[object],
        *,
        keys: KeyFinder,
        authorize: Authorizer,
        account_id: str,
        default_region: str,
        max_skew_s: int = 900,
        clock: Clock = system_clock,
        catalog: Catalog | None = None,
        inline_reads: bool = True,
    ) -> None:
        self.verifier = Verifier(keys, clock, max_skew_s)
        self._authorize = authorize
        self.account_id = self._account_id = account_id
        self._default_region = default_region
        self._clock = clock
        self._handlers: dict[str, dict[str, _Handler]] = {}
        for group in handlers:
            service: str = group.service  # type: ignore[attr-defined]
            table = self._handlers.setdefault(service, {})
            for mark, function in marked_operations(group):
                if mark.name in table:
                    raise ValueError(f"two handlers claim {service}:{mark.name}")
                inline = mark.inline if inline_reads else False
                table[mark.name] = _Handler(mark, function, inline, inspect.iscoroutinefunction(function))
        self._catalog = catalog if catalog is not None else Catalog()
        self._router = Router(self._catalog, self._handlers)
        self._workers = ThreadPoolExecutor(16, "handler")
        self._streams = ThreadPoolExecutor(64, "object")
        # Who sent a form is known only when its fields are here: strangers must not hold the threads of uploads.
        self._forms = ThreadPoolExecutor(8, "form")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._generic: dict[str, WireProtocol] = {}

    # What the API can do

    def check(self) -> None:
        """Check every handler against the models.

        Raises:
            ValueError: a handler names a service or an operation that no model knows.
        """
        wrong = []
        for service, table in self._handlers.items():
            model = self._catalog.get(service)
            if model is None:
                wrong.append(f"{service} (no such service)")
            else:
                wrong.extend(f"{service}:{name}" for name in table if not model.has_operation(name))
        if wrong:
            raise ValueError(f"no model knows what these handlers are for: {', '.join(sorted(wrong))}")

    def coverage(self) -> dict[str, dict[str, str]]:
        """Return for each handled service what each operation of its model is: real, record-only or missing."""
        result: dict[str, dict[str, str]] = {}
        for service, table in sorted(self._handlers.items()):
            model = self._catalog.get(service)
            names = model.operation_names if model is not None else sorted(table)
            result[service] = {name: _kind(table.get(name)) for name in names}
        return result

    # Life

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve on *loop*; the models load in the background meanwhile."""
        self._loop = loop
        threading.Thread(target=self._preload, name="models", daemon=True).start()

    def _preload(self) -> None:
        try:
            self._router.preload()
        except Exception:
            logger.exception("loading the service models failed; each is tried again at its first request")

    def close(self) -> None:
        """Begin nothing more."""
        for task in list(self._tasks):
            task.cancel()
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._streams.shutdown(wait=False, cancel_futures=True)
        self._forms.shutdown(wait=False, cancel_futures=True)

    # From the server, on the loop

    def plan(self, exchange: Exchange) -> None:
        """Prepare for *exchange*, whose headers are here: let an object's body stream, collect all others.

        Raises:
            AwsError: it is refused already.
        """
        exchange.begin, exchange.limit = self._begin, BODY_LIMIT
        if is_presigned_v2(exchange.headers, exchange.target):
            move_headers(exchange.headers, exchange.target)
        if exchange.method == b"POST" and b"multipart/form-data" in exchange.headers.get(
            b"content-type", b""
        ):
            self._plan_form(exchange)
        elif exchange.method == b"PUT" and scope_of(exchange.headers, exchange.target) == "s3":
            signed = self.verifier.verify(exchange.method, exchange.target, exchange.headers, None)
            found = self._find(signed.service, exchange)
            if found.entry.operation.streaming_input is not None and found.entry.handler is not None:
                exchange.limit = OBJECT_LIMIT
                length = exchange.headers.get(b"content-length", b"")
                size = int(length) if length.isdigit() else None
                body = StreamedBody(exchange.open_pipe(), exchange.headers, signed, size)
                exchange.begin = lambda exchange: self._begin_stream(exchange, signed, found, body)

    def _plan_form(self, exchange: Exchange) -> None:
        """Let an upload by form to a bucket stream, which is signed in its body."""
        bucket, path = bucket_and_path(exchange.headers, exchange.target)
        boundary = boundary_of(exchange.headers[b"content-type"])
        service = self._router.service("s3")
        if boundary is None or not bucket or path or service is None or b"authorization" in exchange.headers:
            return
        exchange.limit = OBJECT_LIMIT
        pipe = exchange.open_pipe()
        entry = service.entry("PutObject", "rest-xml")

        def begin(exchange: Exchange) -> None:
            self._in_thread(
                exchange, self._forms, lambda: self._work_form(exchange, entry, pipe, boundary, bucket)
            )

        exchange.begin = begin

    def refuse(self, exchange: Exchange, error: AwsError) -> None:
        """Answer *error* in the words of the protocol that the request speaks."""
        service, protocol = self._words(exchange)
        self._fail(exchange, service, protocol, error)

    def _begin(self, exchange: Exchange) -> None:
        if len(exchange.body) > _BIG_BODY:
            self._spawn(self._hash_and_go(exchange))
        else:
            self._go(exchange, hexlify(hashlib.sha256(exchange.body).digest()))

    async def _hash_and_go(self, exchange: Exchange) -> None:
        loop = asyncio.get_running_loop()
        digest = await loop.run_in_executor(self._workers, lambda: hashlib.sha256(exchange.body).hexdigest())
        self._go(exchange, digest.encode())

    def _go(self, exchange: Exchange, digest: bytes) -> None:
        try:
            try:
                signed = self.verifier.verify(exchange.method, exchange.target, exchange.headers, digest)
            except AwsError as error:
                found = self._unsigned_operation(exchange, error)
                caller, region = Caller(self._account_id, "", NOBODY.user_id, ""), self._default_region
            else:
                caller, region = signed.key.caller, signed.region
                if signed.service == "s3":
                    exchange.body = collected(exchange.body, exchange.headers, signed)
                elif b"content-encoding" in exchange.headers:
                    exchange.body = inflated(exchange.body, exchange.headers, signed.service)
                found = self._find(signed.service, exchange)
        except AwsError as error:
            self.refuse(exchange, error)
            return
        except Exception:
            self._internal(exchange)
            return
        exchange.caller, exchange.region = caller, region
        request = Request(exchange.body, exchange.headers, found.query, found.labels)
        self._dispatch(exchange, found.entry, request, self._workers)

    def _begin_stream(self, exchange: Exchange, signed: Signed, found: Found, body: BodyReader) -> None:
        exchange.caller, exchange.region = signed.key.caller, signed.region
        request = Request(b"", exchange.headers, found.query, found.labels, body)
        self._dispatch(exchange, found.entry, request, self._streams)

    def _find(self, scope: str, exchange: Exchange) -> Found:
        try:
            return self._router.find(scope, exchange.method, exchange.target, exchange.headers, exchange.body)
        except WrongTypeError as error:
            raise serialization_error(scope, error) from error

    def _unsigned_operation(self, exchange: Exchange, error: AwsError) -> Found:
        """Return the operation of a request without signature, if that operation wants none (STS has some)."""
        if (
            error.code != "MissingAuthenticationTokenException"
            or b"Action=" not in exchange.body + exchange.target
        ):
            raise error
        found = self._find("sts", exchange)
        if not found.entry.operation.unsigned:
            raise error
        return found

    # The operation

    def _dispatch(self, exchange: Exchange, entry: Entry, request: Request, pool: ThreadPoolExecutor) -> None:
        call = self._call(exchange, entry)
        handler: _Handler | None = entry.handler
        if handler is None or (handler.inline is True and request.stream is None):
            self._send(exchange, self._work(call, entry, request))
        elif handler.is_async:
            self._spawn(self._work_async(exchange, call, entry, request))
        elif callable(handler.inline):
            self._dispatch_by_input(exchange, call, entry, request, handler.inline)
        else:
            self._in_thread(exchange, pool, lambda: self._work(call, entry, request))

    def _dispatch_by_input(
        self,
        exchange: Exchange,
        call: Call,
        entry: Entry,
        request: Request,
        inline: Callable[[Mapping[str, Any]], bool],
    ) -> None:
        try:
            value = self._prepare(call, entry, request)
            here = inline(value)
        except Exception as error:
            self._send(exchange, self._fault(call, entry, error))
            return
        if here:
            self._send(exchange, self._run(call, entry, value))
        else:
            self._in_thread(exchange, self._workers, lambda: self._run(call, entry, value))

    def _in_thread(self, exchange: Exchange, pool: ThreadPoolExecutor, work: Callable[[], Answer]) -> None:
        loop = self._loop
        if loop is None:
            raise RuntimeError("the API was not started")
        pool.submit(lambda: loop.call_soon_threadsafe(self._send, exchange, work()))

    def _call(self, exchange: Exchange, entry: Entry) -> Call:
        return exchange.call(
            entry.service.name,
            entry.operation.name,
            self._clock(),
            region=self._default_region,
            account=self._account_id,
        )

    def read(self, entry: Entry, request: Request) -> dict[str, Any]:
        """Return the operation's input, parsed and validated.

        Raises:
            AwsError: it does not fit the model.
        """
        try:
            value = entry.protocol.read(entry.operation, request)
            faults: list[Fault] | None = entry.check(value) if entry.check is not None else None
        except (WrongTypeError, RecursionError) as error:
            raise serialization_error(entry.service.name, error) from error
        except PatternTimeoutError as error:
            raise AwsError(
                "ValidationException",
                f"A value takes too long to be matched with the pattern {error}. Shorten it.",
            ) from error
        if faults:
            raise validation_fault(entry.service.name, faults, message_of(faults))
        return value

    def _prepare(self, call: Call, entry: Entry, request: Request) -> dict[str, Any]:
        value = self.read(entry, request)
        if entry.handler is None:
            raise not_implemented(entry.service.name, entry.operation.name)
        self._authorize(call, value)
        return value

    def _work(self, call: Call, entry: Entry, request: Request) -> Answer:
        try:
            value = self._prepare(call, entry, request)
        except Exception as error:
            return self._fault(call, entry, error)
        return self._run(call, entry, value)

    def _run(self, call: Call, entry: Entry, value: Mapping[str, Any]) -> Answer:
        try:
            return self._written(call, entry, entry.handler.function(call, value))
        except Exception as error:
            return self._fault(call, entry, error)

    def _work_form(
        self, exchange: Exchange, entry: Entry, pipe: BodyPipe, boundary: bytes, bucket: str
    ) -> Answer:
        call = self._call(exchange, entry)
        try:
            form = PostForm(pipe, boundary, bucket)
            key, region = key_of_form(form.fields, self.verifier.key)
            form.allowed = check_policy(form.fields, self._clock())
            exchange.caller, exchange.region = key.caller, region
            exchange.headers = form.headers(exchange.headers)
            request = Request(b"", exchange.headers, {}, {"Bucket": bucket, "Key": form.fields["key"]}, form)
        except Exception as error:
            return self._fault(call, entry, error)
        answer = self._work(self._call(exchange, entry), entry, request)
        if answer.status >= 300:
            return answer
        etag = next((value for name, value in answer.headers if name.lower() == "etag"), "")
        return form.answer(etag, f"{call.endpoint_url}{call.path.rstrip('/')}")

    async def _work_async(self, exchange: Exchange, call: Call, entry: Entry, request: Request) -> None:
        try:
            value = self._prepare(call, entry, request)
            result = await entry.handler.function(call, value)
            answer = self._written(call, entry, result)
        except Exception as error:
            answer = self._fault(call, entry, error)
        self._send(exchange, answer)

    def _written(self, call: Call, entry: Entry, result: Mapping[str, Any] | None) -> Answer:
        answer = entry.protocol.write(entry.operation, result, call.request_id)
        if call.response_headers:
            answer.headers = [*answer.headers, *call.response_headers.items()]
            answer.block = None
        if isinstance(answer.body, FileSlice):
            answer.body = opened(answer.body, head=call.method == "HEAD")  # type: ignore[assignment]
        return answer

    def _fault(self, call: Call, entry: Entry, error: Exception) -> Answer:
        if isinstance(error, AwsError):
            known = in_words_of(entry.service.name, error, call.path)
        elif isinstance(error, ConnectionError) and entry.operation.streaming_input is not None:
            known = AwsError("RequestTimeout", f"The request body did not arrive: {error}.")
        else:
            logger.error(
                "%s:%s failed (request %s)", call.service, call.operation, call.request_id, exc_info=error
            )
            known = internal_failure(call.request_id)
        answer = entry.protocol.fault(known, call.request_id)
        if call.response_headers:  # a refusal may carry headers too: 304 names the ETag
            answer.headers = [*answer.headers, *call.response_headers.items()]
            answer.block = None
        return answer

    def _send(self, exchange: Exchange, answer: Answer) -> None:
        if answer.block is not None and isinstance(answer.body, bytes):
            exchange.reply(answer.status, answer.block, answer.body)
        else:
            exchange.send(answer.status, answer.headers, answer.body)

    # Errors before an operation is known

    def _words(self, exchange: Exchange) -> tuple[str, WireProtocol]:
        """Return the service (perhaps "") and the protocol that a request speaks, as far as can be told."""
        headers = exchange.headers
        scope = scope_of(headers, exchange.target)
        service = None
        if scope is not None:
            try:
                service = self._router.signed_as(scope)
            except Exception:
                logger.exception("loading the model of %s failed", scope)
        content_type = headers.get(b"content-type", b"")
        name = None
        if b"x-amz-target" in headers:
            name = "json"
        elif headers.get(b"smithy-protocol") == b"rpc-v2-cbor":
            name = "smithy-rpc-v2-cbor"
        elif content_type.startswith(b"application/x-www-form-urlencoded") or b"Action=" in exchange.target:
            name = "query"
        if service is not None and scope != "sagemaker":
            if name is None or not service.speaks(name):
                name = service.default_protocol()
            if name is not None:
                return service.name, service.protocol(name)
        if scope is None and name is None and b"json" not in content_type:
            return "s3", self._plain("s3")  # an unsigned plain GET is most often meant for S3
        return scope or "", self._plain("query" if name == "query" else "json")

    def _plain(self, kind: str) -> WireProtocol:
        protocol = self._generic.get(kind)
        if protocol is None:
            raw = {
                "metadata": {"protocol": kind, "endpointPrefix": kind, "jsonVersion": "1.1"},
                "operations": {},
                "shapes": {},
            }
            makers: dict[str, Callable[[ServiceModel], WireProtocol]] = {
                "json": JsonProtocol,
                "query": QueryProtocol,
                "s3": S3Protocol,
            }
            protocol = self._generic[kind] = makers[kind](ServiceModel(kind, raw))
        return protocol

    def _fail(self, exchange: Exchange, service: str, protocol: WireProtocol, error: AwsError) -> None:
        path = exchange.target.partition(b"?")[0].decode("latin-1")
        words = "query" if isinstance(protocol, QueryProtocol) else service
        self._send(exchange, protocol.fault(in_words_of(words, error, path), exchange.request_id))

    def _internal(self, exchange: Exchange) -> None:
        logger.exception("a request failed before its operation was known (request %s)", exchange.request_id)
        self.refuse(exchange, internal_failure(exchange.request_id))

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _kind(handler: _Handler | None) -> str:
    if handler is None:
        return "missing"
    return "record-only" if handler.mark.record_only else "real"
