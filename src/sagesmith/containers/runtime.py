"""What runs a container: the contract that a sandboxed process and Docker both keep.

A container is one command with an environment, an own ``/opt/ml`` (the folder ``ml`` of its instance), an
own ``/tmp`` and an own process tree. What it writes comes out as lines; it ends by itself or is stopped, and
nothing of it is left afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

__all__ = ["Container", "ContainerPlan", "ContainerRuntime", "Line", "Output", "Usage"]

Line: TypeAlias = tuple[int, str]
"""Milliseconds since 1970 at which the line was read, and its text in CloudWatch's form."""

Output: TypeAlias = Callable[[Sequence[Line]], None]
"""Called on the event loop with new lines: those of one stream in the order in which they were written. A process has
one stream for its output and its errors; Docker carries two, and nobody knows which of both wrote first."""


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """Everything a runtime must know to start one container.

    `name` is the instance's id; of several containers of one instance each has a slash and its number after that.
    `folder` is the container's (the instance's own, if there is one container): its ``ml`` becomes ``/opt/ml``, its ``run`` ``/run/sagesmith``, its ``tmp``
    ``/tmp``. `command` is for processes the full command line; a first word ``python`` is that of
    `python_prefix`. `read_only` are paths below ``/opt/ml`` that the container must not change. `files` are
    more files that it may read, and `folders` more that it may write, by the path it sees. `hosts` are names it can resolve.

    For Docker, `image` is what the engine knows it by, `entrypoint` replaces the image's own if given, and `command`
    follows it. `vcpus` and `memory_bytes` are its limits (0: none). `group` names what its hosts have in common if
    they are several, and get a network of their own; `port` is where it listens for the gateway (0: nowhere).
    """

    name: str
    folder: Path
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    hostname: str = "algo-1"
    hosts: Mapping[str, str] = field(default_factory=dict)
    network: bool = True
    read_only: tuple[str, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    folders: Mapping[str, Path] = field(default_factory=dict)
    python_prefix: str = ""
    gpus: int = 0
    image: str = ""
    entrypoint: tuple[str, ...] = ()
    vcpus: float = 0.0
    memory_bytes: int = 0
    group: str = ""
    port: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What the processes of a container have used: CPU seconds since its start, and memory now, in bytes."""

    cpu_s: float
    memory_bytes: int


class Container(Protocol):
    """One running container. All methods belong to the event loop that started it."""

    @property
    def address(self) -> str:
        """The IP address where this machine reaches its port; "" if it has none of its own."""
        ...

    async def wait(self) -> int:
        """Return the exit code once the command has ended, all its processes are gone and its output is read.

        A command ended by signal N has the code 128 + N, as in a shell. May be awaited by several.
        """
        ...

    async def stop(self, grace_s: float) -> int:
        """Send SIGTERM, then SIGKILL to everything after *grace_s* seconds; return what :meth:`wait` returns."""
        ...

    def usage(self) -> Usage:
        """Return what the container uses."""
        ...

    def memory(self) -> int:
        """Return the memory that it takes in bytes, of pages that it shares with others its part; slower than `usage`."""
        ...


class ContainerRuntime(Protocol):
    """Starts containers. Belongs to one event loop."""

    def path_inside(self, plan: ContainerPlan, outside: Path) -> str:
        """Return the path under which the container sees *outside*, a path below the plan's folder."""
        ...

    async def start(self, plan: ContainerPlan, output: Output) -> Container:
        """Start the command of *plan*; *output* gets its lines until `wait` returns.

        Raises:
            ContainerError: the container cannot be made; the sentence says why and whose fault it is.
        """
        ...
