"""The hosts of a job, as far as training needs them: sums over all, rows of all, and the leader's word."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from sagesmith_toolkit.rendezvous import Rendezvous

__all__ = ["Team"]

Array = npt.NDArray[Any]


class Team:
    """The hosts of a job; *hosts* is None where there is but one. Every host calls the same methods in turn."""

    def __init__(self, hosts: Rendezvous | None = None) -> None:
        self._hosts = hosts

    @property
    def size(self) -> int:
        """The number of hosts."""
        return 1 if self._hosts is None else len(self._hosts.hosts)

    @property
    def leads(self) -> bool:
        """Whether this is the first host."""
        return self._hosts is None or self._hosts.rank == 0

    def summed(self, *arrays: Any) -> list[Array]:
        """Return the sum of each of *arrays* over all hosts."""
        given = [np.asarray(array) for array in arrays]
        if self._hosts is None:
            return given
        parts = [_unpacked(message) for message in self._hosts.exchange(_packed(given))]
        return [sum(values[1:], values[0]) for values in zip(*parts, strict=True)]

    def joined(self, *arrays: Array) -> list[Array]:
        """Return the rows of all hosts."""
        if self._hosts is None:
            return list(arrays)
        parts = [_unpacked(message) for message in self._hosts.exchange(_packed(arrays))]
        return [np.concatenate(values) for values in zip(*parts, strict=True)]

    def agreed(self, *arrays: Array) -> list[Array]:
        """Return the leader's *arrays*: rounding may differ from host to host."""
        if self._hosts is None:
            return list(arrays)
        message = _packed(arrays) if self.leads else b""
        return _unpacked(self._hosts.exchange(message)[0])


def _packed(arrays: Sequence[Array]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, *arrays, allow_pickle=False)
    return buffer.getvalue()


def _unpacked(message: bytes) -> list[Array]:
    with np.load(io.BytesIO(message), allow_pickle=False) as arrays:
        return [arrays[f"arr_{i}"] for i in range(len(arrays.files))]
