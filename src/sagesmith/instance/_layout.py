"""The ``/opt/ml`` of a training container: its folders and the files of ``input/config``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sagesmith.instance.spec import ChannelSpec, InstanceSpec, TrainingTask

__all__ = ["base_environment", "installer_environment", "lay_out_serving", "lay_out_training", "open_to_all"]


_INSTALLER: Final = (
    "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT", "PIP_CERT",
    "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy",
)  # fmt: skip


def lay_out_training(base: Path, spec: InstanceSpec, task: TrainingTask) -> None:
    """Make the folders and configuration files of *task* below *base*."""
    for name in (
        "input/config",
        "input/data",
        "model",
        "output/data",
        "output/intermediate",
        "checkpoints",
        "code",
    ):
        (base / name).mkdir(parents=True, exist_ok=True)
    config = base / "input" / "config"
    _write(config / "hyperparameters.json", dict(task.hyperparameters))
    _write(config / "inputdataconfig.json", {channel.name: _channel(channel) for channel in task.channels})
    hosts = sorted(spec.hosts, key=_host_order)
    group = {"instance_group_name": spec.instance_group, "instance_type": spec.instance_type, "hosts": hosts}
    resources = {
        "current_host": spec.host,
        "current_instance_type": spec.instance_type,
        "current_group_name": spec.instance_group,
        "hosts": hosts,
        "instance_groups": [group],
        # Where the hosts' names lead: processes on one machine speak over its loopback interface.
        "network_interface_name": "eth0" if spec.container.runtime == "docker" else "lo",
    }
    _write(config / "resourceconfig.json", resources)
    if task.checkpoint_uri:
        _write(
            config / "checkpointconfig.json",
            {"S3Uri": task.checkpoint_uri, "LocalPath": task.checkpoint_path},
        )


def lay_out_serving(base: Path) -> None:
    """Make the folders that a model server expects below *base*."""
    for name in ("model", "input/config", "output"):
        (base / name).mkdir(parents=True, exist_ok=True)


def base_environment(spec: InstanceSpec, ca_file: str) -> dict[str, str]:
    """Return the variables that every container of *spec* gets; the request's own come on top.

    Without network there is nothing to reach with keys, and SageMaker gives such containers none.
    """
    threads = str(max(1, spec.vcpus))
    environment = {
        "AWS_REGION": spec.region,
        "AWS_DEFAULT_REGION": spec.region,
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "NUMBA_NUM_THREADS": threads,
    }
    if spec.container.network:
        environment |= {
            "AWS_ENDPOINT_URL": spec.server.url,
            "S3_ENDPOINT_URL": spec.server.url,
            "AWS_ACCESS_KEY_ID": spec.role.access_key_id,
            "AWS_SECRET_ACCESS_KEY": spec.role.secret_access_key,
        }
        if spec.role.session_token:
            environment["AWS_SESSION_TOKEN"] = spec.role.session_token
        if ca_file:
            environment |= {"AWS_CA_BUNDLE": ca_file, "REQUESTS_CA_BUNDLE": ca_file}
    return environment


def installer_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what *environ*, the server's own, says about where packages come from, for containers that install some."""
    return {name: environ[name] for name in _INSTALLER if name in environ}


def open_to_all(base: Path) -> None:
    """Let any user of a container write below *base*: its image runs as whom it wants, as on SageMaker.

    Other users of this machine cannot reach it: the folder above is the agent's alone.
    """
    base.chmod(0o777)
    for folder, names, files in os.walk(base):
        for name in (*names, *files):
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                os.chmod(path, os.stat(path).st_mode | (0o777 if name in names else 0o666))


def _channel(channel: ChannelSpec) -> Mapping[str, Any]:
    described = {
        "TrainingInputMode": channel.input_mode,
        "S3DistributionType": channel.distribution,
        "RecordWrapperType": channel.record_wrapper,
    }
    return {"ContentType": channel.content_type, **described} if channel.content_type else described


def _host_order(host: str) -> tuple[int, str]:
    """algo-10 comes after algo-9."""
    number = host.rpartition("-")[2]
    return (int(number) if number.isdigit() else 0, host)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), "utf-8")
