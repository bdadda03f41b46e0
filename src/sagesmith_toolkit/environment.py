"""What a training container is told: the files below /opt/ml and the environment variables, read once.

Everything is optional but the folder: a missing file means what SageMaker means by it (no hyperparameters, no
channels, one host). `SAGEMAKER_BASE_DIR` moves the whole of /opt/ml, which is how processes without a
container of their own share a machine.

What describes a job here and in the modules beside are named tuples: importing `dataclasses` and making classes with it
takes a third of the time that passes before a script starts.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Mapping, NamedTuple, Tuple

__all__ = ["Channel", "ConfigError", "Environment", "cpu_count"]

_OPT_ML = "/opt/ml"


class ConfigError(ValueError):
    """A file below /opt/ml/input/config does not say what it must."""


class Channel(NamedTuple):
    """One input channel. `folder` holds its files (File, FastFile); in Pipe mode `fifo(epoch)` is read instead."""

    name: str
    folder: Path
    content_type: str = ""
    input_mode: str = "File"
    distribution: str = "FullyReplicated"
    record_wrapper: str = "None"

    @property
    def is_sharded(self) -> bool:
        """Whether each host holds its own part of the data."""
        return self.distribution == "ShardedByS3Key"

    def fifo(self, epoch: int) -> Path:
        """Return the named pipe that carries the channel's data of *epoch* (0, 1, ...)."""
        return self.folder.with_name("%s_%d" % (self.folder.name, epoch))


class Environment(NamedTuple):
    """Where a training job reads and writes, and which host of which hosts this is.

    `hyperparameters` are as sent, text to text. `checkpoint_dir` is where the job's checkpoints are kept, None if it
    has no CheckpointConfig. `num_cpus` is this instance's share of the machine. `resources`
    and `inputs` are what resourceconfig.json and inputdataconfig.json hold, whole.
    """

    base_dir: Path
    hyperparameters: Mapping[str, str] = {}
    channels: Mapping[str, Channel] = {}
    current_host: str = "algo-1"
    hosts: Tuple[str, ...] = ("algo-1",)
    network_interface: str = "lo"
    checkpoint_dir: Path | None = None
    job_name: str = ""
    job_arn: str = ""
    num_cpus: int = 1
    resources: Mapping[str, Any] = {}
    inputs: Mapping[str, Any] = {}

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> Environment:
        """Return what the files below ``$SAGEMAKER_BASE_DIR`` (default /opt/ml) say.

        Raises:
            ConfigError: a file is not the JSON it must be.
        """
        environ = os.environ if environ is None else environ
        base = Path(environ.get("SAGEMAKER_BASE_DIR") or _OPT_ML)
        config = base / "input" / "config"
        resources = _read_json(config / "resourceconfig.json")
        hosts = tuple(resources.get("hosts") or ("algo-1",))
        current = str(resources.get("current_host") or hosts[0])
        if current not in hosts:
            raise ConfigError(
                "current_host %r in %s is none of the hosts %s"
                % (current, config / "resourceconfig.json", ", ".join(hosts))
            )
        data = base / "input" / "data"
        inputs = _read_json(config / "inputdataconfig.json")
        channels = {
            name: Channel(
                name=name,
                folder=data / name,
                content_type=str(entry.get("ContentType") or ""),
                input_mode=str(entry.get("TrainingInputMode") or "File"),
                distribution=str(entry.get("S3DistributionType") or "FullyReplicated"),
                record_wrapper=str(entry.get("RecordWrapperType") or "None"),
            )
            for name, entry in inputs.items()
        }
        hyperparameters = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in _read_json(config / "hyperparameters.json").items()
        }
        checkpoints = _read_json(config / "checkpointconfig.json")
        return cls(
            base_dir=base,
            hyperparameters=hyperparameters,
            channels=channels,
            current_host=current,
            hosts=hosts,
            network_interface=str(resources.get("network_interface_name") or "lo"),
            checkpoint_dir=_moved(str(checkpoints.get("LocalPath") or _OPT_ML + "/checkpoints"), base)
            if checkpoints
            else None,
            job_name=environ.get("TRAINING_JOB_NAME", ""),
            job_arn=environ.get("TRAINING_JOB_ARN", ""),
            num_cpus=cpu_count(environ),
            resources=resources,
            inputs=inputs,
        )

    @property
    def model_dir(self) -> Path:
        """What stands here when the job ends becomes the model artifact."""
        return self.base_dir / "model"

    @property
    def output_data_dir(self) -> Path:
        """What stands here when the job ends becomes output.tar.gz."""
        return self.base_dir / "output" / "data"

    @property
    def failure_file(self) -> Path:
        """The first 1024 characters of this file become the job's FailureReason."""
        return self.base_dir / "output" / "failure"

    @property
    def rank(self) -> int:
        """This host's place among the hosts; 0 is the first."""
        return self.hosts.index(self.current_host)

    @property
    def is_leader(self) -> bool:
        """Whether this is the first host, the one that writes the model."""
        return self.rank == 0

    def write_failure(self, text: str) -> None:
        """Leave *text* for the job's FailureReason."""
        self.failure_file.parent.mkdir(parents=True, exist_ok=True)
        self.failure_file.write_text(text, encoding="utf-8")


def cpu_count(environ: Mapping[str, str] | None = None) -> int:
    """Return how many threads this instance may keep busy: SM_NUM_CPUS, OMP_NUM_THREADS, or the usable cores."""
    environ = os.environ if environ is None else environ
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name in ("SM_NUM_CPUS", "OMP_NUM_THREADS"):
        text = environ.get(name, "").split(",")[0].strip()
        if text.isdigit() and int(text) > 0:
            return min(int(text), usable)
    return usable


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigError("%s is not JSON: %s" % (path, error)) from error
    if not isinstance(value, dict):
        raise ConfigError("%s must hold a JSON object, not %s" % (path, type(value).__name__))
    return value


def _moved(path: str, base: Path) -> Path:
    """Return *path* with /opt/ml replaced by *base*."""
    if path == _OPT_ML or path.startswith(_OPT_ML + "/"):
        return base / path[len(_OPT_ML) + 1 :]
    return Path(path)
