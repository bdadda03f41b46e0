"""The environment in which AWS clients find this server: for a shell, or for one command with the proxy.

No file of the user's is read or changed: everything is said in environment variables. Variables that would
lead a client elsewhere (a profile, an old session's token, an endpoint of one service) are unset.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from sagesmith.authority import Authority
from sagesmith.cli._process import NotRunning, the_running
from sagesmith.config import Home

__all__ = ["environment", "export_lines", "run", "unset"]

_UNSET: Final = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
)
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


def environment(home: Home) -> dict[str, str]:
    """Return the variables that point AWS clients at the server that runs for *home*.

    Raises:
        NotRunning: no server runs, or its administrator's key is not there.
    """
    server = the_running(home)
    try:
        credentials = json.loads(home.credentials.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise NotRunning(
            f"Cannot read the administrator's key in {home.credentials}: {error}. "
            "Restart the server; it writes the file anew."
        ) from error
    bundle = str(Authority(home).bundle)
    return {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_CA_BUNDLE": bundle,
        "REQUESTS_CA_BUNDLE": bundle,
        "SSL_CERT_FILE": bundle,
        "CURL_CA_BUNDLE": bundle,
        "AWS_ACCESS_KEY_ID": credentials["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": credentials["SecretAccessKey"],
        "AWS_REGION": server.region,
        "AWS_DEFAULT_REGION": server.region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "SAGESMITH_HOME": str(home.path),
    }


def unset(environ: Mapping[str, str]) -> list[str]:
    """Return the names of variables in *environ* that would lead a client elsewhere."""
    return [
        name
        for name in sorted(environ)
        if name in _UNSET or (name.startswith("AWS_ENDPOINT_URL_") and name != "AWS_ENDPOINT_URL")
    ]


def export_lines(variables: Mapping[str, str]) -> str:
    """Return *variables* as lines for a POSIX shell's `eval`; what would lead elsewhere is unset first."""
    names = unset(os.environ)
    lines = [f"unset {' '.join(names)}"] if names else []
    lines += [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join(lines)


def no_proxy(environ: Mapping[str, str], host: str) -> str:
    """Return what must not go through the proxy: what *environ* says, this machine, and the server's host."""
    given = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    names = [name.strip() for name in given.split(",")]
    return ",".join(dict.fromkeys(name for name in (*names, *_LOOPBACK, host) if name))


def run(home: Home, argv: Sequence[str]) -> int:
    """Run *argv* so that every AWS call of it lands on the server of *home*; return its exit code.

    A CONNECT proxy lives in this process for as long as the command does. Signals are passed on.

    Raises:
        NotRunning: no server runs.
    """
    import asyncio

    from sagesmith.cli._proxy import Upstream, run_behind_proxy

    variables = environment(home)
    server = urlsplit(variables["AWS_ENDPOINT_URL"])
    host = server.hostname or "127.0.0.1"
    child = {name: value for name, value in os.environ.items() if name not in unset(os.environ)}
    child.update(variables)
    excluded = no_proxy(os.environ, host)
    child.update({"NO_PROXY": excluded, "no_proxy": excluded})
    try:
        return asyncio.run(
            run_behind_proxy(
                argv,
                child,
                authority=Authority(home),
                server=(host, server.port or 443),
                upstream=Upstream.from_environ(os.environ),
            )
        )
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR):
            raise
        print(f"sagesmith: cannot run {argv[0]}: {error.strerror}.", file=sys.stderr)
        return 127 if error.errno == errno.ENOENT else 126
