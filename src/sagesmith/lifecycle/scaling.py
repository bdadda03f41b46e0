"""How many instances a scaling policy wants: an alarm's values and the present capacity in, a number out.

Source: Application Auto Scaling User Guide, "Target tracking scaling policies" and "Step scaling policies".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Cooldown", "Step", "StepPolicy", "TargetPolicy", "within"]


@dataclass(frozen=True, slots=True)
class Cooldown:
    """What a policy did last: `out_at` and `in_at` are when, `base` the capacity before it last scaled out."""

    out_at: float = -math.inf
    in_at: float = -math.inf
    base: int = 0

    def after(self, before: int, wanted: int, at: float) -> Cooldown:
        """Return it after scaling from *before* to *wanted* at time *at*."""
        if wanted > before:
            return Cooldown(at, self.in_at, before)
        return Cooldown(self.out_at, at, self.base)


@dataclass(frozen=True, slots=True)
class TargetPolicy:
    """Keeps a metric, which falls as capacity grows in proportion, near `target`. Cooldowns are in seconds."""

    target: float
    out_cooldown_s: float = 300.0
    in_cooldown_s: float = 300.0
    scales_in: bool = True

    def wanted(
        self, values: Sequence[float], current: int, *, out: bool, last: Cooldown, at: float
    ) -> int | None:
        """Return the capacity wanted of *current*, None if it should stay.

        Args:
            values: of the metric, the latest first; none counts as zero.
            out: whether the metric is above the target, or well below it.
        """
        if out:
            base = last.base if at < last.out_at + self.out_cooldown_s else current
            ratio = (values[0] if values else 0.0) / self.target
            wanted = max(base + 1, _ceil(base * ratio))
            return wanted if wanted > current else None
        if not self.scales_in or at < max(last.in_at, last.out_at) + self.in_cooldown_s:
            return None
        # Of a span of low load the highest part decides: what it needs must stay.
        wanted = _ceil(current * max(values, default=0.0) / self.target)
        return wanted if wanted < current else None


@dataclass(frozen=True, slots=True)
class Step:
    """An adjustment for distances between metric and threshold from `lower` to `upper`."""

    adjustment: int
    lower: float = -math.inf
    upper: float = math.inf

    def holds(self, distance: float) -> bool:
        """Whether *distance* is in the step: of two bounds, that nearer to zero belongs to it."""
        if distance >= 0:
            return self.lower <= distance < self.upper
        return self.lower < distance <= self.upper


@dataclass(frozen=True, slots=True)
class StepPolicy:
    """Adjusts capacity by how far a metric is beyond its alarm's threshold."""

    kind: str
    steps: tuple[Step, ...]
    cooldown_s: float = 300.0
    at_least: int = 1

    def wanted(self, distance: float, current: int, *, last: Cooldown, at: float) -> int | None:
        """Return the capacity wanted of *current*, None if it should stay.

        Args:
            distance: the metric less the alarm's threshold.
        """
        steps = [step for step in self.steps if step.holds(distance) or (not distance and not step.upper)]
        step = max(steps, key=lambda step: step.lower, default=None)
        if step is None:
            return None
        cools = at < max(last.out_at, last.in_at) + self.cooldown_s
        if cools and at < last.out_at + self.cooldown_s:
            wanted = self._adjusted(last.base, step.adjustment)
            return wanted if wanted > current else None
        wanted = self._adjusted(current, step.adjustment)
        if wanted == current or (cools and wanted < current):
            return None
        return wanted

    def _adjusted(self, base: int, adjustment: int) -> int:
        if self.kind == "ExactCapacity":
            return adjustment
        if self.kind == "ChangeInCapacity":
            return base + adjustment
        change = base * adjustment / 100
        whole = math.trunc(change) or (0 if not change else 1 if change > 0 else -1)
        if whole:
            whole = int(math.copysign(max(abs(whole), self.at_least), whole))
        return base + whole


def within(wanted: int, least: int, most: int) -> int:
    """Return *wanted*, or the limit that it is beyond."""
    return max(least, min(most, wanted))


def _ceil(value: float) -> int:
    return math.ceil(value - 1e-9)
