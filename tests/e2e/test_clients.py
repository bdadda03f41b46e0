"""Unchanged code for the official clients, each in its own environment, run through `sagesmith run`.

The SDKs sleep half a minute and more between two looks at a job, so all scripts run at the same time.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.clients.environments import EnvironmentUnavailableError, environment
from tests.e2e.served import SAGESMITH, Served

SCRIPTS = Path(__file__).parent.parent / "clients" / "scripts"
CLIENTS = {
    "boto3_flow.py": "boto3",
    "sdk2_xgboost.py": "sdk2",
    "sdk2_kmeans.py": "sdk2",
    "sdk2_sklearn.py": "sdk2",
    "sdk1_kmeans.py": "sdk1",
    "sdk1_sklearn.py": "sdk1",
    "sdk3_xgboost.py": "sdk3",
    "cli_flow.sh": "cli",
}
Runs: TypeAlias = "dict[str, Future[subprocess.CompletedProcess[str]]]"


@pytest.fixture(scope="module")
def runs(served: Served) -> Iterator[Runs]:
    """Every script, running."""

    def run(script: str, client: str) -> subprocess.CompletedProcess[str]:
        python = environment(client)
        interpreter = "/bin/sh" if script.endswith(".sh") else str(python)
        path = f"PATH={python.parent}:/usr/bin:/bin"
        command = ["/usr/bin/env", path, interpreter, str(SCRIPTS / script)]
        return subprocess.run(
            [str(SAGESMITH), "run", "--home", str(served.home), "--", *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )

    with ThreadPoolExecutor(len(CLIENTS)) as pool:
        yield {script: pool.submit(run, script, client) for script, client in CLIENTS.items()}


@pytest.mark.parametrize("script", CLIENTS)
def test_unchanged_code(served: Served, runs: Runs, script: str) -> None:
    try:
        done = runs[script].result()
    except EnvironmentUnavailableError as reason:
        pytest.skip(str(reason))
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}\n{served.log()}"
    # The SDK ends its own progress line ("-----!") without a line feed.
    result = json.loads(done.stdout[done.stdout.rindex('{"ok"') :])
    assert result["ok"] is True, result
