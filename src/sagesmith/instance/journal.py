"""What an agent has said and nobody has acknowledged yet, on disk.

A file of JSON lines ``[number, message]``, numbers from 1 without gaps. It is only ever appended to, and
emptied when all of it is acknowledged. After the agent's death the fleet reads the rest from it, so a server
that was away misses nothing. It need not survive the machine (then the work is gone as well), so there is no
fsync.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from sagesmith.instance.spec import Log, Message, message_from_json, to_json

__all__ = ["Journal"]

_BATCH_BYTES: Final = 256 * 1024
_FULL_BYTES: Final = 512 * 1024 * 1024


class Journal:
    """The journal of one running agent. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._file, 0)
        self._number = 0
        self._acknowledged = 0
        self._start = 0  # of the first line that is not acknowledged
        self._end = 0
        self._lost_lines = 0

    @property
    def empty(self) -> bool:
        """True if everything is acknowledged."""
        return self._acknowledged == self._number

    def append(self, message: Message) -> None:
        """Keep *message*. Log lines are dropped, and counted, while the server has been away for too many of them."""
        if isinstance(message, Log):
            if self._end - self._start > _FULL_BYTES:
                self._lost_lines += len(message.lines)
                return
            if self._lost_lines:
                note = f"[{self._lost_lines} lines are missing here: the server was away and the journal was full]"
                message = Log(((message.lines[0][0], note), *message.lines))
                self._lost_lines = 0
        self._number += 1
        line = json.dumps([self._number, to_json(message)], separators=(",", ":")).encode() + b"\n"
        os.pwrite(self._file, line, self._end)
        self._end += len(line)

    def batch(self) -> list[bytes]:
        """Return the next lines to send, oldest first; at least one if there is any."""
        size = min(self._end - self._start, _BATCH_BYTES)
        data = os.pread(self._file, size, self._start)
        while b"\n" not in data and self._start + len(data) < self._end:
            data += os.pread(self._file, _BATCH_BYTES, self._start + len(data))
        return data[: data.rfind(b"\n") + 1].splitlines(keepends=True)

    def acknowledge(self, number: int) -> None:
        """Forget the messages up to *number*; older or unknown numbers do nothing."""
        while self._acknowledged < min(number, self._number):
            for line in self.batch():
                if self._acknowledged == number:
                    break
                self._acknowledged += 1
                self._start += len(line)
        if self.empty and self._end:
            os.ftruncate(self._file, 0)
            self._start = self._end = 0

    @staticmethod
    def read(path: Path, after: int) -> Iterator[tuple[int, Message]]:
        """Yield the messages above number *after* of an agent that is gone. A torn last line is left out."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return
        for line in data[: data.rfind(b"\n") + 1].splitlines():
            entry: Any = json.loads(line)
            if entry[0] > after:
                yield entry[0], message_from_json(entry[1])
