"""Reading CSV: 1,000,000 rows of 29 numbers, 260 MB."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.algorithms.reading import entry, rows


def write(folder: Path, quick: bool) -> None:
    import pandas as pd

    table = rows(quick)
    for name, part in (("data", table), ("tiny", table[:100])):
        pd.DataFrame(part).to_csv(folder / name, header=False, index=False, float_format="%.6g")


def pandas(path: Path) -> int:
    import pandas as pd

    return len(pd.read_csv(path, header=None, dtype=np.float32))


def pyarrow(path: Path) -> int:
    import pyarrow as pa
    from pyarrow import csv

    pa.set_cpu_count(2)
    table = csv.read_csv(path, read_options=csv.ReadOptions(autogenerate_column_names=True))
    return len(np.column_stack([column.to_numpy() for column in table.columns]).astype(np.float32))


ENTRY = entry("reading CSV", "text/csv", write, {"pandas": pandas, "pyarrow": pyarrow})
