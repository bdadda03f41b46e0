"""`sagesmith run`: AWS's hosts lead to the server, the others to where they are, and the command notices nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sagesmith.authority import Authority
from sagesmith.cli._environment import environment, export_lines, no_proxy, run, unset
from sagesmith.cli._process import NotRunning
from sagesmith.cli._proxy import ConnectProxy, Upstream
from sagesmith.config import Home
from sagesmith.locks import hold_lock

IDENTITY = (
    b'<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
    b"<Arn>arn:aws:iam::123456789012:user/ada</Arn><UserId>AIDA</UserId><Account>123456789012</Account>"
    b"</GetCallerIdentityResult></GetCallerIdentityResponse>"
)


class Recorder(BaseHTTPRequestHandler):
    """A stand-in for the server: answers everybody with an identity and notes who asked."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, dict(self.headers)))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(IDENTITY)))
        self.end_headers()
        self.wfile.write(IDENTITY)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    Authority(home).prepare()
    return home


@pytest.fixture
def seen(home: Home) -> Iterator[list[tuple[str, dict[str, str]]]]:
    """Start the stand-in as the running server of *home*; what it has seen comes in here."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    server.seen = []  # type: ignore[attr-defined]
    server.socket = Authority(home).server_context().wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    home.runtime.mkdir(parents=True, exist_ok=True)
    state = {
        "url": f"https://127.0.0.1:{server.server_port}",
        "http_url": "",
        "pid": os.getpid(),
        "region": "eu-west-1",
        "account_id": "123456789012",
        "started": 0.0,
        "token": "",
    }
    home.server_file.write_text(json.dumps(state))
    home.credentials.write_text(json.dumps({"AccessKeyId": "AKIAX", "SecretAccessKey": "it's secret"}))
    with hold_lock(home):
        yield server.seen  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()
    thread.join()


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.mark.usefixtures("seen")
def test_the_environment_says_everything(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = environment(home)
    assert variables["AWS_ENDPOINT_URL"].startswith("https://127.0.0.1:")
    assert variables["AWS_DEFAULT_REGION"] == variables["AWS_REGION"] == "eu-west-1"
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"):
        assert Path(variables[name]).is_file()
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://elsewhere")
    script = export_lines(variables) + '\necho "$AWS_SECRET_ACCESS_KEY|$AWS_PROFILE|$AWS_ENDPOINT_URL_S3"'
    shell = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    assert shell.stdout == "it's secret||\n"
    assert unset({"AWS_ENDPOINT_URL": "x", "AWS_SESSION_TOKEN": "y"}) == ["AWS_SESSION_TOKEN"]


def test_without_a_server_there_is_one_sentence(home: Home) -> None:
    with pytest.raises(NotRunning, match="Start one with `sagesmith up`"):
        environment(home)


def test_what_goes_around_the_proxy_is_added_to_what_did() -> None:
    assert no_proxy({"NO_PROXY": "intern.example, localhost"}, "10.0.0.1") == (
        "intern.example,localhost,127.0.0.1,::1,10.0.0.1"
    )


def test_a_hard_coded_aws_host_lands_here(
    home: Home, seen: list[tuple[str, dict[str, str]]], tmp_path: Path
) -> None:
    answer = tmp_path / "answer"
    code = (
        "import botocore.session\n"
        "session = botocore.session.get_session()\n"
        "sts = session.create_client('sts', endpoint_url='https://sts.eu-west-1.amazonaws.com')\n"
        f"open({str(answer)!r}, 'w').write(sts.get_caller_identity()['Arn'])\n"
    )
    assert run(home, python(code)) == 0
    assert answer.read_text() == "arn:aws:iam::123456789012:user/ada"
    (path, headers), *_ = seen
    assert path == "/"
    assert headers["Host"] == "sts.eu-west-1.amazonaws.com"
    assert "AKIAX/" in headers["Authorization"]
    assert "/eu-west-1/sts/" in headers["Authorization"]


@pytest.mark.usefixtures("seen")
def test_the_exit_code_is_the_commands(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(home, python("import sys; print('out'); sys.exit(7)")) == 7
    assert capfd.readouterr().out == "out\n"
    assert run(home, python("import os; os.kill(os.getpid(), 9)")) == 137
    assert run(home, ["/no/such/command"]) == 127
    assert "cannot run /no/such/command" in capfd.readouterr().err
    assert run(home, [str(home.credentials)]) == 126


@pytest.mark.usefixtures("seen")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_command(home: Home, tmp_path: Path, number: signal.Signals) -> None:
    ready = tmp_path / "ready"
    code = (
        "import signal, sys, time, pathlib\n"
        "def end(number, frame): sys.exit(40 + number)\n"
        f"signal.signal({int(number)}, end)\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "time.sleep(30)\n"
    )
    runner = (
        "import sys; from pathlib import Path; from sagesmith.config import Home;"
        "from sagesmith.cli._environment import run;"
        f"sys.exit(run(Home(Path({str(home.path)!r})), sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", runner, *python(code)], stdin=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 20
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(20) == 40 + number


# The proxy by itself

Tunnel = Callable[[str, int], Any]


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """Somebody else's server: sends back in capitals what it gets."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(1000):
            writer.write(piece.upper())
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def open_tunnel(url: str, target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    return reader, writer, await reader.readuntil(b"\r\n\r\n")


async def test_other_hosts_are_reached_untouched(home: Home, echo: int) -> None:
    proxy = ConnectProxy(Authority(home), ("127.0.0.1", 1), Upstream())
    reader, writer, answer = await open_tunnel(await proxy.start(), f"127.0.0.1:{echo}")
    assert answer.startswith(b"HTTP/1.1 200")
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"HELLO"
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    await proxy.close()


async def test_the_proxy_that_was_set_before_is_honoured(home: Home, echo: int) -> None:
    asked: list[bytes] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.write((await reader.read(1000)).swapcase())
        await writer.drain()
        writer.close()

    before = await asyncio.start_server(relay, "127.0.0.1", 0)
    port = before.sockets[0].getsockname()[1]
    upstream = Upstream.from_environ(
        {"https_proxy": f"http://me:pass%40word@127.0.0.1:{port}", "NO_PROXY": "127.0.0.1,.intern"}
    )
    proxy = ConnectProxy(Authority(home), ("127.0.0.1", 1), upstream)
    url = await proxy.start()
    reader, writer, _ = await open_tunnel(url, "pypi.example:443")
    writer.write(b"Hello")
    assert await reader.read() == b"hELLO"
    assert asked[0].startswith(b"CONNECT pypi.example:443 HTTP/1.1")
    assert b"Proxy-Authorization: Basic bWU6cGFzc0B3b3Jk\r\n" in asked[0]
    writer.close()
    assert not upstream.serves("a.intern")
    reader, writer, _ = await open_tunnel(url, f"127.0.0.1:{echo}")
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"HELLO"
    writer.close()
    await proxy.close()
    before.close()


async def test_what_cannot_be_reached_is_said(home: Home) -> None:
    proxy = ConnectProxy(Authority(home), ("127.0.0.1", 1), Upstream())
    url = await proxy.start()
    reader, writer, answer = await open_tunnel(url, "127.0.0.1:1")
    assert answer.startswith(b"HTTP/1.1 502")
    writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(b"GET http://example.org/ HTTP/1.1\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 501")
    writer.close()
    await proxy.close()


async def test_telemetry_gets_a_quick_answer(home: Home) -> None:
    authority = Authority(home)
    proxy = ConnectProxy(authority, ("127.0.0.1", 1), Upstream())
    host = "sm-pysdk-t-us-east-1.s3.us-east-1.amazonaws.com"
    reader, writer, _ = await open_tunnel(await proxy.start(), f"{host}:443")
    await writer.start_tls(authority.client_context(), server_hostname=host)
    writer.write(f"GET /telemetry?x=1 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert (await reader.read()).startswith(b"HTTP/1.1 404 Not Found\r\n")
    writer.close()
    await proxy.close()


@pytest.mark.parametrize("host", ["amazonaws.com.example.org", "notamazonaws.com"])
async def test_hosts_that_only_look_like_awss_are_not_ours(home: Home, host: str) -> None:
    proxy = ConnectProxy(Authority(home), ("127.0.0.1", 1), Upstream("http://127.0.0.1:1"))
    _, writer, answer = await open_tunnel(await proxy.start(), f"{host}:443")
    assert answer.startswith(b"HTTP/1.1 502")
    writer.close()
    await proxy.close()


async def test_a_server_that_went_away_is_said(home: Home) -> None:
    authority = Authority(home)
    proxy = ConnectProxy(authority, ("127.0.0.1", 1), Upstream())
    host = "api.sagemaker.us-east-1.amazonaws.com"
    reader, writer, _ = await open_tunnel(await proxy.start(), f"{host}:443")
    context: ssl.SSLContext = authority.client_context()
    await writer.start_tls(context, server_hostname=host)
    assert (await reader.read()).startswith(b"HTTP/1.1 503")
    writer.close()
    await proxy.close()
