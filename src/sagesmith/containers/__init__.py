"""Containers: one command with its own /opt/ml, run as a sandboxed process."""

from sagesmith.containers.errors import ContainerError
from sagesmith.containers.process import ProcessRuntime
from sagesmith.containers.runtime import Container, ContainerPlan, ContainerRuntime, Line, Output, Usage
from sagesmith.containers.sandbox import Sandbox

__all__ = [
    "Container",
    "ContainerError",
    "ContainerPlan",
    "ContainerRuntime",
    "Line",
    "Output",
    "ProcessRuntime",
    "Sandbox",
    "Usage",
]
