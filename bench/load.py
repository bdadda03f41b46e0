"""Load on an HTTP server: the same request again and again over some connections, from a process of its own.

wrk does it if it is installed, since it takes least from the processors that the server needs; otherwise the
generator below (asyncio, about a third of wrk's speed), so that nothing must be installed.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Load", "measure"]

_WRK_DONE = """
done = function(summary, latency, requests)
  io.write(string.format('JSON {"p50": %d, "p99": %d, "n": %d, "us": %d, "bad": %d}\\n',
    latency:percentile(50), latency:percentile(99), summary.requests, summary.duration,
    summary.errors.status + summary.errors.read + summary.errors.connect + summary.errors.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What one measurement found. Latencies are in seconds; `bad` counts errors and answers other than 2xx."""

    rps: float
    p50_s: float
    p99_s: float
    bad: int


def measure(url: str, headers: Mapping[str, str], body: bytes, *, connections: int, seconds: float) -> Load:
    """Send the request over *connections* kept-open connections for *seconds*, each waiting for its answer.

    Raises:
        RuntimeError: nothing was answered.
    """
    found = _wrk(url, headers, body, connections, seconds) if shutil.which("wrk") else None
    if found is None:
        task = {
            "url": url, "headers": dict(headers), "body": body.decode("latin-1"),
            "connections": connections, "seconds": seconds,
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "bench.load"],
            input=json.dumps(task), capture_output=True, text=True, check=True, timeout=seconds + 60,
            cwd=Path(__file__).resolve().parent.parent,
        )  # fmt: skip
        found = json.loads(done.stdout)
    if not found["n"]:
        raise RuntimeError(f"{url} answered nothing in {seconds} s")
    return Load(found["n"] / (found["us"] / 1e6), found["p50"] / 1e6, found["p99"] / 1e6, found["bad"])


def _wrk(
    url: str, headers: Mapping[str, str], body: bytes, connections: int, seconds: float
) -> dict[str, Any] | None:
    text = body.decode("latin-1")
    if "]==]" in text or not text.isascii():
        return None
    script = f'wrk.method = "POST"\nwrk.body = [==[{text}]==]\n'
    script += "".join(f'wrk.headers["{name}"] = [==[{value}]==]\n' for name, value in headers.items())
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script + _WRK_DONE)
        file.flush()
        done = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "20s",
             "-s", file.name, url],
            capture_output=True, text=True, check=False, timeout=seconds + 60,
        )  # fmt: skip
    match = re.search(r"JSON (.*)", done.stdout)
    if match is None:
        raise RuntimeError(f"wrk on {url}: {done.stderr.strip() or done.stdout.strip()}")
    found: dict[str, Any] = json.loads(match[1])
    return found


class _Client(asyncio.Protocol):
    """One connection of the own generator: request, answer, request, ..."""

    def __init__(self, request: bytes, until: float, latencies: list[int]) -> None:
        import httptools

        self._parser = httptools.HttpResponseParser(self)
        self._request = request
        self._until = until
        self._latencies = latencies
        self._began = 0
        self._transport: Any = None
        self.bad = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._began = time.perf_counter_ns()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        now = time.perf_counter_ns()
        self._latencies.append(now - self._began)
        if not 200 <= self._parser.get_status_code() < 300:
            self.bad += 1
        if now / 1e9 < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None or time.perf_counter() < self._until:
            self.bad += 1
        if not self.done.done():
            self.done.set_result(None)


async def _generate(task: Mapping[str, Any]) -> dict[str, Any]:
    parts = urlsplit(task["url"])
    body = task["body"].encode("latin-1")
    headers = {"Host": parts.netloc, **task["headers"], "Content-Length": str(len(body))}
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"POST {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body
    context = None
    if parts.scheme == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    latencies: list[int] = []
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    clients = [
        (
            await loop.create_connection(
                lambda: _Client(request, began + task["seconds"], latencies),
                parts.hostname,
                parts.port,
                ssl=context,
            )
        )[1]
        for _ in range(task["connections"])
    ]
    await asyncio.wait([client.done for client in clients], timeout=task["seconds"] + 20)
    took = time.perf_counter() - began
    latencies.sort()
    count = len(latencies)
    return {
        "n": count,
        "us": took * 1e6,
        "p50": latencies[count // 2] / 1e3 if count else 0,
        "p99": latencies[count * 99 // 100] / 1e3 if count else 0,
        "bad": sum(client.bad for client in clients),
    }


if __name__ == "__main__":
    import uvloop

    print(json.dumps(uvloop.run(_generate(json.load(sys.stdin)))))
