"""What a runtime says when a container cannot be made or run."""

from __future__ import annotations

__all__ = ["ContainerError"]


class ContainerError(Exception):
    """The container could not be set up. `client_error` is True if the user's request is the reason."""

    def __init__(self, message: str, *, client_error: bool = False) -> None:
        super().__init__(message)
        self.client_error = client_error
