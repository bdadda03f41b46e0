"""The keys that jobs and endpoints act with, as their drivers see them."""

from __future__ import annotations

from typing import Any, Protocol

from sagesmith.store.database import Connection

__all__ = ["RoleKey", "RoleKeys"]


class RoleKey(Protocol):
    """An access key of an execution role."""

    @property
    def access_key_id(self) -> str:
        """Its public part."""
        ...

    @property
    def secret_access_key(self) -> str:
        """What signs requests."""
        ...

    @property
    def session_token(self) -> str | None:
        """What goes with each request, for temporary keys."""
        ...

    @property
    def expires(self) -> float | None:
        """Until when it works, as a Unix time; None: for ever."""
        ...


class RoleKeys(Protocol):
    """What drivers need of `Identities`: keys of execution roles. Called in worker threads."""

    def draft(self, role_arn: str, session_name: str, duration_s: float | None, /) -> RoleKey:
        """Return a new key of the role, for ever if *duration_s* is None. It works once it is stored."""
        ...

    def store(self, key: Any, connection: Connection, /) -> None:
        """Write a key that `draft` returned, in a transaction that is under way."""
        ...

    def revoke(self, access_key_id: str, /) -> None:
        """Let the key work no longer; harmless when repeated."""
        ...
