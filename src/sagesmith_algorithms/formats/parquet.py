"""Parquet: numeric columns, the label first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sagesmith_algorithms.errors import DataError
from sagesmith_algorithms.formats.arrow import floats
from sagesmith_algorithms.formats.batch import Batch, Floats
from sagesmith_algorithms.formats.files import damaged

__all__ = ["decode", "read"]

# Arrow would read a whole group of rows, a million as it writes them, before the first: a third more time, twice the memory.
_PIECE = 1 << 18  # bytes of each column that are read at once
_N_ROWS = 1 << 15


def read(path: Path, *, label_size: int = 1, weighted: bool = False, n_threads: int = 1) -> Iterator[Batch]:
    """Yield the rows of a file; nulls are NaN.

    Raises:
        DataError: the file is not Parquet or damaged, or a column holds no numbers; names the row where it can.
    """
    import pyarrow as pa

    n_rows = 0
    try:
        for table in _tables(str(path), n_threads):
            rows = _matrix(table, str(path))
            first = label_size + weighted
            if rows.shape[1] <= first:
                raise DataError(f"rows have {rows.shape[1]} columns, which leaves no feature", str(path))
            yield Batch(
                rows[:, first:], rows[:, 0] if label_size else None, rows[:, label_size] if weighted else None
            )
            n_rows += len(rows)
    except (pa.ArrowInvalid, OSError) as error:
        if n_rows:
            raise damaged(f"row {n_rows + 1}, or one soon after it,", path, str(error)) from error
        raise DataError(
            f"is not a Parquet file, or damaged: {error}. Upload it again, and see that the content type is right",
            str(path),
        ) from error


def decode(body: bytes, where: str = "the request") -> Floats:
    """Return all columns of *body*.

    Raises:
        DataError: it is not Parquet, or a column holds no numbers.
    """
    import pyarrow as pa

    try:
        parts = [_matrix(table, where) for table in _tables(pa.BufferReader(body), 1)]
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"is not Parquet: {error}", where) from error
    if not parts:
        raise DataError("has no rows", where)
    return np.concatenate(parts)


def _tables(source: Any, n_threads: int) -> Iterator[Any]:
    from pyarrow import parquet

    with parquet.ParquetFile(source, pre_buffer=False, buffer_size=_PIECE) as file:
        yield from file.iter_batches(batch_size=_N_ROWS, use_threads=n_threads > 1)


def _matrix(table: Any, where: str) -> Floats:
    import pyarrow as pa

    result = np.empty((table.num_columns, table.num_rows), np.float32)
    for i, (name, column) in enumerate(zip(table.schema.names, table.columns, strict=True)):
        kind = column.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise DataError(f"the column {name!r} is of type {kind}; only numbers can be learned from", where)
        result[i] = floats(column.cast(pa.float32(), safe=False))
    return result.T
