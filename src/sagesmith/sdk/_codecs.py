"""Rows into requests and answers into tables, as each kind of model wants them.

A codec cuts rows into bodies below the limit of a request, and makes a DataFrame of what comes back: a column for
each thing that the model says. Lists, such as the scores of many classes, become columns that are numbered.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sagesmith.sdk import _recordio
from sagesmith.sdk._errors import DataMismatch, SdkError
from sagesmith.sdk._schema import Schema
from sagesmith.sdk._tables import Piece, numbers, table_of

if TYPE_CHECKING:
    from sagesmith.sdk._catalog import Algorithm, Framework

__all__ = ["Body", "codec_of", "decoded"]

_LIMIT: Final = 5 << 20  # of the 6 MB that InvokeEndpoint takes
_NPY: Final = "application/x-npy"
_JSON: Final = "application/json"
_CSV: Final = "text/csv"


@dataclass(frozen=True, slots=True)
class Body:
    """One request: `n_rows` rows of `content_type`, answered in `accept`."""

    data: bytes
    content_type: str
    accept: str
    n_rows: int


class Codec:
    """How rows are sent to a model of an unknown kind: as CSV without a header, answered in whatever it likes."""

    answer_key = ""

    def bodies(self, data: Any, schema: Schema) -> Iterator[Body]:
        """Yield requests for the rows of *data*.

        Raises:
            DataMismatch: the rows are not the model's.
        """
        for piece in _pieces(data, schema):
            rows = piece.features
            if hasattr(rows, "to_csv"):
                text = rows.to_csv(header=False, index=False).encode()
            else:
                text = _csv(numbers(piece, "given"))
            yield Body(text, _CSV, "*/*", len(piece))


class _Table(Codec):
    """XGBoost: CSV, or LibSVM for sparse rows; answered in CSV."""

    def bodies(self, data: Any, schema: Schema) -> Iterator[Body]:
        for piece in _pieces(data, schema):
            rows = numbers(piece, "given")
            if hasattr(rows, "indptr"):
                yield Body(_libsvm(rows), "text/libsvm", _CSV, len(piece))
            else:
                yield Body(_csv(rows), _CSV, _CSV, len(piece))


class _RecordIO(Codec):
    """SageMaker's own algorithms: RecordIO-protobuf, answered in JSON."""

    def __init__(self, answer_key: str) -> None:
        self.answer_key = answer_key

    def bodies(self, data: Any, schema: Schema) -> Iterator[Body]:
        for piece in _pieces(data, schema):
            rows = numbers(piece, "given")
            yield Body(_recordio.encode(rows), "application/x-recordio-protobuf", _JSON, len(piece))


class _Pairs(Codec):
    """IP Insights: CSV of two texts, answered in JSON."""

    answer_key = "predictions"

    def bodies(self, data: Any, schema: Schema) -> Iterator[Body]:
        import pandas as pd

        for piece in _pieces(data, schema):
            text = pd.DataFrame(piece.features).to_csv(header=False, index=False)
            yield Body(text.encode(), _CSV, _JSON, len(piece))


class _Texts(Codec):
    """BlazingText: JSON with a list of texts, answered in JSON."""

    def bodies(self, data: Any, schema: Schema) -> Iterator[Body]:
        if hasattr(data, "iloc") and getattr(data, "ndim", 1) == 2:
            data = data.iloc[:, 0]
        texts = [data] if isinstance(data, str) else [str(text) for text in data]
        for start in range(0, len(texts), 1000):
            part = texts[start : start + 1000]
            yield Body(json.dumps({"instances": part}).encode(), _JSON, _JSON, len(part))


class _Arrays(Codec):
    """scikit-learn and PyTorch: NumPy's format both ways."""

    def bodies(self, data: Any, schema: Schema) -> Iterator[Body]:
        import numpy as np

        if not _is_table(data):
            array = np.asarray(data)
            if array.dtype.kind not in "biufSU":
                raise DataMismatch("The given data is no array of numbers or texts.")
            per_row = max(1, array.nbytes // max(1, len(array)))
            step = max(1, _LIMIT // per_row)
            for start in range(0, len(array), step):
                part = array[start : start + step]
                yield Body(_npy(part), _NPY, _NPY, len(part))
            return
        for piece in _pieces(data, schema):
            rows = numbers(piece, "given")
            rows = rows.toarray() if hasattr(rows, "toarray") else rows
            yield Body(_npy(rows), _NPY, _NPY, len(piece))


class _Json(Codec):
    """TensorFlow, MXNet and Hugging Face: JSON both ways, the rows under *key*, or bare if it is empty."""

    def __init__(self, key: str, answer_key: str) -> None:
        self._key, self.answer_key = key, answer_key

    def bodies(self, data: Any, schema: Schema) -> Iterator[Body]:
        import numpy as np

        if hasattr(data, "columns"):
            data = np.concatenate([numbers(piece, "given") for piece in _pieces(data, schema)])
        rows = data.tolist() if hasattr(data, "tolist") else data
        n_rows = len(rows) if isinstance(rows, (list, tuple)) else 1
        content = {self._key: rows} if self._key else rows
        yield Body(json.dumps(content).encode(), _JSON, _JSON, n_rows)


def codec_of(algorithm: Algorithm | None, framework: Framework | None) -> Codec:
    """Return the codec for models of an algorithm, of a framework, or of something else."""
    if algorithm is not None:
        if algorithm.form == "table":
            return _Table()
        if algorithm.form == "pairs":
            return _Pairs()
        if algorithm.form == "text":
            return _Texts()
        return _RecordIO(algorithm.answer)
    if framework is None:
        return Codec()
    if framework.name in ("sklearn", "pytorch"):
        return _Arrays()
    if framework.name == "tensorflow":
        return _Json("instances", "predictions")
    return _Json("inputs" if framework.name == "huggingface" else "", "")


def decoded(body: bytes, content_type: str, key: str = "") -> Any:
    """Return an answer: a DataFrame of one row for each row sent where it is a table, else what it says.

    Args:
        body: the answer.
        content_type: its type.
        key: under which JSON lists the results; empty if it is the list.
    """
    import numpy as np
    import pandas as pd

    kind = content_type.partition(";")[0].strip().lower()
    if kind == _NPY:
        return _of_array(np.load(io.BytesIO(body), allow_pickle=False))
    if kind in (_JSON, "application/jsonlines", "application/jsons"):
        text = body.decode()
        try:
            data = json.loads(text)
        except json.JSONDecodeError:
            data = [json.loads(line) for line in text.splitlines() if line.strip()]
        if key and isinstance(data, dict) and key in data:
            data = data[key]
        return _of_json(data)
    if kind.startswith(("text/csv", "text/plain")):
        try:
            return _of_array(_of_csv(body.decode()))
        except ValueError:
            return body.decode()
    return body or pd.DataFrame()


def _of_csv(text: str) -> Any:
    import numpy as np

    lines = [line for line in text.replace("[", "").replace("]", "").splitlines() if line.strip()]
    return np.array([[float(cell) for cell in line.split(",")] for line in lines])


def _of_array(array: Any) -> Any:
    import pandas as pd

    if array.ndim == 1:
        return pd.DataFrame({"prediction": array})
    if array.ndim == 2:
        if array.shape[1] == 1:
            return pd.DataFrame({"prediction": array[:, 0]})
        return pd.DataFrame(array, columns=[f"prediction_{i}" for i in range(array.shape[1])])
    return array


def _of_json(data: Any) -> Any:
    import numpy as np
    import pandas as pd

    if not isinstance(data, list) or not data:
        return data
    if all(isinstance(row, dict) for row in data):
        columns: dict[str, Any] = {}
        for name in data[0]:
            values = [row.get(name) for row in data]
            lengths = {len(value) if isinstance(value, list) else -1 for value in values}
            if lengths == {-1}:
                columns[name] = values
            elif len(lengths) == 1 and all(isinstance(v, (int, float)) for v in values[0]):
                matrix = np.array(values)
                names = [name] if matrix.shape[1] == 1 else [f"{name}_{i}" for i in range(matrix.shape[1])]
                columns |= dict(zip(names, matrix.T, strict=True))
            else:
                columns[name] = values
        return pd.DataFrame(columns)
    try:
        array = np.array(data)
    except ValueError:
        return data
    return _of_array(array) if array.dtype.kind in "biuf" else data


# ---- rows ----------------------------------------------------------------------------------------------


def _is_table(data: Any) -> bool:
    return (
        hasattr(data, "columns")
        or hasattr(data, "tocsr")
        or isinstance(data, str)
        or hasattr(data, "to_batches")
    )


def _pieces(data: Any, schema: Schema) -> Iterator[Piece]:
    """Yield the rows of *data* with the model's columns, in pieces that fit into a request."""
    names: Sequence[str] | None = schema.features
    if (
        not hasattr(data, "columns")
        and not isinstance(data, str)
        and not hasattr(data, "schema")
        and not hasattr(data, "open")
    ):
        names = None
    table = table_of(data, target=None, what="given", features=names)
    if names is not None and table.names is None:
        names = None
    if schema.features is not None and table.n_features != len(schema.features):
        hint = ""
        if table.n_features == len(schema.features) + 1:
            hint = " Is the label still in it?"
        raise DataMismatch(
            f"The given data has {table.n_features} columns, the model was trained with "
            f"{len(schema.features)}.{hint}"
        )
    step = max(1, _LIMIT // max(1, 25 * table.n_features))
    empty = True
    for piece in table.read():
        for start in range(0, len(piece), step):
            empty = False
            part = piece.features
            part = part.iloc[start : start + step] if hasattr(part, "iloc") else part[start : start + step]
            yield Piece(part)
    if empty:
        raise DataMismatch("The given data has no rows.")


def _csv(rows: Any) -> bytes:
    return "\n".join(",".join(map(repr, row)) for row in rows.tolist()).encode()


def _libsvm(rows: Any) -> bytes:
    lines = []
    for i in range(rows.shape[0]):
        span = slice(rows.indptr[i], rows.indptr[i + 1])
        cells = zip(rows.indices[span].tolist(), rows.data[span].tolist(), strict=True)
        lines.append(" ".join(["0", *(f"{column}:{value!r}" for column, value in cells)]))
    return "\n".join(lines).encode()


def _npy(array: Any) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def joined(parts: Sequence[Any]) -> Any:
    """Return the answers of several requests as one.

    Raises:
        SdkError: they are of different kinds.
    """
    import numpy as np
    import pandas as pd

    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, pd.DataFrame) for part in parts):
        return pd.concat(parts, ignore_index=True)
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    if all(isinstance(part, list) for part in parts):
        return [row for part in parts for row in part]
    raise SdkError("The model answered several requests with things that cannot be joined: send fewer rows.")
