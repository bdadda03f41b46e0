"""A channel: data of any kind on its way into S3, in the best form that the algorithm takes.

XGBoost gets Parquet where pyarrow is there (CSV without it, LibSVM if the data is sparse), the other numeric
algorithms RecordIO-protobuf, text algorithms their lines, and the user's own scripts what a script reads easily:
DataFrames as CSV with a header, arrays as ``.npy``, files as they are.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sagesmith.sdk import _recordio
from sagesmith.sdk._errors import DataMismatch, SdkError
from sagesmith.sdk._tables import PLAIN_SUFFIXES, Piece, Table, has_header, numbers, table_of
from sagesmith.sdk._upload import ObjectWriter, upload_file, upload_folder

if TYPE_CHECKING:
    from sagesmith.sdk._catalog import Algorithm
    from sagesmith.sdk._session import Session

__all__ = ["Channel", "Staged", "stage"]


@dataclass(frozen=True, slots=True)
class Channel:
    """Data with more to say about it than the data itself does.

    Args:
        data: anything that `Estimator.fit` takes; a file is uploaded as it is if `content_type` is given.
        content_type: what the algorithm is told, such as ``text/csv``; needed where a URI's suffix does not tell.
        distribution: ``FullyReplicated``, or ``ShardedByS3Key`` to split the files over instances.
        input_mode: ``File``, ``FastFile`` or ``Pipe``.
        request: further members of AWS's `Channel`, such as ``{"ShuffleConfig": {"Seed": 1}}``.
    """

    data: Any
    content_type: str | None = None
    distribution: str | None = None
    input_mode: str | None = None
    request: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Staged:
    """A channel whose data lies in S3. `n_rows` and `n_features` are None where nothing told them."""

    name: str
    uri: str
    content_type: str | None
    names: tuple[str, ...] | None = None
    target: str | None = None
    n_rows: int | None = None
    n_features: int | None = None
    uploaded: bool = False


def stage(
    session: Session,
    name: str,
    data: Any,
    uri: str,
    *,
    algorithm: Algorithm | None,
    target: str | int | None,
    features: Sequence[str] | None = None,
    needs_label: bool | None = None,
) -> Staged:
    """Upload *data* below *uri* and return where it lies.

    Args:
        session: where to.
        name: the channel's name, ``train`` or another.
        data: what `Estimator.fit` takes, or a `Channel`.
        uri: the folder of the channel.
        algorithm: whose channel it is; None for the user's own script or image.
        target: the label's column.
        features: the columns to take, in this order: those of the ``train`` channel.
        needs_label: whether rows must have a label; else as the algorithm says.

    Raises:
        DataMismatch: the data does not fit; nothing was uploaded.
    """
    content_type = data.content_type if isinstance(data, Channel) else None
    content = data.data if isinstance(data, Channel) else data
    if isinstance(content, str) and content.startswith("s3://"):
        return Staged(name, content, content_type or _type_of_uri(content, algorithm))
    if isinstance(content, str):
        content = Path(content.removeprefix("file://"))
    if isinstance(content, Path):
        as_it_is = _as_it_is(session, name, content, uri, algorithm, target, content_type)
        if as_it_is is not None:
            return as_it_is
    if algorithm is None:
        return _for_script(session, name, content, uri, content_type)
    if algorithm.form == "text":
        return _lines(session, name, content, uri, target)
    table = table_of(content, target=target, what=name, features=features)
    labelled = algorithm.label if needs_label is None else needs_label
    if labelled and not table.has_label:
        raise DataMismatch(
            f"{algorithm.title} needs a label for each row of the {name} data: name its column, "
            '`target="..."`, or give the pair (features, labels).'
        )
    if table.n_features < 1:
        raise DataMismatch(f"The {name} data has no column but the label.")
    if not algorithm.label and needs_label is None and table.has_label:
        table = _without_label(table)
    return _table(session, name, table, uri, algorithm)


def _without_label(table: Table) -> Table:
    return Table(
        table.names, table.target, table.n_features, table.n_rows,
        lambda: (Piece(piece.features) for piece in table.read()), is_sparse=table.is_sparse,
    )  # fmt: skip


def _type_of_uri(uri: str, algorithm: Algorithm | None) -> str | None:
    found = PLAIN_SUFFIXES.get(Path(uri.removesuffix(".gz")).suffix.lower())
    if algorithm is None:
        return found
    if found is None:
        found = {"table": "text/csv", "recordio": "application/x-recordio-protobuf", "pairs": "text/csv"}.get(
            algorithm.form
        )
    return _csv_type(algorithm) if found == "text/csv" else found


def _csv_type(algorithm: Algorithm) -> str:
    return "text/csv" if algorithm.label or algorithm.form != "recordio" else "text/csv;label_size=0"


def _as_it_is(
    session: Session,
    name: str,
    path: Path,
    uri: str,
    algorithm: Algorithm | None,
    target: str | int | None,
    content_type: str | None,
) -> Staged | None:
    """Upload a folder or a file as it is, if the algorithm can read it so; else return None."""
    if not path.exists():
        raise DataMismatch(f"There is no file or folder {path} for the {name} data.")
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if path.is_dir():
        first = next((p for p in sorted(path.rglob("*")) if p.is_file()), path)
        upload_folder(session, path, uri)
        return Staged(name, uri, content_type or _type_of_uri(str(first), algorithm), uploaded=True)
    width = None
    plain = content_type is not None or algorithm is None
    if algorithm is not None and not plain:
        if suffix == ".csv" and target in (None, 0, "0") and algorithm.form in ("table", "recordio"):
            if has_header(path) is None and (target is not None or not algorithm.label):
                plain, width = True, table_of(path, target=None, what=name).n_features - algorithm.label
        else:
            plain = suffix in (".libsvm", ".svm", ".recordio", ".pbr", ".jsonl", ".txt")
    if not plain:
        return None
    upload_file(session, path, f"{uri}/{path.name}")
    return Staged(
        name, uri, content_type or _type_of_uri(path.name, algorithm), n_features=width, uploaded=True
    )


# ---- forms ---------------------------------------------------------------------------------------------


def _table(session: Session, name: str, table: Table, uri: str, algorithm: Algorithm) -> Staged:
    write: Callable[[Any, Table, str], int]
    if algorithm.form == "recordio":
        suffix, content_type, write = "pbr", "application/x-recordio-protobuf", _write_recordio
    elif algorithm.form == "pairs":
        suffix, content_type, write = "csv", "text/csv", _write_pairs
    elif table.is_sparse:
        suffix, content_type, write = "libsvm", "text/libsvm", _write_libsvm
    elif _has_pyarrow():
        suffix, content_type, write = "parquet", "application/x-parquet", _write_parquet
    else:
        suffix, content_type, write = "csv", "text/csv", _write_csv
    with ObjectWriter(session, f"{uri}/{name}.{suffix}") as target:
        n_rows = write(target, table, name)
        if not n_rows:
            raise DataMismatch(f"The {name} data has no rows.")
    return Staged(name, uri, content_type, table.names, table.target, n_rows, table.n_features, uploaded=True)


def _has_pyarrow() -> bool:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        return False
    return True


def _write_recordio(target: Any, table: Table, what: str) -> int:
    import numpy as np

    n_rows = 0
    for piece in table.read():
        features = numbers(piece, what)
        if isinstance(features, np.ndarray):
            features = features.astype(np.float32)
            if not np.isfinite(features).all():
                row, column = (int(i[0]) for i in np.nonzero(~np.isfinite(features)))
                name = repr(table.names[column]) if table.names else str(column)
                raise DataMismatch(
                    f"Row {n_rows + row} of the {what} data has a missing or infinite value in column {name}: "
                    "fill it (`DataFrame.fillna`) or leave the row out."
                )
        target.write(_recordio.encode(features, piece.label))
        n_rows += len(piece)
    return n_rows


def _write_parquet(target: Any, table: Table, what: str) -> int:
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    n_rows, writer = 0, None
    try:
        for piece in table.read():
            features = numbers(piece, what)
            columns = [piece.label, *np.asarray(features).T]
            arrays = [pa.array(np.ascontiguousarray(column)) for column in columns]
            names = ["label", *(table.names or [f"f{i}" for i in range(table.n_features)])]
            if writer is None:
                schema = pa.schema([
                    (name, array.type if pa.types.is_floating(array.type) and array.type != pa.float16() else pa.float64())
                    for name, array in zip(_distinct(names), arrays, strict=True)
                ])  # fmt: skip
                writer = parquet.ParquetWriter(target, schema, compression="snappy", use_dictionary=False)
            writer.write_table(
                pa.Table.from_arrays(
                    [array.cast(kind) for array, kind in zip(arrays, writer.schema.types, strict=True)],
                    schema=writer.schema,
                )
            )
            n_rows += len(piece)
    finally:
        if writer is not None:
            writer.close()
    return n_rows


def _distinct(names: Sequence[str]) -> list[str]:
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}.{seen[name] - 1}")
    return result


def _write_csv(target: Any, table: Table, what: str) -> int:
    import numpy as np
    import pandas as pd

    n_rows = 0
    for piece in table.read():
        rows = np.column_stack([piece.label, np.asarray(numbers(piece, what))])
        target.write(pd.DataFrame(rows).to_csv(header=False, index=False).encode())
        n_rows += len(piece)
    return n_rows


def _write_libsvm(target: Any, table: Table, what: str) -> int:
    n_rows = 0
    for piece in table.read():
        matrix = piece.features
        lines = io.StringIO()
        for i in range(matrix.shape[0]):
            span = slice(matrix.indptr[i], matrix.indptr[i + 1])
            cells = zip(matrix.indices[span].tolist(), matrix.data[span].tolist(), strict=True)
            lines.write(
                " ".join([repr(float(piece.label[i])), *(f"{column}:{value!r}" for column, value in cells)])
            )
            lines.write("\n")
        target.write(lines.getvalue().encode())
        n_rows += len(piece)
    return n_rows


def _write_pairs(target: Any, table: Table, what: str) -> int:
    import pandas as pd

    if table.n_features != 2:
        raise DataMismatch(
            f"The {what} data needs two columns, entity and IP address, but has {table.n_features}."
        )
    n_rows = 0
    for piece in table.read():
        target.write(pd.DataFrame(piece.features).to_csv(header=False, index=False).encode())
        n_rows += len(piece)
    return n_rows


def _lines(session: Session, name: str, data: Any, uri: str, target: str | int | None) -> Staged:
    """Upload texts, one a line; with *target*, each behind ``__label__`` and its label."""
    n_rows = 0
    with ObjectWriter(session, f"{uri}/{name}.txt") as file:
        for line in _texts(data, name, target):
            file.write(line.replace("\n", " ").encode() + b"\n")
            n_rows += 1
        if not n_rows:
            raise DataMismatch(f"The {name} data has no rows.")
    return Staged(name, uri, "text/plain", n_rows=n_rows, uploaded=True)


def _texts(data: Any, name: str, target: str | int | None) -> Iterator[str]:
    if isinstance(data, (list, tuple)) and (not data or isinstance(data[0], str)) and target is None:
        yield from data
        return
    if target is None and getattr(data, "ndim", 0) == 1:
        yield from (str(text) for text in data)
        return
    import pandas as pd

    frame = pd.read_csv(data) if isinstance(data, Path) else pd.DataFrame(data)
    words = [str(column) for column in frame.columns]
    if target is not None and str(target) not in words:
        raise DataMismatch(f"The {name} data has no column {target!r}. Its columns are {', '.join(words)}.")
    texts = [i for i, word in enumerate(words) if word != str(target)]
    if len(texts) != 1:
        raise DataMismatch(
            f"The {name} data needs one column of texts, but has {len(texts)}: give that and the label."
        )
    labels = None if target is None else frame.iloc[:, words.index(str(target))]
    for i, text in enumerate(frame.iloc[:, texts[0]]):
        yield str(text) if labels is None else f"__label__{str(labels.iloc[i]).replace(' ', '_')} {text}"


def _for_script(session: Session, name: str, data: Any, uri: str, content_type: str | None) -> Staged:
    """Upload data for a script: DataFrames as CSV with a header, arrays as ``.npy``, sparse matrices as ``.npz``."""
    import numpy as np
    import pandas as pd

    parts = {name: data}
    if isinstance(data, tuple) and len(data) == 2:
        parts = {name: data[0], "label": data[1]}
    n_rows = None
    for stem, part in parts.items():
        if hasattr(part, "to_pandas"):
            part = part.to_pandas()  # noqa: PLW2901
        if isinstance(part, pd.Series):
            part = part.to_frame()  # noqa: PLW2901
        if isinstance(part, pd.DataFrame):
            with ObjectWriter(session, f"{uri}/{stem}.csv") as file:
                for start in range(0, max(len(part), 1), 1 << 16):
                    text = part.iloc[start : start + (1 << 16)].to_csv(index=False, header=start == 0)
                    file.write(text.encode())
            content_type = content_type or "text/csv"
        elif hasattr(part, "tocsr"):
            from scipy import sparse

            with ObjectWriter(session, f"{uri}/{stem}.npz") as file:
                buffer = io.BytesIO()
                sparse.save_npz(buffer, part.tocsr())
                file.write(buffer.getvalue())
        elif isinstance(part, (np.ndarray, list, tuple)):
            with ObjectWriter(session, f"{uri}/{stem}.npy") as file:
                np.save(file, np.asarray(part), allow_pickle=False)
        else:
            raise SdkError(
                f"The {name} data is a {type(part).__name__}: give a DataFrame, an array, an Arrow table or a path."
            )
        n_rows = n_rows or len(part) if not hasattr(part, "tocsr") else part.shape[0]
    return Staged(name, uri, content_type, n_rows=n_rows, uploaded=True)
