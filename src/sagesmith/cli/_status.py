"""`sagesmith status`: ask the running server's private route, and lay the answer out for people."""

from __future__ import annotations

import json
import ssl
import urllib.request
from collections.abc import Mapping
from typing import Any

from sagesmith.cli._process import NotRunning, Running
from sagesmith.config import Home

__all__ = ["fetch", "render"]


def fetch(server: Running, home: Home) -> dict[str, Any]:
    """Return what the server says of itself.

    Raises:
        NotRunning: it does not answer.
    """
    context = ssl.create_default_context(cafile=str(home.authority / "ca.pem"))
    request = urllib.request.Request(  # noqa: S310 - the address is our own server's
        f"{server.url}/_sagesmith/status", headers={"Authorization": f"Bearer {server.token}"}
    )
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(request, timeout=10) as answer:
            data: dict[str, Any] = json.load(answer)
    except OSError as error:
        raise NotRunning(
            f"The server at {server.url} does not answer ({error}); see `sagesmith logs`."
        ) from error
    return data


def render(data: Mapping[str, Any]) -> str:
    """Return the status as text."""
    lines = [
        f"Sagesmith {data['version']} at {data['url']}"
        + (f" and {data['http_url']}" if data["http_url"] else ""),
        f"home {data['home']}, pid {data['pid']}, up {_span(data['uptime_s'])}, "
        f"memory {data['memory_bytes'] / 2**20:.0f} MiB",
        f"account {data['account_id']}, region {data['region']}, sandbox {data['sandbox']}",
    ]
    for kind, counts in sorted(data["resources"].items()):
        if counts:
            lines.append(f"{kind}: " + ", ".join(f"{count} {each}" for each, count in sorted(counts.items())))
    instances = data["fleet"]["instances"]
    lines.append(f"instances: {len(instances)}")
    lines.extend(
        f"  {i['instance_id']}  {i['owner'].rpartition(':')[2]}  {i['instance_type']}  "
        f"{i['memory_bytes'] / 2**20:.0f} MiB"
        for i in instances
    )
    warm = data["fleet"]["warm"]
    lines.append(
        f"warm processes: {len(warm)}"
        + (f", {sum(w['memory_bytes'] for w in warm) / 2**20:.0f} MiB" if warm else "")
    )
    return "\n".join(lines)


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
