"""MXNet's file of arrays, in which AWS's own algorithms keep their models; read and written without MXNet.

::

    u64 0x112, u64 0, u64 n, n arrays, u64 m, m names of (u64 length, bytes)
    array: u32 0xF993FAC9, i32 storage (0 dense), u32 n_dims, i64 dims, i32 device, i32 device number, i32 type, values

Source: apache/mxnet, `src/ndarray/ndarray.cc`, NDArray::Save and NDArray::Load.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sagesmith_algorithms.errors import DataError

__all__ = ["dump", "load", "load_named"]

_LIST_MAGIC = 0x112
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_TYPES = ("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8")
_CPU = 1


def dump(arrays: Sequence[npt.NDArray[Any]], names: Sequence[str] = ()) -> bytes:
    """Return a file of *arrays*, which `mxnet.nd.load` reads."""
    out = [struct.pack("<QQQ", _LIST_MAGIC, 0, len(arrays))]
    for array in arrays:
        kind = array.dtype.newbyteorder("<")
        code = next((i for i, name in enumerate(_TYPES) if np.dtype(name) == kind), None)
        if code is None:
            raise ValueError(f"arrays of type {array.dtype} cannot be kept in this file")
        out.append(struct.pack("<IiI", _V2, 0, array.ndim))
        out.append(struct.pack(f"<{array.ndim}q", *array.shape))
        out.append(struct.pack("<iii", _CPU, 0, code))
        out.append(np.ascontiguousarray(array, kind).tobytes())
    out.append(struct.pack("<Q", len(names)))
    out.extend(struct.pack("<Q", len(name.encode())) + name.encode() for name in names)
    return b"".join(out)


def load(data: bytes, where: str = "") -> list[npt.NDArray[Any]]:
    """Return the arrays of a file.

    Raises:
        DataError: it is not such a file, or cut short.
    """
    return _checked(data, where)[0]


def load_named(data: bytes, where: str = "") -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a file by name.

    Raises:
        DataError: it is not such a file, or cut short, or its arrays have no names.
    """
    arrays, names = _checked(data, where)
    if len(names) != len(arrays):
        raise DataError(f"has {len(arrays)} arrays but {len(names)} names", where)
    return dict(zip(names, arrays, strict=True))


def _checked(data: bytes, where: str) -> tuple[list[npt.NDArray[Any]], list[str]]:
    try:
        return _load(data)
    except (struct.error, ValueError, IndexError) as error:
        raise DataError(f"is not an MXNet file of arrays: {error}", where) from error


def _load(data: bytes) -> tuple[list[npt.NDArray[Any]], list[str]]:
    magic, _, count = struct.unpack_from("<QQQ", data)
    if magic != _LIST_MAGIC:
        raise ValueError(f"it begins with {magic:#x} instead of {_LIST_MAGIC:#x}")
    position, arrays = 24, []
    for _ in range(count):
        (version,) = struct.unpack_from("<I", data, position)
        position += 4
        if version in (_V2, _V3):
            (storage,) = struct.unpack_from("<i", data, position)
            if storage != 0:
                raise ValueError("sparse arrays cannot be read")
            position += 4
        if version in (_V1, _V2, _V3):
            (n_dims,) = struct.unpack_from("<I", data, position)
            shape = struct.unpack_from(f"<{n_dims}q", data, position + 4) if n_dims <= 32 else ()
            position += 4 + 8 * n_dims
        else:  # the oldest files: the first word is the number of dimensions
            n_dims = version
            shape = struct.unpack_from(f"<{n_dims}I", data, position) if n_dims <= 32 else ()
            position += 4 * n_dims
        if n_dims > 32 or any(n < 0 for n in shape):
            raise ValueError("an array's shape makes no sense")
        code = struct.unpack_from("<iii", data, position)[2]
        position += 12
        dtype = np.dtype(_TYPES[code])
        size = math.prod(shape)
        arrays.append(np.frombuffer(data, dtype, size, position).reshape(shape))
        position += size * dtype.itemsize
    return arrays, _names(data, position)


def _names(data: bytes, position: int) -> list[str]:
    (count,) = struct.unpack_from("<Q", data, position)
    position, names = position + 8, []
    for _ in range(count):
        (length,) = struct.unpack_from("<Q", data, position)
        position += 8 + length
        if position > len(data):
            raise ValueError("a name is cut short")
        names.append(data[position - length : position].decode())
    return names
