"""A load generator: connections that invoke an endpoint one request after another, and note every answer.

The request is signed once, and its bytes are sent again and again, so that fifty connections cost little more than
what the server does. Runs on an event loop of its own thread, within a `with`.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections import Counter
from types import TracebackType

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from tests.e2e.served import Served

__all__ = ["Load"]


class Load:
    """*connections* connections that send *body* as CSV every *pause_s* seconds each, or as soon as answered.

    `statuses` counts the answers by HTTP status, `bodies` those with 200 by their text, `failures` holds the other
    answers' texts. A connection that the server closes is opened again; a request lost with it counts as status 0.
    """

    def __init__(
        self, served: Served, endpoint: str, body: bytes, *, connections: int = 50, pause_s: float = 0.05
    ) -> None:
        self._served = served
        self._port = served.port
        self._request = _signed(served, endpoint, body)
        self._connections = connections
        self._pause_s = pause_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.statuses: Counter[int] = Counter()
        self.bodies: Counter[str] = Counter()
        self.failures: list[str] = []
        self._since = 0.0

    def __enter__(self) -> Load:
        self._thread.start()
        self.answers(self._connections)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(60)

    def answers(self, count: int, *, timeout_s: float = 60.0) -> None:
        """Wait for *count* more answers."""
        goal, deadline = self.statuses.total() + count, time.monotonic() + timeout_s
        while self.statuses.total() < goal:
            assert time.monotonic() < deadline, f"the load stands still: {self.statuses} {self.failures[:3]}"
            time.sleep(0.01)

    def forget_bodies(self) -> None:
        """Count from now on only bodies of answers to requests that are still to be sent."""
        self._since = time.monotonic()
        self.bodies.clear()

    async def _run(self) -> None:
        context = ssl.create_default_context(cafile=self._served.ca_file)
        async with asyncio.TaskGroup() as group:
            for _ in range(self._connections):
                group.create_task(self._connection(context))
        await asyncio.sleep(0.01)  # the connections' transports end in the turns after

    async def _connection(self, context: ssl.SSLContext) -> None:
        writer: asyncio.StreamWriter | None = None
        while not self._ended.is_set():
            sent = 0.0
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=context)
                sent = time.monotonic()
                writer.write(self._request)
                status, text = await _answer(reader)
            except (OSError, EOFError):
                status, text, writer = 0, "the connection was lost", None
            self.statuses[status] += 1
            if status == 200:
                if sent >= self._since:
                    self.bodies[text] += 1
            else:
                self.failures.append(text)
            await asyncio.sleep(self._pause_s)
        if writer is not None:
            writer.transport.abort()  # a farewell by TLS would take longer than the loop is there


async def _answer(reader: asyncio.StreamReader) -> tuple[int, str]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status, size = int(head.split(" ", 2)[1]), 0
    for line in head.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            size = int(value)
    return status, (await reader.readexactly(size)).decode("utf-8", "replace")


def _signed(served: Served, endpoint: str, body: bytes) -> bytes:
    request = AWSRequest(
        "POST",
        f"{served.url}/endpoints/{endpoint}/invocations",
        data=body,
        headers={"Content-Type": "text/csv"},
    )
    credentials = served.session().get_credentials()
    SigV4Auth(credentials, "sagemaker", "us-east-1").add_auth(request)
    lines = [f"POST /endpoints/{endpoint}/invocations HTTP/1.1", f"Host: 127.0.0.1:{served.port}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items() if name.lower() != "host"]
    lines += [f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body
