"""Many endpoints on one server: how long until all are in service, what an idle one weighs, what the others feel of them."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from bench.invocations import Model, check, train
from bench.load import Load, measure
from bench.report import Row, progress
from bench.server import Sagesmith, new_home, running

__all__ = ["run"]

COUNT, QUICK_COUNT = 200, 20
LONGEST_S = 1200.0


def run(seconds: float, quick: bool) -> list[Row]:
    """Create the endpoints, all of one model, at once; return the rows."""
    from bench.serving import ENDPOINT, deploy

    count = QUICK_COUNT if quick else COUNT
    with tempfile.TemporaryDirectory() as name, new_home() as home, running(home) as server:
        model = train(Path(name))
        began = time.monotonic()
        deploy(server, model)
        alone_s = time.monotonic() - began
        alone = [_load(server, model, connections, seconds) for connections in (1, 64)]
        before = _memory(server)
        progress(f"  creating {count} endpoints")
        began = time.monotonic()
        sagemaker = server.client("sagemaker")
        for number in range(count):
            sagemaker.create_endpoint(EndpointName=f"bench-{number}", EndpointConfigName=ENDPOINT)
        in_service = _wait(sagemaker, count)
        took_s = time.monotonic() - began
        each = (_memory(server) - before) / max(1, in_service)
        among = [_load(server, model, connections, seconds) for connections in (1, 64)]
        idle = _processor(server, 10.0)
    kept = "" if in_service == count else f"only {in_service} are in service"
    what = f"among {count} idle endpoints"
    return [
        Row("serving", f"{count} endpoints in service", f"{took_s:.1f} s", "one", f"{alone_s:.2f} s", took_s / alone_s, note=kept),
        Row("serving", "memory of an idle endpoint", f"{each / 2**20:.1f} MB", "", "", None),
        Row("serving", f"processor of {count} idle endpoints", f"{100 * idle:.1f} % of one", "", "", None),
        Row(
            "serving", f"p50 at 1 connection {what}", f"{among[0].p50_s * 1e3:.3g} ms", "alone",
            f"{alone[0].p50_s * 1e3:.3g} ms", among[0].p50_s / alone[0].p50_s,
        ),
        Row(
            "serving", f"requests/s at 64 connections {what}", f"{among[1].rps:,.0f} /s", "alone",
            f"{alone[1].rps:,.0f} /s", among[1].rps / alone[1].rps,
        ),
    ]  # fmt: skip


def _wait(sagemaker: Any, count: int) -> int:
    """Return how many are in service when none comes up any more."""
    until = time.monotonic() + LONGEST_S
    while True:
        found: Counter[str] = Counter()
        for page in sagemaker.get_paginator("list_endpoints").paginate(NameContains="bench-", MaxResults=100):
            found.update(endpoint["EndpointStatus"] for endpoint in page["Endpoints"])
        if found["InService"] >= count or not found["Creating"] or time.monotonic() > until:
            return found["InService"]
        time.sleep(0.5)


def _load(server: Sagesmith, model: Model, connections: int, seconds: float) -> Load:
    from bench.serving import ENDPOINT

    url = f"{server.url}/endpoints/{ENDPOINT}/invocations"
    headers = server.signed(url, "sagemaker", {"Content-Type": "text/csv"}, model.csv)
    check(url, headers, model.csv, model.expected, server)
    measure(url, headers, model.csv, connections=connections, seconds=1)
    return measure(url, headers, model.csv, connections=connections, seconds=seconds)


def _members(server: Sagesmith) -> list[psutil.Process]:
    """Return the processes of the server's instances, and those that wait to become some."""
    home = str(server.home)
    found = []
    for process in psutil.process_iter():
        try:
            if home in process.cwd() or any(home in word for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    below = [child for process in found for child in process.children(recursive=True)]
    return list({process.pid: process for process in (*found, *below)}.values())


def _memory(server: Sagesmith) -> int:
    """Return the proportional memory of all its processes in bytes."""
    total = 0
    for process in _members(server):
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def _processor(server: Sagesmith, seconds: float) -> float:
    """Return the share of one processor that all its processes take, over *seconds*."""

    def used(process: psutil.Process) -> float:
        try:
            return sum(process.cpu_times()[:2])
        except psutil.Error:
            return 0.0

    members = _members(server)
    before = {process.pid: used(process) for process in members}
    time.sleep(seconds)
    return sum(max(0.0, used(process) - before[process.pid]) for process in members) / seconds
