"""Unchanged code for the official clients, each in its own environment, run through `sagesmith run`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.clients.environments import EnvironmentUnavailableError, environment
from tests.e2e.served import SAGESMITH, Served

SCRIPTS = Path(__file__).parent.parent / "clients" / "scripts"


@pytest.mark.parametrize(
    ("client", "script"),
    [
        ("boto3", "boto3_flow.py"),
        ("sdk2", "sdk2_xgboost.py"),
        ("sdk2", "sdk2_kmeans.py"),
        ("sdk1", "sdk1_kmeans.py"),
        ("sdk3", "sdk3_xgboost.py"),
        ("cli", "cli_flow.sh"),
    ],
)
def test_unchanged_code(served: Served, client: str, script: str) -> None:
    try:
        python = environment(client)
    except EnvironmentUnavailableError as reason:
        pytest.skip(str(reason))
    interpreter = "/bin/sh" if script.endswith(".sh") else str(python)
    done = subprocess.run(
        [
            str(SAGESMITH),
            "run",
            "--home",
            str(served.home),
            "--",
            "/usr/bin/env",
            f"PATH={python.parent}:/usr/bin:/bin",
            interpreter,
            str(SCRIPTS / script),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}\n{served.log()}"
    result = json.loads(done.stdout.strip().splitlines()[-1])
    assert result["ok"] is True, result
