"""A user's script and what it is told: its hyperparameters as arguments, and every ``SM_`` variable.

Hyperparameters come as text that is itself JSON (``"\\"text\\""``, ``"[1,2]"``, ``"0.1"``); text that is not is
taken as it is. Those that begin with ``sagemaker_`` are for the framework and never reach the script.
"""

from __future__ import annotations

import glob
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any, List, Mapping, NamedTuple, Tuple

from sagesmith_toolkit.environment import Environment

__all__ = ["Script", "arguments", "gpu_count"]

_OWN = "sagemaker_"
_NOT_PARAMETERS = (
    "sagemaker_program", "sagemaker_submit_directory", "sagemaker_job_name", "sagemaker_region",
    "sagemaker_container_log_level", "sagemaker_enable_cloudwatch_metrics", "sagemaker_s3_output",
)  # fmt: skip
_LOG_LEVEL = 20


class Script(NamedTuple):
    """What a training job in script mode runs.

    `program` is the entry point, a name in `code_dir`; `source` says where the code comes from: an S3 URI, a
    folder or an archive ("" where the code is in its place already). `hyperparameters` are the script's own,
    decoded; `parameters` are those of the framework.
    """

    environment: Environment
    program: str
    source: str
    code_dir: Path
    framework: str = ""
    hyperparameters: Mapping[str, Any] = {}
    parameters: Mapping[str, Any] = {}

    @classmethod
    def read(cls, environment: Environment, environ: Mapping[str, str]) -> Script:
        """Return the script that the job's hyperparameters, or else *environ*, name."""
        decoded = {name: _decoded(value) for name, value in environment.hyperparameters.items()}
        parameters = {name: value for name, value in decoded.items() if name.startswith(_OWN)}
        return cls(
            environment=environment,
            program=str(parameters.get("sagemaker_program") or environ.get("SAGEMAKER_PROGRAM") or ""),
            source=str(
                parameters.get("sagemaker_submit_directory")
                or environ.get("SAGEMAKER_SUBMIT_DIRECTORY")
                or ""
            ),
            code_dir=environment.base_dir / "code",
            framework=environ.get("SAGESMITH_FRAMEWORK", ""),
            hyperparameters={name: value for name, value in decoded.items() if not name.startswith(_OWN)},
            parameters=parameters,
        )

    @property
    def module(self) -> str:
        """The program's name as a module."""
        return self.program[:-3] if self.program.endswith(".py") else self.program

    @property
    def is_package(self) -> bool:
        """Whether the code is installed with its setup.py, and its entry point run as a module."""
        return not self.program.endswith(".sh") and (self.code_dir / "setup.py").is_file()

    @property
    def is_command(self) -> bool:
        """Whether the program is a shell script, or anything else that is not Python."""
        return self.program.endswith(".sh") or not (self.is_package or self.program.endswith(".py"))

    def command(self, python: str) -> List[str]:
        """Return what runs the script, in `code_dir`, with *python* where it is a Python program."""
        words = arguments(self.hyperparameters)
        if self.is_command:
            return ["/bin/sh", "-c", " ".join(["./" + self.program, *map(shlex.quote, words)])]
        if self.is_package:
            return [python, "-m", self.module, *words]
        return [python, self.program, *words]

    def variables(self) -> Mapping[str, str]:
        """Return the ``SM_`` variables."""
        variables = {
            "SM_" + name.upper(): value if isinstance(value, str) else _compact(value)
            for name, value in self._described().items()
        }
        for name, channel in self.environment.channels.items():
            variables["SM_CHANNEL_" + name.upper()] = str(channel.folder)
        for name, value in self.hyperparameters.items():
            variables["SM_HP_" + name.upper()] = value if isinstance(value, str) else _compact(value)
        variables["SM_TRAINING_ENV"] = _compact(self.training_env())
        return variables

    def training_env(self) -> Mapping[str, Any]:
        """Return everything about the job as one document, what ``SM_TRAINING_ENV`` holds as JSON."""
        environment, described = self.environment, self._described()
        kept = (
            "current_host", "current_instance_group", "current_instance_group_hosts", "current_instance_type",
            "distribution_instance_groups", "hosts", "input_config_dir", "input_data_config", "input_dir",
            "instance_groups", "instance_groups_dict", "is_hetero", "log_level", "model_dir", "module_dir",
            "module_name", "network_interface_name", "num_cpus", "num_gpus", "num_neurons", "output_data_dir",
            "output_dir", "output_intermediate_dir", "resource_config", "user_entry_point",
        )  # fmt: skip
        return {
            "additional_framework_parameters": described["framework_params"],
            "channel_input_dirs": {name: str(c.folder) for name, c in environment.channels.items()},
            "framework_module": described["framework_module"],
            "hyperparameters": dict(self.hyperparameters),
            "is_master": environment.is_leader,
            "is_modelparallel_enabled": None,
            "is_smddpmprun_installed": False,
            "job_name": self.parameters.get("sagemaker_job_name") or environment.job_name,
            "master_hostname": environment.hosts[0],
            **{name: described[name] for name in kept},
        }

    def _described(self) -> Mapping[str, Any]:
        environment = self.environment
        base, resources = environment.base_dir, environment.resources
        groups = resources.get("instance_groups") or []
        group = str(resources.get("current_group_name") or "homogeneousCluster")
        by_name = {entry["instance_group_name"]: entry for entry in groups}
        level = self.parameters.get("sagemaker_container_log_level", _LOG_LEVEL)
        return {
            "hosts": list(environment.hosts),
            "network_interface_name": environment.network_interface,
            "hps": dict(self.hyperparameters),
            "user_entry_point": self.program,
            "framework_params": {
                name: value for name, value in self.parameters.items() if name not in _NOT_PARAMETERS
            },
            "resource_config": dict(resources),
            "input_data_config": dict(environment.inputs),
            "output_data_dir": str(environment.output_data_dir),
            "channels": sorted(environment.channels),
            "current_host": environment.current_host,
            "current_instance_type": str(resources.get("current_instance_type") or ""),
            "current_instance_group": group,
            "current_instance_group_hosts": by_name.get(group, {}).get("hosts", list(environment.hosts)),
            "instance_groups": sorted(by_name),
            "instance_groups_dict": by_name,
            "distribution_instance_groups": self.parameters.get("sagemaker_distribution_instance_groups", []),
            "is_hetero": len(by_name) > 1,
            "module_name": self.module,
            "module_dir": self.source or str(self.code_dir),
            "log_level": level if isinstance(level, int) else _LOG_LEVEL,
            "framework_module": "sagemaker_%s_container.training:main"
            % self.framework.replace("scikit-learn", "sklearn"),
            "input_dir": str(base / "input"),
            "input_config_dir": str(base / "input" / "config"),
            "output_dir": str(base / "output"),
            "output_intermediate_dir": str(base / "output" / "intermediate"),
            "num_cpus": environment.num_cpus,
            "num_gpus": gpu_count(os.environ),
            "num_neurons": 0,
            "model_dir": str(environment.model_dir),
            "user_args": arguments(self.hyperparameters),
        }


def arguments(hyperparameters: Mapping[str, Any]) -> List[str]:
    """Return *hyperparameters* as a command line, sorted by name: ``--name value``, ``-n value`` for one letter."""
    words: List[str] = []
    for name in sorted(hyperparameters):
        value = hyperparameters[name]
        if name:
            words.append(("--" if len(name) > 1 else "-") + name)
        words.append(_compact(value) if isinstance(value, dict) else str(value))
    return words


def gpu_count(environ: Mapping[str, str]) -> int:
    """Return how many GPUs this container sees."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    return len(_numbered_devices())


def _numbered_devices() -> Tuple[str, ...]:
    return tuple(path for path in glob.glob("/dev/nvidia[0-9]*") if path[len("/dev/nvidia") :].isdigit())


def _decoded(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


if sys.version_info < (3, 8):
    raise ImportError("sagesmith_toolkit needs Python 3.8 or later")
