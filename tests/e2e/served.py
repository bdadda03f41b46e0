"""A real Sagesmith server as a process, for tests that use it as its users do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
import psutil
from botocore.config import Config

__all__ = ["IMAGES", "SAGESMITH", "Served", "free_port", "wait_until"]

SAGESMITH = Path(sys.executable).with_name("sagesmith")
IMAGES = os.environ.get("SAGESMITH_IMAGES_FOLDER") or str(Path(__file__).parents[1] / ".images")
"""The framework environments of all test runs: they are large."""


def free_port() -> int:
    """Return a TCP port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Any, *, timeout_s: float, what: str) -> Any:
    """Call *condition* until it returns something true, and return that; fail after *timeout_s*."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout_s} s still not: {what}")
        time.sleep(0.05)


class Served:
    """One home folder with a server that can be started, killed, ended and asked.

    The home's path is short, since Unix sockets below it have short limits on other systems' homes too.
    """

    def __init__(self, *, port: int | None = None, settings: Mapping[str, object] | None = None) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="sagesmith-test-"))
        self.port = port or free_port()
        chosen = {"images_folder": IMAGES, **(settings or {})}
        lines = [f"{name} = {json.dumps(value)}" for name, value in chosen.items()]
        (self.home / "config.toml").write_text("\n".join(lines) + "\n", "utf-8")

    def command(
        self, *arguments: str, check: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run `sagesmith ARGUMENTS` for this home."""
        verb, *rest = arguments
        return subprocess.run(
            [str(SAGESMITH), verb, "--home", str(self.home), *rest],
            check=check,
            capture_output=True,
            text=True,
            **options,
        )

    def up(self) -> Served:
        """Start the server and return when it answers."""
        done = self.command("up", "--port", str(self.port), "--detach", check=False)
        assert done.returncode == 0, f"`sagesmith up` failed: {done.stderr}\n{self.log()}"
        return self

    def down(self) -> None:
        """End the server in order."""
        self.command("down")

    def kill(self) -> None:
        """Kill the server, as a crash would."""
        process = psutil.Process(self.pid)
        process.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs([process], timeout=60)
        assert not alive, "the killed server does not end: `up` would find that one still running"

    def remove(self) -> None:
        """End the server and remove the home folder; fail if any process of it is left."""
        try:
            self.command("down", check=False)
            wait_until(
                lambda: not self.processes(), timeout_s=20, what=f"no process left: {self.processes()}"
            )
        finally:
            for process in self.processes():
                process.kill()
            shutil.rmtree(self.home, ignore_errors=True)

    @property
    def server_file(self) -> dict[str, Any]:
        """What `run/server.json` says."""
        data: dict[str, Any] = json.loads((self.home / "run" / "server.json").read_text("utf-8"))
        return data

    @property
    def pid(self) -> int:
        """The server's process."""
        return int(self.server_file["pid"])

    @property
    def url(self) -> str:
        """Where the server answers."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> str:
        """The certificate authority clients must trust."""
        return str(self.home / "authority" / "ca.pem")

    @property
    def account(self) -> str:
        """The account number."""
        return str(self.server_file["account_id"])

    @property
    def role(self) -> str:
        """The default execution role."""
        return f"arn:aws:iam::{self.account}:role/SagesmithExecutionRole"

    def log(self) -> str:
        """The end of the server's log."""
        path = self.home / "logs" / "server.log"
        return path.read_text("utf-8", "replace")[-6000:] if path.exists() else "(no log)"

    def session(self, keys: Mapping[str, str] | None = None) -> boto3.Session:
        """Return a boto3 session with the administrator's key, or with *keys*."""
        found = keys or json.loads((self.home / "credentials.json").read_text("utf-8"))
        return boto3.Session(
            aws_access_key_id=found["AccessKeyId"],
            aws_secret_access_key=found["SecretAccessKey"],
            aws_session_token=found.get("SessionToken"),
            region_name="us-east-1",
        )

    def client(self, service: str, *, keys: Mapping[str, str] | None = None, **config: Any) -> Any:
        """Return a boto3 client of *service* at this server."""
        config.setdefault("retries", {"max_attempts": 1, "mode": "standard"})
        return self.session(keys).client(
            service, endpoint_url=self.url, verify=self.ca_file, config=Config(**config)
        )

    def processes(self) -> list[psutil.Process]:
        """Return every process that belongs to this home: it is named in the command line or environment."""
        mark = str(self.home)
        found = []
        for process in psutil.process_iter():
            if process.pid == os.getpid():
                continue
            try:
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if any(mark in part for part in process.cmdline()) or any(
                    mark in value for value in process.environ().values()
                ):
                    found.append(process)
            except psutil.Error:
                continue
        return found
