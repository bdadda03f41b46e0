"""The faults of the caller, kept apart from ours.

A training job that raises `CustomerError` fails with its text as the reason; a request that raises `RequestError`
is answered with its status. Anything else that is raised is a fault of this package.
"""

from __future__ import annotations

__all__ = ["CustomerError", "DataError", "HyperparameterError", "RequestError"]


class CustomerError(ValueError):
    """The caller's input is wrong; the text says what, where and what to do."""


class HyperparameterError(CustomerError):
    """One or more hyperparameters are missing, unknown or out of range. `faults` lists them all."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        super().__init__("; ".join(fault.rstrip(".") for fault in faults) + ".")


class DataError(CustomerError):
    """Data cannot be read. *where* names the file, and the line, record or column.

    *row* is the row of a batch, counted from 0, where only the batch knows which file it comes from (see `located`).
    """

    def __init__(self, message: str, where: str = "", row: int | None = None) -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.message = message
        self.where = where
        self.row = row


class RequestError(CustomerError):
    """A request to a model cannot be answered; `status` is the HTTP status."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
