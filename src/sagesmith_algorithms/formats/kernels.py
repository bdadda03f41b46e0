"""The numbers of a plain text, and what LibSVM means by them, compiled.

A number is parsed where it is needed, not in a function of its own: Numba would count the references to the text for each
call, which takes half as long as the number itself.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sagesmith_algorithms.compiled import compiled

__all__ = ["UNKNOWN", "numbers", "pairs"]

UNKNOWN = -1
"""What is returned of a text that is not plain."""

_TAB, _NEWLINE, _RETURN, _SPACE = b"\t\n\r "
_PLUS, _COMMA, _MINUS, _POINT, _COLON, _E = b"+,-.:e"
_ZERO = np.uint8(ord("0"))
_TO_LOWER = 32

_MOST_DIGITS = 18  # in an int64
_POWERS = 10.0 ** np.arange(61)
_EXACT, _EXACT_POWER = 1 << 53, 22  # whole numbers and powers of 10 up to these are float64
_SMALLEST, _LARGEST = 1.1754943508222875e-38, 3.4028234663852886e38  # normal numbers of float32
_BELOW = (1 << 29) - 1  # the bits of a float64 that a float32 lacks
_HALF = 1 << 28  # a half of a float32's last place
_DOUBT = 4  # units of a float64's last place
_MAX_COLUMN = (1 << 31) - 2

_TEXT = "Array(uint8, 1, 'C', True)"  # it may be read-only


@compiled(
    f"int64({_TEXT}, float32[::1], uint8[::1])",
    f"int64({_TEXT}, float64[::1], uint8[::1])",
    error_model="numpy",
)
def numbers(text: Any, values: Any, marks: Any) -> Any:
    """Write the numbers of *text* to *values*, and to *marks* what ends each: a comma, a colon, a space, or the line.

    Spaces around numbers and empty lines are passed over. Of nothing between two marks the value is NaN. Whatever else
    stands in the text, words or quotes, makes it `UNKNOWN`, as do a number that overflows or all but vanishes in float32,
    and more numbers than *values* has room for.

    The value is that of the digits, as a float64, times or by a power of 10. With 15 digits and powers up to 22 that is rounded
    once; else it is within 2 units of float64's last place, and, as a float32, right unless it lies so near to the middle between
    two of them, which is UNKNOWN too. Source: Clinger, "How to read floating point numbers accurately", PLDI 1990, section 3.

    Args:
        text: ends with the end of a line.
        values: what for is the type that the numbers are to have.
        marks: of the same length.

    Returns:
        The count of numbers, or `UNKNOWN`.
    """
    at, n, begins = 0, 0, True
    while at < text.shape[0]:
        while text[at] == _SPACE or text[at] == _TAB:
            at += 1
        if begins and text[at] == _NEWLINE:
            at += 1
            continue
        if begins and text[at] == _RETURN and text[at + 1] == _NEWLINE:
            at += 2
            continue
        if n == values.shape[0]:
            return UNKNOWN

        begin = at
        negative = text[at] == _MINUS
        at += negative or text[at] == _PLUS
        first, exponent = at, 0
        mantissa = np.uint64(0)
        digit = text[at] - _ZERO
        while digit < 10:
            mantissa = mantissa * np.uint64(10) + np.uint64(digit)
            at += 1
            digit = text[at] - _ZERO
        n_digits = at - first
        if text[at] == _POINT:
            at += 1
            point = at
            digit = text[at] - _ZERO
            while digit < 10:
                mantissa = mantissa * np.uint64(10) + np.uint64(digit)
                at += 1
                digit = text[at] - _ZERO
            exponent = point - at
            n_digits -= exponent
        if n_digits == 0:
            if at != begin:
                return UNKNOWN
            value = np.nan
        else:
            if n_digits > _MOST_DIGITS:
                while text[first] == _ZERO or text[first] == _POINT:
                    n_digits -= text[first] == _ZERO
                    first += 1
                if n_digits > _MOST_DIGITS:
                    return UNKNOWN
            if text[at] | _TO_LOWER == _E:
                at += 1
                down = text[at] == _MINUS
                at += down or text[at] == _PLUS
                begin = at
                power: Any = 0
                digit = text[at] - _ZERO
                while digit < 10 and power < 1000:
                    power = power * 10 + np.int64(digit)
                    at += 1
                    digit = text[at] - _ZERO
                if at == begin:
                    return UNKNOWN
                exponent += -power if down else power
            if abs(exponent) >= len(_POWERS):
                return UNKNOWN
            value = np.float64(np.int64(mantissa))
            if exponent < 0:
                value /= _POWERS[-exponent]
            elif exponent > 0:
                value *= _POWERS[exponent]
            if mantissa > _EXACT or abs(exponent) > _EXACT_POWER:
                beyond = np.float64(value).view(np.int64) & _BELOW
                if abs(beyond - _HALF) <= _DOUBT:
                    return UNKNOWN
            if (value < _SMALLEST and mantissa != 0) or value > _LARGEST:
                return UNKNOWN
        values[n] = -value if negative else value

        if text[at] == _SPACE or text[at] == _TAB:
            while text[at] == _SPACE or text[at] == _TAB:
                at += 1
            mark = text[at] if text[at] == _NEWLINE or text[at] == _RETURN else np.uint8(_SPACE)
            at += mark != _SPACE
        else:
            mark = text[at]
            at += 1
        if mark == _RETURN:
            mark = text[at]
            at += 1
            if mark != _NEWLINE:
                return UNKNOWN
        begins = mark == _NEWLINE
        if not begins and mark not in (_COMMA, _COLON, _SPACE):
            return UNKNOWN
        marks[n] = mark
        n += 1
    return n


@compiled(
    "UniTuple(int64, 4)(float64[::1], uint8[::1], int64[::1], int32[::1], float32[::1], float32[::1], float32[::1], "
    "int64[::1])"
)
def pairs(
    numbers: Any, marks: Any, indptr: Any, columns: Any, values: Any, labels: Any, weights: Any, groups: Any
) -> Any:
    """Write the rows of LibSVM, whose *numbers* and *marks* are known, as CSR; column -1 is the row's query, once and first.

    Args:
        numbers: as `numbers` finds them.
        marks: likewise.
        indptr: (n_lines + 1,).
        columns: (half of the numbers,).
        values: of the same length.
        labels: (n_lines,).
        weights: of the same length; those of rows that have one.
        groups: of the same length; the queries of rows that have one.

    Returns:
        The counts of rows, of weights and of groups, and the largest column, -1 if there is none. The first is `UNKNOWN` for
        numbers that are no LibSVM.
    """
    unknown = UNKNOWN, 0, 0, 0
    row, n_values, n_weights, n_groups, i = 0, 0, 0, 0, 0
    widest: Any = -1
    indptr[0] = 0
    while i < numbers.shape[0]:
        labels[row] = numbers[i]
        plain = not math.isnan(numbers[i])
        if marks[i] == _COLON:
            i += 1
            weights[row] = numbers[i]
            plain &= not math.isnan(numbers[i])
            n_weights += 1
        begin = i
        while marks[i] == _SPACE:
            if marks[i + 1] != _COLON:
                return unknown
            column, value = numbers[i + 1], numbers[i + 2]
            plain &= not math.isnan(value)
            if column == -1.0 and i == begin:
                groups[row] = np.int64(value)
                plain &= value == np.floor(value)
                n_groups += 1
            elif 0 <= column <= _MAX_COLUMN and column == np.floor(column):
                columns[n_values] = np.int32(column)
                values[n_values] = value
                widest = max(widest, np.int64(column))
                n_values += 1
            else:
                return unknown
            i += 2
        if marks[i] != _NEWLINE or not plain:
            return unknown
        i += 1
        row += 1
        indptr[row] = n_values
    return row, n_weights, n_groups, widest
