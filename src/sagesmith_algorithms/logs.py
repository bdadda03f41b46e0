"""The log lines of AWS's own algorithms, which metric definitions and people's scripts look for."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping

__all__ = ["MetricsLog", "info", "say"]


def say(line: str) -> None:
    """Print *line* at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def info(message: str, level: str = "INFO") -> None:
    """Print *message* in the form ``[05/02/2019 20:01:43 INFO 140123] message``."""
    say(f"[{time.strftime('%m/%d/%Y %H:%M:%S', time.gmtime())} {level} {threading.get_ident()}] {message}")


class MetricsLog:
    """The ``#metrics {...}`` lines of one host."""

    def __init__(self, algorithm: str, host: str) -> None:
        self._dimensions = {"Algorithm": algorithm, "Host": host, "Operation": "training"}

    def write(self, metrics: Mapping[str, float], start: float, *, epoch: int | None = None) -> None:
        """Print *metrics*, which were gathered since *start* (seconds since 1970)."""
        dimensions: dict[str, object] = dict(self._dimensions)
        if epoch is not None:
            dimensions["epoch"] = epoch
        document = {
            "StartTime": start,
            "EndTime": time.time(),
            "Dimensions": dimensions,
            "Metrics": {
                name: {"sum": float(v), "count": 1, "min": v, "max": v} for name, v in metrics.items()
            },
        }
        say(f"#metrics {json.dumps(document)}")

    def progress(self, percent: float) -> None:
        """Print how much of all epochs is done."""
        info(f"#progress_metric: host={self._dimensions['Host']}, completed {percent:.1f} % of epochs")

    def quality(self, channel: str, metrics: Mapping[str, float]) -> None:
        """Print *metrics* of *channel* (``test`` or ``validation``)."""
        for name, value in metrics.items():
            info(f"#quality_metric: host={self._dimensions['Host']}, {channel} {name}={value:.12g}")
