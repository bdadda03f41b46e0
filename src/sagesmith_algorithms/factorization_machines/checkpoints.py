"""Checkpoints of a job: all that its next epoch depends on, so that a killed job ends with the model of one that ran through.

A checkpoint is a NumPy archive, ``factorization-machines-checkpoint.{epochs done}``, written aside and then renamed. Only the first
host writes; when a job begins, it gives what it found to the others. The order of rows is a matter of the epoch's number.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sagesmith_algorithms.errors import CustomerError
from sagesmith_algorithms.logs import info

if TYPE_CHECKING:
    from sagesmith_algorithms.factorization_machines.trainer import Trainer
    from sagesmith_toolkit.rendezvous import Rendezvous

__all__ = ["Checkpoints"]

_NAME: Final = re.compile(r"factorization-machines-checkpoint\.(\d+)")
_DECIDE: Final = ("feature_dim", "num_factors", "predictor_type")
_MOST_SHARE: Final = 0.05  # of the time, for writing


class Checkpoints:
    """The checkpoints in *folder*; none are kept or found if it is None.

    Args:
        folder: where they are.
        values: the hyperparameters.
    """

    def __init__(self, folder: Path | None, values: Mapping[str, Any]) -> None:
        self._folder = folder
        self._shape = {name: str(values[name]) for name in _DECIDE}
        self._next_at = 0.0

    def restore(self, trainer: Trainer, hosts: Rendezvous | None, *, leads: bool) -> int:
        """Let *trainer* go on from the last checkpoint, on all hosts; return how many epochs are done.

        Raises:
            CustomerError: it cannot be read, or is of another kind of model.
        """
        found = self._last() if leads else None
        message = b"" if found is None else found.read_bytes()
        if hosts is not None:
            message = hosts.exchange(message)[0]
        if not message:
            return 0
        name = "the checkpoint" if found is None else f"the checkpoint {found}"
        try:
            with np.load(io.BytesIO(message), allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in archive.files}
            shape = {key: str(arrays.pop(key)) for key in _DECIDE}
            epochs = int(arrays.pop("epochs"))
        except (ValueError, KeyError, OSError, EOFError) as error:
            raise CustomerError(
                f"{name[0].upper()}{name[1:]} cannot be read ({error}); remove it, or let CheckpointConfig name another S3Uri."
            ) from error
        other = [
            f"{key}={shape[key]} instead of {self._shape[key]}"
            for key in _DECIDE
            if shape[key] != self._shape[key]
        ]
        if other:
            raise CustomerError(
                f"{name[0].upper()}{name[1:]} is of a model with {', '.join(other)}. Give the job the same "
                "hyperparameters, or let CheckpointConfig name another S3Uri."
            )
        trainer.set_state(arrays)
        info(f"Checkpoint loaded from {found or 'the first host'}: {epochs} epochs are done")
        return epochs

    def save(self, trainer: Trainer, epochs: int, *, last: bool) -> None:
        """Write a checkpoint after so many *epochs*, unless the one before is so fresh that writing would take long.

        *last* says that there are no more epochs: then it is written in any case.
        """
        began = time.monotonic()
        if self._folder is None or (began < self._next_at and not last):
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"factorization-machines-checkpoint.{epochs}"
        aside = path.with_name(f".{path.name}")
        with aside.open("wb") as file:
            np.savez(file, allow_pickle=False, epochs=np.array(epochs), **self._shape, **trainer.state())
        os.replace(aside, path)
        for older in self._all():
            if older != path:
                older.unlink(missing_ok=True)
        now = time.monotonic()
        self._next_at = now + (now - began) / _MOST_SHARE

    def _all(self) -> list[Path]:
        if self._folder is None or not self._folder.is_dir():
            return []
        found = [path for path in self._folder.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: int(path.name.rpartition(".")[2]))

    def _last(self) -> Path | None:
        return next(iter(self._all()[::-1]), None)
