"""The one command that a container runs for its user: its output passed on, its last words kept, signals handed down."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Mapping, NamedTuple, Sequence

from sagesmith_toolkit.failures import LastLines

__all__ = ["Ended", "run"]


class Ended(NamedTuple):
    """How a command ended: its exit code (128 + N after signal N), and the end of its standard error."""

    code: int
    last_lines: str


def run(command: Sequence[str], folder: Path, environ: Mapping[str, str]) -> Ended:
    """Run *command* in *folder* to its end. SIGTERM and SIGINT to this process go on to it meanwhile.

    Its standard output is ours; its standard error is read, to keep its end, and written to ours.
    """
    process = subprocess.Popen(command, cwd=str(folder), env=dict(environ), stderr=subprocess.PIPE)
    last = LastLines()
    before = {
        number: signal.signal(number, lambda number, _: process.send_signal(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        _pass_on(process.stderr, last)
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return Ended(128 - code if code < 0 else code, last.text)


def _pass_on(source: Any, last: LastLines) -> None:
    rest = b""
    while True:
        # Not by lines: a progress bar rewrites its line many times before it ends.
        piece = source.read1(65536)
        if not piece:
            break
        sys.stderr.buffer.write(piece)
        sys.stderr.buffer.flush()
        *lines, rest = (rest + piece).split(b"\n")
        rest = rest[-65536:]
        for line in lines:
            last.add(line.decode("utf-8", "replace"))
    if rest:
        last.add(rest.decode("utf-8", "replace"))
    source.close()
