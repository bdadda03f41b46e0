"""Reading a file of one format: ours in batches, peers as they read it whole. Both say how many rows they saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.algorithms.entry import Comparison, Contender, Entry, Run
from bench.algorithms.jobs import loaded

__all__ = ["entry", "rows"]


def rows(quick: bool, density: float = 1.0) -> np.ndarray:
    """Return float32 rows of a label and 28 features, of which a share of *density* is not 0."""
    rng = np.random.default_rng(42)
    n = 20_000 if quick else 1_000_000
    x = rng.standard_normal((n, 29), dtype=np.float32)
    if density < 1:
        x *= rng.random(x.shape) < density
    x[:, 0] = rng.random(n) < 0.5
    return x


def entry(
    title: str,
    content_type: str,
    write: Callable[[Path, bool], None],
    peers: Mapping[str, Callable[[Path], int]],
    *,
    environment: str = "",
    least_share: float = 1.0,
) -> Entry:
    """Return the benchmark of reading ``data`` of a folder.

    Args:
        title: what is read.
        content_type: of the file.
        write: writes ``data`` into a folder; the flag asks for little.
        peers: return the number of rows read from a file.
        environment: the peers' environment.
        least_share: rows of the peers' file, ``part``, in those of ``data``; for peers that take too long for all.
    """

    def ours(run: Run) -> None:
        from sagesmith_algorithms.formats.readers import ahead, file_batches

        data, tiny = run.folder / "data", run.folder / "tiny"
        n_bytes = data.stat().st_size
        loaded("kmeans")
        # What reading the large file needs is loaded with the small one, of which it says that there is as much.
        assert sum(map(len, file_batches(tiny, content_type, n_bytes=n_bytes))) == 100
        with run.timed():
            n = sum(len(b) for b in ahead(file_batches(data, content_type, n_threads=2)))
        run.say(rows_per_s=n / run.measures["seconds"])

    def peer(read: Callable[[Path], int]) -> Callable[[Run], None]:
        def run_peer(run: Run) -> None:
            read(run.folder / "tiny")
            with run.timed():
                n = read(run.folder / ("data" if least_share == 1 else "part"))
            run.say(rows_per_s=n / run.measures["seconds"])

        return run_peer

    def prepare(folder: Path, quick: bool) -> None:
        write(folder, quick)

    contenders: list[Contender] = [Contender("Sagesmith", ours)]
    contenders += [Contender(name, peer(read), environment) for name, read in peers.items()]
    comparisons: list[Any] = [Comparison("rows_per_s", "Sagesmith", name, least=1.0) for name in peers]
    return Entry(title, prepare, tuple(contenders), tuple(comparisons))
