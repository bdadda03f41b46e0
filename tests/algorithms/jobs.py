"""Training jobs as real processes, forked from one that has the libraries loaded, in folders that stand for /opt/ml."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"


_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["sagesmith_algorithms.training", "sagesmith_algorithms.xgboost.training"])


@dataclass
class Job:
    base: Path
    process: ForkServerProcess

    def wait(self) -> tuple[int, str]:
        """Return the exit code and the log."""
        self.process.join(timeout=60)
        code = self.process.exitcode
        assert code is not None, "the job does not end"
        return code, self.log

    @property
    def log(self) -> str:
        path = self.base / "log"
        return path.read_text() if path.exists() else ""

    def wait_for_line(self, start: str) -> None:
        """Return once a line that begins with *start* was logged."""
        deadline = time.monotonic() + 60
        while f"\n{start}" not in self.log:
            assert time.monotonic() < deadline, self.log
            assert self.process.is_alive(), self.log
            time.sleep(0.01)

    def signal(self, number: int) -> None:
        assert self.process.pid
        os.kill(self.process.pid, number)

    @property
    def model_dir(self) -> Path:
        return self.base / "model"

    @property
    def failure(self) -> str:
        return (self.base / "output" / "failure").read_text()


def _run(base: str, environ: dict[str, str]) -> None:
    """Be the container: its own environment, its output in a file."""
    os.environ.update(environ)
    log = os.open(os.path.join(base, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    from sagesmith_algorithms.__main__ import main

    code = main(["train"])
    sys.stdout.flush()
    os._exit(code)


def start(
    base: Path,
    algorithm: str,
    hyperparameters: Mapping[str, str],
    channels: Mapping[str, tuple[str, Mapping[str, bytes]]],
    *,
    hosts: Sequence[str] = ("algo-1",),
    host: str = "",
    replicated: Iterable[str] = (),
    checkpoints: bool = False,
) -> Job:
    """Start a job. *channels*: content type and files by channel. *checkpoints*: with a CheckpointConfig."""
    config = base / "input" / "config"
    config.mkdir(parents=True)
    (base / "model").mkdir()
    for name, (_, files) in channels.items():
        for file, content in files.items():
            path = base / "input" / "data" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (base / "input" / "data" / name).mkdir(parents=True, exist_ok=True)
    entries = {
        name: {
            "ContentType": content_type,
            "TrainingInputMode": "File",
            "S3DistributionType": "FullyReplicated"
            if len(hosts) == 1 or name in replicated
            else "ShardedByS3Key",
        }
        for name, (content_type, _) in channels.items()
    }
    documents = {
        "hyperparameters": hyperparameters,
        "inputdataconfig": entries,
        "resourceconfig": {"current_host": host or hosts[0], "hosts": list(hosts)},
        **({"checkpointconfig": {"LocalPath": "/opt/ml/checkpoints"}} if checkpoints else {}),
    }
    for name, document in documents.items():
        (config / f"{name}.json").write_text(json.dumps(document))
    environ = {
        "SAGESMITH_ALGORITHM": algorithm,
        "SAGEMAKER_BASE_DIR": str(base),
        "TRAINING_JOB_NAME": f"job-{base.parent}",
        "OMP_NUM_THREADS": "1",
    }
    process = _FORKS.Process(target=_run, args=(str(base), environ))
    process.start()
    return Job(base, process)
