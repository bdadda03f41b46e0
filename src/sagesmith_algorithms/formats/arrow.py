"""Arrow's arrays as numpy's, from their buffers.

Arrow's own conversion imports pandas if it is installed, half a second before the first row is read.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sagesmith_algorithms.formats.batch import Floats

__all__ = ["floats"]


def floats(array: Any) -> Floats:
    """Return the values of *array*, of Arrow's type float32, with NaN for null. Without nulls nothing is copied."""
    if not len(array):
        return np.empty(0, np.float32)
    validity, values = array.buffers()
    span = slice(array.offset, array.offset + len(array))
    result: Floats = np.frombuffer(values, np.float32, span.stop)[span]
    if array.null_count:
        valid = np.unpackbits(np.frombuffer(validity, np.uint8), count=span.stop, bitorder="little")[span]
        result = np.where(valid, result, np.float32(np.nan))
    return result
