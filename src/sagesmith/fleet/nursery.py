"""The nursery: a process with the agent's code loaded that forks agents in milliseconds.

``python -m sagesmith.fleet.nursery FD`` reads requests from the packet socket FD, one JSON object each,
``{"folder": ..., "token": ..., "modules": [...]}``; with a request may come a socket for an agent that waits for
its job.
The answer is ``{"pid": ...}`` and a pidfd. When the server is gone the socket ends, and so does the nursery;
agents are sessions of their own and stay.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

from sagesmith.instance import agent
from sagesmith.instance.folder import AGENT_LOG

__all__ = ["main"]

_REQUEST = 65536


def main(descriptor: int) -> NoReturn:
    """Serve requests until the server is gone."""
    control = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # agents that end are forgotten at once
    agent.preload()
    gc.collect()
    gc.freeze()
    while True:
        try:
            data, descriptors, _, _ = socket.recv_fds(control, _REQUEST, 1)
        except ConnectionResetError:  # the server was killed before it read our last answer
            os._exit(0)
        if not data:
            os._exit(0)
        request = json.loads(data)
        pid = os.fork()
        if pid == 0:
            control.close()
            _become_agent(Path(request["folder"]), request["token"], request["modules"], descriptors)
        try:
            _answer(control, pid)
        except OSError:  # the server ended while it waited for the answer
            os._exit(0)
        for each in descriptors:
            os.close(each)


def _answer(control: socket.socket, pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        control.sendall(json.dumps({"pid": 0}).encode())
        return
    socket.send_fds(control, [json.dumps({"pid": pid}).encode()], [pidfd])
    os.close(pidfd)


def _become_agent(folder: Path, token: str, modules: list[str], descriptors: list[int]) -> NoReturn:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        log = os.open(folder / AGENT_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except FileNotFoundError:  # the server ended, or changed its mind, and removed the folder
        os._exit(0)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(null)
    agent.main(folder, token, descriptors[0] if descriptors else -1, modules)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
