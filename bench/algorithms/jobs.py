"""A training job in this process: channels in, artifact out, nothing of the server around it."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sagesmith_algorithms.base import Algorithm

__all__ = ["channel", "loaded", "trained"]

RECORDIO = "application/x-recordio-protobuf"


def loaded(name: str) -> type[Algorithm]:
    """Return the algorithm called *name*; its libraries are there, as they are in a warm process."""
    from sagesmith_algorithms.registry import algorithm

    for module in ("orjson", "scipy.sparse", "threadpoolctl", "sagesmith_algorithms.training"):
        importlib.import_module(module)
    found = algorithm(name)
    found.load_libraries()
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module("sagesmith_algorithms.compiled").compile_all(f"{found.__module__}.kernels")
    return found


def channel(folder: Path, name: str, files: Sequence[Path], times: int = 1) -> Path:
    """Return the folder of a channel of *files*, each of them there so many *times* without taking more room."""
    place = Path(tempfile.mkdtemp(dir=folder)) / name
    place.mkdir()
    for number, file in itertools.product(range(times), files):
        (place / f"{number}-{file.name}").symlink_to(file)
    return place


def trained(
    algorithm: type[Algorithm],
    hyperparameters: Mapping[str, Any],
    channels: Mapping[str, Path],
    content_type: str = RECORDIO,
) -> Path:
    """Train on *channels*, all of one content type, and return the folder of the model."""
    from sagesmith_toolkit.environment import Channel, Environment, cpu_count

    base = next(iter(channels.values())).parent
    environment = Environment(
        base_dir=base,
        hyperparameters={name: str(value) for name, value in hyperparameters.items()},
        channels={name: Channel(name, folder, content_type) for name, folder in channels.items()},
        num_cpus=cpu_count(),
    )
    algorithm.train(environment)
    return environment.model_dir
