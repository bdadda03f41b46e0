"""The HTTP server on raw sockets: order, limits, bodies that stream, clients that misbehave."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sagesmith.aws import Call, Exchange, FileSlice, HttpRequest, HttpResponse, Limits, operation
from sagesmith.errors import AwsError
from sagesmith.signing import EMPTY_SHA256, UNSIGNED_PAYLOAD, Credentials, presign, sign

from .conftest import KEY, Running

Serve = Callable[..., Running]
CREDENTIALS = Credentials(KEY.access_key_id, KEY.secret_access_key)


class Objects:
    service = "s3"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.got = b""
        self.failure: BaseException | None = None
        self.ended = threading.Event()
        self.hold = threading.Event()
        self.hold.set()

    @operation("PutObject")
    def put(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            if request["Key"] == "refused":
                raise AwsError("InvalidArgument", "Not this one.")
            self.hold.wait(10)
            self.got = request["Body"].read()
        except BaseException as error:
            self.failure = error
            raise
        finally:
            self.ended.set()
        return {}

    @operation("GetObject")
    def get(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        if request["Key"] == "pieces":
            return {"Body": iter([b"one", b"", b"two" * 100_000, b"end"])}
        if request["Key"] == "breaks":
            return {"Body": self.breaking()}
        return {"Body": FileSlice(str(self.folder / request["Key"]), 10, 5_000_000)}

    def breaking(self) -> Iterator[bytes]:
        yield b"first"
        raise OSError("the disk is gone")

    @operation("ListBuckets", inline=True)
    def buckets(self, call: Call, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"Buckets": []}


class Route:
    def __init__(self) -> None:
        self.seen: list[Exchange] = []

    def matches(self, method: bytes, target: bytes) -> bool:
        return method == b"POST" and target.startswith(b"/endpoints/")

    def handle(self, exchange: Exchange) -> None:
        self.seen.append(exchange)
        if exchange.target.endswith(b"/fail"):
            raise AwsError("ModelError", "It broke.", status=424, members={"OriginalStatusCode": 500})
        if exchange.target.endswith(b"/bug"):
            raise KeyError("x")
        asyncio.get_running_loop().call_later(
            0.01, exchange.reply, 200, b"content-type: text/csv\r\n", exchange.body[:10]
        )


def head(method: str, path: str, port: int, body: bytes = b"", service: str = "s3", **headers: str) -> bytes:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    digest = given.pop("digest", hashlib.sha256(body).hexdigest())
    signed = sign(
        method,
        f"http://127.0.0.1:{port}{path}",
        given,
        digest,
        CREDENTIALS,
        "us-east-1",
        service,
        time.time(),
    )
    lines = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}".encode()


def request(
    method: str, path: str, port: int, body: bytes = b"", service: str = "s3", **headers: str
) -> bytes:
    start = head(method, path, port, body, service, **headers)
    return start + b"content-length: %d\r\n\r\n%b" % (len(body), body)


def talk(port: int, data: bytes, *, until_close: bool = True) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(data)
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
            if not until_close:
                break
        return b"".join(parts)


def answers(connection: socket.socket, count: int) -> list[http.client.HTTPResponse]:
    found = []
    for _ in range(count):
        response = http.client.HTTPResponse(connection)
        response.begin()
        response.read()
        found.append(response)
    return found


async def echo(asked: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0)
    if asked.query == "bug":
        raise ValueError("secret")
    if asked.query == "stream":
        return HttpResponse(200, {"content-type": "text/plain"}, counting())
    text = f"{asked.method} {asked.path} {asked.query} {asked.headers['x-test']} {len(asked.body)}"
    return HttpResponse(201, {"x-one": "two\r\nx-forged: 1"}, text.encode())


async def counting() -> AsyncIterator[bytes]:
    for number in range(3):
        await asyncio.sleep(0)
        yield b"%d" % number


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(tmp_path)


@pytest.fixture
def route() -> Route:
    return Route()


@pytest.fixture
def running(serve: Serve, objects: Objects, route: Route) -> Running:
    return serve(
        objects,
        raw_routes={"/_sagesmith/": echo},
        fast_routes=[route],
        limits=Limits(head_s=1.0, body_s=1.0, idle_s=1.5, write_s=2.0, linger_s=0.5),
    )


def test_health_and_raw_routes(running: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    connection.request("GET", "/_sagesmith/health")
    assert connection.getresponse().read() == b"ok"
    connection.request("POST", "/_sagesmith/a%20b?q=1", b"12345", {"X-Test": "yes"})
    response = connection.getresponse()
    assert (response.status, response.read()) == (201, b"POST /_sagesmith/a%20b q=1 yes 5")
    assert response.headers["x-one"].split() == ["two", "x-forged:", "1"]
    assert "x-forged" not in response.headers
    connection.request("GET", "/_sagesmith/?stream")
    assert connection.getresponse().read() == b"012"
    connection.request("POST", "/_sagesmith/?bug", iter([b"chun", b"ked"]), {"X-Test": "yes"})
    response = connection.getresponse()
    assert response.status == 500
    assert b"secret" not in response.read()
    connection.close()


def test_unsigned_requests_are_refused_in_the_protocols_words(running: Running) -> None:
    answer = talk(running.port, b"GET /b/k HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert b" 403 " in answer
    assert b"<Code>AccessDenied</Code>" in answer
    answer = talk(
        running.port, b"GET /b/k HTTP/1.1\r\nHost: h\r\nX-Amz-Target: A.B\r\nConnection: close\r\n\r\n"
    )
    assert b'"__type":"MissingAuthenticationTokenException"' in answer
    body = b"Action=GetCallerIdentity"
    answer = talk(
        running.port,
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body),
    )
    assert b"<Code>MissingAuthenticationToken</Code>" in answer


def test_pipelined_requests_are_answered_in_order(running: Running, route: Route) -> None:
    data = b"".join(
        request("POST", f"/endpoints/e{n}/invocations", running.port, b"body %d" % n, "sagemaker")
        for n in range(30)
    )
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as connection:
        connection.sendall(data)
        file = connection.makefile("rb")
        bodies = []
        for _ in range(30):
            length = 0
            while (line := file.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            bodies.append(file.read(length))
    assert bodies == [b"body %d" % n for n in range(30)]
    assert {exchange.caller.user_id for exchange in route.seen} == {"AIDAEXAMPLE"}
    assert len({exchange.request_id for exchange in route.seen}) == 30


def test_fast_routes(running: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)

    def post(path: str, body: bytes, digest: str) -> tuple[int, bytes, http.client.HTTPMessage]:
        url = f"http://127.0.0.1:{running.port}{path}"
        headers = sign("POST", url, {}, digest, CREDENTIALS, "us-east-1", "sagemaker", time.time())
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        return response.status, response.read(), response.headers

    big = b"x" * 3_000_000
    assert post("/endpoints/e", big, hashlib.sha256(big).hexdigest())[:2] == (200, b"x" * 10)
    assert post("/endpoints/e", big, hashlib.sha256(big[1:]).hexdigest())[0] == 403
    status, body, headers = post("/endpoints/e/fail", b"", EMPTY_SHA256)
    assert (status, headers["x-amzn-ErrorType"]) == (424, "ModelError")
    assert b'"OriginalStatusCode": 500' in body
    status, body, headers = post("/endpoints/e/bug", b"", EMPTY_SHA256)
    assert (status, headers["x-amzn-ErrorType"]) == (500, "InternalFailure")
    assert headers["x-amzn-RequestId"].encode() in body
    connection.close()


def test_large_and_chunked_answers(running: Running, tmp_path: Path) -> None:
    data = bytes(range(256)) * 20_000
    (tmp_path / "file").write_bytes(data)
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    for key, expected in (("file", data[10:5_000_010]), ("pieces", b"one" + b"two" * 100_000 + b"end")):
        url = f"http://127.0.0.1:{running.port}/bucket/{key}"
        headers = sign("GET", url, {}, EMPTY_SHA256, CREDENTIALS, "us-east-1", "s3", time.time())
        connection.request("GET", f"/bucket/{key}", headers=headers)
        response = connection.getresponse()
        assert response.read() == expected
    headers = sign(
        "GET", url.replace("pieces", "breaks"), {}, EMPTY_SHA256, CREDENTIALS, "us-east-1", "s3", time.time()
    )
    connection.request("GET", "/bucket/breaks", headers=headers)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        connection.getresponse().read()
    connection.close()


def test_a_client_that_reads_nothing_is_given_up(running: Running, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(6_000_000))
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(request("GET", "/bucket/file", running.port))
        deadline = time.monotonic() + 10
        while running.server.connections and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not running.server.connections


def test_expect_continue(running: Running, objects: Objects) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as connection:
        start = head("PUT", "/bucket/key", running.port, b"hello", expect="100-continue")
        connection.sendall(start + b"content-length: 5\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hello")
        assert answers(connection, 1)[0].status == 200
    assert objects.got == b"hello"
    # An upload that is not allowed is refused before its body.
    start = head("PUT", "/bucket/key", running.port, expect="100-continue").replace(
        b"Signature=", b"Signature=0"
    )
    answer = talk(running.port, start + b"content-length: 5\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403 ")


def test_a_refused_upload_is_answered_and_the_connection_closed(running: Running) -> None:
    start = head("PUT", "/bucket/refused", running.port, digest=UNSIGNED_PAYLOAD)
    answer = talk(running.port, start + b"content-length: 300000\r\n\r\n" + bytes(100))
    assert b"<Code>InvalidArgument</Code>" in answer
    assert b"connection: close" in answer


def send_until_blocked(connection: socket.socket, size: int) -> int:
    sent = 0
    try:
        while sent < size:
            sent += connection.send(bytes(min(100_000, size - sent)))
    except TimeoutError:
        pass
    return sent


def test_a_slow_handler_stops_the_client(running: Running, objects: Objects) -> None:
    objects.hold.clear()
    size = 80_000_000
    start = head("PUT", "/bucket/key", running.port, digest=UNSIGNED_PAYLOAD)
    with socket.create_connection(("127.0.0.1", running.port), timeout=0.7) as connection:
        connection.sendall(start + b"content-length: %d\r\n\r\n" % size)
        sent = send_until_blocked(connection, size)
        assert sent < 20_000_000
        objects.hold.set()
        connection.settimeout(20)
        connection.sendall(bytes(size - sent))
        assert answers(connection, 1)[0].status == 200
    assert len(objects.got) == size


def test_a_client_that_leaves_ends_the_reading(running: Running, objects: Objects) -> None:
    start = head("PUT", "/bucket/key", running.port, digest=UNSIGNED_PAYLOAD)
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as connection:
        connection.sendall(start + b"content-length: 1000\r\n\r\n" + bytes(10))
    assert objects.ended.wait(10)
    assert isinstance(objects.failure, ConnectionError)


def test_what_is_too_large(running: Running) -> None:
    answer = talk(running.port, b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 414 ")
    answer = talk(running.port, b"GET / HTTP/1.1\r\nHost: h\r\nX-A: " + b"a" * 70_000 + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")
    start = b"POST / HTTP/1.1\r\nHost: h\r\nX-Amz-Target: SageMaker.ListModels\r\n"
    answer = talk(running.port, start + b"Content-Length: 99999999\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"RequestEntityTooLargeException" in answer
    chunk = b"100000\r\n" + bytes(0x100000) + b"\r\n"
    answer = talk(running.port, start + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 7)
    assert answer.startswith(b"HTTP/1.1 413 ")
    answer = talk(running.port, head("PUT", "/b/k", running.port) + b"Content-Length: 99999999999\r\n\r\n")
    assert b"<Code>EntityTooLarge</Code>" in answer


@pytest.mark.parametrize(
    "data",
    [
        b"\0\1\2\3\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon here\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: abc\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n",
    ],
)
def test_malformed_http(running: Running, data: bytes) -> None:
    answer = talk(running.port, data)
    assert answer.startswith(b"HTTP/1.1 400 "), answer[:100]


def test_an_upgrade_is_not_taken(running: Running) -> None:
    data = b"GET /_sagesmith/health HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    assert talk(running.port, data).startswith(b"HTTP/1.1 200 ")


def test_slow_clients_are_timed_out(running: Running) -> None:
    started = time.monotonic()
    assert talk(running.port, b"") == b""
    assert talk(running.port, b"GET / HT").startswith(b"HTTP/1.1 408 ")
    half = b"POST / HTTP/1.1\r\nHost: h\r\nX-Amz-Target: A.B\r\nContent-Length: 10\r\n\r\nabc"
    assert talk(running.port, half).startswith(b"HTTP/1.1 408 ")
    idle = talk(running.port, b"GET /_sagesmith/health HTTP/1.1\r\nHost: h\r\n\r\n")
    assert idle.endswith(b"ok")
    assert time.monotonic() - started < 12


def test_a_body_that_stops_is_given_up(running: Running, objects: Objects) -> None:
    start = head("PUT", "/bucket/key", running.port, digest=UNSIGNED_PAYLOAD)
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as connection:
        connection.sendall(start + b"content-length: 10\r\n\r\nhello")
        assert objects.ended.wait(5)
    assert isinstance(objects.failure, ConnectionError)


def test_a_body_that_its_handler_lets_wait_is_not_given_up(running: Running, objects: Objects) -> None:
    objects.hold.clear()
    body = b"x" * 40_000_000
    data = head("PUT", "/bucket/key", running.port, digest=UNSIGNED_PAYLOAD)
    threading.Timer(2.2, objects.hold.set).start()
    answer = talk(running.port, data + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert objects.got == body


def test_heads_and_old_clients(running: Running) -> None:
    answer = talk(running.port, b"HEAD /_sagesmith/health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert answer.endswith(b"content-length: 2\r\n\r\n")
    answer = talk(running.port, b"GET /_sagesmith/health HTTP/1.0\r\n\r\n")
    assert answer.endswith(b"ok")
    assert b"connection: close" in answer
    answer = talk(running.port, b"HEAD /b/k HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert answer.endswith(b"\r\n\r\n")


def test_virtual_hosts_and_presigned_addresses(running: Running, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(bytes(10) + b"abc" * 2_000_000)
    for host, path in (
        ("bucket.s3.amazonaws.com", "/key"),
        ("bucket.s3.us-east-1.amazonaws.com", "/key"),
        ("bucket.localhost", "/key"),
        ("bucket.127.0.0.1.nip.io", "/key"),
        ("localhost", "/bucket/key"),
        ("s3.us-east-1.amazonaws.com", "/bucket/key"),
    ):
        url = presign(
            "GET", f"http://{host}:{running.port}{path}", CREDENTIALS, "us-east-1", "s3", time.time(), 60
        )
        target = url.partition(str(running.port))[2]
        data = f"GET {target} HTTP/1.1\r\nHost: {host}:{running.port}\r\nConnection: close\r\n\r\n"
        answer = talk(running.port, data.encode())
        assert answer.startswith(b"HTTP/1.1 200 "), (host, answer[:300])
        assert len(answer.partition(b"\r\n\r\n")[2]) == 5_000_000


def test_closing_lets_running_requests_end(running: Running, objects: Objects) -> None:
    objects.hold.clear()
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as busy:
        busy.sendall(request("PUT", "/bucket/key", running.port, b"hello"))
        with socket.create_connection(("127.0.0.1", running.port), timeout=10) as idle:
            deadline = time.monotonic() + 5
            while len(running.server.connections) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            closing = asyncio.run_coroutine_threadsafe(running.server.close(5.0), running.loop)
            assert idle.recv(10) == b""
        objects.hold.set()
        response = answers(busy, 1)[0]
        assert (response.status, response.headers["connection"]) == (200, "close")
        closing.result(10)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", running.port), timeout=1)


def test_tls(running: Running, tmp_path: Path) -> None:
    certificate = a_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    port = running.run(running.server.start("127.0.0.1", 0, context))
    trusting = ssl.create_default_context(cafile=str(certificate))
    connection = http.client.HTTPSConnection("localhost", port, timeout=10, context=trusting)
    connection.request("GET", "/_sagesmith/health")
    assert connection.getresponse().read() == b"ok"
    connection.close()
    client = running.client("s3", endpoint_url=f"https://localhost:{port}")
    client._endpoint.http_session._verify = str(certificate)
    assert client.list_buckets()["Buckets"] == []
    # The client keeps its connection, and need not say goodbye.
    assert running.server.connections
    running.run(asyncio.wait_for(running.server.close(60.0), 10.0))


def a_certificate(folder: Path) -> Path:
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
