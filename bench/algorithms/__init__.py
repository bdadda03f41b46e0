"""Built-in algorithms against the libraries one would take instead: same rows, 2 threads, loading included.

Sagesmith's side is a training job without the server around it: it reads a channel and leaves an artifact. Ratios
come from one run, in which all contenders of an algorithm take turns. ``algorithms/NAME`` measures one algorithm.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import pkgutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from bench.algorithms import entries
from bench.algorithms.entry import N_SEEDS, SPREAD, Comparison, Contender, DataMissing, Entry, limit_threads
from bench.environments import ROOT, WORK, EnvironmentMissing, environment
from bench.report import Row, Series, interleave, progress

__all__ = ["run"]

_UNITS = {"seconds": "s", "peak_mb": "MB"}


def run(rounds: int, seconds: float, quick: bool, only: str = "") -> list[Row]:
    """Measure all entries, or *only* one, and return the rows; *seconds* has no meaning here."""
    del seconds
    names = sorted(module.name for module in pkgutil.iter_modules(entries.__path__))
    if only and only not in names:
        raise ValueError(f"there is no algorithm {only!r}: there are {', '.join(names)}")
    rows: list[Row] = []
    for name in [only] if only else names:
        progress(f"  {name}")
        entry: Entry = importlib.import_module(f"bench.algorithms.entries.{name}").ENTRY
        rows += _measured(name, entry, rounds, quick)
    return rows


def _measured(name: str, entry: Entry, rounds: int, quick: bool) -> list[Row]:
    pythons: dict[str, Path] = {}
    for one in entry.contenders:
        try:
            pythons[one.name] = (
                environment(one.environment) / "python" if one.environment else Path(sys.executable)
            )
        except EnvironmentMissing as error:
            progress(f"  {error}")
    WORK.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        try:
            entry.prepare(Path(folder), quick)
        except DataMissing as error:
            progress(f"  {name} is left out: {error}")
            return []
        found = interleave(
            rounds,
            {
                one.name: partial(_ran, name, one, pythons[one.name], folder, quick)
                for one in entry.contenders
                if one.name in pythons
            },
        )
    return [
        _row(entry.title, comparison, found)
        for comparison in entry.comparisons
        if comparison.ours in found and comparison.against in found
    ]


def _ran(entry: str, one: Contender, python: Path, folder: str, quick: bool) -> Mapping[str, float]:
    done = subprocess.run(
        [python, "-m", "bench.algorithms.contender", entry, one.name, folder, "1" if quick else "0"],
        cwd=ROOT,
        env=limit_threads(dict(os.environ), one.n_threads),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{one.name} failed: {done.stderr.strip()[-500:]}")
    measures: dict[str, float] = json.loads(done.stdout)
    return measures


def _row(title: str, comparison: Comparison, found: Mapping[str, Mapping[str, Series]]) -> Row:
    ours, theirs = found[comparison.ours], found[comparison.against]
    value, other = ours[comparison.measure].median, theirs[comparison.measure].median
    ratio = value / other
    spread = f"{comparison.measure}{SPREAD}"
    noise = 0.0
    if comparison.seeded:
        noise = math.hypot(*(side[spread].median for side in (ours, theirs) if spread in side)) / N_SEEDS**0.5
    target, met = "", None
    if comparison.most is not None:
        target, met = f"<= {comparison.most:g} x", value <= comparison.most * other + noise
    elif comparison.least is not None:
        target, met = f">= {comparison.least:g} x", value >= comparison.least * other - noise
    if comparison.seeded and target:
        target += " within the noise"
    note = comparison.note
    if comparison.quality:
        medians = [{comparison.quality: side[comparison.quality].median} for side in (ours, theirs)]
        good = comparison.is_good(*medians)
        met = None if met is None else met and good
        values = " and ".join(f"{m[comparison.quality]:.5g}" for m in medians)
        note = f"{note}{', ' if note else ''}{comparison.quality} {values}{'' if good else ': worse'}"
    if comparison.measure == "seconds":
        cpu = [side["cpu_seconds"].text("s") for side in (ours, theirs)]
        note = f"{note}{', ' if note else ''}of the CPUs {cpu[0]} and {cpu[1]}"
    unit = _UNITS.get(comparison.measure, comparison.measure.replace("_per_s", "/s"))
    shown = [
        f"{side[comparison.measure].text(unit)}{f' ± {side[spread].median:.2g}' if spread in side else ''}"
        for side in (ours, theirs)
    ]
    what = "" if comparison.ours == "Sagesmith" else f", {comparison.ours}"
    return Row(
        "algorithms", f"{title}{what}", shown[0], comparison.against, shown[1], ratio, target, met, note,
    )  # fmt: skip
