"""CRCs by folding, against their catalogue's check values and against zlib."""

from __future__ import annotations

import random
import zlib

import pytest

from sagesmith.store._crc import CRC32, CRC32C, CRC64NVME, Crc

SLOW_CRC32 = Crc(32, 0xEDB88320)
CRCS = [SLOW_CRC32, CRC32C, CRC64NVME]


def test_the_check_values_of_the_catalogue() -> None:
    assert SLOW_CRC32(b"123456789") == CRC32(b"123456789") == 0xCBF43926
    assert CRC32C(b"123456789") == 0xE3069283
    assert CRC64NVME(b"123456789") == 0xAE8B14860A799888


@pytest.mark.parametrize("size", [0, 1, 2047, 2048, 5001, 65_535, 65_536, 65_537, 131_080, 200_003])
def test_folding_gives_what_single_bytes_give(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert SLOW_CRC32(data) == zlib.crc32(data)
    for crc in CRCS:
        value = 0
        for start in range(0, size, 1000):
            value = crc(data[start : start + 1000], value)
        assert crc(memoryview(data)) == value
        cut = size // 3
        assert crc(data[cut:], crc(data[:cut])) == value
        assert crc.combine(crc(data[:cut]), crc(data[cut:]), size - cut) == value
