"""The way into notebooks, on the real HTTP server with something in JupyterLab's place."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sagesmith.aws import Api, HttpRequest, HttpResponse, HttpServer, Tunnel
from sagesmith.notebooks import NotebookGateway, Volumes
from sagesmith.notebooks.addresses import PREFIX
from sagesmith.notebooks.gateway import COOKIE, Switched
from sagesmith.notebooks.sessions import jupyter_token, new_session, new_ticket

BASE = "/_sagesmith/notebooks/us-east-1/one/"
BIG = 3_000_000


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


class Jupyter:
    """Answers with the head of the request; speaks echo when it is asked for a WebSocket."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.ended = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        if "upgrade: websocket" in head:
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
            writer.write(b"Sec-WebSocket-Accept: yes\r\n\r\nhello ")
            while piece := await reader.read(1000):
                if piece == b"bye":
                    break
                writer.write(piece)
                await writer.drain()
        elif "/nonsense " in head:
            writer.write(b"nonsense\r\n\r\n")
        else:
            body = head.encode()
            cookies = (
                f"a=1; Path={BASE}",
                "b=2; Path=/",
                f"{COOKIE}=x; Path={BASE}",
                f"c=3; Path={BASE}; Domain=x",
            )
            lines = "".join(f"Set-Cookie: {cookie}\r\n" for cookie in cookies)
            writer.write(f"HTTP/1.1 200 OK\r\n{lines}Service-Worker-Allowed: /\r\nX-Kept: 1\r\n".encode())
            writer.write(b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        writer.close()
        self.ended.set()


class World:
    """A server with the gateway, and one Jupyter behind the notebook `one`."""

    def __init__(self, clock: Clock) -> None:
        self.gateway = NotebookGateway(clock)
        self.jupyter = Jupyter()
        self.port = 0

    async def route(self, request: HttpRequest) -> HttpResponse | Tunnel:
        found = await self.gateway(request)
        if isinstance(found, Switched):
            return Tunnel(found.headers, *found.answer.ends, found.answer.rest)
        return HttpResponse(found.status, found.headers, found.body, found.cookies)

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, method: str, path: str, *headers: str) -> tuple[int, str, str]:
        reader, writer = await self.open()
        lines = "".join(f"{line}\r\n" for line in ("Host: here", "Connection: close", *headers))
        writer.write(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        head, _, body = answer.partition("\r\n\r\n")
        return int(head.split()[1]), head.lower(), body


@pytest.fixture
async def world(clock: Clock, folder: Path) -> AsyncIterator[World]:
    world = World(clock)
    jupyter = await asyncio.start_unix_server(world.jupyter, str(folder / "one.sock"))
    world.gateway.set("us-east-1", "one", f"unix:{folder / 'one.sock'}", "secret-one")
    world.gateway.set("us-east-1", "two", f"unix:{folder / 'nobody.sock'}", "secret-two")
    api = Api([], keys=lambda key: None, authorize=lambda call, request: None, account_id="1" * 12,
              default_region="us-east-1")  # fmt: skip
    server = HttpServer(api, switching_routes={PREFIX: world.route})
    world.port = await server.start("127.0.0.1", 0)
    yield world
    await server.close()
    jupyter.close()


def session(secret: str = "secret-one", expires: float = 2000.0) -> str:
    return f"Cookie: x=y; {COOKIE}={new_session(secret, expires)}"


async def test_a_ticket_becomes_a_session_once(world: World, clock: Clock) -> None:
    ticket = new_ticket("secret-one", clock(), 1800)
    status, head, _ = await world.ask("GET", f"{BASE}?authToken={ticket}&view=lab")
    assert status == 303
    assert f"location: {BASE}lab\r\n" in head
    cookie = next(line for line in head.split("\r\n") if line.startswith("set-cookie"))
    assert {"httponly", "secure", "samesite=lax", f"path={BASE}", "max-age=1800"} <= {
        part.strip() for part in cookie.split(";")
    }
    assert (await world.ask("GET", f"{BASE}?authToken={ticket}"))[0] == 403
    old = new_ticket("secret-one", clock() - 1, 1800)
    assert (await world.ask("GET", f"{BASE}?authToken={old}"))[0] == 403, (
        "an earlier server may have taken it"
    )
    other = new_ticket("secret-two", clock(), 1800)
    assert (await world.ask("GET", f"{BASE}?authToken={other}"))[0] == 403
    assert not world.jupyter.heads


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Cookie: x=y",
        session("secret-two"),
        session(expires=999.0),
        f"Cookie: {COOKIE}=guess.ed",
        "Cookie: é;=;",
    ],
)
async def test_without_a_session_nothing_goes_on(world: World, header: str) -> None:
    status, _, page = await world.ask("GET", f"{BASE}api/contents", *([header] if header else []))
    assert status == 403
    assert "CreatePresignedNotebookInstanceUrl" in page
    assert not world.jupyter.heads


async def test_what_goes_in_and_what_comes_out(world: World) -> None:
    status, head, body = await world.ask(
        "GET", f"{BASE}lab?a=1", session(), "Authorization: mine", "X-Sagesmith-Notebook: x"
    )
    assert status == 200
    assert f"GET {BASE}lab?a=1 HTTP/1.1" in body
    assert f"x-sagesmith-notebook: {jupyter_token('secret-one')}\r\n" in body
    assert "cookie: x=y\r\n" in body, "the session is taken off"
    assert "authorization" not in body
    assert "x-kept: 1" in head
    assert "service-worker-allowed" not in head
    assert [line for line in head.split("\r\n") if "set-cookie" in line] == [f"set-cookie: a=1; path={BASE}"]


async def test_other_sites_can_change_nothing(world: World) -> None:
    assert (await world.ask("POST", f"{BASE}api/kernels", session(), "Origin: https://evil"))[0] == 403
    assert (await world.ask("POST", f"{BASE}api/kernels", session(), "Origin: https://here"))[0] == 200
    asked = ("Upgrade: websocket", "Connection: Upgrade", "Origin: https://evil")
    assert (await world.ask("GET", f"{BASE}api/events", session(), *asked))[0] == 403
    assert len(world.jupyter.heads) == 1


async def test_troubles_are_said(world: World) -> None:
    assert (await world.ask("GET", f"{BASE}nonsense", session()))[0] == 502
    two = BASE.replace("one", "two")
    assert (await world.ask("GET", two, session("secret-two")))[0] == 502
    assert (await world.ask("GET", BASE.replace("one", "three")))[0] == 403
    assert (await world.ask("GET", PREFIX))[0] == 404
    assert f"location: {BASE}?authtoken=t" in (await world.ask("GET", f"{BASE[:-1]}?authToken=t"))[1]


async def switched(world: World) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await world.open()
    lines = (
        f"Host: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nOrigin: https://here\r\n{session()}\r\n"
    )
    writer.write(f"GET {BASE}api/channels HTTP/1.1\r\n{lines}\r\nearly ".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    assert head.startswith("http/1.1 101 ")
    assert "sec-websocket-accept: yes" in head
    assert await reader.readexactly(12) == b"hello early "
    return reader, writer


async def test_a_web_socket_is_piped_both_ways_until_either_end_leaves(world: World) -> None:
    reader, writer = await switched(world)
    writer.write(b"bye")
    assert await reader.read() == b""
    writer.close()
    world.jupyter.ended.clear()
    reader, writer = await switched(world)
    writer.close()
    await asyncio.wait_for(world.jupyter.ended.wait(), 5)


async def test_much_goes_through_without_being_kept(world: World) -> None:
    reader, writer = await switched(world)

    async def send() -> None:
        for _ in range(BIG // 1000):
            writer.write(b"x" * 1000)
            await writer.drain()

    sending = asyncio.create_task(send())
    for _ in range(BIG // 1000):
        assert await asyncio.wait_for(reader.readexactly(1000), 10) == b"x" * 1000
    await sending
    writer.close()


def test_a_volume_is_made_once_with_examples_and_removed(folder: Path) -> None:
    volumes = Volumes(folder / "notebooks")
    volume = volumes.ensure("nb-1")
    (volume / "mine.txt").touch()
    assert volumes.ensure("nb-1") == volume
    assert (volume / "mine.txt").exists()
    before = volumes.held_bytes("nb-1")
    (volume / "data").mkdir()
    (volume / "data" / "large").write_bytes(b"x" * 1_000_000)
    (volume / "data" / "again").hardlink_to(volume / "data" / "large")
    (volume / "data" / "around").symlink_to(volume)
    assert 1_000_000 <= volumes.held_bytes("nb-1") - before < 1_100_000
    assert volumes.held_bytes("none") == 0
    volumes.remove("nb-1")
    volumes.remove("nb-1")
    assert not list((folder / "notebooks").iterdir())
