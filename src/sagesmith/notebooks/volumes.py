"""The folders in which notebooks keep their files: one for each, made when it is created, removed when it is deleted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from sagesmith.instance.volume import held_bytes

__all__ = ["Volumes"]

EXAMPLES: Final = Path(__file__).with_name("examples")


class Volumes:
    """The volumes below *folder*. Thread-safe: no two work on the same one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ensure(self, uid: str) -> Path:
        """Return the volume of the notebook *uid*; a new one has the example notebooks in it."""
        volume = self._folder / uid
        if not volume.exists():
            aside = volume.with_name(f".{uid}.new")
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(mode=0o700, parents=True)
            if EXAMPLES.is_dir():
                shutil.copytree(
                    EXAMPLES, aside / "examples", ignore=shutil.ignore_patterns("*.py", "__pycache__")
                )
            aside.rename(volume)
        return volume

    def held_bytes(self, uid: str) -> int:
        """Return how much lies in the volume of the notebook *uid*; 0 before its first start."""
        return held_bytes(self._folder / uid)

    def remove(self, uid: str) -> None:
        """Remove the volume with all that is in it; harmless when repeated."""
        volume = self._folder / uid
        if volume.exists():
            gone = volume.with_name(f".{uid}.gone")
            volume.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
