"""What a notebook's containers see: the volume, a home folder, the metadata file, and the commands that run there."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sagesmith.containers import ContainerPlan
from sagesmith.instance._host import Host
from sagesmith.instance.spec import NotebookTask, Repository

__all__ = [
    "clone_command",
    "clone_folder",
    "jupyter_command",
    "lay_out_notebook",
    "notebook_plan",
    "script_command",
]

HOME: Final = "/home/ec2-user"
VOLUME: Final = f"{HOME}/SageMaker"
_LIBRARY: Final = "/opt/sagesmith/lib"
_PASSWD: Final = f"root:x:0:0:root:/root:/bin/sh\nec2-user:x:1000:1000::{HOME}:/bin/bash\nnobody:x:65534:65534:nobody:/:/bin/false\n"
_WRAPPER: Final = ("python", "-m", "sagesmith_toolkit.notebook")
_DOOR: Final = "door.sock"


def lay_out_notebook(host: Host, task: NotebookTask) -> None:
    """Make the folders and files of *task* in the instance's folder."""
    for name in ("ml/metadata", "home/SageMaker", "run", "script"):
        (host.folder / name).mkdir(parents=True, exist_ok=True)
    metadata = {"ResourceArn": task.arn, "ResourceName": task.name, "ExecutionRoleArn": task.role_arn}
    (host.folder / "ml" / "metadata" / "resource-metadata.json").write_text(json.dumps(metadata), "utf-8")
    (host.folder / "script" / "passwd").write_text(_PASSWD, "utf-8")


def notebook_plan(
    host: Host, task: NotebookTask, command: tuple[str, ...], **environment: str
) -> ContainerPlan:
    """Return the container that runs *command*; all of a notebook's have the same home and the same volume."""
    plan = host.plan({})
    home, client = HOME, _LIBRARY
    folders: Mapping[str, Path] = {HOME: host.folder / "home", VOLUME: Path(task.volume)}
    files = dict(plan.files)
    package = _package()
    if host.sandboxed:
        files |= {
            f"{_LIBRARY}/sagesmith/{name}": package / name for name in ("__init__.py", "py.typed", "sdk")
        }
        files["/etc/passwd"] = host.folder / "script" / "passwd"
    else:
        home, client, folders = str(host.folder / "home"), str(package.parent), {}
    server = urlsplit(host.spec.server.url).hostname or "127.0.0.1"
    variables = {
        **plan.environment,
        "HOME": home,
        "SAGESMITH_DOOR": _inside(host, plan, host.folder / "run" / _DOOR),
        "SAGESMITH_CLIENT": client,
        "NO_PROXY": f"localhost,127.0.0.1,{server}" if task.internet else "localhost",
        "SAGEMAKER_ROLE": task.role_arn,
        "SHELL": "/bin/bash",
        "TERM": "xterm-256color",
        "GIT_TERMINAL_PROMPT": "0",
        "MPLCONFIGDIR": f"{home}/.config/matplotlib",
        "JUPYTER_RUNTIME_DIR": f"{home}/.run",
        **environment,
    }
    if "AWS_CA_BUNDLE" in variables:
        for name in ("GIT_SSL_CAINFO", "SSL_CERT_FILE", "PIP_CERT"):
            variables[name] = variables["AWS_CA_BUNDLE"]
    variables["no_proxy"] = variables["NO_PROXY"]
    return replace(
        plan,
        command=(*_WRAPPER, *command),
        environment=variables,
        hostname=f"notebook-{task.name}"[:63],
        folders=folders,
        files=files,
        network=task.internet,
    )


def jupyter_command(host: Host, task: NotebookTask) -> tuple[str, ...]:
    """Return what starts JupyterLab on the instance's socket."""
    socket = host.folder / "run" / host.socket_name
    volume = VOLUME if host.sandboxed else task.volume
    opened = clone_folder(task.repositories[0]) if task.opens_first and task.repositories else ""
    return (
        *("python", "-m", "jupyterlab"),
        f"--ServerApp.sock={_inside(host, host.plan({}), socket)}",
        f"--ServerApp.base_url={task.base_url}",
        f"--ServerApp.root_dir={volume}",
        f"--LabApp.default_url=/lab{f'/tree/{opened}' if opened else ''}",
        "--IdentityProvider.token=",
        "--ServerApp.identity_provider_class=sagesmith_toolkit.jupyter.Proxied",
        "--ServerApp.allow_remote_access=True",
        "--ServerApp.allow_root=True",
        "--ServerApp.open_browser=False",
        "--ServerApp.quit_button=False",
        "--ServerApp.log_level=WARN",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.news_url=None",
        "--LabApp.extension_manager=readonly",
        # Kernels listen on files of this instance, not on ports that the whole machine can reach.
        *(("--KernelManager.transport=ipc",) if host.sandboxed else ()),
    )


def script_command(script: Path, host: Host) -> tuple[str, ...]:
    """Return what runs the shell script *script* (a file below the instance's home folder)."""
    return ("bash", f"{HOME}/{script.name}" if host.sandboxed else str(script))


def clone_command(host: Host, task: NotebookTask, repository: Repository) -> tuple[str, ...]:
    """Return what clones *repository* into the volume."""
    volume = VOLUME if host.sandboxed else task.volume
    branch = ("--branch", repository.branch) if repository.branch else ()
    return ("git", "clone", "--quiet", *branch, "--", repository.url, f"{volume}/{clone_folder(repository)}")


def clone_folder(repository: Repository) -> str:
    """Return the name of the folder that a clone of *repository* gets, as git would name it."""
    name = repository.url.rstrip("/").rpartition("/")[2].removesuffix(".git")
    return name if name not in ("", ".", "..") else "repository"


def _inside(host: Host, plan: ContainerPlan, path: Path) -> str:
    return host.runtime.path_inside(plan, path)


def _package() -> Path:
    spec = importlib.util.find_spec("sagesmith")
    return Path(os.path.realpath(next(iter(spec.submodule_search_locations or ())))) if spec else Path()
