"""CSV as SageMaker's algorithms read it: numbers only, no header, the label in the first column.

Files are parsed by compiled code where that pays, else by Arrow, which also knows quotes and words for what is missing.
When it refuses something, the lines are read again slowly, to say where and what is wrong.
"""

from __future__ import annotations

import csv as python_csv
import io
import math
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from sagesmith_algorithms.errors import DataError
from sagesmith_algorithms.formats import plain
from sagesmith_algorithms.formats.arrow import floats
from sagesmith_algorithms.formats.batch import Batch, Floats
from sagesmith_algorithms.formats.files import Lines, line_blocks
from sagesmith_algorithms.threads import in_order

__all__ = ["decode", "encode", "read"]

_ARROW_BLOCK = 1 << 20
_PLAIN = b"0123456789.,-+eE\r\n "
_MISSING = frozenset(("", "na", "nan", "null", "n/a", "none", "-nan", "?", "#n/a"))


def read(
    path: Path, *, label_size: int = 1, weighted: bool = False, compiled: bool = False, n_threads: int = 1
) -> Iterator[Batch]:
    """Yield the rows of a file, some ten thousand at a time. Empty cells are NaN.

    Args:
        path: a file, perhaps gzipped.
        label_size: 1 if the first column is the label, 0 if there is none.
        weighted: the column after the label is each row's weight.
        compiled: whether to use code that Numba is to be loaded for.
        n_threads: threads to parse with.

    Raises:
        DataError: a header, a text, or rows of different length; names line and column.
    """
    blocks = line_blocks(path)
    first = next(blocks, None)
    if first is None:
        return
    n_columns = _count_columns(first.text, str(path))
    if n_columns <= label_size + weighted:
        raise DataError(
            f"rows have {n_columns} columns, which leaves no feature beside the label"
            f"{' and the weight' if weighted else ''}",
            str(path),
        )

    def parsed(lines: Lines) -> Floats:
        table = plain.table(lines, n_columns) if compiled else None
        if table is None:
            table = _parse(lines.text, n_columns, str(path), lines.before, 1 if compiled else n_threads)
        return table

    for table in in_order(parsed, chain([first], blocks), n_threads if compiled else 1):
        if len(table):
            yield Batch(
                table[:, label_size + weighted :],
                table[:, 0] if label_size else None,
                table[:, label_size] if weighted else None,
            )


def decode(body: bytes, where: str = "the request") -> Floats:
    """Return all columns of *body*, float32 (n_rows, n_columns); empty cells are NaN.

    Raises:
        DataError: a text, or rows of different length.
    """
    if b"\n" not in body.rstrip() and not body.translate(None, _PLAIN):
        import orjson  # the quickest parser of a line of plain numbers; refuses what it does not know

        try:
            return np.array([orjson.loads(b"[%b]" % body)], np.float32)
        except orjson.JSONDecodeError:
            pass
    if len(body) > 1 << 16:
        return _parse(body, _count_columns(body, where, header_is_error=False), where, 0, 1)
    return _parse_slowly(body, None, where, 0)


def encode(rows: Any) -> bytes:
    """Return *rows*, (n_rows,) or (n_rows, n_columns), one line each, in digits that give the same floats again."""
    values = rows.tolist()
    if values and isinstance(values[0], list):
        return "\n".join([",".join(map(str, row)) for row in values]).encode()
    return "\n".join(map(str, values)).encode()


def _count_columns(block: bytes, where: str, *, header_is_error: bool = True) -> int:
    """Return the number of columns of the first line.

    Raises:
        DataError: the first line is a header.
    """
    first = next((line for line in io.BytesIO(block) if line.strip()), b"")
    cells = _cells(first)
    if header_is_error and cells and all(not _is_number(c) for c in cells) and any(c.strip() for c in cells):
        raise DataError(
            f"line 1 seems to be a header ({', '.join(cells[:3])}...). CSV for built-in algorithms has no header "
            "and only numbers; remove the line",
            where,
        )
    return len(cells)


def _parse(block: bytes, n_columns: int, where: str, line: int, n_threads: int) -> Floats:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names = [str(i) for i in range(n_columns)]
    if pa.cpu_count() != n_threads:
        pa.set_cpu_count(n_threads)
    try:
        table = arrow_csv.read_csv(
            pa.py_buffer(block),
            read_options=arrow_csv.ReadOptions(
                column_names=names, block_size=_ARROW_BLOCK, use_threads=n_threads > 1
            ),
            convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.float32())),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError):
        return _parse_slowly(block, n_columns, where, line)
    result = np.empty((n_columns, table.num_rows), np.float32)
    for i, column in enumerate(table.columns):
        at = 0
        for chunk in column.chunks:
            result[i, at : at + len(chunk)] = floats(chunk)
            at += len(chunk)
    return result.T


def _parse_slowly(block: bytes, n_columns: int | None, where: str, line: int) -> Floats:
    """Return the table, or say what is wrong with it."""
    rows: list[list[float]] = []
    for number, text in enumerate(block.splitlines(), line + 1):
        cells = _cells(text)
        if not cells or (len(cells) == 1 and not cells[0].strip() and n_columns not in (None, 1)):
            continue
        if n_columns is None:
            n_columns = len(cells)
        if len(cells) != n_columns:
            raise DataError(
                f"line {number} has {len(cells)} columns, but the lines before have {n_columns}", where
            )
        rows.append([_number(cell, number, column, where) for column, cell in enumerate(cells, 1)])
    return np.array(rows, np.float32).reshape(len(rows), n_columns or 0)


def _cells(line: bytes) -> list[str]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        text = line.decode("latin-1")
    return next(python_csv.reader([text.strip("\r\n\ufeff")]), [])


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.strip().lower() in _MISSING and bool(cell.strip())
    return True


def _number(cell: str, line: int, column: int, where: str) -> float:
    try:
        if "_" in cell:
            raise ValueError
        return float(cell)
    except ValueError:
        if cell.strip().lower() in _MISSING:
            return math.nan
        shown = cell if len(cell) <= 40 else cell[:40] + "..."
        raise DataError(
            f"line {line}, column {column}: {shown!r} is not a number. Encode texts as numbers before training",
            where,
        ) from None
