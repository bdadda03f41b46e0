"""A line chart of metrics without a plotting library: SVG for notebooks and files, small bars for terminals."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

__all__ = ["Chart"]

_COLORS: Final = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 720, 300, 64, 34, 14
_BARS: Final = " ▁▂▃▄▅▆▇█"


class Chart:
    """Curves by name. A notebook shows it; `save` writes SVG; `str` gives one line of bars for each curve.

    Args:
        curves: for each name the points (x, y).
        title: what stands above.
        x_label: what the horizontal axis counts.
        x_range: what the horizontal axis spans; else what the points do.
        from_zero: let the vertical axis begin at zero.
        gap: points farther apart than this on the horizontal axis are not joined: nothing is known of what lies between.
    """

    def __init__(
        self,
        curves: Mapping[str, Sequence[tuple[float, float]]],
        *,
        title: str = "",
        x_label: str = "step",
        x_range: tuple[float, float] | None = None,
        from_zero: bool = False,
        gap: float = math.inf,
    ) -> None:
        self.curves = {
            name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
            for name, points in curves.items()
        }
        self.curves = {name: points for name, points in self.curves.items() if points}
        self.title, self.x_label = title, x_label
        self.x_range, self.from_zero, self.gap = x_range, from_zero, gap

    def svg(self) -> str:
        """Return the chart as an SVG element."""
        height = _HEIGHT + 20 * math.ceil(len(self.curves) / 3)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
            f'aria-label="{html.escape(self._spoken(), quote=True)}" font-family="sans-serif" font-size="12" '
            'fill="currentColor" width="100%">'
        ]
        if not self.curves:
            return parts[0] + f'<text x="{_LEFT}" y="40">no values</text></svg>'
        xs = [x for points in self.curves.values() for x, _ in points] + list(self.x_range or ())
        ys = [y for points in self.curves.values() for _, y in points] + [0.0] * self.from_zero
        x_ticks, y_ticks = _ticks(min(xs), max(xs)), _ticks(min(ys), max(ys))
        low_x, high_x = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1
        low_y, high_y = min(*ys, *y_ticks), max(*ys, *y_ticks)
        high_y = high_y if high_y > low_y else low_y + 1

        def place(x: float, y: float) -> tuple[float, float]:
            right = _LEFT + (x - low_x) / (high_x - low_x) * (_WIDTH - _LEFT - 16)
            down = _TOP + (1 - (y - low_y) / (high_y - low_y)) * (_HEIGHT - _TOP - _BOTTOM)
            return round(right, 1), round(down, 1)

        for tick in y_ticks:
            _, y = place(low_x, tick)
            parts.append(f'<path d="M{_LEFT} {y}H{_WIDTH - 16}" stroke="currentColor" stroke-opacity=".15"/>')
            parts.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{tick:.4g}</text>')
        for tick in x_ticks:
            if low_x <= tick <= high_x:
                x, _ = place(tick, low_y)
                parts.append(f'<text x="{x}" y="{_HEIGHT - 14}" text-anchor="middle">{tick:g}</text>')
        parts.append(
            f'<text x="{_WIDTH - 16}" y="{_HEIGHT - 1}" text-anchor="end" opacity=".7">{html.escape(self.x_label)}</text>'
        )
        for number, (name, points) in enumerate(self.curves.items()):
            color = _COLORS[number % len(_COLORS)]
            for piece in _pieces(points, self.gap):
                shown = [place(x, y) for x, y in _thinned(piece)]
                if len(shown) == 1:
                    parts.append(f'<circle cx="{shown[0][0]}" cy="{shown[0][1]}" r="3" fill="{color}"/>')
                else:
                    line = " ".join(f"{x},{y}" for x, y in shown)
                    parts.append(f'<polyline fill="none" stroke="{color}" stroke-width="2" points="{line}"/>')
            x = _LEFT + number % 3 * 215
            y = _HEIGHT + 14 + number // 3 * 20
            parts.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{color}"/>')
            parts.append(f'<text x="{x + 15}" y="{y}">{html.escape(name)} {points[-1][1]:.5g}</text>')
        parts.append("</svg>")
        return "".join(parts)

    def _spoken(self) -> str:
        if not self.curves:
            return f"{self.title}: no values"
        told = "; ".join(
            f"{name} from {points[0][1]:.5g} to {points[-1][1]:.5g}" for name, points in self.curves.items()
        )
        return f"{self.title}: {told}" if self.title else told

    def save(self, path: str | Path) -> Path:
        """Write the SVG to a file and return its path."""
        place = Path(path)
        place.write_text(self.svg(), "utf-8")
        return place

    def _repr_html_(self) -> str:
        return f"<figure><figcaption>{html.escape(self.title)}</figcaption>{self.svg()}</figure>"

    def __str__(self) -> str:
        width = max((len(name) for name in self.curves), default=0)
        lines = []
        for name, points in self.curves.items():
            values = [y for _, y in _thinned(points, 60)]
            low, high = min(values), max(values)
            scale = (len(_BARS) - 2) / (high - low) if high > low else 0
            bars = "".join(_BARS[1 + round((value - low) * scale)] for value in values)
            lines.append(f"{name:<{width}}  {bars}  {points[0][1]:.5g} → {points[-1][1]:.5g}")
        return "\n".join(lines)


def _pieces(points: Sequence[tuple[float, float]], gap: float) -> list[list[tuple[float, float]]]:
    """Return *points* in runs, in each of which no two neighbours are farther apart than *gap*."""
    runs: list[list[tuple[float, float]]] = []
    for point in points:
        if runs and abs(point[0] - runs[-1][-1][0]) <= gap:
            runs[-1].append(point)
        else:
            runs.append([point])
    return runs


def _thinned(points: Sequence[tuple[float, float]], most: int = 600) -> list[tuple[float, float]]:
    if len(points) <= most:
        return list(points)
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def _ticks(low: float, high: float) -> list[float]:
    """Return some four round numbers from *low* to *high*."""
    if high <= low:
        return [low]
    raw = (high - low) / 4
    base = 10 ** math.floor(math.log10(raw))
    step = next(base * m for m in (1, 2, 5, 10) if base * m >= raw)
    first = math.floor(low / step)
    last = math.ceil(high / step)
    return [round(i * step, 12) for i in range(first, last + 1)]
