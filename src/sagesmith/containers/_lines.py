"""A container's bytes become log lines, in the form CloudWatch Logs shows for SageMaker.

Control characters are written as ``#`` and three octal digits (TAB as ``#011``), as the log agent of
SageMaker's instances does; metric definitions are written against that text. Bytes that are not UTF-8 become
U+FFFD. A line longer than a log event may be is cut, and says so.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["MAX_LINE_BYTES", "LineSplitter", "escape"]

MAX_LINE_BYTES: Final = 256 * 1024 - 1024
"""CloudWatch's limit of an event was 256 KiB for most of its life; the rest is room for the note."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def escape(text: str) -> str:
    """Return *text* with control characters as ``#011`` and the like."""
    if text.isprintable():
        return text
    return _CONTROL.sub(lambda match: f"#{ord(match[0]):03o}", text)


class LineSplitter:
    """Takes bytes as they come, gives lines as they are complete."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max = max_line_bytes
        self._rest = bytearray()
        self._dropped = 0

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that *data* completes."""
        first, newline, remainder = data.partition(b"\n")
        self._keep(first)
        if not newline:
            return []
        lines = [self._line()]
        *whole, last = remainder.split(b"\n")
        for piece in whole:
            self._keep(piece)
            lines.append(self._line())
        self._keep(last)
        return lines

    def finish(self) -> list[str]:
        """Return the last line, if it has no end."""
        return [self._line()] if self._rest or self._dropped else []

    def _keep(self, piece: bytes) -> None:
        room = self._max - len(self._rest)
        self._rest += piece[:room]
        self._dropped += max(0, len(piece) - room)

    def _line(self) -> str:
        text = self._rest.removesuffix(b"\r").decode("utf-8", "replace")
        if self._dropped:
            text += f" [line cut here: {self._dropped} more bytes]"
        self._rest.clear()
        self._dropped = 0
        return escape(text)
