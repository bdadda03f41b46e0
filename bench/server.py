"""A Sagesmith server of the benchmarks' own: started by the command line, spoken to as any client does."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.environments import WORK
from sagesmith.signing import sign

__all__ = ["Account", "Sagesmith", "free_port", "new_home", "running"]


@dataclass(frozen=True, slots=True)
class Account:
    """The key of a server, in the form in which requests are signed."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None


class Sagesmith:
    """One running server: its addresses, its key, and boto3 clients for it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = _environment(home)
        self.region = self.environment["AWS_REGION"]
        self.account = Account(
            self.environment["AWS_ACCESS_KEY_ID"], self.environment["AWS_SECRET_ACCESS_KEY"]
        )
        said = json.loads((home / "run" / "server.json").read_text())
        self.url: str = said["url"].rstrip("/")
        self.http_url: str = (said.get("http_url") or "").rstrip("/")
        self.pid: int = said["pid"]
        self.account_id: str = said["account_id"]

    def client(self, service: str) -> Any:
        """Return a boto3 client of *service*."""
        import boto3

        session = boto3.Session(
            self.account.access_key_id, self.account.secret_access_key, region_name=self.region
        )
        return session.client(service, endpoint_url=self.url, verify=self.environment["AWS_CA_BUNDLE"])

    def signed(self, url: str, service: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        """Return *headers* with a signature, as boto3 makes it, for a POST of *body* to *url*."""
        return sign(
            "POST",
            url,
            headers,
            hashlib.sha256(body).hexdigest(),
            self.account,
            self.region,
            service,
            time.time(),
        )


def _environment(home: Path) -> dict[str, str]:
    lines = sagesmith("env", "--home", str(home))
    pairs = (
        line.removeprefix("export ").split("=", 1)
        for line in lines.splitlines()
        if line.startswith("export ")
    )
    return {name: value.strip("'\"") for name, value in pairs}


def sagesmith(*arguments: str) -> str:
    """Run the command line beside this Python and return what it printed.

    Raises:
        RuntimeError: it failed; the sentence is what it said.
    """
    program = Path(sys.executable).with_name("sagesmith")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"sagesmith {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def free_port() -> int:
    """Return a port that is free at the moment."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def new_home() -> Iterator[Path]:
    """Give an empty home folder below ``.bench/``, removed afterwards."""
    WORK.mkdir(exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="home-", dir=WORK))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def running(home: Path, **environ: str) -> Iterator[Sagesmith]:
    """Run a server on *home*, HTTPS and plain HTTP on free ports, and end it afterwards."""
    os.environ.update(environ)
    sagesmith("up", "--home", str(home), "--port", "0", "--http-port", str(free_port()), "--detach")
    try:
        yield Sagesmith(home)
    finally:
        sagesmith("down", "--home", str(home))
