"""One algorithm's benchmark: its data, who runs on them, and what is compared.

An entry is a module of `bench.algorithms.entries` with one `ENTRY`. A contender is a function that loads the data from
the entry's folder and trains, between `with run.timed():` and its end, and then says what its model is worth. It runs
in a process of its own, perhaps in an environment that holds nothing but a peer and NumPy: import libraries inside.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = [
    "N_SEEDS",
    "N_THREADS",
    "SPREAD",
    "Comparison",
    "Contender",
    "DataMissing",
    "Entry",
    "Run",
    "data_folder",
]

N_THREADS = 2
N_SEEDS = 5
SPREAD = "_spread"


class DataMissing(RuntimeError):
    """An entry's data are not here, so it is left out; the sentence says which."""


def data_folder(*files: str) -> Path:
    """Return the folder of real data that `SAGESMITH_BENCH_DATA` names.

    Raises:
        DataMissing: it is not set, or one of *files* is not there.
    """
    place = Path(os.environ.get("SAGESMITH_BENCH_DATA") or "/nowhere")
    for file in files:
        if not (place / file).is_file():
            raise DataMissing(f"SAGESMITH_BENCH_DATA names no folder with {file}")
    return place


@dataclass
class Run:
    """One contender's run: the entry's `folder`, and what was measured so far."""

    folder: Path
    quick: bool = False
    measures: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Measure the block: ``seconds``, ``cpu_seconds`` and ``peak_mb``, the process's largest memory till its end."""
        began, cpu = time.perf_counter(), time.process_time()
        yield
        self.measures["seconds"] = time.perf_counter() - began
        self.measures["cpu_seconds"] = time.process_time() - cpu
        self.measures["peak_mb"] = _peak_mb()

    def say(self, **measures: float) -> None:
        """Note further *measures*, such as the quality of the model."""
        self.measures.update({name: float(value) for name, value in measures.items()})

    def say_seeds(self, **measures: Sequence[float]) -> None:
        """Note the mean of *measures* over seeds, and their standard deviation as ``NAME_spread``."""
        for name, values in measures.items():
            self.say(**{name: statistics.fmean(values), f"{name}{SPREAD}": statistics.pstdev(values)})

    @property
    def seeds(self) -> range:
        """The seeds that quality is measured with."""
        return range(1 if self.quick else N_SEEDS)


@dataclass(frozen=True)
class Contender:
    """Who runs: *environment* names the requirements of a peer; without, Sagesmith's own environment is used.

    All may use the same cores; *n_threads* is what libraries and Sagesmith are told to take.
    """

    name: str
    run: Callable[[Run], None]
    environment: str = ""
    n_threads: int = N_THREADS


@dataclass(frozen=True)
class Comparison:
    """One row of the table: *measure* of two contenders, as the ratio *ours* / *against*.

    Attributes:
        most: target: the ratio is at most this.
        least: target: the ratio is at least this.
        quality: a measure in which ours must be as good, or the target is missed however quick it was.
        worse_by: by so much it may be worse.
        bound: a value it must reach, instead of the other's.
        less_is_better: which way `quality` goes.
        seeded: the measure is a mean over seeds: ours may fall short of the target by the standard error of the
            difference.
        note: words for the table.
    """

    measure: str
    ours: str
    against: str
    most: float | None = None
    least: float | None = None
    quality: str = ""
    worse_by: float = 0.0
    bound: float | None = None
    less_is_better: bool = False
    seeded: bool = False
    note: str = ""

    def is_good(self, ours: Mapping[str, float], theirs: Mapping[str, float]) -> bool:
        """Whether the quality of *ours* is as good as asked for."""
        if not self.quality:
            return True
        asked = theirs[self.quality] if self.bound is None else self.bound
        sign = -1.0 if self.less_is_better else 1.0
        return sign * ours[self.quality] >= sign * asked - self.worse_by


@dataclass(frozen=True)
class Entry:
    """The benchmark of one algorithm.

    Attributes:
        title: what is measured, with its size.
        prepare: writes the data into a folder; the flag asks for small ones.
        contenders: who runs, in this order; Sagesmith is one of them.
        comparisons: the rows.
    """

    title: str
    prepare: Callable[[Path, bool], None]
    contenders: tuple[Contender, ...]
    comparisons: tuple[Comparison, ...]


def _peak_mb() -> float:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


def limit_threads(environ: dict[str, str], n_threads: int) -> dict[str, str]:
    """Return *environ* with the settings that keep every library to *n_threads*."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "SM_NUM_CPUS")
    return {**environ, **dict.fromkeys(names, str(n_threads))}


def pin() -> None:
    """Keep this process to `N_THREADS` cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:N_THREADS])
