"""Arrays from requests and to responses: JSON, CSV and NPY, as SageMaker's inference toolkit reads and writes them.

NumPy is imported when an array is made; nothing here needs it before.

CSV of numbers alone, which is what models mostly get, is read and written without NumPy's functions for text: the
results are theirs, but `genfromtxt` takes 4 ms for one row of 64 numbers, and `savetxt` 45 us to write one.
"""

from __future__ import annotations

import functools
import importlib
import io
import json
from typing import Any, Callable, Mapping, Tuple

__all__ = ["CSV", "JSON", "NPY", "UnsupportedFormatError", "accepted", "decode", "encode", "media_type"]

JSON = "application/json"
CSV = "text/csv"
NPY = "application/x-npy"
NPZ = "application/x-npz"
_PLAIN = b"0123456789.,-+eE\r\n"


class UnsupportedFormatError(ValueError):
    """A content type that cannot be read (415) or written (406)."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


@functools.lru_cache(maxsize=256)  # clients send a few of them, again and again
def media_type(content_type: str) -> str:
    """Return *content_type* without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


@functools.lru_cache(maxsize=256)
def accepted(accept: str, default: str) -> str:
    """Return the one type to answer in: the first of *accept*, or *default* if that is any or none."""
    first = accept.partition(",")[0]
    return default if media_type(first) in ("", "*/*", "application/*", "text/*") else first.strip()


def decode(body: bytes, content_type: str) -> Any:
    """Return the array in *body*.

    Raises:
        UnsupportedFormatError: there is no reader for *content_type*.
        ValueError: *body* is not what its type says.
    """
    reader = _READERS.get(media_type(content_type))
    if reader is None:
        raise UnsupportedFormatError(
            "Content type %s is not supported by this framework. Please implement input_fn to deserialize the "
            "request data or an output_fn to serialize the response. Supported are %s."
            % (content_type or "(none)", ", ".join(_READERS)),
            415,
        )
    return reader(body)


def encode(prediction: Any, accept: str) -> bytes:
    """Return *prediction*, an array or what can be made one, as *accept*.

    Raises:
        UnsupportedFormatError: there is no writer for *accept*.
    """
    writer = _WRITERS.get(media_type(accept))
    if writer is None:
        raise UnsupportedFormatError(
            "Accept type %s is not supported by this framework. Please implement output_fn to serialize the response. "
            "Supported are %s." % (accept or "(none)", ", ".join(_WRITERS)),
            406,
        )
    return writer(prediction)


def _numpy() -> Any:
    return importlib.import_module("numpy")


def _read_json(body: bytes) -> Any:
    return _numpy().array(json.loads(body.decode("utf-8")))


def _read_csv(body: bytes) -> Any:
    np = _numpy()
    if body and not body.translate(None, _PLAIN):
        try:
            rows = [list(map(float, line.split(b","))) for line in body.split() if line]
        except ValueError:  # a field is empty, or no number after all
            rows = []
        if len(rows) == 1:
            return np.array(rows[0]).squeeze()
        if rows and all(len(row) == len(rows[0]) for row in rows):
            return np.array(rows).squeeze()
    try:
        return np.genfromtxt(io.StringIO(body.decode("utf-8")), delimiter=",")
    except ValueError as error:
        raise ValueError("The body is not CSV with as many numbers in each line: %s" % error) from error


def _read_npy(body: bytes) -> Any:
    return _numpy().load(io.BytesIO(body), allow_pickle=False)


def _read_npz(body: bytes) -> Any:
    # As the toolkit for it has it: the first array of a sparse matrix's archive, or of any.
    sparse = importlib.import_module("scipy.sparse")
    return sparse.load_npz(io.BytesIO(body))


def _listed(prediction: Any) -> Any:
    """Arrays, tensors and what holds them as plain lists."""
    if hasattr(prediction, "detach"):
        prediction = prediction.detach().cpu()
    if hasattr(prediction, "tolist"):
        return prediction.tolist()
    if isinstance(prediction, dict):
        return {key: _listed(value) for key, value in prediction.items()}
    if isinstance(prediction, (list, tuple)):
        return [_listed(item) for item in prediction]
    return prediction


def _array(prediction: Any) -> Any:
    return _numpy().array(_listed(prediction) if hasattr(prediction, "detach") else prediction)


def _write_json(prediction: Any) -> bytes:
    return json.dumps(_listed(prediction)).encode("utf-8")


def _write_csv(prediction: Any) -> bytes:
    array = _numpy().atleast_1d(_array(prediction))
    if array.dtype.kind in "fiub" and array.ndim <= 2:
        # An element's text is that of its own type: a list would make longer ones of float32.
        lines = map(str, array) if array.ndim == 1 else (",".join(map(str, row)) for row in array)
        return "".join([line + "\n" for line in lines]).encode("utf-8")
    sink = io.StringIO()
    _numpy().savetxt(sink, array, delimiter=",", fmt="%s")
    return sink.getvalue().encode("utf-8")


def _write_npy(prediction: Any) -> bytes:
    sink = io.BytesIO()
    _numpy().save(sink, _array(prediction), allow_pickle=False)
    return sink.getvalue()


_READERS: Mapping[str, Callable[[bytes], Any]] = {
    JSON: _read_json, CSV: _read_csv, NPY: _read_npy, NPZ: _read_npz,
}  # fmt: skip
_WRITERS: Mapping[str, Callable[[Any], bytes]] = {JSON: _write_json, CSV: _write_csv, NPY: _write_npy}
TEXT_TYPES: Tuple[str, ...] = (JSON, CSV)
