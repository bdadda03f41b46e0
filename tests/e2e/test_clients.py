"""Unchanged code for the official clients, each in its own environment, run through `sagesmith run`.

The SDKs sleep half a minute and more between two looks at a job, so all scripts run at the same time.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from tests.clients.environments import EnvironmentUnavailableError, environment
from tests.containers.engine import BASE, missing_docker
from tests.containers.sandbox import missing_sandbox
from tests.e2e.script_mode import environment as image_environment
from tests.e2e.served import SAGESMITH, Served

DOCS = Path(__file__).parents[2] / "docs"
SCRIPTS = Path(__file__).parent.parent / "clients" / "scripts"
CLIENTS = {
    # The longest first.
    **{
        f"sdk2_frameworks.py {name}": "sdk2"
        for name in ("pytorch", "tensorflow", "mxnet", "sklearn", "xgboost")
    },
    "scripts.md": "sdk2",
    "containers.md": "sdk2",
    "models.md": "own",
    "boto3_flow.py": "boto3",
    "sdk2_xgboost.py": "sdk2",
    "sdk2_kmeans.py": "sdk2",
    "sdk2_pipeline.py": "sdk2",
    "sdk2_components.py": "sdk2",
    "sdk2_first_party.py": "sdk2",
    "sdk2_text.py": "sdk2",
    "sdk1_kmeans.py": "sdk1",
    "sdk1_sklearn.py": "sdk1",
    "sdk3_xgboost.py": "sdk3",
    "cli_flow.sh": "cli",
    **{f"sdk1_frameworks.py {name}": "sdk1" for name in ("pytorch", "tensorflow", "mxnet", "xgboost")},
    **{
        f"sdk3_frameworks.py {name}": "sdk3"
        for name in ("pytorch", "tensorflow", "mxnet", "sklearn", "xgboost")
    },
}
IMAGES = {
    "sklearn": ("sagemaker-scikit-learn", "1.4-2-cpu-py3"),
    "xgboost": ("sagemaker-xgboost", "3.0-5"),
    "pytorch": ("pytorch-training", "2.6.0-cpu-py312"),
    "tensorflow": ("tensorflow-training", "2.12-cpu-py310"),
    "mxnet": ("mxnet-training", "1.9.0-cpu-py38"),
}
AT_ONCE = 8
Runs: TypeAlias = "dict[str, Future[subprocess.CompletedProcess[str]]]"


@pytest.fixture(scope="module")
def runs(
    served: Served, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Runs]:
    """Every script that this session wants, running."""
    items = [item for item in request.session.items if item.path == request.path]
    scripts = [str(item.callspec.params["script"]) for item in items if isinstance(item, pytest.Function)]
    wanted = [script for script in scripts if not _missing(script)]
    folder = tmp_path_factory.mktemp("models")
    one_by_one = threading.Lock()

    def run(words: str, client: str) -> subprocess.CompletedProcess[str]:
        python = Path(sys.executable) if client == "own" else environment(client)
        script, *arguments = words.split()
        if arguments:
            with one_by_one:
                model = model_made_elsewhere(folder / arguments[0], *arguments)
            arguments += [str(model)] if script.startswith("sdk2") else []
        path_of = SCRIPTS / script
        if script.endswith(".md"):
            path_of = folder / f"{script}.py"
            path_of.write_text(example_of(DOCS / script))
        interpreter = "/bin/sh" if script.endswith(".sh") else str(python)
        path = f"PATH={python.parent}:/usr/bin:/bin"
        command = ["/usr/bin/env", path, interpreter, str(path_of), *arguments]
        return subprocess.run(
            [str(SAGESMITH), "run", "--home", str(served.home), "--", *command],
            env={
                **os.environ,
                "BASE": BASE,  # what the example of own containers builds on here
                "DOCKER_BUILDKIT": "0",
                "DOCKER_CONFIG": str(folder),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {script: pool.submit(run, script, CLIENTS[script]) for script in wanted}


def _missing(script: str) -> str:
    """What this machine lacks for *script*."""
    if script.startswith("sdk3_frameworks.py"):
        return missing_sandbox()  # SDK 3 has its containers run scripts below /opt/ml, by that name
    return missing_docker() if script == "containers.md" else ""


def example_of(page: Path) -> str:
    """Return the complete example of a page of the documentation: its only block of Python, and a last line for us."""
    (example,) = re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return str(example) + "\nprint('{\"ok\": true}')\n"


def model_made_elsewhere(folder: Path, framework: str) -> Path:
    """Return a model.tar.gz that the framework's script made without Sagesmith, with its environment's Python."""
    packed = folder / "model.tar.gz"
    if packed.exists():
        return packed
    python = image_environment(*IMAGES[framework])
    (folder / "data").mkdir(parents=True)
    (folder / "model").mkdir()
    features = np.random.default_rng(1).normal(size=(200, 2))
    rows = np.column_stack([features @ [2.0, -3.0] + 1, features])
    np.savetxt(folder / "data" / "train.csv", rows, delimiter=",")
    subprocess.run(
        [python, SCRIPTS / "frameworks" / f"{framework}_script.py"],
        env={**os.environ, "SM_CHANNEL_TRAIN": str(folder / "data"), "SM_MODEL_DIR": str(folder / "model")},
        check=True,
        capture_output=True,
    )
    with tarfile.open(packed, "w:gz") as tar:
        for path in sorted((folder / "model").iterdir()):
            tar.add(path, path.name)
    return packed


@pytest.mark.parametrize("script", CLIENTS)
def test_unchanged_code(served: Served, runs: Runs, script: str) -> None:
    if _missing(script):
        pytest.skip(_missing(script))
    try:
        done = runs[script].result()
    except EnvironmentUnavailableError as reason:
        pytest.skip(str(reason))
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}\n{served.log()}"
    # The SDK ends its own progress line ("-----!") without a line feed.
    result = json.loads(done.stdout[done.stdout.rindex('{"ok"') :])
    assert result["ok"] is True, result
