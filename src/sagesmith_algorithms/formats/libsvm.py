"""LibSVM: ``label[:weight] [qid:n] column:value column:value ...`` on each line, what is left out is missing.

Files are parsed by compiled code where that pays and they are plain, else as requests are: lines are turned into
numbers all at once. Weight and query become pairs with columns -2 and -1, then spaces and
colons become ends of lines, and the count of colons in each line says where it begins among the numbers. Columns are taken as
they stand (SageMaker's and XGBoost's convention): the first may be 0 or 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.errors import DataError
from sagesmith_algorithms.formats import plain
from sagesmith_algorithms.formats.batch import Batch
from sagesmith_algorithms.formats.files import Lines, line_blocks
from sagesmith_algorithms.threads import in_order

__all__ = ["decode", "read"]

_WEIGHT, _QUERY = -2, -1
_LABEL_WEIGHT = re.compile(rb"(?m)^([^\s:]+):([^\s:]+)(?=\s|$)")
_NEGATIVE = re.compile(rb"[ \t]-\d+:")
_COMMENT = re.compile(rb"(?m)#.*$")
_PLUS = re.compile(rb"(?m)^\+")
_SEPARATED = bytes.maketrans(b" :\t\r\v\f", b"\n\n\n\n\n\n")
_MAX_COLUMN = 2**31 - 2
_LINE = re.compile(rb"\s*[^\s:]+(?::[^\s:]+)?(?:\s+qid:\d+)?(?:\s+\d+:[^\s:]+)*\s*$")


def read(path: Path, *, compiled: bool = False, n_threads: int = 1) -> Iterator[Batch]:
    """Yield the rows of a file.

    Args:
        path: a file, perhaps gzipped.
        compiled: whether to use code that Numba is to be loaded for.
        n_threads: threads to parse with.

    Raises:
        DataError: a line is not LibSVM; names it.
    """

    def parsed(lines: Lines) -> Batch:
        batch = plain.sparse(lines) if compiled else None
        if batch is None:
            inside = 1 if compiled else n_threads
            batch = decode(lines.text, str(path), line=lines.before, n_threads=inside)
        return batch

    for batch in in_order(parsed, line_blocks(path), n_threads if compiled else 1):
        if len(batch):
            yield batch


def decode(
    text: bytes, where: str = "the request", *, line: int = 0, labelled: bool = True, n_threads: int = 1
) -> Batch:
    """Return the rows of *text*, as CSR.

    Args:
        text: complete lines.
        where: for messages.
        line: the number of lines before.
        labelled: False allows lines without a label, as requests have them.
        n_threads: threads to parse with.

    Raises:
        DataError: a line is not LibSVM; names it.
    """
    from scipy.sparse import csr_matrix

    joined = _COMMENT.sub(b"", text) if b"#" in text else text
    if not labelled:
        joined = b"\n".join(
            item if _has_label(item) else b"0 " + item for item in joined.split(b"\n") if item.strip()
        )
    joined = joined.strip()
    if (b" -" in joined or b"\t-" in joined) and _NEGATIVE.search(joined):  # -2 and -1 are ours
        raise _fault(text, where, line)
    if not _has_plain_label(joined):
        joined = _LABEL_WEIGHT.sub(rb"\1 -2:\2", joined)
    if b"qid:" in joined:
        joined = joined.replace(b"qid:", b"-1:")
    pairs, numbers = _pairs(joined), _numbers(joined, n_threads)
    if numbers is not None and numbers.size != len(pairs) + 2 * int(
        pairs.sum()
    ):  # perhaps there are empty lines
        pairs = _pairs(b"\n".join(item for item in joined.split(b"\n") if item.strip()))
    if numbers is None or numbers.size != len(pairs) + 2 * int(pairs.sum()):
        raise _fault(text, where, line)
    n_lines = len(pairs)
    starts = np.concatenate(([0], np.cumsum(1 + 2 * pairs)))
    rest = np.ones(numbers.size, bool)
    rest[starts[:-1]] = False
    columns, values = numbers[rest][0::2], numbers[rest][1::2]
    rows = np.repeat(np.arange(n_lines), pairs)
    weights = _extra(rows, columns, values, _WEIGHT, n_lines, "weight", where)
    groups = _extra(rows, columns, values, _QUERY, n_lines, "qid", where)
    kept = columns >= 0
    if not kept.all():
        columns, values, rows = columns[kept], values[kept], rows[kept]
    if columns.size and (columns.max() > _MAX_COLUMN or (columns != np.floor(columns)).any()):
        raise _fault(text, where, line)
    width = int(columns.max()) + 1 if columns.size else 0
    indptr = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=n_lines)))) if n_lines else [0]
    matrix = csr_matrix((values.astype(np.float32), columns.astype(np.int32), indptr), shape=(n_lines, width))
    return Batch(
        matrix,
        numbers[starts[:-1]].astype(np.float32),
        None if weights is None else weights.astype(np.float32),
        None if groups is None else groups.astype(np.int64),
    )


def _has_label(line: bytes) -> bool:
    return b":" not in line.split(None, 1)[0]


def _has_plain_label(text: bytes) -> bool:
    return not text or b":" not in text[:1024].split(None, 1)[0]


def _pairs(text: bytes) -> npt.NDArray[np.int64]:
    """Return the number of colons in each line."""
    if not text:
        return np.empty(0, np.int64)
    raw = np.frombuffer(text, np.uint8)
    ends = np.append(np.flatnonzero(raw == ord("\n")), raw.size)
    colons = np.flatnonzero(raw == ord(":"))
    return np.diff(np.searchsorted(colons, ends), prepend=0)


def _numbers(text: bytes, n_threads: int) -> npt.NDArray[np.float64] | None:
    """Return all numbers of *text*, or None if something in it is none: a column of CSV, which Arrow parses."""
    import pyarrow as pa
    from pyarrow import csv

    separated = text.translate(_SEPARATED)
    if b"+" in separated:
        separated = _PLUS.sub(b"", separated)
    if not separated.strip():
        return np.empty(0)
    if pa.cpu_count() != n_threads:
        pa.set_cpu_count(n_threads)
    try:
        table = csv.read_csv(
            pa.py_buffer(separated),
            read_options=csv.ReadOptions(
                column_names=["number"], block_size=1 << 20, use_threads=n_threads > 1
            ),
            parse_options=csv.ParseOptions(quote_char=False),
            convert_options=csv.ConvertOptions(column_types={"number": pa.float64()}, null_values=[]),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError):
        return None
    parts = [np.frombuffer(c.buffers()[1], np.float64, len(c), 8 * c.offset) for c in table.column(0).chunks]
    return np.concatenate([np.empty(0), *parts])


def _extra(
    rows: npt.NDArray[Any],
    columns: npt.NDArray[Any],
    values: npt.NDArray[Any],
    code: int,
    n: int,
    what: str,
    where: str,
) -> npt.NDArray[np.float64] | None:
    """Return the values that stand under *code*, one for each row, or None."""
    chosen = columns == code
    if not chosen.any():
        return None
    if not np.array_equal(rows[chosen], np.arange(n)):
        raise DataError(f"some lines have a {what} and some have none; give every line one", where)
    result: npt.NDArray[np.float64] = values[chosen]
    return result


def _fault(text: bytes, where: str, line: int) -> DataError:
    for number, item in enumerate(text.split(b"\n"), line + 1):
        plain = item.partition(b"#")[0]
        if plain.strip() and not (_LINE.match(plain) and _numbers_of(plain)):
            shown = plain[:60].decode("latin-1").strip()
            hint = " It looks like CSV: set the channel's content type to text/csv." if b"," in plain else ""
            return DataError(
                f"line {number} ({shown!r}) is not LibSVM: 'label column:value ...'.{hint}", where
            )
    return DataError("it is not LibSVM: 'label column:value ...' on each line", where)


def _numbers_of(line: bytes) -> bool:
    for word in re.split(rb"[\s:]+", line.strip().replace(b"qid", b"0")):
        try:
            float(word)
        except ValueError:
            return False
    return True
