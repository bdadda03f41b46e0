"""Launchers: what each host of a job runs, and what the hosts agree on."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sagesmith_toolkit import mpi
from sagesmith_toolkit.environment import Environment
from sagesmith_toolkit.failures import UserCodeError
from sagesmith_toolkit.launchers import Launch, launch, tf_config, torchrun_defaults
from sagesmith_toolkit.script import Script

HOSTS = ("algo-1", "algo-2")


@pytest.fixture(autouse=True)
def addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {host: f"127.9.8.{number}" for number, host in enumerate(HOSTS, 1)}
    monkeypatch.setenv("SAGESMITH_HOSTS", json.dumps(known))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def launched(folder: Path, framework: str, hosts: tuple[str, ...] = HOSTS, **parameters: Any) -> list[Launch]:
    """Return what each of *hosts* runs, when all begin at the same time."""

    def on(host: str) -> Launch:
        environment = Environment(folder, current_host=host, hosts=hosts, job_name=folder.name)
        script = Script(environment, "train.py", "", folder, framework, {"epochs": 3}, parameters)
        with launch(script, "python", {}) as how:
            return how

    with ThreadPoolExecutor(len(hosts)) as pool:
        return list(pool.map(on, hosts))


def test_alone_a_script_is_just_run(tmp_path: Path) -> None:
    (how,) = launched(tmp_path, "scikit-learn", ("algo-1",))
    assert how == Launch(["python", "train.py", "--epochs", "3"])


def test_torchrun_gets_one_address_on_all_hosts(tmp_path: Path) -> None:
    first, second = launched(tmp_path, "pytorch", sagemaker_torch_distributed_enabled=True)
    assert first.command[:3] == ["python", "-m", "torch.distributed.run"]
    assert first.command[-3:] == ["train.py", "--epochs", "3"]
    options = [dict(zip(how.command[3:-3:2], how.command[4:-3:2], strict=True)) for how in (first, second)]
    assert [option.pop("--node_rank") for option in options] == ["0", "1"]
    assert options[0] == options[1]
    assert options[0]["--nnodes"] == "2"
    assert options[0]["--nproc_per_node"] == "1"
    assert options[0]["--master_port"] == first.variables["MASTER_PORT"] == second.variables["MASTER_PORT"]


def test_without_torchrun_pytorch_knows_where_to_meet(tmp_path: Path) -> None:
    first, second = launched(tmp_path, "pytorch")
    assert first.command == second.command == ["python", "train.py", "--epochs", "3"]
    assert first.variables == second.variables
    assert first.variables["MASTER_ADDR"] == "algo-1"


def test_workers_of_tensorflow_know_each_other(tmp_path: Path) -> None:
    hows = launched(tmp_path, "tensorflow", sagemaker_multi_worker_mirrored_strategy_enabled=True)
    first, second = (json.loads(how.variables["TF_CONFIG"]) for how in hows)
    assert first["cluster"] == second["cluster"]
    assert len(set(first["cluster"]["worker"])) == 2
    assert [config["task"] for config in (first, second)] == [
        {"type": "worker", "index": 0},
        {"type": "worker", "index": 1},
    ]
    assert "environment" not in first


def test_the_configuration_of_a_parameter_servers_worker() -> None:
    config = tf_config({"master": ["a:1"], "worker": ["b:1"], "ps": ["a:2", "b:2"]}, "worker", 0)
    assert config["environment"] == "cloud"
    assert config["task"] == {"type": "worker", "index": 0}


def test_mpirun_is_told_hosts_processes_and_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = Environment(tmp_path, hosts=HOSTS, network_interface="eth7")
    parameters = {
        "sagemaker_mpi_num_of_processes_per_host": 4,
        "sagemaker_mpi_custom_mpi_options": '-x "A=b c"',
    }
    monkeypatch.setattr("shutil.which", lambda _: "/opt/mpirun")
    command = mpi.mpirun_command(environment, parameters, ["python", "train.py"], "python")
    assert command[:5] == ["/opt/mpirun", "--host", "algo-1:4,algo-2:4", "-np", "8"]
    assert command[-4:] == ["-x", "A=b c", "python", "train.py"]
    assert command.count("eth7") == 2
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(UserCodeError, match=r"ClientError: .* needs mpirun"):
        mpi.mpirun_command(environment, parameters, ["python", "train.py"], "python")


def test_the_port_of_a_torchrun_of_the_jobs_own_is_free() -> None:
    assert int(torchrun_defaults({"SAGESMITH_FRAMEWORK": "pytorch"})["PET_MASTER_PORT"]) > 1024
    assert torchrun_defaults({"SAGESMITH_FRAMEWORK": "scikit-learn"}) == {}
