from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sagesmith_toolkit.environment import ConfigError, Environment, cpu_count


def write(base: Path, **documents: Any) -> dict[str, str]:
    folder = base / "input" / "config"
    folder.mkdir(parents=True)
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(document if isinstance(document, str) else json.dumps(document))
    return {"SAGEMAKER_BASE_DIR": str(base), "SM_NUM_CPUS": "1"}


def test_nothing_but_the_folder_is_needed(tmp_path: Path) -> None:
    environment = Environment.read({"SAGEMAKER_BASE_DIR": str(tmp_path)})
    assert environment.hosts == ("algo-1",)
    assert environment.is_leader
    assert not environment.channels
    assert environment.model_dir == tmp_path / "model"
    assert environment.checkpoint_dir is None


def test_what_sagemaker_writes(tmp_path: Path) -> None:
    environ = write(
        tmp_path,
        hyperparameters={"k": "3", "odd": 4},
        inputdataconfig={
            "train": {
                "ContentType": "text/csv",
                "TrainingInputMode": "Pipe",
                "S3DistributionType": "ShardedByS3Key",
                "RecordWrapperType": "None",
            },
            "test": {},
        },
        resourceconfig={
            "current_host": "algo-2",
            "hosts": ["algo-1", "algo-2"],
            "network_interface_name": "eth0",
        },
        checkpointconfig={"S3Uri": "s3://b/c", "LocalPath": "/opt/ml/kept/here"},
    )
    environment = Environment.read(environ)
    assert environment.hyperparameters == {"k": "3", "odd": "4"}
    assert (environment.rank, environment.is_leader, environment.network_interface) == (1, False, "eth0")
    train = environment.channels["train"]
    assert (train.content_type, train.is_sharded) == ("text/csv", True)
    assert train.fifo(2) == tmp_path / "input" / "data" / "train_2"
    assert environment.channels["test"].input_mode == "File"
    assert environment.checkpoint_dir == tmp_path / "kept" / "here"
    assert environment.num_cpus == 1


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ({"hyperparameters": "{"}, "hyperparameters.json is not JSON"),
        ({"hyperparameters": []}, "must hold a JSON object, not list"),
        (
            {"resourceconfig": {"current_host": "algo-9", "hosts": ["algo-1"]}},
            "'algo-9'.* is none of the hosts algo-1",
        ),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, documents: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Environment.read(write(tmp_path, **documents))


def test_the_failure_file(tmp_path: Path) -> None:
    Environment(tmp_path).write_failure("why\u00e4")
    assert (tmp_path / "output" / "failure").read_text(encoding="utf-8") == "why\u00e4"


def test_the_share_of_the_machine() -> None:
    assert cpu_count({"SM_NUM_CPUS": "1", "OMP_NUM_THREADS": "9"}) == 1
    assert cpu_count({"OMP_NUM_THREADS": "1,1"}) == 1
    assert cpu_count({"SM_NUM_CPUS": "100000"}) == cpu_count({}) >= 1
