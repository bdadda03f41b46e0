"""Cyclic redundancy checks that the standard library lacks: CRC-32C and CRC-64/NVME, and joining of CRCs.

A CRC register times x^n modulo the polynomial is the register after n more zero bits, and that product is
linear: it can be read from tables. So a long buffer is laid out as rows of several thousand words; each row
is folded onto the next by moving all words at once over one row's length (numpy, four or two table look-ups a
word), and the last row is halved until one word is left. Leading zeros do not change an empty register, so the
first row is filled up from the left. 500 to 700 MB/s where a Python loop does 12; nothing to compile.

The same product joins the CRCs of two pieces without reading them (`Crc.combine`).

Registers are *reflected*: the coefficient of x^i is bit ``width - 1 - i``.

Source: M. Adler, `crc32_combine` in zlib; "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ",
Intel, 2009, for folding. Parameters from the catalogue of parametrised CRC algorithms (G. Cook).
"""

from __future__ import annotations

import zlib
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CRC32", "CRC32C", "CRC64NVME", "Crc"]

_ROW_BYTES: Final = 64 * 1024  # measured: below 32 KiB calls dominate, above 128 KiB the rows leave the cache
_FEW_BYTES: Final = 2048  # a Python loop is quicker below


class Crc:
    """One reflected CRC whose register starts and ends inverted, called as `zlib.crc32` is. Thread-safe.

    Args:
        width: 32 or 64 bits.
        polynomial: reflected, without its highest term.
    """

    def __init__(self, width: int, polynomial: int) -> None:
        self.width = width
        self._polynomial = polynomial
        self._ones = (1 << width) - 1

    def __call__(self, data: bytes | bytearray | memoryview, value: int = 0) -> int:
        """Return the CRC of *data* appended to what *value* is the CRC of."""
        register = value ^ self._ones
        few = len(data) < _FEW_BYTES
        register = self._bytewise(bytes(data), register) if few else self._fold(data, register)
        return register ^ self._ones

    def combine(self, first: int, second: int, second_size: int) -> int:
        """Return the CRC of two pieces from their CRCs and the second's size in bytes."""
        return self._times(self._power(8 * second_size), first) ^ second

    # ---- arithmetic of registers --------------------------------------------------------------------

    def _times(self, a: int, b: int) -> int:
        product, bit = 0, 1 << (self.width - 1)
        while a:
            if a & bit:
                product ^= b
                a ^= bit
            bit >>= 1
            b = (b >> 1) ^ self._polynomial if b & 1 else b >> 1
        return product

    @lru_cache(maxsize=256)  # noqa: B019 - there are three of these, and they live for ever
    def _power(self, exponent: int) -> int:
        """Return x^exponent modulo the polynomial."""
        result, base = 1 << (self.width - 1), 1 << (self.width - 2)
        while exponent:
            if exponent & 1:
                result = self._times(result, base)
            base = self._times(base, base)
            exponent >>= 1
        return result

    @cached_property
    def _byte_table(self) -> list[int]:
        power = self._power(8)
        return [self._times(power, byte) for byte in range(256)]

    # ---- many bytes at once -------------------------------------------------------------------------

    def _fold(self, data: bytes | bytearray | memoryview, register: int) -> int:
        import numpy as np

        kind = np.dtype(f"<u{self.width // 8}")
        octets = np.frombuffer(data, np.uint8)
        tail = octets.size % kind.itemsize
        words = octets[: octets.size - tail].view(kind)
        lanes = _ROW_BYTES // kind.itemsize
        head = (words.size - 1) % lanes + 1
        row = np.zeros(lanes, kind)
        row[-head:] = words[:head]
        row[-head] ^= kind.type(register)
        moved, part = np.empty_like(row), np.empty_like(row)
        for next_row in words[head:].reshape(-1, lanes):
            _advance(row, self._row_tables, moved, part)
            np.bitwise_xor(moved, next_row, out=row)
        while row.size > 1:
            half = row.size // 2
            moved = np.empty(half, kind)
            _advance(row[:half].copy(), self._halving_tables[half], moved, np.empty_like(moved))
            row = moved ^ row[half:]
        return self._bytewise(
            bytes(data[len(data) - tail :]), self._times(self._power(self.width), int(row[0]))
        )

    def _bytewise(self, data: bytes, register: int) -> int:
        table = self._byte_table
        for byte in data:
            register = table[(register ^ byte) & 255] ^ (register >> 8)
        return register

    @cached_property
    def _row_tables(self) -> list[NDArray[Any]]:
        return self._tables(8 * _ROW_BYTES, 16)

    @cached_property
    def _halving_tables(self) -> dict[int, list[NDArray[Any]]]:
        lanes = _ROW_BYTES * 8 // self.width
        return {half: self._tables(half * self.width, 8) for half in _halves(lanes)}

    def _tables(self, distance: int, bits: int) -> list[NDArray[Any]]:
        """Return one table for each group of *bits*, lowest first: that group moved over *distance* bits."""
        import numpy as np

        power = self._power(distance)
        tables = []
        for group in range(0, self.width, bits):
            table: NDArray[Any] = np.zeros(1 << bits, f"<u{self.width // 8}")
            for bit in range(bits):
                size = 1 << bit
                table[size : 2 * size] = table[:size] ^ table.dtype.type(
                    self._times(power, 1 << (group + bit))
                )
            tables.append(table)
        return tables


def _halves(lanes: int) -> list[int]:
    return [1 << power for power in range(lanes.bit_length() - 1)]


def _advance(
    words: NDArray[Any], tables: list[NDArray[Any]], out: NDArray[Any], scratch: NDArray[Any]
) -> None:
    """Write to *out* each word moved over the distance of *tables*. *words* is contiguous."""
    import numpy as np

    group: type[np.unsignedinteger[Any]] = np.uint16 if tables[0].size > 256 else np.uint8
    groups = words.view(group).reshape(words.size, len(tables))
    np.take(tables[0], groups[:, 0], out=out, mode="clip")
    for index in range(1, len(tables)):
        np.take(tables[index], groups[:, index], out=scratch, mode="clip")
        np.bitwise_xor(out, scratch, out=out)


class _ZlibCrc32(Crc):
    """CRC-32, computed by zlib."""

    def __call__(self, data: bytes | bytearray | memoryview, value: int = 0) -> int:
        return zlib.crc32(data, value)


CRC32: Final[Crc] = _ZlibCrc32(32, 0xEDB88320)
CRC32C: Final = Crc(32, 0x82F63B78)
CRC64NVME: Final = Crc(64, 0x9A6C9329AC4BC9B5)
