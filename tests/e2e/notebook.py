"""A browser's part of a notebook instance, by hand: cookies, REST calls, and a kernel over a WebSocket."""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import uuid
from typing import Any
from urllib.parse import urlsplit

from tests.e2e.served import Served, wait_until

__all__ = ["Lab", "WebSocket", "wait_for"]


def wait_for(sagemaker: Any, name: str, status: str, timeout_s: float = 300.0) -> dict[str, Any]:
    """Wait until the notebook has *status*, and return what Describe says then; fail if it becomes Failed instead."""

    def there() -> dict[str, Any] | None:
        found: dict[str, Any] = sagemaker.describe_notebook_instance(NotebookInstanceName=name)
        now = found["NotebookInstanceStatus"]
        assert now in (status, "Pending", "Stopping"), found
        return found if now == status else None

    found: dict[str, Any] = wait_until(there, timeout_s=timeout_s, what=f"{name} is {status}")
    return found


class Lab:
    """A visitor of the notebook that *url* leads to; it keeps cookies as a browser does."""

    def __init__(self, served: Served, url: str) -> None:
        self._context = ssl.create_default_context(cafile=served.ca_file)
        self.port = served.port
        self.cookies: dict[str, str] = {}
        parts = urlsplit(url)
        self.base = parts.path
        self._entry = f"{parts.path}?{parts.query}"

    def enter(self) -> tuple[int, dict[str, str]]:
        """Open the presigned URL; return status and headers."""
        status, headers, _ = self.ask("GET", self._entry)
        return status, headers

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request for *path* (below the notebook's unless it begins with a slash)."""
        target = path if path.startswith("/") else self.base + path
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self._context, timeout=60)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, target, text, {**self._cookie_header(), **(headers or {})})
            answer = connection.getresponse()
            for name, value in answer.getheaders():
                if name.lower() == "set-cookie":
                    key, _, rest = value.partition("=")
                    self.cookies[key] = rest.partition(";")[0]
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Call JupyterLab's REST API, and return what it answers as JSON."""
        status, _, content = self.ask(method, f"api/{path}", body)
        assert 200 <= status < 300, (status, content)
        return json.loads(content) if content else None

    def socket(self, path: str, headers: dict[str, str] | None = None) -> WebSocket:
        """Open a WebSocket to *path*."""
        return WebSocket(self, path, headers or {}, self._context)

    def run(self, code: str) -> str:
        """Execute *code* in a new kernel, and return what it prints; fail if it raises."""
        kernel = self.api("POST", "kernels", {"name": "python3"})["id"]
        with self.socket(f"api/kernels/{kernel}/channels") as socket:
            header = {
                "msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "session": uuid.uuid4().hex, "username": "",
                "version": "5.3", "date": "2026-01-01T00:00:00Z",
            }  # fmt: skip
            content = {
                "code": code,
                "silent": False,
                "store_history": False,
                "user_expressions": {},
                "allow_stdin": False,
            }
            request = {
                "header": header,
                "parent_header": {},
                "metadata": {},
                "content": content,
                "channel": "shell",
            }
            socket.send(json.dumps({**request, "buffers": []}))
            printed = ""
            while True:
                message = json.loads(socket.receive())
                if message["parent_header"].get("msg_id") != header["msg_id"]:
                    continue
                if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
                    printed += message["content"]["text"]
                if message["msg_type"] == "execute_reply":
                    assert message["content"]["status"] == "ok", message["content"]
                if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                    break
        self.api("DELETE", f"kernels/{kernel}")
        return printed

    def _cookie_header(self) -> dict[str, str]:
        text = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return {"cookie": text} if text else {}


class WebSocket:
    """As much of RFC 6455 as a test needs: text frames, masked as a client's must be."""

    def __init__(self, lab: Lab, path: str, headers: dict[str, str], context: ssl.SSLContext) -> None:
        self.connection = http.client.HTTPSConnection("127.0.0.1", lab.port, context=context, timeout=120)
        key = base64.b64encode(os.urandom(16)).decode()
        wanted = {
            "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key,
            "Origin": f"https://127.0.0.1:{lab.port}", **lab._cookie_header(), **headers,
        }  # fmt: skip
        self.connection.connect()
        self._socket = self.connection.sock
        lines = "".join(f"{name}: {value}\r\n" for name, value in wanted.items())
        target = path if path.startswith("/") else lab.base + path
        self._socket.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{lab.port}\r\n{lines}\r\n".encode())
        self._file = self._socket.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        self.headers = {}
        while (line := self._file.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            self.headers[name.lower()] = value.strip()

    def __enter__(self) -> WebSocket:
        assert self.status == 101, self.status
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, text: str) -> None:
        """Send one text message."""
        self._send(1, text.encode())

    def _send(self, opcode: int, data: bytes) -> None:
        mask, size = os.urandom(4), len(data)
        length = bytes([0x80 | size]) if size < 126 else bytes([0xFE]) + size.to_bytes(2, "big")
        if size > 0xFFFF:
            length = bytes([0xFF]) + size.to_bytes(8, "big")
        stream = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        masked = (int.from_bytes(data, "big") ^ stream).to_bytes(size, "big")
        self._socket.sendall(bytes([0x80 | opcode]) + length + mask + masked)

    def receive(self) -> str:
        """Return the next text message."""
        text = b""
        while True:
            first, second = self._file.read(2)
            size = second & 0x7F
            if size >= 126:
                size = int.from_bytes(self._file.read(2 if size == 126 else 8), "big")
            data = self._file.read(size)
            if first & 0x0F in (0, 1, 2):
                text += data
                if first & 0x80:
                    return text.decode()
            elif first & 0x0F == 9:
                self._send(10, data)  # who does not answer a ping is taken for gone
            assert first & 0x0F != 8, "the other side closed the WebSocket"

    def close(self) -> None:
        """Leave."""
        self._file.close()
        self.connection.close()
