"""What runs around each command of a notebook instance: ``python -m sagesmith_toolkit.notebook COMMAND...``.

It gives the command an environment of its own that packages can be installed into, above the shared one, which nobody
can write; and a way to the server: a port on the loopback interface that leads through the Unix socket of the
instance's proxy, so that it works in a container without network too.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from typing import Dict, List

from sagesmith_toolkit.sockets import unix_address

__all__ = ["main"]

_PIECE = 1 << 16
_KERNELS = ("python3", "conda_python3")
"""AWS's notebooks name the second."""

_SETTINGS = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}
"""JupyterLab's defaults that are others here: nobody is asked whether to read news, which would come from elsewhere."""

_PIP = """#!{python}
import sys
from pip._internal.cli.main import main
sys.exit(main())
"""
_ACTIVATE = """# `source activate NAME` of AWS's notebooks: there is one environment here, and it is active.
export VIRTUAL_ENV="{prefix}"
case ":$PATH:" in *":{prefix}/bin:"*) ;; *) export PATH="{prefix}/bin:$PATH" ;; esac
"""
_SUDO = """#!/bin/sh
# Scripts for AWS's notebooks use `sudo -u ec2-user -i`, which is who one is here anyway. Nobody becomes root.
user=root
while [ $# -gt 0 ]; do
  case "$1" in
    -u) user="$2"; shift 2 ;;
    -u*) user="${1#-u}"; shift ;;
    --user=*) user="${1#--user=}"; shift ;;
    -i|--login) cd; shift ;;
    --) shift; break ;;
    -*) shift ;;
    *) break ;;
  esac
done
if [ "$user" != ec2-user ]; then
  echo "sudo: nobody becomes $user in a notebook instance of Sagesmith; what it may change, ec2-user may" >&2
  exit 1
fi
if [ $# -eq 0 ]; then exec bash; fi
exec "$@"
"""


def main(command: List[str]) -> int:
    """Run *command* and return its exit code; 128 + N if signal N ended it."""
    environment = dict(os.environ)
    environment.update(_own_python())
    os.chdir(environment["HOME"])
    door = environment.pop("SAGESMITH_DOOR", "")
    if door:
        proxy = f"http://127.0.0.1:{_relay(door)}"
        environment.update({"HTTPS_PROXY": proxy, "https_proxy": proxy})
    if command[0] == "python":
        command = [sys.executable, *command[1:]]
    process = subprocess.Popen(command, env=environment)
    code = process.wait()
    return 128 - code if code < 0 else code


def _own_python() -> Dict[str, str]:
    """Make the notebook's own environment if it is not there, and return the variables that lead to it."""
    home = os.environ["HOME"]
    prefix = os.path.join(home, ".notebook")
    programs, config = os.path.join(prefix, "bin"), os.path.join(prefix, "etc", "jupyter")
    python = os.path.join(programs, "python")
    if not os.path.exists(os.path.join(prefix, "pyvenv.cfg")):
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        packages = os.path.join(prefix, "lib", version, "site-packages")
        os.makedirs(packages)
        os.makedirs(programs)
        real = os.path.realpath(sys.executable)
        for name in ("python", "python3", version):
            os.symlink(real, os.path.join(programs, name))
        shared = os.path.join(sys.prefix, "lib", version, "site-packages")
        client = os.environ.get("SAGESMITH_CLIENT", "")
        _write(
            os.path.join(packages, "shared.pth"), "\n".join(path for path in (shared, client) if path) + "\n"
        )
        for name in ("pip", "pip3"):
            _write(os.path.join(programs, name), _PIP.format(python=python), 0o755)
        _write(os.path.join(programs, "activate"), _ACTIVATE.format(prefix=prefix))
        _write(os.path.join(programs, "deactivate"), "# see `activate`\n")
        _write(os.path.join(programs, "sudo"), _SUDO, 0o755)
        for name in _KERNELS:
            folder = os.path.join(prefix, "share", "jupyter", "kernels", name)
            os.makedirs(folder)
            spec = {
                "argv": [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                "display_name": "Python 3" if name == "python3" else name,
                "language": "python",
                "metadata": {"debugger": True},
            }
            _write(os.path.join(folder, "kernel.json"), json.dumps(spec))
        os.makedirs(os.path.join(config, "labconfig"))
        _write(os.path.join(config, "labconfig", "default_setting_overrides.json"), json.dumps(_SETTINGS))
        _write(
            os.path.join(prefix, "pyvenv.cfg"),
            f"home = {os.path.dirname(real)}\nversion = {sys.version.split()[0]}\n",
        )
    path = os.pathsep.join([programs, os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    data = os.path.join(prefix, "share", "jupyter")
    return {"PATH": path, "VIRTUAL_ENV": prefix, "JUPYTER_PATH": data, "JUPYTER_CONFIG_PATH": config}


def _write(path: str, text: str, mode: int = 0o644) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)


def _relay(door: str) -> int:
    """Listen on the loopback interface, lead every connection to the Unix socket *door*, and return the port."""
    ready = threading.Event()
    port: List[int] = []

    async def serve() -> None:
        server = await asyncio.start_server(
            lambda reader, writer: _pass(reader, writer, door), "127.0.0.1", 0
        )
        port.append(server.sockets[0].getsockname()[1])
        ready.set()
        async with server:
            await server.serve_forever()

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    ready.wait()
    return port[0]


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, door: str) -> None:
    try:
        with unix_address(door) as short:
            far_reader, far_writer = await asyncio.open_unix_connection(short)
    except OSError:
        writer.close()
        return
    await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer), return_exceptions=True)
    for each in (writer, far_writer):
        each.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        piece = await reader.read(_PIECE)
        if not piece:
            break
        writer.write(piece)
        await writer.drain()
    writer.write_eof()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
