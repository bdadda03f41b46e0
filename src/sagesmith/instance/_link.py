"""The agent's line to the control plane: messages go out in order, commands come in, and the server may be away.

Messages are first written to the journal and then sent until acknowledged. Commands are numbered by the
fleet and asked for by long poll. When the server cannot be reached, its `server_file` is read again, since
it may have come back at another port, and the attempt is repeated, at first quickly.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Final

from sagesmith.instance._http import Connection, ConnectionLost
from sagesmith.instance.journal import Journal
from sagesmith.instance.spec import Command, InstanceSpec, Message, command_from_json

__all__ = ["Link"]

_POLL_S: Final = 25.0
_TIMEOUT_S: Final = 60.0
_BACKOFF_S: Final = (0.05, 2.0)


class Link:
    """Sends messages and receives commands for one agent; :meth:`open` and :meth:`close` on its loop."""

    def __init__(self, spec: InstanceSpec, journal: Path) -> None:
        self._spec = spec
        self._journal = Journal(journal)
        self._path = f"/_sagesmith/instances/{spec.instance_id}"
        self._more = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._tasks: list[asyncio.Task[None]] = []
        self.commands: asyncio.Queue[Command] = asyncio.Queue()
        self.last_contact = time.monotonic()

    def open(self) -> None:
        """Start to send and to listen."""
        self._tasks = [asyncio.create_task(self._send_all()), asyncio.create_task(self._listen())]

    def send(self, message: Message) -> None:
        """Say *message*; returns at once, the message is in the journal."""
        self._journal.append(message)
        self._drained.clear()
        self._more.set()

    async def drain(self, timeout_s: float) -> bool:
        """Wait until everything said is acknowledged; False if that did not happen in time."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._drained.wait(), timeout_s)
        return self._journal.empty

    async def close(self) -> None:
        """Stop sending and listening."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _send_all(self) -> None:
        connection, pause = self._connect(), _BACKOFF_S[0]
        while True:
            await self._more.wait()
            lines = self._journal.batch()
            body = b'{"messages":[' + b",".join(lines) + b"]}"
            try:
                status, answer = await connection.request(
                    "POST", f"{self._path}/messages", body, timeout_s=_TIMEOUT_S
                )
            except ConnectionLost:
                pause = await self._wait_for_server(connection, pause)
                continue
            if status != 200:
                pause = await self._wait_for_server(connection, pause)
                continue
            self.last_contact, pause = time.monotonic(), _BACKOFF_S[0]
            self._journal.acknowledge(json.loads(answer)["delivered"])
            if self._journal.empty:
                self._more.clear()
                self._drained.set()

    async def _listen(self) -> None:
        connection, pause, after = self._connect(), _BACKOFF_S[0], 0
        while True:
            try:
                status, answer = await connection.request(
                    "GET", f"{self._path}/commands?after={after}&wait={_POLL_S:g}", timeout_s=_TIMEOUT_S
                )
            except ConnectionLost:
                pause = await self._wait_for_server(connection, pause)
                continue
            if status != 200:
                pause = await self._wait_for_server(connection, pause)
                continue
            self.last_contact, pause = time.monotonic(), _BACKOFF_S[0]
            for number, command in json.loads(answer)["commands"]:
                if number > after:
                    after = number
                    self.commands.put_nowait(command_from_json(command))

    def _connect(self) -> Connection:
        server = self._spec.server
        headers = {"authorization": f"Bearer {self._spec.agent_token}", "content-type": "application/json"}
        return Connection(server.url, server.ca_file, headers)

    async def _wait_for_server(self, connection: Connection, pause: float) -> float:
        """Wait a little, look where the server is now, and return how long to wait the next time."""
        await asyncio.sleep(pause)
        server = self._spec.server
        if server.server_file:
            with contextlib.suppress(OSError, ValueError):
                found = json.loads(Path(server.server_file).read_text("utf-8"))
                plain = server.url.startswith("http://") and found.get("http_url")
                connection.base = str(plain or found.get("url") or connection.base)
        return min(pause * 2, _BACKOFF_S[1])
