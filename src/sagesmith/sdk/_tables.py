"""Rows, wherever they are: a DataFrame, an array, a sparse matrix, an Arrow table or a file, read in pieces.

A `Table` knows the names of its features, which column is the label, and yields its rows some tens of thousands
at a time, so that a file larger than memory can be uploaded. What does not fit is found before anything is sent.
"""

from __future__ import annotations

import csv
import difflib
import gzip
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from sagesmith.sdk._errors import DataMismatch

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PLAIN_SUFFIXES", "Piece", "Table", "numbers", "table_of"]

_ROWS: Final = 1 << 16
PLAIN_SUFFIXES: Final = {
    ".csv": "text/csv",
    ".libsvm": "text/libsvm",
    ".svm": "text/libsvm",
    ".parquet": "application/x-parquet",
    ".recordio": "application/x-recordio-protobuf",
    ".pbr": "application/x-recordio-protobuf",
    ".jsonl": "application/jsonlines",
    ".txt": "text/plain",
}
"""The content types of files by their suffix."""


@dataclass(slots=True)
class Piece:
    """Some rows: `features` is a DataFrame, a 2-D array or a CSR matrix; `label` has one entry for each row."""

    features: Any
    label: Any = None

    def __len__(self) -> int:
        return int(self.features.shape[0])


@dataclass(slots=True)
class Table:
    """Rows to be read once or several times.

    `names` are those of the features, None if they have none; `n_rows` is None where only reading tells.
    """

    names: tuple[str, ...] | None
    target: str | None
    n_features: int
    n_rows: int | None
    read: Callable[[], Iterator[Piece]]
    is_sparse: bool = False
    has_label: bool = False


def table_of(
    data: Any, *, target: str | int | None, what: str, features: Sequence[str] | None = None
) -> Table:
    """Return *data* as a table.

    Args:
        data: a DataFrame, array, sparse matrix, Arrow table, list of rows, path, or a pair of features and labels.
        target: the label's column, by name or position; None if there is no label in it.
        what: names the data in errors, such as ``train``.
        features: the columns that are the features, in this order; others but the target are left out.

    Raises:
        DataMismatch: it is nothing of these, or a column is not there.
    """
    if isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], (int, float, str)):
        return _pair(data[0], data[1], what, features)
    if isinstance(data, (str, Path)):
        return _file(Path(data), target, what, features)
    import numpy as np
    import pandas as pd

    if isinstance(data, pd.Series):
        data = data.to_frame().T if data.index.dtype == object else data.to_frame()
    if isinstance(data, pd.DataFrame):
        return _frame(data, target, what, features)
    if hasattr(data, "to_batches") and hasattr(data, "schema"):
        return _arrow(data, target, what, features)
    if hasattr(data, "tocsr"):
        return _sparse(data.tocsr(), target, what)
    if hasattr(data, "toarray") or not isinstance(data, np.ndarray):
        try:
            data = np.asarray(data)
        except (ValueError, TypeError) as error:
            raise DataMismatch(
                f"The {what} data is a {type(data).__name__} that is no table of rows: "
                "give a DataFrame, an array, a sparse matrix, an Arrow table or a path."
            ) from error
    return _array(data, target, what)


def numbers(piece: Piece, what: str) -> Any:
    """Return the features of *piece* as a 2-D array of numbers; missing cells are NaN.

    Raises:
        DataMismatch: a column holds something else; names the columns.
    """
    import numpy as np
    import pandas as pd

    features = piece.features
    if not isinstance(features, pd.DataFrame):
        return features
    bad = [
        f"{name!r} ({dtype})"
        for name, dtype in zip(features.columns, features.dtypes, strict=True)
        if not (pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype))
        or pd.api.types.is_complex_dtype(dtype)
    ]
    if bad:
        shown = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        raise DataMismatch(
            f"The {what} data has columns that hold no numbers: {shown}. Encode them "
            "(`pandas.get_dummies`, `.cat.codes`) or leave them out."
        )
    if all(isinstance(dtype, np.dtype) for dtype in features.dtypes):
        array = features.to_numpy()
        return array.astype(np.float64) if array.dtype in (bool, object) else array
    return features.to_numpy(dtype=np.float64, na_value=np.nan)


def _check_label(label: Any, what: str) -> Any:
    import numpy as np

    array = label.to_numpy() if hasattr(label, "to_numpy") else np.asarray(label)
    if array.dtype.kind not in "biuf":
        try:
            array = array.astype(np.float64)
        except (ValueError, TypeError) as error:
            example = next((v for v in array if not isinstance(v, (int, float))), array[0])
            raise DataMismatch(
                f"The label of the {what} data holds no numbers but values such as {example!r}: "
                "encode it first, for instance with `pandas.factorize`."
            ) from error
    return array.astype(np.float64) if array.dtype.kind == "b" else array.reshape(len(array))


def _column(names: Sequence[Any], target: str | int, what: str) -> int:
    """Return the position of *target* among *names*."""
    words = [str(name) for name in names]
    if str(target) in words:
        return words.index(str(target))
    if isinstance(target, int) and -len(words) <= target < len(words):
        return target % len(words)
    lowered = {word.lower(): word for word in reversed(words)}
    close = [lowered[word] for word in difflib.get_close_matches(str(target).lower(), lowered, n=1)]
    shown = ", ".join(words[:12]) + (", ..." if len(words) > 12 else "")
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise DataMismatch(f"The {what} data has no column {target!r}.{hint} Its columns are {shown}.")


def _split(
    names: Sequence[Any], target: str | int | None, what: str, features: Sequence[str] | None
) -> tuple[list[int], int | None]:
    """Return the positions of the features and of the label."""
    position = None if target is None else _column(names, target, what)
    if features is None:
        return [i for i in range(len(names)) if i != position], position
    return [_column(names, name, what) for name in features], position


# ---- in memory -----------------------------------------------------------------------------------------


def _frame(frame: pd.DataFrame, target: str | int | None, what: str, features: Sequence[str] | None) -> Table:
    chosen, label = _split(list(frame.columns), target, what, features)

    def read() -> Iterator[Piece]:
        for start in range(0, len(frame), _ROWS):
            part = frame.iloc[start : start + _ROWS]
            yield Piece(
                part.iloc[:, chosen], None if label is None else _check_label(part.iloc[:, label], what)
            )

    return Table(
        names=tuple(str(frame.columns[i]) for i in chosen),
        target=None if label is None else str(frame.columns[label]),
        n_features=len(chosen),
        n_rows=len(frame),
        read=read,
        has_label=label is not None,
    )


def _array(array: Any, target: str | int | None, what: str) -> Table:
    if array.ndim == 1 and array.dtype.kind in "OSUT":
        array = array.reshape(-1, 1)
    if array.ndim != 2:
        raise DataMismatch(
            f"The {what} data has {array.ndim} dimensions; rows and columns are needed: "
            + ("reshape it with `.reshape(1, -1)` if it is one row." if array.ndim == 1 else "reshape it.")
        )
    if array.dtype.kind not in "biufOSU":
        raise DataMismatch(f"The {what} data is of type {array.dtype}, which is no number.")
    if array.dtype == object:
        import pandas as pd

        return _frame(pd.DataFrame(array).infer_objects(), target, what, None)
    label = None if target is None else _column(range(array.shape[1]), target, what)

    def read() -> Iterator[Piece]:
        import numpy as np

        for start in range(0, len(array), _ROWS):
            part = array[start : start + _ROWS]
            if label is None:
                yield Piece(part)
            else:
                yield Piece(np.delete(part, label, axis=1), _check_label(part[:, label], what))

    n_features = array.shape[1] - (label is not None)
    return Table(None, None, n_features, len(array), read, has_label=label is not None)


def _sparse(matrix: Any, target: str | int | None, what: str) -> Table:
    if target is not None:
        raise DataMismatch(
            f"The {what} data is sparse: give its labels beside it, as the pair (matrix, labels)."
        )

    def read() -> Iterator[Piece]:
        for start in range(0, matrix.shape[0], _ROWS):
            yield Piece(matrix[start : start + _ROWS])

    return Table(None, None, int(matrix.shape[1]), int(matrix.shape[0]), read, is_sparse=True)


def _arrow(data: Any, target: str | int | None, what: str, features: Sequence[str] | None) -> Table:
    names = list(data.schema.names)
    chosen, label = _split(names, target, what, features)

    def read() -> Iterator[Piece]:
        batches = [data] if not hasattr(data, "combine_chunks") else data.to_batches(max_chunksize=_ROWS)
        for batch in batches:
            part = batch.to_pandas()
            yield Piece(
                part.iloc[:, chosen], None if label is None else _check_label(part.iloc[:, label], what)
            )

    return Table(
        tuple(names[i] for i in chosen), None if label is None else names[label], len(chosen),
        int(data.num_rows), read, has_label=label is not None,
    )  # fmt: skip


def _pair(data: Any, label: Any, what: str, features: Sequence[str] | None) -> Table:
    inner = table_of(data, target=None, what=what, features=features)
    labels = _check_label(
        label.iloc[:, 0] if getattr(label, "ndim", 1) == 2 and hasattr(label, "iloc") else label, what
    )
    if inner.n_rows is not None and len(labels) != inner.n_rows:
        raise DataMismatch(f"The {what} data has {inner.n_rows} rows and {len(labels)} labels.")

    def read() -> Iterator[Piece]:
        start = 0
        for piece in inner.read():
            yield Piece(piece.features, labels[start : start + len(piece)])
            start += len(piece)

    name = getattr(label, "name", None)
    return Table(
        inner.names, None if name is None else str(name), inner.n_features, inner.n_rows, read,
        is_sparse=inner.is_sparse, has_label=True,
    )  # fmt: skip


# ---- files ---------------------------------------------------------------------------------------------


def _file(path: Path, target: str | int | None, what: str, features: Sequence[str] | None) -> Table:
    if not path.exists():
        raise DataMismatch(f"There is no file {path} for the {what} data.")
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in (".gz", ".zip")]
    suffix = suffixes[-1] if suffixes else ""
    if suffix in (".csv", ".tsv", ".data", ""):
        return _csv(path, target, what, features, "\t" if suffix == ".tsv" else ",")
    if suffix == ".npy":
        import numpy as np

        return _array(np.load(path, mmap_mode="r"), target, what)
    if suffix in (".parquet", ".arrow", ".feather"):
        return _arrow_file(path, suffix, target, what, features)
    raise DataMismatch(
        f"{path} is of a kind whose rows are not read here; files that are read are .csv, .tsv, .npy, .parquet, "
        ".arrow and .feather. `Channel(path, content_type=...)` uploads a file as it is."
    )


def has_header(path: Path, separator: str = ",") -> list[str] | None:
    """Return the names in the first line of a CSV file, or None if it holds numbers as all lines do."""
    with _opened(path) as file:
        row = next(csv.reader(file, delimiter=separator), None)
    if row is None:
        raise DataMismatch(f"{path} is empty.")
    for cell in row:
        text = cell.strip().lower()
        if text in ("", "nan", "na", "null"):
            continue
        try:
            float(text)
        except ValueError:
            return [name.strip() for name in row]
    return None


def _opened(path: Path) -> IO[str]:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", errors="replace", newline="")
    return path.open("r", encoding="utf-8", errors="replace", newline="")


def _csv(
    path: Path, target: str | int | None, what: str, features: Sequence[str] | None, separator: str
) -> Table:
    names = has_header(path, separator)
    if names is None:
        with _opened(path) as file:
            width = len(next(csv.reader(file, delimiter=separator)))
        if isinstance(target, str) and not target.isdigit():
            raise DataMismatch(
                f"{path} has no header, so that no column is named {target!r}: give its position, 0 for the first."
            )
        target = int(target) if isinstance(target, str) else target
        columns: list[Any] = list(range(width))
    else:
        columns = names
    by_name = features if names is not None else None
    chosen, label = _split(columns, target, what, by_name)

    def read() -> Iterator[Piece]:
        import pandas as pd

        try:
            with pd.read_csv(
                path,
                sep=separator,
                header=None if names is None else 0,
                chunksize=_ROWS,
                skipinitialspace=True,
            ) as reader:
                for part in reader:
                    yield Piece(
                        part.iloc[:, chosen],
                        None if label is None else _check_label(part.iloc[:, label], what),
                    )
        except (pd.errors.ParserError, UnicodeDecodeError) as error:
            raise DataMismatch(f"{path} is not a table in CSV: {error}") from error

    return Table(
        None if names is None else tuple(names[i] for i in chosen),
        None if names is None or label is None else names[label],
        len(chosen), None, read, has_label=label is not None,
    )  # fmt: skip


def _arrow_file(
    path: Path, suffix: str, target: str | int | None, what: str, features: Sequence[str] | None
) -> Table:
    try:
        import pyarrow as pa
        from pyarrow import feather, parquet
    except ImportError as error:
        raise DataMismatch(f"Reading {path} needs pyarrow: `pip install pyarrow`.") from error
    try:
        if suffix != ".parquet":
            return _arrow(feather.read_table(path), target, what, features)
        file = parquet.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataMismatch(f"{path} is not what its name says: {error}") from error
    names = list(file.schema_arrow.names)
    n_rows = int(file.metadata.num_rows)
    file.close()
    chosen, label = _split(names, target, what, features)

    def read() -> Iterator[Piece]:
        with parquet.ParquetFile(path) as opened:
            for batch in opened.iter_batches(batch_size=_ROWS):
                part = batch.to_pandas()
                yield Piece(
                    part.iloc[:, chosen], None if label is None else _check_label(part.iloc[:, label], what)
                )

    return Table(
        tuple(names[i] for i in chosen), None if label is None else names[label], len(chosen), n_rows, read,
        has_label=label is not None,
    )  # fmt: skip
