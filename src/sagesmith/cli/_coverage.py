"""`sagesmith coverage` for people: per service the counts, then the operations by what they are."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["render"]

_ORDER = ("real", "record-only", "missing")


def render(data: Mapping[str, Mapping[str, str]]) -> str:
    """Return the coverage as text. *data* maps service to operation to real, record-only or missing."""
    lines: list[str] = []
    for service, operations in sorted(data.items(), key=lambda item: (item[0] != "sagemaker", item[0])):
        counts = {kind: sum(1 for found in operations.values() if found == kind) for kind in _ORDER}
        lines.append(
            f"{service}: {counts['real']} real, {counts['record-only']} record-only, "
            f"{counts['missing']} missing of {len(operations)}"
        )
        for kind in _ORDER[: 3 if len(data) == 1 else 2]:
            names = sorted(name for name, found in operations.items() if found == kind)
            lines.extend(f"  {kind:<12} {name}" for name in names)
    return "\n".join(lines)
