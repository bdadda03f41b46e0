"""Reading Parquet: 1,000,000 rows of 29 columns of float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.algorithms.reading import entry, rows


def write(folder: Path, quick: bool) -> None:
    import pyarrow as pa
    from pyarrow import parquet as pq

    table = rows(quick)
    for name, part in (("data", table), ("tiny", table[:100])):
        pq.write_table(pa.table({f"c{i}": part[:, i] for i in range(part.shape[1])}), folder / name)


def pyarrow(path: Path) -> int:
    import pyarrow as pa
    from pyarrow import parquet as pq

    pa.set_cpu_count(2)
    return len(np.column_stack([column.to_numpy() for column in pq.read_table(path).columns]))


ENTRY = entry("reading Parquet", "application/x-parquet", write, {"pyarrow": pyarrow})
