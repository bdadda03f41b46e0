"""How much lies in a notebook's volume, which is a folder of the machine's disk and has no walls of its own."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["GIB", "held_bytes"]

GIB = 1 << 30
"""What `VolumeSizeInGB` counts in."""


def held_bytes(folder: Path) -> int:
    """Return what the files below *folder* take of the disk; one with several names counts once.

    What goes away meanwhile is left out, and so is what a link leads to.
    """
    total, seen, folders = 0, set(), [str(folder)]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                        if (key := (status.st_dev, status.st_ino)) in seen:
                            continue
                        seen.add(key)
                    total += 512 * status.st_blocks
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
    return total
