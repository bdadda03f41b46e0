"""Rows of the benchmark's table: what was measured, against what, the ratio, and DESIGN's target for it."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Row", "Series", "interleave", "machine", "progress", "render", "to_json"]


@dataclass(frozen=True, slots=True)
class Row:
    """One line: *ours* and *reference* as they are shown, *ratio* = ours / reference as measured.

    `target` is in words; `met` says whether it was reached, None where there is no target.
    """

    part: str
    what: str
    ours: str
    against: str
    reference: str
    ratio: float | None
    target: str = ""
    met: bool | None = None
    note: str = ""


class Series:
    """Values of one thing over the rounds; the median stands for them, the extremes are shown."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def add(self, value: float) -> None:
        """Note one round's *value*."""
        self.values.append(value)

    @property
    def median(self) -> float:
        """The middle of the values."""
        return statistics.median(self.values)

    def text(self, unit: str, scale: float = 1.0, digits: int = 3) -> str:
        """Return the median with its unit, and the range if there were several rounds."""
        middle = f"{_number(self.median * scale, digits)} {unit}"
        if len(self.values) < 2:
            return middle
        low, high = (_number(edge * scale, digits) for edge in (min(self.values), max(self.values)))
        return f"{middle} ({low}..{high})"


def _number(value: float, digits: int) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def interleave(
    rounds: int, contenders: Mapping[str, Callable[[], Mapping[str, float]]]
) -> dict[str, dict[str, Series]]:
    """Run every contender once per round, in reversed order in odd rounds; return its series by measure.

    A contender returns measures by name. Side by side in one run, what else the machine does hits all alike.
    """
    result: dict[str, dict[str, Series]] = {name: {} for name in contenders}
    for number in range(rounds):
        names = list(contenders)
        if number % 2:
            names.reverse()
        for name in names:
            progress(f"  round {number + 1}/{rounds}: {name}")
            for measure, value in contenders[name]().items():
                result[name].setdefault(measure, Series()).add(value)
    return result


def progress(sentence: str) -> None:
    """Tell on standard error how far the run is."""
    print(f"[{time.strftime('%H:%M:%S')}] {sentence}", file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """Say what the run was measured on."""
    model = ""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    with open("/proc/meminfo", encoding="utf-8") as file:
        kilobytes = int(next(line for line in file if line.startswith("MemTotal")).split()[1])
    return {
        "cpu": model or platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(kilobytes / 1024 / 1024, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def render(rows: Sequence[Row], where: Mapping[str, Any]) -> str:
    """Return the table as text."""
    header = ("", "Sagesmith", "against", "", "ratio", "target", "")
    lines: list[tuple[str, ...]] = [header]
    for part in dict.fromkeys(row.part for row in rows):
        lines.append((part.upper(), *[""] * 6))
        lines += [
            (
                f"  {row.what}",
                row.ours,
                row.against,
                row.reference,
                "" if row.ratio is None else f"{_number(row.ratio, 3)} x",
                row.target,
                {True: "met", False: "MISSED", None: ""}[row.met] + (f" {row.note}" if row.note else ""),
            )
            for row in rows
            if row.part == part
        ]
    widths = [max(len(line[column]) for line in lines) for column in range(7)]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    said = ", ".join(f"{key} {value}" for key, value in where.items())
    return "\n".join(
        [
            *table,
            "",
            f"Machine: {said}.",
            "Medians of interleaved rounds (lowest..highest). Ratio: Sagesmith's figure / the other's.",
        ]
    )


def to_json(rows: Sequence[Row], where: Mapping[str, Any]) -> dict[str, Any]:
    """Return all of it as what `json.dumps` takes."""
    return {"machine": dict(where), "rows": [asdict(row) for row in rows]}
