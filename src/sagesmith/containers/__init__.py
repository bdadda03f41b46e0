"""Containers: one command with its own /opt/ml, run as a sandboxed process or by a Docker engine."""

from sagesmith.containers._engine import Engine, EngineError, EngineUnavailable
from sagesmith.containers._forward import Target
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
    "Line",
    "Output",
    "ProcessRuntime",
    "Sandbox",
    "Target",
    "Usage",
    "remove_containers",
]
