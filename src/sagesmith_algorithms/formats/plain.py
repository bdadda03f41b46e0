"""Plain text made numbers by compiled code: several times as quick as Arrow, once Numba is loaded."""

from __future__ import annotations

import sys
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.formats.batch import Batch, Floats
from sagesmith_algorithms.formats.files import Lines

__all__ = ["pays", "sparse", "table"]

_MUCH: Final = 160 << 20  # bytes that Arrow takes as much longer for as it takes to load Numba, half a second


def pays(n_bytes: int) -> bool:
    """Return whether text of *n_bytes* is read sooner with compiled code, be it that this is loaded anyway."""
    return n_bytes > _MUCH or "numba" in sys.modules


def table(lines: Lines, n_columns: int) -> Floats | None:
    """Return the rows of CSV, NaN for what is empty; None if the text is not plain or a row not of *n_columns*."""
    text, n_lines = _ended(lines)
    cells = np.empty(n_lines * n_columns, np.float32)
    n, marks = _numbers(text, cells)
    n_rows = n // n_columns
    if n < 0 or marks.tobytes() != (b"," * (n_columns - 1) + b"\n") * n_rows:
        return None
    return cells[:n].reshape(n_rows, n_columns)


def sparse(lines: Lines) -> Batch | None:
    """Return the rows of LibSVM, as CSR; None if the text is not plain, or only some rows have a weight or a query."""
    from scipy.sparse import csr_matrix

    from sagesmith_algorithms.formats import kernels

    text, n_lines = _ended(lines)
    n_queries = text.count(b"qid:")
    text = text.replace(b"qid:", b"-1:")  # the column that the kernel takes for a query
    numbers = np.empty(len(text) // 2, np.float64)  # each takes two bytes at least
    n, marks = _numbers(text, numbers)
    if n < 0:
        return None
    columns, values = np.empty(n // 2, np.int32), np.empty(n // 2, np.float32)
    labels, weights = np.empty(n_lines, np.float32), np.empty(n_lines, np.float32)
    indptr, groups = np.empty(n_lines + 1, np.int64), np.empty(n_lines, np.int64)
    n_rows, n_weights, n_groups, widest = kernels.pairs(
        numbers[:n], marks, indptr, columns, values, labels, weights, groups
    )
    if n_rows < 0 or n_weights not in (0, n_rows) or n_groups not in (0, n_rows) or n_groups != n_queries:
        return None
    n_values = indptr[n_rows]
    return Batch(
        csr_matrix((values[:n_values], columns[:n_values], indptr[: n_rows + 1]), (n_rows, widest + 1)),
        labels[:n_rows],
        weights[:n_rows] if n_weights else None,
        groups[:n_rows] if n_groups else None,
    )


def _numbers(text: bytes, values: npt.NDArray[Any]) -> tuple[int, npt.NDArray[np.uint8]]:
    from sagesmith_algorithms.formats import kernels

    marks = np.empty(len(values), np.uint8)
    n = kernels.numbers(np.frombuffer(text, np.uint8), values, marks)
    return n, marks[: max(n, 0)]


def _ended(lines: Lines) -> tuple[bytes, int]:
    if lines.text.endswith(b"\n"):
        return lines.text, lines.n_ends
    return lines.text + b"\n", lines.n_ends + 1
