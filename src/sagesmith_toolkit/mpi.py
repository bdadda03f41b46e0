"""MPI on the hosts of a job: ``mpirun`` on the first one, and on the others a shell that starts its daemons.

Open MPI starts a daemon on each host by a remote shell, mostly ssh. Containers here have no sshd; each other host
listens for commands of the first instead, and this module is the remote shell: ``python -m sagesmith_toolkit.mpi HOST
COMMAND...``. Only who knows the job's key, which the hosts share when they meet, is heard.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Iterator, List, Mapping, Sequence

from sagesmith_toolkit.environment import Environment
from sagesmith_toolkit.failures import UserCodeError
from sagesmith_toolkit.rendezvous import Rendezvous, address_of

__all__ = ["main", "mpirun_command", "remote_shells"]

_SHELLS = "SAGESMITH_REMOTE_SHELLS"


def mpirun_command(
    environment: Environment, parameters: Mapping[str, Any], script: Sequence[str], python: str
) -> List[str]:
    """Return the command line of ``mpirun`` that runs *script* on all hosts, as the `parameters` of the job say.

    Raises:
        UserCodeError: there is no mpirun.
    """
    mpirun = shutil.which("mpirun")
    if mpirun is None:
        raise UserCodeError(
            "ClientError: distribution={'mpi': ...} needs mpirun, and there is none on this machine. Install Open MPI "
            "(on Debian: apt-get install openmpi-bin)."
        )
    each = int(parameters.get("sagemaker_mpi_num_of_processes_per_host") or 1)
    hosts, interface = environment.hosts, environment.network_interface
    return [
        mpirun, "--host", ",".join("%s:%d" % (host, each) for host in hosts), "-np", str(each * len(hosts)),
        "--allow-run-as-root", "--tag-output", "--oversubscribe", "--bind-to", "none",
        "-mca", "plm_rsh_agent", "%s -m sagesmith_toolkit.mpi" % python,
        "-mca", "plm_rsh_no_tree_spawn", "1",
        "-mca", "oob_tcp_if_include", interface,
        "-mca", "btl_tcp_if_include", interface,
        "-mca", "btl", "^openib",
        "-mca", "btl_vader_single_copy_mechanism", "none",
        "-mca", "orte_abort_on_non_zero_status", "1",
        *shlex.split(str(parameters.get("sagemaker_mpi_custom_mpi_options") or "")),
        *script,
    ]  # fmt: skip


@contextlib.contextmanager
def remote_shells(
    environment: Environment, meeting: Rendezvous, folder: Path, environ: Mapping[str, str]
) -> Iterator[Mapping[str, str]]:
    """Let the first host run commands on the others, in *folder* with *environ*, for as long as its block lasts.

    On the first host, give the variables that the remote shell needs. On the others the block begins when the first
    host's has ended.
    """
    if environment.is_leader:
        key = secrets.token_hex(16)
        ports = [int(answer) for answer in meeting.exchange(b"0")]
        meeting.broadcast(key.encode())
        shells = {host: [address_of(host), ports[rank]] for rank, host in enumerate(environment.hosts)}
        try:
            yield {_SHELLS: json.dumps({"key": key, "hosts": shells})}
        finally:
            meeting.broadcast(b"end")
        return
    with socket.socket() as listener:
        listener.bind((address_of(environment.current_host), 0))
        listener.listen()
        meeting.exchange(b"%d" % listener.getsockname()[1])
        key = meeting.broadcast().decode()
        threading.Thread(target=_listen, args=(listener, key, folder, environ), daemon=True).start()
        meeting.broadcast()
    yield {}


def _listen(listener: socket.socket, key: str, folder: Path, environ: Mapping[str, str]) -> None:
    while True:
        try:
            peer, _ = listener.accept()
        except OSError:  # closed
            return
        threading.Thread(target=_obey, args=(peer, key, folder, environ), daemon=True).start()


def _obey(peer: socket.socket, key: str, folder: Path, environ: Mapping[str, str]) -> None:
    """Run the one command that *peer* sends with the right *key*, and answer with its exit code."""
    with peer, peer.makefile("rwb") as stream:
        try:
            said = json.loads(stream.readline(1 << 20))
        except ValueError:
            return
        if not secrets.compare_digest(str(said.get("key", "")), key):
            return
        code = subprocess.call(["/bin/sh", "-c", said["command"]], cwd=str(folder), env=dict(environ))
        with contextlib.suppress(OSError):
            stream.write(b"%d\n" % code)
            stream.flush()


def main(words: Sequence[str]) -> int:
    """Run the command ``words[1:]`` on the host ``words[0]`` and return its exit code."""
    known = json.loads(os.environ[_SHELLS])
    host, *command = words
    address, port = known["hosts"][host]
    with socket.create_connection((address, port)) as peer, peer.makefile("rwb") as stream:
        stream.write(json.dumps({"key": known["key"], "command": " ".join(command)}).encode() + b"\n")
        stream.flush()
        return int(stream.readline() or 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
