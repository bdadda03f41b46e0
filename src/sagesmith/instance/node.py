"""What the fleet tells an agent about the place where it runs: ``node.json`` in the instance's folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sagesmith.containers import Sandbox

__all__ = ["Node"]


@dataclass(frozen=True, slots=True)
class Node:
    """One place for an instance.

    `hosts` are the addresses of the job's hosts; `socket` is a short path of the folder ``run``, since the path
    of a Unix socket has at most 107 bytes. `mark` is in the environment of all processes of the instance. `images`
    is the folder of the environments that this node's instances share, `torch_backend` the build of PyTorch in them.
    """

    sandbox: Sandbox | None
    hosts: Mapping[str, str] = field(default_factory=dict)
    socket_folder: str = ""
    mark: str = ""
    images: str = ""
    torch_backend: str = "auto"

    def to_json(self) -> dict[str, Any]:
        """Return what :meth:`from_json` takes."""
        sandbox = self.sandbox and {
            "program": self.sandbox.program,
            "user_namespace": self.sandbox.user_namespace,
        }
        return {
            "sandbox": sandbox,
            "hosts": dict(self.hosts),
            "socket_folder": self.socket_folder,
            "mark": self.mark,
            "images": self.images,
            "torch_backend": self.torch_backend,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Node:
        """Return the node that *data* is."""
        sandbox = data["sandbox"]
        return cls(
            Sandbox(**sandbox) if sandbox else None,
            data["hosts"],
            data["socket_folder"],
            data["mark"],
            data.get("images", ""),
            data.get("torch_backend", "auto"),
        )
