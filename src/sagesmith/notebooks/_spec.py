"""What a notebook's instance is told at its start, from the notebook's document and what that names."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sagesmith.errors import validation_error
from sagesmith.fleet.api import InstanceShape
from sagesmith.images import notebook_environment
from sagesmith.instance.spec import (
    ContainerSpec,
    Credentials,
    InstanceSpec,
    NotebookTask,
    Repository,
    ServerAddress,
)
from sagesmith.instance.volume import GIB
from sagesmith.lifecycle.notebook import NotebookRun
from sagesmith.notebooks.addresses import base_path
from sagesmith.notebooks.sessions import jupyter_token
from sagesmith.store.resources import Resource, Resources

__all__ = ["LOG_GROUP", "instance_spec"]

LOG_GROUP: Final = "/aws/sagemaker/NotebookInstances"
_CONFIG: Final = "notebook-instance-lifecycle-config"
_REPOSITORY: Final = "code-repository"


def instance_spec(
    resource: Resource,
    run: NotebookRun,
    *,
    resources: Resources,
    volume: Path,
    account_id: str,
    shape: InstanceShape,
    server: ServerAddress,
    role: Credentials,
) -> InstanceSpec:
    """Return the specification of the instance that *run* wants. Reads the database.

    Raises:
        AwsError: a lifecycle configuration or code repository that the notebook names is gone.
    """
    document, region = resource.document, resource.region
    scripts, config_arn = _scripts(resources, region, document.get("NotebookInstanceLifecycleConfigName", ""))
    named = [document.get("DefaultCodeRepository", ""), *document.get("AdditionalCodeRepositories", ())]
    task = NotebookTask(
        name=resource.name,
        arn=resource.arn,
        role_arn=document["RoleArn"],
        volume=str(volume),
        base_url=base_path(region, resource.name),
        token=jupyter_token(run.secret),
        internet=document.get("DirectInternetAccess") != "Disabled",
        created=run.created,
        on_create=scripts.get("OnCreate", ""),
        on_start=scripts.get("OnStart", ""),
        config_arn=config_arn,
        repositories=tuple(_repository(resources, region, name) for name in named if name),
        opens_first=bool(named[0]),
        volume_bytes=document.get("VolumeSizeInGB", 0) * GIB,
    )
    return InstanceSpec(
        instance_id=run.instance_id,
        owner_arn=resource.arn,
        instance_type=document["InstanceType"],
        region=region,
        account_id=account_id,
        server=server,
        agent_token="",  # the fleet makes one
        role=role,
        container=ContainerSpec("process", "", (), python=notebook_environment()),
        task=task,
        log_group=LOG_GROUP,
        log_stream=f"{resource.name}/jupyter.log",
        vcpus=shape.vcpus,
        memory_bytes=shape.memory_bytes,
        gpus=shape.gpus,
    )


def _scripts(resources: Resources, region: str, name: str) -> tuple[Mapping[str, str], str]:
    """Return the scripts of the lifecycle configuration *name* ("" for none) and its ARN."""
    if not name:
        return {}, ""
    config = resources.get(_CONFIG, region, name)
    if config is None:
        raise validation_error(
            f"The notebook instance lifecycle configuration {name} does not exist any more."
        )
    return {
        event: base64.b64decode(script["Content"]).decode("utf-8")
        for event in ("OnCreate", "OnStart")
        for script in config.document.get(event) or ()
        if script.get("Content")
    }, config.arn


def _repository(resources: Resources, region: str, name: str) -> Repository:
    if name.startswith("https://"):
        return Repository(name)
    found = resources.get(_REPOSITORY, region, name)
    if found is None:
        raise validation_error(f"The code repository {name} does not exist any more.")
    config: Mapping[str, Any] = found.document["GitConfig"]
    return Repository(config["RepositoryUrl"], config.get("Branch", ""))
