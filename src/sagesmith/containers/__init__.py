"""Containers: one command with its own /opt/ml, run as a sandboxed process or by a Docker engine."""

from sagesmith.containers._engine import Engine, EngineError, EngineUnavailable
from sagesmith.containers._forward import Target
from sagesmith.containers._images import ImageSource, find_image, pull_image, runs_as_root
from sagesmith.containers.docker import DockerRuntime, remove_containers
from sagesmith.containers.errors import ContainerError
from sagesmith.containers.process import ProcessRuntime
from sagesmith.containers.runtime import Container, ContainerPlan, ContainerRuntime, Line, Output, Usage
from sagesmith.containers.sandbox import Sandbox

__all__ = [
    "Container",
    "ContainerError",
    "ContainerPlan",
    "ContainerRuntime",
    "DockerRuntime",
    "Engine",
    "EngineError",
    "EngineUnavailable",
    "ImageSource",
    "Line",
    "Output",
    "ProcessRuntime",
    "Sandbox",
    "Target",
    "Usage",
    "find_image",
    "pull_image",
    "remove_containers",
    "runs_as_root",
]
